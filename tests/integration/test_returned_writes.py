"""Writes that handlers return: the same effects and failures as of those that write themselves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from bson import BSON
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import DeleteMany, InsertOne, UpdateOne
from pymongo import errors as mongo

from postroom import Event, Reject, Write, errors
from postroom.failures import Kind
from postroom.inbox.handling.outcome import Applied, GiveUp, TryAgain, Undone
from tests.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pymongo.client_session import ClientSession

    from postroom.inbox.handling.outcome import Outcome
    from tests.site import Site

COUNT = 16
SECRET = "of-a-patient"  # noqa: S105 - no password


@pytest.fixture
def bench(lite_site: Site) -> Iterator[Bench]:
    """Lend an inbox on the session's MongoDB."""
    found = Bench(lite_site.environment["POSTROOM_MONGODB_URI"], lite_site.name)
    found.database.create_collection("log")
    yield found
    found.client.close()


def noted(event: Event[Any]) -> list[Write]:
    """Return what notes an event, in two collections, one of which keeps the order."""
    number = event.data["n"]
    return [
        Write("notes", InsertOne({"n": number})),
        Write("log", UpdateOne({"_id": "log"}, {"$push": {"all": number}}, upsert=True)),
    ]


def log(bench: Bench) -> list[int]:
    """Return which events were noted, in their order."""
    found: dict[str, list[int]] = bench.database["log"].find_one({"_id": "log"}) or {}
    return found.get("all", [])


def kinds(outcomes: Sequence[Outcome]) -> list[type]:
    """Return of what kind each outcome is."""
    return [type(each) for each in outcomes]


def test_a_lone_events_writes_are_applied_once(bench: Bench) -> None:
    """With the row that remembers it, however often it comes."""
    assert bench.run(noted) == Applied(handled=1, repeated=0)
    assert bench.run(noted) == Applied(handled=0, repeated=1)
    assert (bench.notes, log(bench), bench.remembered) == ([1], [1], 1)


def test_a_groups_writes_are_applied_in_the_order_of_its_events(bench: Bench) -> None:
    """All in one transaction; what was handled before is left out."""
    bench.run(noted, 3)
    bench.database["log"].delete_many({})
    outcomes = bench.run_together(noted, COUNT)
    assert kinds(outcomes) == [Applied] * COUNT
    assert log(bench) == [number for number in range(COUNT) if number != 3]
    assert sorted(bench.notes) == list(range(COUNT))
    assert bench.remembered == COUNT


def test_a_batchs_writes_are_applied(bench: Bench) -> None:
    """Those of the whole list."""

    def handler(events: list[Event[Any]]) -> list[Write]:
        return [write for event in events for write in noted(event)]

    assert bench.run(handler, batch=10) == Applied(handled=1, repeated=0)
    assert log(bench) == [1]


@pytest.mark.parametrize("turn", [0, 7, COUNT - 1])
@pytest.mark.parametrize("way", ["there", "unknown operator"])
def test_the_guilty_one_alone_uses_up_an_attempt(bench: Bench, turn: int, way: str) -> None:
    """All is undone; the others are applied without it; what MongoDB quotes is not repeated."""
    bench.database["log"].insert_one({"_id": SECRET})
    wrong: dict[str, Any] = {
        "there": InsertOne({"_id": SECRET}),
        "unknown operator": UpdateOne({"_id": SECRET}, {"$nothing": {"a": SECRET}}),
    }

    def handler(event: Event[Any]) -> list[Write]:
        more = [Write("log", wrong[way])] if event.data["n"] == turn else []
        return [*noted(event), *more]

    outcomes = bench.run_together(handler, COUNT)
    assert kinds(outcomes) == [TryAgain if n == turn else Undone for n in range(COUNT)]
    guilty = outcomes[turn]
    assert isinstance(guilty, TryAgain)
    assert guilty.counts
    assert "operation 3 of the 3 that the handler h has returned" in guilty.reason
    assert SECRET not in guilty.reason
    assert (bench.notes, log(bench), bench.remembered) == ([], [], 0)
    rest = [bench.run(handler, n) for n in range(COUNT) if n != turn]
    assert kinds(rest) == [Applied] * (COUNT - 1)
    given_up = bench.run(handler, turn, max_attempts=1)
    assert isinstance(given_up, GiveUp)
    assert SECRET not in given_up.reason
    assert turn not in bench.notes


def test_what_is_given_up_on_is_so_at_once(bench: Bench) -> None:
    """By the class of error that a handler which writes itself would meet."""
    bench.database["notes"].insert_one({"_id": 1})

    def handler(event: Event[Any]) -> Write:
        return Write("notes", InsertOne({"_id": 1}))

    outcome = bench.run(handler, give_up_on=mongo.DuplicateKeyError)
    assert isinstance(outcome, GiveUp)
    assert "DuplicateKeyError, code 11000 (the handler gives up on it)" in outcome.reason


