"""Intents: what a topic has refused is told from what was never handed to it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st
from pymongo import errors as mongo

from postroom import errors
from postroom.relay.sending.intents import LONGEST_ID, MOST_IDS, Intents
from postroom.relay.sending.tail import First
from postroom.store.checkpoint import Checkpoint
from postroom.store.intents import Intent, intent_to_row, intents_from
from postroom.store.quarantine import Quarantined
from postroom.store.scans import Scan
from postroom.store.values import DEFAULT_PARTITION, Position
from postroom.topics import Topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

HERE, THERE = (Topic(f"persistent://a/b/{name}") for name in ("here", "there"))


class Message:
    """A message that bears an id."""

    def __init__(self, row_id: str) -> None:
        self._row_id = row_id

    def properties(self) -> dict[str, str]:
        """Return its id, as a message does."""
        return {"id": self._row_id}


class Row:
    """The checkpoint's row, whoever writes it."""

    def __init__(self) -> None:
        self.intents: dict[int, Intent] = {}
        self.writes = 0

    def note(self, noted: Mapping[int, Intent], gone: Iterable[int]) -> None:
        """Do as the checkpoint's store does: through what is stored."""
        self.writes += 1
        for number in gone:
            self.intents.pop(number, None)
        stored = {str(number): intent_to_row(each) for number, each in noted.items()}
        self.intents |= intents_from(stored)

    def term(
        self, *, position: int = 0, is_scanning: bool = True, awaited: Collection[Topic] = ()
    ) -> Intents:
        """Begin a term with it, while rows wait for topics."""
        checkpoint = Checkpoint(
            partition=DEFAULT_PARTITION,
            epoch=1,
            position=Position(position),
            token=None,
            scan=Scan() if is_scanning else None,
            intents=dict(self.intents),
        )
        found = Intents()
        found.begin(checkpoint, self.note, is_awaited=awaited.__contains__)
        return found


def hand(intents: Intents, topic: Topic, ids: str, position: int = 1) -> None:
    """Hand a burst of rows to a topic, whose ids are letters."""
    intents.handing(topic, [Message(each) for each in ids], position)


def fail(row: Row, *bursts: str, there: str = "", topic: Topic = HERE, position: int = 10) -> None:
    """Have a term of the stream fail while these are under way, each a burst; `there` are stored.

    They are numbered from the position on.
    """
    term = row.term(is_scanning=False)
    term.opened(topic, there, None)
    for burst in bursts:
        position += len(burst)
        hand(term, topic, burst, position)
    term.failed()


def scan(row: Row, there: str, topic: Topic = HERE) -> str:
    """Return what a scan that begins now takes for refused."""
    term = row.term()
    term.opened(topic, there, None)
    return refused(term, topic)


def refused(intents: Intents, topic: Topic = HERE) -> str:
    """Return the letters that a topic is known to have refused."""
    return "".join(each for each in "abcdefgh" if intents.has_refused(topic, each))


@pytest.mark.parametrize(
    ("there", "expected"),
    [("", ""), ("a", ""), ("ab", ""), ("b", "a"), ("c", "ab"), ("ad", "bc"), ("abcd", "")],
)
def test_what_has_later_ones_behind_it_was_refused(there: str, expected: str) -> None:
    """What was never stored with anything behind it is free to come in another order."""
    row = Row()
    first = row.term()
    hand(first, HERE, "ab")
    hand(first, HERE, "cd")
    second = row.term()
    second.opened(HERE, there, None)
    assert refused(second) == expected
    assert refused(second, THERE) == ""
    # All that was found out is kept, and what was under way then is so no longer.
    third = row.term()
    third.opened(HERE, "abcdefgh", None)
    assert refused(third) == expected


@pytest.mark.parametrize(
    ("there", "first", "expected"),
    [
        pytest.param("c", First("c", 3), "", id="all before it may be gone"),
        pytest.param("bdf", First("b", 2), "ce", id="what it lacks behind its first"),
        pytest.param("xbd", First("x", 1), "ac", id="an earlier one is there"),
        pytest.param("xd", First("x", 5), "c", id="a single one between the bursts"),
    ],
)
def test_what_may_have_been_deleted_was_not_refused(
    there: str, first: First, expected: str
) -> None:
    """A topic that keeps nothing for the relay has lost its beginning, of which all was stored."""
    row = Row()
    before = row.term()
    hand(before, HERE, "ab", 4)
    hand(before, HERE, "cdef", 10)
    after = row.term()
    after.opened(HERE, there, first)
    assert refused(after) == expected


