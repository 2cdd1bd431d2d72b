"""What a line of a log is: no text from elsewhere can pass for a record."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.relay import facts
from postroom.telemetry.logs import JsonFormatter, PlainFormatter, relay_fields
from postroom.telemetry.relay_fields import RelayFields

FORGED = "x\n[2026-01-01 00:00:00,000: INFO/MainProcess] all is well"
NASTY = [
    FORGED,
    "\x1b[2J\x1b[31mred",
    "a\rb",
    "a\x0bb\x0cc\x85d\u2028e\u2029f",
    "\u202egnp.exe",
    "\x00",
    "\ud800",
    "💊 Ωλ",
]


def plain(**record: Any) -> str:
    """Return a record as people read it."""
    inner = logging.Formatter("[%(levelname)s] %(message)s")
    return PlainFormatter(inner).format(logging.makeLogRecord({"levelname": "INFO", **record}))


def as_json(**record: Any) -> tuple[str, dict[str, Any]]:
    """Return a record as programs read it: the line, and what it says."""
    made = logging.makeLogRecord({"levelname": "INFO", "name": "n", **record})
    line = JsonFormatter(lambda: {"partition": "p"}).format(made)
    return line, json.loads(line)


def raised(text: str) -> Any:
    """Return the exc_info of an error that says this."""
    try:
        int(f"{text}, no number")
    except ValueError as error:
        error.args = (text,)
        return sys.exc_info()
    raise AssertionError


@pytest.mark.parametrize("text", NASTY)
def test_no_text_forges_a_line(text: str) -> None:
    """Neither in the message nor in an error; what follows is indented, the rest is escaped."""
    for shown in (plain(msg="id %s", args=(text,)), plain(msg="m", exc_info=raised(text))):
        first, *rest = shown.split("\n")
        assert first.startswith("[INFO] ")
        assert all(line.startswith("    ") for line in rest)
        assert all(c.isprintable() or c in "\n\t" for c in shown)
        assert len(shown.splitlines()) == len(rest) + 1


@given(st.text(), st.text())
def test_json_is_one_line_that_says_what_was_said(text: str, value: str) -> None:
    """Whatever was logged."""
    line, found = as_json(msg=text.replace("%", "%%"), event_id=value)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert found["message"] == text.replace("%", "%%")
    assert found["event_id"] == value[:2000]


def test_json_has_fields_and_errors_and_nothing_structured() -> None:
    """Times are UTC; a field of the record stands before that of the thread; no object passes."""
    _, found = as_json(
        msg="x %d", args=(1,), created=0.0, position=7, data={"secret": 1}, exc_info=raised(FORGED)
    )
    assert found["time"] == datetime(1970, 1, 1, tzinfo=UTC).isoformat("T", "milliseconds")
    assert (found["message"], found["position"], found["partition"]) == ("x 1", 7, "p")
    assert found["error"] == "ValueError"
    assert "Traceback" in found["traceback"]
    assert "secret" not in json.dumps(found)


def test_a_colour_is_ours_alone() -> None:
    """A level's colour stands around the text, and what it holds has none."""
    formatter = PlainFormatter(logging.Formatter("%(message)s"), lambda _, text: f"<{text}>")
    assert formatter.format(logging.makeLogRecord({"msg": "\x1b[31m"})) == "<\\x1b[31m>"


def test_lines_of_a_relays_thread_name_its_place() -> None:
    """Partition, epoch and position, as the facts told them last."""
    hear = RelayFields().hear
    hear(facts.TermBegan(partition="p", epoch=3, position=10, cluster_time=None))
    hear(
        facts.ChunkStored(
            partition="p",
            events=1,
            payload_bytes=1,
            skipped=0,
            position=11,
            cluster_time=None,
            seconds=0,
        )
    )
    hear(facts.RowsPruned(partition="p", rows=1))
    assert relay_fields() == {"partition": "p", "epoch": 3, "position": 11}


def test_a_stream_takes_what_is_written() -> None:
    """Half a surrogate, which no encoding can write, does not lose the line."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="utf-8")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter(logging.Formatter("%(message)s")))
    handler.handle(logging.makeLogRecord({"msg": "\ud800"}))
    stream.flush()
    assert re.search(rb"ud800", written.getvalue())
