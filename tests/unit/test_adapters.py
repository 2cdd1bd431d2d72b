"""What we lean on in other people's packages: a new version that lacks it fails here by name."""

from __future__ import annotations

import inspect
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import bson
import pulsar
import pytest
from bson import BSON, DEFAULT_CODEC_OPTIONS, Int64, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import (
    DeleteMany,
    DeleteOne,
    InsertOne,
    MongoClient,
    ReplaceOne,
    UpdateMany,
    UpdateOne,
)
from pymongo.client_session import ClientSession
from pymongo.message import _OpMsg
from pymongo.synchronous.command_cursor import CommandCursor, RawBatchCommandCursor

from postroom import broker, pulsar_adapter, pymongo_adapter
from postroom.inbox.handling.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.inbox.handling.writes import Operation

LEVELS = type(pulsar.LoggerLevel.Error).__members__.values()
SEND_ASYNC = "(self: _pulsar.Producer, arg0: _pulsar.Message, arg1: collections.abc.Callable["


def test_the_pulsar_client_still_sends_built_messages_by_its_inner_producer() -> None:
    """`pulsar.Producer` keeps a `_producer` whose send_async takes a message and a callback."""
    import _pulsar

    assert "_producer" in pulsar.Producer.send_async.__code__.co_names
    assert "_producer" in pulsar.Client.create_producer.__code__.co_names
    assert SEND_ASYNC in _pulsar.Producer.send_async.__doc__


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("property", ("id", "1")),
        ("sequence_id", (1,)),
        ("partition_key", ("key",)),
        ("event_timestamp", (1,)),
        ("deliver_at", (1,)),
    ],
)
def test_the_pulsar_client_still_builds_messages(name: str, value: tuple[object, ...]) -> None:
    """Each of the builder's methods that a lane calls takes what it is given."""
    builder = pulsar_adapter.message_builder()()
    builder.content(b"{}")

    getattr(builder, name)(*value)

    assert builder.build().data() == b"{}"


@pytest.mark.parametrize(
    "name",
    [
        *("Ok", "AlreadyClosed", "MessageTooBig", "ProducerFenced", "Timeout", "TopicTerminated"),
        *("ProducerBlockedQuotaExceededError", "ProducerBlockedQuotaExceededException"),
    ],
)
def test_the_pulsar_client_still_has_the_results_that_are_asked_after(name: str) -> None:
    """An acknowledgement's result is compared with these."""
    assert getattr(pulsar.Result, name) is not None


def test_the_pulsar_client_still_can_be_told_to_write_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A level above its highest is taken, and errors of several threads at once are not written."""
    client = broker.connect("pulsar://127.0.0.1:9", operation_timeout=timedelta(seconds=1))

    def refused() -> None:
        for name in ["of/many/more/parts/than/names/have", "nobody-listens"]:
            with pytest.raises(pulsar.PulsarException):
                client.get_topic_partitions(name)

    threads = [threading.Thread(target=refused) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    broker.close(client)

    assert int(pulsar_adapter.silence().log_level) > max(map(int, LEVELS))
    assert capfd.readouterr() == ("", "")


def test_pymongo_still_keeps_the_token_of_a_reply() -> None:
    """Both kinds of cursor have it as a property."""
    for cursor in (CommandCursor, RawBatchCommandCursor):
        assert isinstance(cursor._post_batch_resume_token, property)


REST = {
    "postBatchResumeToken": {"_data": "82"},
    "id": Int64(7),
    "ns": "postroom.__outboxMessages",
}
AROUND = {
    "ok": 1.0,
    "$clusterTime": {"clusterTime": Timestamp(1, 2), "signature": {"keyId": Int64(0)}},
    "operationTime": Timestamp(1, 2),
}
ROWS_OF_A_REPLY = [{"fullDocument": {"_id": number, "data": "x" * number}} for number in range(12)]


class RawCursor:
    """Unpacks replies as a raw cursor of the driver's does."""

    _unpack_response: Any = RawBatchCommandCursor._unpack_response

    def replies(self, reply: bytes | memoryview) -> list[Any]:
        """Unpack one, as the driver calls it."""
        fields = {"cursor": {"firstBatch": 1, "nextBatch": 1}}
        found = self._unpack_response(
            _OpMsg(0, reply), 7, DEFAULT_CODEC_OPTIONS, user_fields=fields, legacy_response=False
        )
        return [bson.decode(bson.encode(each)) for each in found]