def test_another_order_of_the_next_term_condemns_nothing() -> None:
    """Nothing of the first one's was stored; the second sends the rows the other way round."""
    row = Row()
    hand(row.term(), HERE, "ab")
    second = row.term()
    second.opened(HERE, "", None)
    hand(second, HERE, "ba")
    third = row.term()
    third.opened(HERE, "b", None)
    assert refused(third) == ""


def test_each_topic_has_an_order_of_its_own() -> None:
    """One that could not be opened keeps what was noted for it until it can."""
    row = Row()
    first = row.term()
    for topic in (HERE, THERE):
        hand(first, topic, "ab")
    second = row.term()
    second.opened(HERE, "ab", None)
    hand(second, HERE, "c")
    third = row.term()
    third.opened(THERE, "b", None)
    assert refused(third) == ""
    assert refused(third, THERE) == "a"


def test_what_leaves_to_many_topics_at_once_is_noted_at_once() -> None:
    """One write for all of them; who has not had its own yet when a term fails has refused none."""
    row = Row()
    first, writes = row.term(), row.writes
    first.announce((topic, [Message(each) for each in "ab"], 2) for topic in (HERE, THERE))
    hand(first, HERE, "ab", 2)
    assert row.writes == writes + 1
    hand(first, HERE, "cd", 4)
    assert row.writes == writes + 2
    second = row.term()
    second.opened(HERE, "bd", None)
    second.opened(THERE, "", None)
    assert refused(second) == "ac"
    assert refused(second, THERE) == ""


def test_what_has_landed_is_noted_no_longer() -> None:
    """So the checkpoint's row has what is under way, and no more."""
    row = Row()
    intents = row.term()
    for number, each in enumerate("abcdef", 1):
        hand(intents, HERE, each, number)
        intents.landed(number - 1)
    assert [each.ids for each in row.intents.values()] == [("e",), ("f",)]
    assert row.term(position=5).bursts == 0
    later = row.term(position=5)
    later.opened(HERE, "f", None)
    assert refused(later) == ""
    intents.saved(6, is_scanning=False)
    assert not row.intents


def test_what_was_handed_to_a_topic_is_noted_while_rows_wait_for_it() -> None:
    """It could not be read in the scan; what it has refused is known once it is open."""
    row, awaited = Row(), {HERE}
    for topic in (HERE, THERE):
        hand(row.term(awaited=awaited), topic, "ab", 2)
    scan = row.term(awaited=awaited)
    scan.saved(9, is_scanning=False)
    assert [each.topic for each in row.intents.values()] == [HERE]
    stream = row.term(position=9, is_scanning=False, awaited=awaited)
    stream.opened(HERE, "b", None)
    stream.set_aside([Quarantined(row_id="a", position=1, reason="shut", topic=HERE)])
    again = row.term(position=9, is_scanning=False, awaited=awaited)
    for term in (stream, again):
        term.saved(10, is_scanning=False)
        assert refused(term) == "a"
    awaited.clear()
    again.saved(11, is_scanning=False)
    assert not row.intents


def test_a_row_that_is_set_aside_may_be_put_back() -> None:
    """People decide on it from then on, also while the scan goes on."""
    row, row_id = Row(), ObjectId()
    first = row.term()
    first.handing(HERE, [Message(str(row_id)), *map(Message, "ab")], 3)
    second = row.term()
    second.opened(HERE, "b", None)
    assert second.has_refused(HERE, str(row_id))
    second.set_aside([Quarantined(row_id=row_id, position=1, reason="refused")])
    for intents in (second, row.term()):
        assert not intents.has_refused(HERE, str(row_id))
        assert refused(intents) == "a"


def test_what_was_under_way_in_the_stream_is_noted_where_its_term_fails() -> None:
    """For a scan that follows at once; a stream goes by its own order, and passes it."""
    row = Row()
    stream = row.term(is_scanning=False)
    hand(stream, HERE, "ab", 2)
    hand(stream, HERE, "cd", 4)
    assert not row.intents
    stream.landed(1)
    stream.failed()
    assert [each.ids for each in row.intents.values()] == [("c", "d")]
    again = row.term(is_scanning=False)
    again.opened(HERE, "d", None)
    assert refused(again) == ""
    scan = row.term()
    scan.opened(HERE, "d", None)
    assert refused(scan) == "c"
    again.saved(4, is_scanning=False)
    assert not any(each.position for each in row.intents.values())