def test_what_fails_beside_others_has_its_only_attempt_by_itself(bench: Bench) -> None:
    """What it has met may be an earlier one's doing."""

    def handler(event: Event[Any]) -> Write:
        return Write("notes", InsertOne({"_id": "one", "n": event.data["n"]}))

    assert kinds(bench.run_together(handler, 3, max_attempts=1)) == [Undone] * 3
    assert bench.notes == []


def test_what_an_event_is_given_up_for_is_not_another_ones_write(bench: Bench) -> None:
    """One that is undone itself, for what it has returned beside it."""
    bench.database["log"].insert_one({"_id": "there"})

    def handler(event: Event[Any]) -> list[Write]:
        more = [Write("log", InsertOne({"_id": "there"}))] if event.data["n"] == 0 else []
        return [Write("notes", InsertOne({"_id": "one", "n": event.data["n"]})), *more]

    options: dict[str, Any] = {"give_up_on": mongo.DuplicateKeyError}
    assert kinds(bench.run_together(handler, 2, **options)) == [Undone] * 2
    outcomes = [bench.run(handler, number, **options) for number in range(2)]
    assert kinds(outcomes) == [GiveUp, Applied]
    assert bench.notes == [1]


@pytest.mark.parametrize(
    "way",
    [{"a set": {1}}, {"a number": 2**70}, {"large": "x" * 17_000_000}],
    ids=lambda way: next(iter(way)),
)
def test_what_cannot_be_sent_blames_no_neighbour(bench: Bench, way: dict[str, Any]) -> None:
    """Nobody says whose it was: it fails when it is alone."""

    def handler(event: Event[Any]) -> list[Write]:
        return [*noted(event), *([Write("notes", InsertOne(way))] if event.data["n"] == 2 else [])]

    assert kinds(bench.run_together(handler, 4)) == [Undone] * 4
    assert bench.remembered == 0
    outcome = bench.run(handler, 2)
    assert isinstance(outcome, TryAgain)
    assert outcome.counts
    assert outcome.reason.startswith("What the handler h has returned cannot be written: ")
    assert len(outcome.reason) < 200
    assert kinds([bench.run(handler, n) for n in (0, 1, 3)]) == [Applied] * 3


def test_writes_to_another_database_are_of_the_same_transaction(bench: Bench) -> None:
    """They are undone with it."""
    other = bench.client[f"{bench.database.name}-other"]
    other.create_collection("notes")
    try:

        def handler(event: Event[Any]) -> list[Write]:
            number = event.data["n"]
            return [
                Write("notes", InsertOne({"_id": number}), database=other.name),
                Write("notes", InsertOne({"_id": number % 2})),
            ]

        assert kinds(bench.run_together(handler, 3)) == [Undone, Undone, TryAgain]
        assert other["notes"].count_documents({}) == 0
        assert kinds(bench.run_together(handler, 2)) == [Applied] * 2
        assert other["notes"].count_documents({}) == 2
    finally:
        bench.client.drop_database(other.name)


@contextlib.contextmanager
def held(bench: Bench) -> Iterator[None]:
    """Have another transaction write what the handlers write."""
    with bench.client.start_session() as session, session.start_transaction():
        bench.database["log"].update_one(
            {"_id": "log"}, {"$set": {"held": True}}, upsert=True, session=session
        )
        yield


def test_a_conflict_burns_no_attempt(bench: Bench) -> None:
    """Of a group nobody's: one says so, that the handler's events are handled apart for a while."""
    bench.database["log"].insert_one({"_id": "log"})
    with held(bench):
        outcomes = bench.run_together(noted, 4)
        assert kinds(outcomes) == [Undone, Undone, Undone, TryAgain]
        alone = bench.run(noted, 1)
    for outcome in (outcomes[-1], alone):
        assert isinstance(outcome, TryAgain)
        assert (outcome.kind, outcome.counts) == (Kind.CONFLICT, False)
    assert kinds(bench.run_together(noted, 4)) == [Applied] * 4
    assert log(bench) == [0, 1, 2, 3]


def test_what_a_handler_with_a_session_returns_the_next_one_finds(bench: Bench) -> None:
    """It is written before the next one is called, and blamed on the one that has returned it."""
    seen: list[int] = []

    def handler(event: Event[Any], session: ClientSession) -> list[Write]:
        seen.append(bench.database["notes"].count_documents({}, session=session))
        bench.note(session, 100 + event.data["n"])
        return noted(event)

    assert kinds(bench.run_together(handler, 3)) == [Applied] * 3
    assert seen == [0, 2, 4]

    def wrong(event: Event[Any], session: ClientSession) -> Write:
        assert bench.database["log"].count_documents({"_id": "log"}, session=session) == 1
        return Write("log", InsertOne({"_id": "log" if event.data["n"] == 11 else event.data["n"]}))

    bench.database["__inboxMessages"].delete_many({})
    outcomes = bench.run_together(wrong, 12)
    assert kinds(outcomes) == [*[Undone] * 11, TryAgain]