@pytest.mark.parametrize("kind", [bytes, memoryview])
@pytest.mark.parametrize(
    ("reply", "unpacked_by_the_driver"),
    [
        ({"cursor": {"nextBatch": ROWS_OF_A_REPLY, **REST}, **AROUND}, 0),
        ({"cursor": {"nextBatch": ROWS_OF_A_REPLY[:1], **REST}, **AROUND}, 0),
        ({"cursor": {"nextBatch": [], **REST}, **AROUND}, 0),
        ({"cursor": {"firstBatch": [], **REST}, **AROUND}, 1),
        ({"cursor": {**REST, "nextBatch": ROWS_OF_A_REPLY}, **AROUND}, 1),
        ({**AROUND, "cursor": {"nextBatch": ROWS_OF_A_REPLY, **REST}}, 1),
        ({"ok": 0.0, "errmsg": "é", "code": 280, "$clusterTime": AROUND["$clusterTime"]}, 1),
        ({}, 1),
    ],
)
def test_pymongo_still_unpacks_replies_by_what_can_be_replaced(
    kind: type[bytes | memoryview], reply: dict[str, Any], unpacked_by_the_driver: int
) -> None:
    """And what is put in its place finds what it does, without it where the reply is mongod's."""
    usual, spared = RawCursor(), RawCursor()
    calls: list[Any] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return usual._unpack_response(*args, **kwargs)

    spared._unpack_response = counted
    pymongo_adapter.leave_rows_alone(cast("Any", spared))
    sent = kind(bson.encode(reply))
    assert spared.replies(sent) == usual.replies(sent)
    assert len(calls) == unpacked_by_the_driver


def test_pymongo_still_keeps_where_an_operation_goes_and_what_it_is() -> None:
    """By the namespace that it was given, and by the call that it makes of a bulk write."""
    called: list[str] = []

    class Told:
        """A bulk write that notes what is added."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_args, **_options: called.append(name)

    operations: list[Operation] = [
        InsertOne({}, namespace="a.b"),
        UpdateOne({}, {"$set": {"n": 1}}, namespace="a.b"),
        UpdateMany({}, {"$set": {"n": 1}}, namespace="a.b"),
        ReplaceOne({}, {}, namespace="a.b"),
        DeleteOne({}, namespace="a.b"),
        DeleteMany({}, namespace="a.b"),
    ]
    for each in operations:
        assert pymongo_adapter.namespace_of(each) == "a.b"
        pymongo_adapter.add_to(Told(), each)
    assert pymongo_adapter.namespace_of(InsertOne({})) is None
    assert called == ["add_insert", "add_update", "add_update", "add_replace", *["add_delete"] * 2]
    made = InsertOne({"n": 1})
    sent = pymongo_adapter.unshared(made)
    assert sent == InsertOne({"_id": sent._doc["_id"], "n": 1})
    assert made == InsertOne({"n": 1})
    for each in (sent, DeleteOne({}), InsertOne(RawBSONDocument(BSON.encode({})))):
        assert pymongo_adapter.unshared(each) is each


def test_pymongo_still_has_a_session_that_the_guard_can_keep() -> None:
    """By its class, which becomes another, and by the names that begin or end something."""

    class Lent(ClientSession):
        """Nothing of a session but its class."""

        in_transaction = True
        has_ended = False

        def __init__(self) -> None:
            """Ask no server for it."""

        def __del__(self) -> None:
            """Have nothing to end."""

    lent = Lent()
    with Guard(lent, "h"):
        own = {name for name in vars(type(lent).__mro__[1]) if not name.startswith("_")}
        assert isinstance(lent, Lent)
    assert vars(lent)["postroom_guard"] is None
    assert own - {"postroom_guard"} == {
        *("start_transaction", "commit_transaction", "with_transaction"),
        *("abort_transaction", "end_session"),
    }
    assert all(callable(vars(ClientSession)[name]) for name in own - {"postroom_guard"})


def test_pymongo_still_tells_a_session_each_reply() -> None:
    """By a method that may be another one's for a while, and takes the reply alone."""
    assert list(inspect.signature(ClientSession._process_response).parameters) == ["self", "reply"]
    assert "_process_response" in MongoClient._process_response.__code__.co_names
