"""Writes: what a handler returns is checked, kept, and sent in the order it had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo import errors as mongo

from postroom import Event, Write, errors, handles
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.writes import ReturnedWrites

if TYPE_CHECKING:
    from postroom.testing import OutboxRecorder

COUNTED = UpdateOne({"_id": "a"}, {"$inc": {"n": 1}}, upsert=True)


def event(number: int = 1) -> Event[Any]:
    """Return an event."""
    return Event(id=f"e{number}", name="A", data={"n": number}, topic="t")


def test_a_handler_that_returns_its_writes_is_tried_without_a_server() -> None:
    """It is a function of the event alone, and what it returns can be compared."""

    def handler(event: Event[Any]) -> Write:
        return Write("counts", UpdateOne({"_id": "a"}, {"$inc": {"n": event.data["n"]}}))

    assert handler(event(2)) == Write("counts", UpdateOne({"_id": "a"}, {"$inc": {"n": 2}}))
    assert handler(event(2)) != handler(event(3))
    assert Write("a", COUNTED) != Write("b", COUNTED)
    assert Write("a", COUNTED) != Write("a", COUNTED, database="other")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Write("", COUNTED), "by its name, and not to ''"),
        (lambda: Write(COUNTED), "of the type UpdateOne"),  # type: ignore[arg-type]
        (lambda: Write("a", COUNTED, database=""), "and not to ''"),
        (lambda: Write("a", [COUNTED]), "and not one of the type list; of a list"),  # type: ignore[arg-type]
        (lambda: Write("a", {"secret": 1}), "and not one of the type dict"),  # type: ignore[arg-type]
        (lambda: Write("a", InsertOne({}, namespace="b.c")), "none of them a namespace"),
    ],
)
def test_what_is_no_write_is_refused_where_it_is_made(made: Any, said: str) -> None:
    """By a sentence that shows nothing of the data."""
    with pytest.raises(errors.InvalidWrite, match=said) as raised:
        made()
    assert "secret" not in str(raised.value)
    assert not errors.is_transient(raised.value)


@pytest.mark.parametrize(
    "returned",
    [
        *(COUNTED, [COUNTED], [Write("a", COUNTED), None], [[Write("a", COUNTED)]]),
        *({"a": [COUNTED]}, ("a", COUNTED), {1: Write("a", COUNTED)}.values()),
    ],
)
def test_an_operation_without_a_collection_is_not_passed_over(returned: Any) -> None:
    """Its effect would be missing, and nobody would know."""
    writes = ReturnedWrites("h", "d")
    with pytest.raises(errors.NothingDone, match=r"h has returned .* where a Write was to be"):
        writes.take(returned, turn=0)
    assert not writes


@pytest.mark.parametrize("returned", [1, "text", {"a": 1}, [1, 2], (), True, object()])
def test_what_else_a_handler_returns_means_nothing(returned: Any) -> None:
    """As ever: many functions return something."""
    writes = ReturnedWrites("h", "d")
    writes.take(returned, turn=0)
    assert not writes


def test_what_stands_where_a_write_was_to_be_is_not_shown() -> None:
    """It may be of an event, and the sentence goes with a dead letter."""
    with pytest.raises(errors.NothingDone, match="one of the type str where") as raised:
        ReturnedWrites("h", "d").take([Write("a", COUNTED), "secret"], turn=0)
    assert "secret" not in str(raised.value)
    with pytest.raises(errors.InvalidWrite, match="not one of the type str"):
        Write("a", "secret")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidWrite, match="not to one of the type int"):
        Write(4711, COUNTED)  # type: ignore[arg-type]


def test_an_operation_that_is_made_once_and_returned_for_each_event_is_sent_as_it_was_made() -> (
    None
):
    """PyMongo gives its document an _id, which would be the same for all."""
    once, session = InsertOne({"n": 1}), Sent()
    writes = ReturnedWrites("h", "d")
    for turn in range(2):
        writes.take(Write("a", once), turn=turn)
    writes.send(session)  # type: ignore[arg-type]
    ids = {each._doc["_id"] for each in session.operations}
    assert len(ids) == 2
    assert once == InsertOne({"n": 1})


def test_writes_of_some_events_are_many() -> None:
    """No further event is begun behind so many."""
    writes = ReturnedWrites("h", "d")
    writes.take(Write("a", *[COUNTED] * 999), turn=0)
    before = writes.are_many
    writes.take([Write("a", COUNTED), Write("b")], turn=1)
    assert (before, writes.are_many) == (False, True)
    writes.forget()
    assert (bool(writes), writes.are_many) == (False, False)


class Sent:
    """A session, its client, a database and a collection, which notes what is sent."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.sent: list[tuple[str, ...]] = []
        self.place: tuple[str, ...] = ()
        self.operations: list[Any] = []

    @property
    def client(self) -> Sent:
        """Return itself."""
        self.place = ()
        return self

    def __getitem__(self, name: str) -> Sent:
        self.place = (*self.place, name)
        return self

    def bulk_write(self, operations: list[Any], *, session: Any) -> None:
        """Note it, or fail."""
        assert session is self
        self.operations += operations
        self.sent.append((*self.place, *(type(each).__name__ for each in operations)))
        if self.error is not None:
            raise self.error


