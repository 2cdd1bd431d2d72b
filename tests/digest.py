"""Digest: why a run of the tests failed, in what an end of its output holds."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["digest"]

# Of a log often no more is kept than so much of its end.
CHARACTERS = 2_800
WIDTH = 160
ERROR_LINES = 3
FRAMES = 12

RESULT = re.compile(r"^(?:FAILED|ERROR) (\S.*)$")
SECTION = re.compile(r"^_{3,} (?:ERROR at \w+ of )?(.+?) _{3,}$")
CRASH = re.compile(r"Fatal Python error: .*")
OF_A_STACK = re.compile(r'\s*(?:File "|<|\.\.\.)|(?:Current t|T)hread |$')


def digest(output: str) -> str:
    """Return each crash with its stack, and each test that failed with the last it said.

    Of several runs in one output the last one tells which tests failed.
    """
    lines = output.splitlines()
    found = [*_crashes(lines), *_failures(lines)]
    cut = [line[:WIDTH] for line in found or lines[-20:]]
    return "\n".join(["", "WHY IT FAILED", *cut])[:CHARACTERS]


def _crashes(lines: Sequence[str]) -> Iterator[str]:
    for at, line in enumerate(lines):
        if crash := CRASH.search(line):
            yield crash.group()
            yield from _stack(lines[at + 1 :])


def _stack(lines: Sequence[str]) -> Iterator[str]:
    """Yield the stack in which it crashed, or the tops of all where none is named."""
    end = next((at for at, line in enumerate(lines) if not OF_A_STACK.match(line)), len(lines))
    threads = [part.splitlines() for part in "\n".join(lines[:end]).split("\n\n")]
    current = [each for each in threads if any("Current thread" in line for line in each)]
    for each in current or threads:
        yield from (line for line in each[: FRAMES if current else 4] if line)


def _failures(lines: Sequence[str]) -> Iterator[str]:
    starts = [at for at, line in enumerate(lines) if "short test summary info" in line]
    words = _last_words(lines)
    for line in lines[starts[-1] :] if starts else ():
        if result := RESULT.match(line):
            yield line
            test = result.group(1).partition(" - ")[0].partition("::")[2].replace("::", ".")
            yield from words.get(test, ())


def _last_words(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the last lines of each test's error, by its name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        if section := SECTION.match(line):
            name = section.group(1)
            found[name] = []
        elif line.startswith("E   ") and name:
            found[name] = [*found[name], line][-ERROR_LINES:]
    return found


if __name__ == "__main__":
    print(digest(Path(sys.argv[1]).read_text(errors="replace")))