def test_what_cannot_be_noted_ends_no_term_that_has_failed() -> None:
    """Its error is what is told, and nobody hears of this one."""

    def note(_: object, __: object) -> None:
        raise errors.Superseded("another relay")

    stream = Row().term(is_scanning=False)
    stream.begin(checkpoint_without_scan(), note)
    hand(stream, HERE, "a")
    stream.failed()


def checkpoint_without_scan() -> Any:
    """Return a checkpoint of a relay that has done nothing."""
    return Checkpoint(partition=DEFAULT_PARTITION, epoch=1, position=Position(0), token=None)


@pytest.mark.parametrize("long", ["x" * (LONGEST_ID + 1), "😀" * (LONGEST_ID // 4 + 1)])
def test_an_endless_id_is_left_out(long: str) -> None:
    """All that is under way has to fit into one row; of such an id nothing is known then."""
    row = Row()
    row.term().handing(HERE, [Message(long), *map(Message, "ab")], 3)
    assert [each.ids for each in row.intents.values()] == [("a", "b")]


# --- terms of the stream that fail one after the other -------------------------------------------


def test_terms_that_fail_one_after_the_other_condemn_nothing() -> None:
    """Each sends the same rows again; of those of the last one the first is stored."""
    row = Row()
    fail(row, "a", "b", "c")
    fail(row, "a")
    assert scan(row, "a") == ""
    fail(row, "a", "b", "c")
    fail(row, "a", "b", "c")
    assert scan(row, "ab") == ""


def test_what_a_term_does_not_hand_to_a_topic_leaves_its_intents() -> None:
    """It may have failed before it came to that; and what leaves alone is not noted."""
    row = Row()
    fail(row, "a", "b", "c")
    fail(row)
    fail(row, "a", topic=THERE)
    assert scan(row, "c") == "ab"


@pytest.mark.parametrize("stored", ["", "a"])
def test_a_thousand_terms_that_fail_note_no_more_than_one(stored: str) -> None:
    """All that they note is what the last one had under way, whatever was stored before."""
    row = Row()
    for _ in range(1000):
        fail(row, "a", "b", "c", there=stored)
    assert [each.ids for each in row.intents.values()] == [("a",), ("b",), ("c",)]


def test_terms_that_get_on_by_little_keep_no_witness_of_nothing() -> None:
    """What is stored behind a checkpoint that is not written is no refusal."""
    row = Row()
    fail(row, "ab", "cd")
    fail(row, "de", "fg", there="abc")
    assert [each.ids for each in row.intents.values()] == [("d", "e"), ("f", "g")]


def test_what_was_refused_is_told_whatever_the_next_terms_have_under_way() -> None:
    """The row, and the later one that is stored, outlast what those note; no more does."""
    row = Row()
    fail(row, "ab", "cd", "ef")
    fail(row, "ef", there="abd")
    assert [each.ids for each in row.intents.values()] == [("c", "d"), ("e", "f")]
    fail(row, "efg", "h", there="abd")
    assert [each.ids for each in row.intents.values()] == [("c", "d"), ("e", "f", "g"), ("h",)]
    assert scan(row, "abdg") == "cef"


def test_a_row_that_a_later_term_has_sent_after_all_was_not_refused() -> None:
    """It is on the topic, out of order, and nothing is asked about it."""
    row = Row()
    fail(row, "ab", "cd")
    fail(row, "c", there="abd")
    assert scan(row, "abdc") == ""


def test_numbers_that_jump_from_term_to_term_condemn_nothing() -> None:
    """The second one's rows have higher numbers than those that the first one sent behind them."""
    row = Row()
    fail(row, "a", "b", "c", "d")
    fail(row, "a", "b", position=60)
    assert scan(row, "ab") == ""
    fail(row, "a", "b", "c", "d", position=60)
    fail(row, "a", "b")
    assert scan(row, "ab") == ""


def test_what_the_checkpoint_has_passed_is_left_to_nobody() -> None:
    """While the term goes on as before its beginning."""
    row = Row()
    fail(row, "a", "b", "c", "d")
    term = row.term(is_scanning=False)
    term.opened(HERE, "bd", None)
    term.saved(11, is_scanning=False)
    hand(term, HERE, "e", 15)
    term.failed()
    assert [each.ids for each in row.intents.values()] == [("c",), ("d",), ("e",)]
    assert scan(row, "bd") == "c"


def test_what_another_relay_may_have_noted_is_not_touched_before_a_term_has_begun() -> None:
    """Superseded, a relay has left its own under way, and fails again before it knows more."""
    row = Row()
    stream = row.term(is_scanning=False)
    hand(stream, HERE, "a")
    stream.forget()
    stream.failed()
    assert not row.intents
    assert stream.bursts == 0


def test_an_endless_row_ends_no_term_that_has_failed() -> None:
    """PyMongo's word for a document that is too large is no error of its own kind."""

    def note(_: object, __: object) -> None:
        raise mongo.DocumentTooLarge("17 MB")

    stream = Row().term(is_scanning=False)
    stream.begin(checkpoint_without_scan(), note)
    hand(stream, HERE, "a")
    stream.failed()


def test_topics_that_were_shut_in_many_terms_leave_room() -> None:
    """Each keeps what one term had under way there; the oldest go where that is too much."""
    row, many = Row(), MOST_IDS // 2
    for number in range(4):
        term = row.term(is_scanning=False)
        messages = [Message(f"{number}-{each}") for each in range(many)]
        term.handing(Topic(f"persistent://a/b/{number}"), messages, many)
        term.failed()
    assert [each.topic[-1] for each in row.intents.values()] == ["2", "3"]


@dataclass
class Broker:
    """A topic, and what became of rows there: `refused` in their turn, by their letters."""

    there: str = ""
    refused: set[str] = field(default_factory=set)

    def take(self, sent: str, fate: Iterable[str]) -> None:
        """Store rows, refuse them, or lose them and all behind them."""
        for each, what in zip(sent, fate, strict=False):
            if what == "lost":
                return
            if what == "stored":
                self.there += each
                self.refused |= set(sent[: sent.index(each)]) - {*self.there}


ROWS = "abcdefgh"


class Fate(NamedTuple):
    """What becomes of a term: of its rows in their order, of itself, and which numbers they have.

    Only bursts of which nothing was refused are known to have `landed`.
    """

    rows: list[str]
    is_killed: bool
    jump: int
    size: int
    landed: int
    order: Sequence[str]


fates = st.builds(
    Fate,
    rows=st.lists(st.sampled_from(["stored", "stored", "refused", "lost"]), max_size=8),
    is_killed=st.sampled_from([False, False, True]),
    jump=st.integers(0, 100),
    size=st.integers(1, 3),
    landed=st.integers(0, 4),
    order=st.permutations(ROWS),
)


def run(row: Row, broker: Broker, fate: Fate, *, is_scanning: bool) -> None:
    """Run a term; in a scan what is left may be committed in another order than the last time."""
    term = row.term(is_scanning=is_scanning)
    term.opened(HERE, broker.there, None)
    settled = broker.there + "".join(broker.refused)
    sent = [each for each in (fate.order if is_scanning else ROWS) if each not in settled]
    bursts = ["".join(sent[at : at + fate.size]) for at in range(0, len(sent), fate.size)]
    for number, burst in enumerate(bursts, 1):
        hand(term, HERE, burst, fate.jump + number * fate.size)
    broker.take("".join(sent), [*fate.rows, "lost"])
    stored = itertools.takewhile(lambda burst: {*burst} <= {*broker.there}, bursts)
    term.landed(min(len([*stored]), fate.landed))
    if not fate.is_killed:
        term.failed()


@given(st.lists(fates, max_size=6), st.lists(fates, max_size=4))
def test_what_is_condemned_was_refused_however_terms_end(
    streams: list[Fate], scans: list[Fate]
) -> None:
    """Whatever was stored, refused and lost, and whatever numbers rows had.

    And all that was is condemned, unless a term of the stream was killed.
    """
    row, broker = Row(), Broker()
    for fate in streams:
        run(row, broker, fate, is_scanning=False)
    for fate in scans:
        run(row, broker, fate, is_scanning=True)
    condemned = {*scan(row, broker.there)}
    assert condemned <= broker.refused
    if not any(fate.is_killed for fate in streams):
        assert condemned == broker.refused
