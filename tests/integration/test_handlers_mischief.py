"""What handlers do to their event, their session and their limits: it harms no other, nor later."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pymongo
import pytest
from pydantic import model_validator
from pymongo import errors as mongo

from postroom import DomainEvent, Event, handles
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.outcome import Applied, GiveUp, TryAgain, Undone
from tests.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.client_session import ClientSession

    from tests.site import Site


@pytest.fixture
def bench(lite_site: Site) -> Iterator[Bench]:
    """Lend an inbox on the session's MongoDB."""
    found = Bench(lite_site.environment["POSTROOM_MONGODB_URI"], lite_site.name)
    yield found
    found.client.close()


def conflict() -> mongo.OperationFailure:
    """Return what MongoDB says of a document that another transaction has written."""
    return mongo.OperationFailure("x", 112, {"errorLabels": ["TransientTransactionError"]})


class Loose(DomainEvent, name="A"):
    """An event with something in it that pydantic takes over as it is."""

    n: int
    more: dict[str, Any]


@pytest.mark.parametrize("match", ["*", Loose])
def test_what_a_handler_changes_in_its_event_no_later_try_sees(bench: Bench, match: Any) -> None:
    """Neither the one that follows a conflict at once, nor a later attempt, nor what is after."""
    found, seen = Registry(), []

    def change(event: Event[Any]) -> None:
        plain = isinstance(event.data, dict)
        more = event.data["more"] if plain else event.data.more
        seen.append((event.data["n"] if plain else event.data.n, dict(more), dict(event.headers)))
        if plain:
            event.data["n"] *= 100
        more["n"] = 100
        event.headers["way"] = "another"  # type: ignore[index]

    def handler(event: Event[Any]) -> None:
        change(event)
        if len(seen) in (1, 2):
            raise conflict()
        if len(seen) == 3:
            raise ValueError("not yet")

    handles(match, name="h", into=found, after_commit=change)(handler)
    event: Event[Any] = Event(
        id="e1", name="A", data={"n": 1, "more": {}}, topic="t", headers={"way": "one"}
    )
    for outcome in (TryAgain, Applied):
        assert isinstance(bench.apply(found.handlers["h"], event), outcome)
    assert seen == [(1, {}, {"way": "one"})] * 5
    assert event.data == {"n": 1, "more": {}}


def catches(bench: Bench, session: ClientSession) -> None:
    """Insert what is there, and pass over the refusal."""
    with contextlib.suppress(mongo.DuplicateKeyError):
        bench.database["notes"].insert_one({"_id": 1}, session=session)


def catches_and_goes_on(bench: Bench, session: ClientSession) -> None:
    """Do so, and change what is there instead."""
    catches(bench, session)
    bench.database["notes"].update_one({"_id": 1}, {"$set": {"n": 2}}, session=session)


def catches_slowly(bench: Bench, session: ClientSession) -> None:
    """Do so, and take some time."""
    catches(bench, session)
    threading.Event().wait(0.2)


@pytest.mark.parametrize("contends", [False, True])
@pytest.mark.parametrize("use", [catches, catches_and_goes_on, catches_slowly])
def test_an_error_that_a_handler_catches_is_no_conflict(
    bench: Bench, use: Callable[[Bench, ClientSession], None], *, contends: bool
) -> None:
    """It has ended the transaction: an attempt that is named, and nobody takes turns for it."""
    bench.database["notes"].insert_one({"_id": 1, "n": 1})

    def handler(event: Event[Any], session: ClientSession) -> None:
        use(bench, session)

    first = bench.run(handler, contends=contends)
    assert isinstance(first, TryAgain)
    assert first.counts
    last = bench.run(handler, attempt=5, contends=contends)
    assert isinstance(last, GiveUp)
    assert "h has caught an error of MongoDB (code 11000)" in last.reason
    assert bench.database["__inboxMessages"].count_documents({"contendedAt": {"$ne": None}}) == 0
    assert bench.notes == [1]


