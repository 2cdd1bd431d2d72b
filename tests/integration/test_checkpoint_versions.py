"""A checkpoint of a newer release, or one that cannot be read, is refused and never misread."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from bson import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from postroom import errors, wire
from postroom.store.checkpoint import VERSION, Checkpoint, from_row
from postroom.store.checkpoints import Checkpoints, CheckpointStore
from postroom.store.scans import Scan
from postroom.store.values import DEFAULT_PARTITION
from postroom.wire import CheckpointField
from tests.commands import run
from tests.relays import relaying
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site


def test_a_checkpoint_of_a_newer_release_is_left_alone(
    lite_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay says so and waits, commands say so; once it is ours again it is gone on from."""
    site = lite_site
    plain, rows = site.subscribe(), site.database[wire.CHECKPOINTS]
    site.insert(1)
    with relaying(site):
        site.receive(plain, 1)
    assert site.checkpoint["version"] == VERSION
    rows.update_one({}, {"$set": {"version": VERSION + 1, "position": {"of": "another form"}}})
    before = site.checkpoint
    site.insert(1, first=1)
    sentence = f"is of version {VERSION + 1}, and this release of postroom knows {VERSION} at most"
    with relaying(site, wait=False) as relay:
        wait_until(lambda: sentence in caplog.text, description="it is refused")
        for words in ("outbox status", "outbox prune --dry-run", "outbox forget --key 1 --yes"):
            done = run(site, *words.split(), code=1)
            assert sentence in " ".join(done.stderr.split())
        assert site.checkpoint == before
        # As once this worker is upgraded.
        rows.update_one({}, {"$set": {"version": VERSION, "position": 1}})
        site.receive(plain, 1)
        wait_until(lambda: site.checkpoint["position"] == 2, description="it goes on")
        assert "Traceback" not in caplog.text
        assert relay.status.partition == DEFAULT_PARTITION


@pytest.mark.parametrize("version", [VERSION + 1, 0, -1, "1", 1.5, True])
def test_no_term_begins_on_another_version(lite_site: Site, version: object) -> None:
    """Whoever looked first: neither epoch nor anything else of it is changed."""
    rows = lite_site.database[wire.CHECKPOINTS]
    store = CheckpointStore(lite_site.database, partition=DEFAULT_PARTITION, owner="me")
    store.begin_term()
    rows.update_one({}, {"$set": {"version": version}})
    before = rows.find_one()
    for call in (store.begin_term, store.claim, Checkpoints(lite_site.database).all):
        with pytest.raises(errors.CheckpointRefused):
            call()
    fresh = CheckpointStore(lite_site.database, partition=DEFAULT_PARTITION, owner="other")
    with pytest.raises(errors.CheckpointRefused):
        fresh.begin_term()
    assert rows.find_one() == before


def test_what_a_term_has_left_behind_begins_no_scan_of_the_next_one(lite_site: Site) -> None:
    """A reader is not waited for: where it comes to it late, its relay may be far into another."""
    store = CheckpointStore(lite_site.database, partition=DEFAULT_PARTITION, owner="me")
    before, now = store.begin_term(), store.begin_term()
    with pytest.raises(errors.Superseded):
        store.begin_scan(Scan(stream_lost=True), epoch=before.epoch)
    assert store.current().scan is None
    store.begin_scan(Scan(stream_lost=True), epoch=now.epoch)
    assert store.current().scan == Scan(stream_lost=True)


def test_a_row_that_says_no_version_is_the_first_one() -> None:
    """As 0.1 and Hermes write it."""
    row = {"partitionKey": "default", "resumeToken": {"_data": "82"}}
    assert from_row(row) == from_row({**row, "version": 1}) == from_row({**row, "version": 1.0})


FIELDS = st.sampled_from(
    [value for name, value in vars(CheckpointField).items() if name.isupper()] + ["x", "_data"]
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.floats()
    | st.just(Timestamp(1, 1))
    | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(FIELDS, ANYTHING, max_size=6))
def test_whatever_a_row_holds_it_is_read_or_refused(row: dict[str, Any]) -> None:
    """By one kind of error, in one bounded line, whoever has written it."""
    try:
        found: Checkpoint | str = from_row({"partitionKey": "default", **row})
    except errors.CheckpointRefused as refused:
        found = str(refused)
    if isinstance(found, str):
        assert len(found) < 600
        assert found.isprintable()
    else:
        assert all(type(each) is int for each in (found.position, found.epoch, found.brake_level))
        assert isinstance(found.cluster_time, Timestamp | None)