def test_writes_are_sent_by_collection_in_their_order() -> None:
    """Of all events together, one bulk write for each collection; and only once."""
    writes, session = ReturnedWrites("h", "d"), Sent()
    writes.take([Write("a", COUNTED), Write("b", DeleteOne({}))], turn=0)
    writes.take(Write("a", InsertOne({}), DeleteOne({}), database="other"), turn=1)
    writes.take(Write("a", InsertOne({})), turn=2)
    writes.send(session)  # type: ignore[arg-type]
    writes.send(session)  # type: ignore[arg-type]
    assert session.sent == [
        ("d", "a", "UpdateOne", "InsertOne"),
        ("d", "b", "DeleteOne"),
        ("other", "a", "InsertOne", "DeleteOne"),
    ]


def refused(code: int, index: int) -> mongo.BulkWriteError:
    """Return what PyMongo raises of a bulk write, with what the server and it quote."""
    fault = {"index": index, "code": code, "errmsg": "dup key: { secret: 1 }", "op": {"secret": 1}}
    return mongo.BulkWriteError({"writeErrors": [fault]})


def sent(error: Exception) -> BaseException:
    """Return what is raised where a bulk write of three events fails so."""
    writes = ReturnedWrites("h", "d")
    writes.take(Write("a", COUNTED), turn=0)
    writes.take([Write("b", COUNTED), Write("a", COUNTED, InsertOne({}))], turn=4)
    writes.take(Write("a", COUNTED), turn=5)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is
        writes.send(Sent(error))  # type: ignore[arg-type]
    return raised.value


def test_the_guilty_event_and_operation_are_named_and_nothing_of_them_shown() -> None:
    """The cause is what PyMongo raises of a single write, so that give_up_on means the same."""
    found = sent(refused(11000, index=2))
    assert isinstance(found, errors.WriteRefused)
    assert found.turn == 4
    assert str(found) == (
        "MongoDB refuses operation 3 of the 3 that the handler h has returned, InsertOne: "
        "DuplicateKeyError, code 11000"
    )
    assert isinstance(found.__cause__, mongo.DuplicateKeyError)
    assert "op" not in (found.__cause__.details or {})
    assert found.__context__ in (None, found.__cause__)
    assert found.__cause__.__context__ is None
    single = sent(refused(121, index=0))
    assert str(single).endswith(
        "the operation that the handler h has returned, UpdateOne: WriteError, code 121"
    )
    assert type(single.__cause__) is mongo.WriteError


@pytest.mark.parametrize(
    "error",
    [
        refused(112, index=0),
        refused(14031, index=0),
        mongo.AutoReconnect("away"),
        mongo.OperationFailure("x", 112, {"errorLabels": ["TransientTransactionError"]}),
    ],
)
def test_a_conflict_and_an_outage_are_nobodys_fault(error: Exception) -> None:
    """They are raised as they are, as where the handler writes by itself."""
    assert isinstance(sent(error), (mongo.AutoReconnect, mongo.OperationFailure))


def test_what_cannot_be_sent_is_the_handlers_own() -> None:
    """Nobody says which operation it was."""
    found = sent(OverflowError("secret"))
    assert isinstance(found, errors.WriteRefused)
    assert found.turn is None
    assert str(found) == "What the handler h has returned cannot be written: OverflowError"


def test_the_recorder_applies_what_a_handler_returns(outbox_recorder: OutboxRecorder) -> None:
    """Once for an event, and not at all where one of its writes is refused."""
    found = Registry()

    @handles("A", name="writes.recorded", into=found)
    def handler(event: Event[Any]) -> list[Write]:
        number = event.data["n"]
        return [Write("counts", COUNTED), Write("rows", InsertOne({"_id": number % 2}))]

    outbox_recorder.database["rows"].insert_one({"_id": 0})
    from postroom.testing import handling

    def run(number: int) -> Any:
        return handling.run(
            found.handlers["writes.recorded"],
            [event(number)],
            outbox_recorder.database,
            subscription="s",
        )

    assert run(1).handled == 1
    assert run(1).repeated == 1
    with pytest.raises(errors.WriteRefused, match="operation 2 of the 2"):
        run(2)
    assert outbox_recorder.database["counts"].find_one() == {"_id": "a", "n": 1}