def test_no_further_event_is_begun_behind_very_many_writes(bench: Bench) -> None:
    """What was not begun is handled later, and nobody is at fault."""

    def handler(event: Event[Any]) -> list[Write]:
        return [*noted(event), Write("notes", *[DeleteMany({"n": -1})] * 400)]

    outcomes = bench.run_together(handler, 6)
    assert outcomes == (*[Applied(handled=1, repeated=0)] * 3, *[Undone(unbegun=True)] * 3)
    assert log(bench) == [0, 1, 2]


def test_what_is_no_write_is_given_up_with_a_sentence(bench: Bench) -> None:
    """And nothing is written: neither an operation alone, nor a generator of writes."""

    def alone(event: Event[Any]) -> Any:
        return InsertOne({"n": SECRET})

    def lazy(event: Event[Any]) -> Any:
        return (each for each in noted(event))

    def wrong(event: Event[Any]) -> Any:
        return Write("notes", {"n": SECRET})  # type: ignore[arg-type]

    for handler in (alone, lazy, wrong):
        outcome = bench.run(handler)
        assert isinstance(outcome, GiveUp)
        assert "Write" in outcome.reason or "generator" in outcome.reason
        assert SECRET not in outcome.reason
    assert (bench.notes, bench.remembered) == ([], 0)


# --- the same, whether a handler writes itself or returns what is to be written ------------------

WAYS = ("notes", "nothing", "there", "once", "raises", "rejects", "too large", "no operator")


def operations(way: str, number: int) -> list[Write]:
    """Return what an event of this way does, behind its note."""
    match way:
        case "there" | "once":
            return [Write("notes", InsertOne({"_id": way, "n": number}))]
        case "too large":
            return [Write("notes", InsertOne({"more": BSON(b"x" * 100), "n": 2**80}))]
        case "no operator":
            return [Write("notes", UpdateOne({"n": number}, [{"$nothing": 1}]))]
    return []


def returning(ways: Sequence[str]) -> Callable[[Event[Any]], Any]:
    """Return a handler that returns its writes."""

    def handler(event: Event[Any]) -> Any:
        number = event.data["n"]
        way = ways[number]
        if way == "nothing":
            return "what means nothing"
        if way in ("raises", "rejects"):
            raise ValueError("no") if way == "raises" else Reject("no")
        return [*noted(event), *operations(way, number)]

    return handler


def writing(bench: Bench, ways: Sequence[str]) -> Callable[..., None]:
    """Return one that does the same with its session."""
    inner = returning(ways)

    def handler(event: Event[Any], session: ClientSession) -> None:
        returned = inner(event)
        for write in returned if isinstance(returned, list) else []:
            collection = bench.database[write.collection]
            try:
                collection.bulk_write(list(write.operations), session=session)
            except mongo.BulkWriteError as error:
                raise errors.WriteRefused from error

    return handler


def settled(bench: Bench, handler: Callable[..., Any], count: int) -> tuple[Any, ...]:
    """Return what has come of events in the end: a group first, then each by itself."""
    for name in ("notes", "log", "__inboxMessages"):
        bench.database[name].delete_many({})
    bench.database["notes"].insert_one({"_id": "there", "n": -1})
    outcomes: list[Outcome] = list(bench.run_together(handler, count, max_attempts=2))
    first: list[Any] = kinds(outcomes)
    if any(isinstance(each, Undone) and each.unbegun for each in outcomes):
        first = []  # on a busy machine
    attempts = [1] * count
    for number in range(count):
        while not isinstance(outcome := outcomes[number], (Applied, GiveUp)):
            attempts[number] += isinstance(outcome, TryAgain) and outcome.counts
            outcomes[number] = bench.run(handler, number, attempt=attempts[number], max_attempts=2)
    return first, kinds(outcomes), attempts, sorted(bench.notes), log(bench), bench.remembered


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ways=st.lists(st.sampled_from(("notes", *WAYS)), min_size=2, max_size=8))
def test_returned_writes_come_to_the_same_as_written_ones(bench: Bench, ways: list[str]) -> None:
    """Outcomes, attempts, effects, their order and what is remembered."""
    one, other = (
        settled(bench, handler, len(ways)) for handler in (returning(ways), writing(bench, ways))
    )
    # Where all that was sent together is refused, nobody says by which; each shows it by itself.
    # And what one raises is known before another's returned writes are refused, which of written
    # ones is not so.
    told = not {"too large", "no operator"} & set(ways)
    refused = "there" in ways or ways.count("once") > 1
    in_turn = not (refused and {"raises", "rejects"} & set(ways))
    whole = one[0] and other[0] and told and in_turn
    assert one[not whole :] == other[not whole :]