def test_a_conflict_that_a_handler_catches_is_one(bench: Bench) -> None:
    """Its transaction has ended as well, and it is not the handler's fault: no attempt."""
    bench.note(None, 1)  # type: ignore[arg-type]
    change = {"$inc": {"n": 1}}
    with bench.client.start_session() as rival:
        rival.start_transaction()
        bench.database["notes"].update_one({}, change, session=rival)

        def handler(event: Event[Any], session: ClientSession) -> None:
            with contextlib.suppress(mongo.PyMongoError):
                bench.database["notes"].update_one({}, change, session=session)

        outcome = bench.run(handler, max_attempts=1)
        rival.abort_transaction()
    assert isinstance(outcome, TryAgain)
    assert not outcome.counts
    assert isinstance(bench.run(handler, max_attempts=1), Applied)
    assert bench.notes == [2]


class Lookup(DomainEvent, name="A"):
    """An event whose validation asks another service."""

    n: int

    @model_validator(mode="after")
    def look_up(self) -> Lookup:
        """Find nobody there."""
        raise mongo.AutoReconnect("of another service")


def test_what_a_validator_cannot_reach_is_an_attempt(bench: Bench) -> None:
    """While our own servers answer, it is no outage, and ends as a dead letter."""
    found = Registry()
    handles(Lookup, name="h", into=found)(lambda event: None)
    first = bench.execute(found.handlers["h"], 1, seconds=60, attempt=1)
    assert isinstance(first, TryAgain)
    assert first.counts
    last = bench.execute(found.handlers["h"], 1, seconds=60, attempt=5)
    assert isinstance(last, GiveUp)


@pytest.mark.parametrize("way", ["own", "driver", "session"])
def test_a_time_limit_that_a_handler_sets_itself_is_an_attempt(bench: Bench, way: str) -> None:
    """Not another transaction's doing: nobody takes turns for it, and it ends as a dead letter."""
    bench.note(None)  # type: ignore[arg-type]
    slow = {"$where": "sleep(1000) || true"}

    def handler(event: Event[Any], session: ClientSession) -> None:
        notes = bench.database["notes"]
        match way:
            case "own":
                list(notes.find(slow, max_time_ms=50))
            case "session":
                list(notes.find(slow, max_time_ms=50, session=session))
            case _:
                with pymongo.timeout(0.1):
                    list(notes.find(slow))

    first = bench.run(handler)
    assert isinstance(first, TryAgain)
    assert first.counts
    assert isinstance(bench.run(handler, attempt=5), GiveUp)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_is_raised_may_be_given_up_on(bench: Bench, kind: type[BaseException]) -> None:
    """Also what is no Exception."""

    def handler(event: Event[Any]) -> None:
        raise kind

    assert isinstance(bench.run(handler, give_up_on=[kind]), GiveUp)
    assert isinstance(bench.run(handler, give_up_on=[KeyError]), TryAgain)


@pytest.mark.parametrize("lazy", [map, filter])
def test_work_that_python_puts_off_is_not_done(bench: Bench, lazy: Any) -> None:
    """A handler that returns it is given up, and the sentence says what it has returned."""

    def handler(event: Event[Any], session: ClientSession) -> Any:
        return lazy(lambda number: bench.note(session, number), [1, 2])

    outcome = bench.run(handler)
    assert isinstance(outcome, GiveUp)
    assert f"has returned a {lazy.__name__}" in outcome.reason
    assert (bench.notes, bench.remembered) == ([], 0)


