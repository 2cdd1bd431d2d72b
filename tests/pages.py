"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DOCS", "FENCE", "PAGES", "ROOT", "Block", "blocks", "run", "written"]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<kind>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    kind: str
    mark: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    for match in FENCE.finditer(page.read_text()):
        yield Block(kind=match["kind"], mark=match["mark"] or "", text=match["text"])


RUNNER = """
import os, runpy, sys, traceback
import celery, postroom.celery, pymongo  # once for all pages
failed = 0
for folder in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.path.insert(0, folder)
        code = 0
        try:
            for name in open("ORDER").read().split():
                __import__(name)
        except BaseException:
            print(folder)
            traceback.print_exc(file=sys.stdout)
            code = 1
        sys.stdout.flush()
        os._exit(code)
    failed |= os.waitpid(child, 0)[1]
sys.exit(bool(failed))
"""


def written(folder: Path, page: Path, mark: str) -> Path | None:
    """Write the marked blocks of a page as the files that their first lines name."""
    names = []
    for block in blocks(page):
        if block.mark == mark:
            file = re.fullmatch(r"# (\w+)\.py", block.text.splitlines()[0])
            assert file, f"a block of {page.name} names no file"
            own = folder / page.stem
            own.mkdir(exist_ok=True)
            (own / f"{file[1]}.py").write_text(block.text)
            names.append(file[1])
    if names:
        (folder / page.stem / "ORDER").write_text("\n".join(names))
    return folder / page.stem if names else None


def run(folders: list[Path], **environment: str) -> None:
    """Import what the pages have written, each page in a process of its own."""
    assert folders
    clean = {k: v for k, v in os.environ.items() if not k.startswith("POSTROOM_")}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(str, folders)],
        env={**clean, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
