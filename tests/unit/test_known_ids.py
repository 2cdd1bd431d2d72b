"""The ids that topics have already: exact, in bounded memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from postroom.relay.sending import known_ids
from postroom.relay.sending.known_ids import KnownIds

if TYPE_CHECKING:
    from pathlib import Path

# Few, so that they meet again.
IDS = st.lists(st.sampled_from([f"{n:024x}" for n in range(12)] + ["", "b", "5", "é", "a'\"\0"]))


@given(st.lists(IDS, max_size=5), st.integers(1, 6))
def test_it_is_a_set_however_few_of_them_memory_holds(several: list[list[str]], most: int) -> None:
    """Membership, number, highest ObjectId: as of a set, in memory and in the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_ids, "MOST_IN_MEMORY", most)
        known, expected = KnownIds(), set[str]()
        for ids in several:
            known.absorb(KnownIds(ids))
            expected |= set(ids)
            assert {each for each in [*expected, "absent"] if each in known} == expected
            assert sorted(known) == sorted(expected)
            assert len(known) == len(expected)
            assert bool(known) == bool(expected)
        found = [ObjectId(each) for each in expected if ObjectId.is_valid(each)]
        nothing = ObjectId("0" * 24) if expected else None
        assert known.until() == max(found, default=nothing)
        known.clear()
        assert not known
        assert not list(known)


def test_memory_is_bounded_and_nothing_is_left_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A few megabytes for what took a hundred and more for a million."""
    monkeypatch.setattr(known_ids, "MOST_IN_MEMORY", 5_000)
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    tracemalloc.start()
    try:
        known = KnownIds(f"{n:024x}" for n in range(60_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20
    assert len(known) == 60_000
    assert all(f"{n:024x}" in known for n in range(0, 60_000, 7))
    assert f"{60_000:024x}" not in known
    assert not list(tmp_path.iterdir())  # it has no name
    known.clear()


def test_where_no_file_can_be_made_all_is_held_in_memory_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container whose file system may not be written."""
    monkeypatch.setattr(known_ids, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    known = KnownIds(str(n) for n in range(100))
    assert len(known) == 100
    assert "TMPDIR names a folder" in caplog.text