class Straggler:
    """A thread that a handler leaves behind, which writes with its session later."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._go = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None

    def start(self, session: ClientSession) -> None:
        """Begin to wait."""
        self._thread = threading.Thread(target=self._write, args=(session,))
        self._thread.start()

    def end(self) -> None:
        """Let it write."""
        self._go.set()
        if self._thread is not None:
            self._thread.join(10)

    def _write(self, session: ClientSession) -> None:
        self._go.wait(10)
        try:
            self._bench.note(session, 99)
        except mongo.PyMongoError as error:
            self.error = error


def test_a_thread_that_a_handler_leaves_behind_writes_nothing(bench: Bench) -> None:
    """Neither behind the commit that it was for, nor in the transaction of a later try."""
    straggler, tries = Straggler(bench), itertools.count()

    def handler(event: Event[Any], session: ClientSession) -> None:
        if next(tries) == 0:
            straggler.start(session)
            raise conflict()
        straggler.end()
        bench.note(session)

    assert isinstance(bench.run(handler), Applied)
    assert bench.notes == [1]
    assert isinstance(straggler.error, mongo.InvalidOperation)


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_that_a_member_of_a_group_leaves_behind_writes_nothing(
    bench: Bench, *, fails: bool
) -> None:
    """Behind the commit of all, or behind the end of a transaction that another has failed."""
    straggler = Straggler(bench)

    def handler(event: Event[Any], session: ClientSession) -> None:
        if event.data["n"] == 0:
            straggler.start(session)
        elif fails:
            raise ValueError("not yet")
        bench.note(session, event.data["n"])

    outcomes = bench.run_together(handler, 2, after_commit=lambda event: straggler.end())
    straggler.end()
    assert [type(each) for each in outcomes] == (
        [Undone, TryAgain] if fails else [Applied, Applied]
    )
    assert bench.notes == ([] if fails else [0, 1])
    assert isinstance(straggler.error, mongo.InvalidOperation)


def test_what_is_met_beside_others_gives_nothing_up(bench: Bench) -> None:
    """The one attempt that there is counts when the event is handled by itself."""

    def handler(event: Event[Any], session: ClientSession) -> None:
        if event.data["n"] == 1 and bench.database["notes"].find_one({"n": 0}) is None:
            raise LookupError("what it looks for is not committed yet")
        bench.note(session, event.data["n"])

    outcomes = bench.run_together(handler, 3, max_attempts=1)
    assert [type(each) for each in outcomes] == [Undone, Undone, Undone]
    assert bench.notes == []


def test_a_handler_that_hangs_behind_its_commit_ends_no_other_ones_transaction(
    bench: Bench,
) -> None:
    """Its session is another handler's by then."""
    hangs, seen = threading.Event(), threading.Event()

    def after(_: Event[Any]) -> None:
        seen.set()
        hangs.wait(10)

    call, thread = bench.begin(lambda event, session: bench.note(session), after_commit=after)
    assert seen.wait(10)

    def other(event: Event[Any], session: ClientSession) -> None:
        bench.note(session, 2)
        assert bench.inbox.cut_off(call)
        bench.note(session, 3)

    began = time.monotonic()
    assert isinstance(bench.run(other, 2), Applied)
    assert time.monotonic() - began < 5
    hangs.set()
    thread.join(10)
    assert bench.notes == [1, 2, 3]


def test_what_hangs_before_a_member_of_a_group_is_its_own(bench: Bench) -> None:
    """A receiver of a signal for one event blames no other."""
    turns: list[tuple[int, Stage]] = []
    bench.run_together(
        lambda event: None, 3, before=lambda job: turns.append((job.call.turn, job.call.stage))
    )
    assert turns == [(number, Stage.RECEIVERS) for number in range(3)]


@pytest.mark.parametrize("contends", [False, True])
def test_an_inbox_that_takes_no_rows_is_no_events_fault(bench: Bench, *, contends: bool) -> None:
    """It is waited for, however long, and said by the code; then the event is handled once."""
    admin: Any = bench.database

    def refuse(*, everything: bool) -> None:
        validator = {"nothing": {"$exists": True}} if everything else {}
        admin.command("collMod", "__inboxMessages", validator=validator)

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session)

    refuse(everything=True)
    outcome = bench.run(handler, attempt=1000, contends=contends)
    assert isinstance(outcome, TryAgain)
    assert not outcome.counts
    assert "(code 121)" in outcome.reason
    refuse(everything=False)
    assert isinstance(bench.run(handler, contends=contends), Applied)
    assert bench.notes == [1]


def test_a_name_that_no_row_can_hold_is_the_events_own(bench: Bench) -> None:
    """It ends as a dead letter, as anything that MongoDB cannot store."""
    found = Registry()
    handles("*", name="h", into=found)(lambda event: None)
    event: Event[Any] = Event(id="e1", name="A" * (17 << 20), data={}, topic="t")
    outcome = bench.apply(found.handlers["h"], event)
    assert isinstance(outcome, TryAgain)
    assert outcome.counts


def test_what_a_group_has_no_time_for_is_not_undone_but_unbegun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbours' transaction is committed; it has failed at nothing, and may share another."""
    monkeypatch.setattr("postroom.inbox.handling.sharing.LONGEST_SECONDS", 0.1)

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session, event.data["n"])
        if event.data["n"] == 1:
            time.sleep(0.1)

    outcomes = bench.run_together(handler, 4)
    assert [type(outcome) for outcome in outcomes] == [Applied, Applied, Undone, Undone]
    assert outcomes[2:] == (Undone(unbegun=True),) * 2
    assert bench.notes == [0, 1]
    assert bench.remembered == 2
