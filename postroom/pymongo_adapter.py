"""What we use of PyMongo beside its public interface.

`tests/unit/test_adapters.py` names what a new version lacks.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import struct
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from pymongo import InsertOne

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pymongo.synchronous.command_cursor import CommandCursor

__all__ = [
    "add_to",
    "leave_rows_alone",
    "namespace_of",
    "post_batch_resume_token",
    "unread",
    "unshared",
]

# How mongod's reply to a getMore begins: its length, the cursor, its length, the rows as an array,
# and its length.
_LENGTH = struct.Struct("<i")
_CURSOR, _ROWS = b"\x03cursor\0", b"\x04nextBatch\0"
_INNER_AT = _LENGTH.size + len(_CURSOR)
_ROWS_AT = _INNER_AT + _LENGTH.size
_ARRAY_AT = _ROWS_AT + len(_ROWS)
_NO_ROWS = b"\x05\0\0\0\0"


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Let go of the source files that PyMongo reads while a client is made in this block.

    A client keeps the lines of the stack in which it was made, for PyMongo's own tests, and Python
    keeps each file that they are from for as long as the process lives: 2 MiB in a worker.
    """
    known = set(linecache.cache)
    try:
        yield
    finally:
        for read in set(linecache.cache) - known:
            linecache.cache.pop(read, None)


def post_batch_resume_token(cursor: CommandCursor[Any]) -> Mapping[str, Any] | None:
    """Return the token from which a change stream goes on behind the cursor's last reply.

    The driver keeps it for its own ChangeStream, which hands out one event at a time at twice the
    cost of whole replies.
    """
    token: Mapping[str, Any] | None = cursor._post_batch_resume_token  # noqa: SLF001
    return token


def leave_rows_alone(cursor: Any) -> None:
    """Have the replies that a raw cursor reads behind its first one decoded but for their rows.

    The driver makes an object of each row, and of each document around them, before it takes the
    rows for the bytes that they are: an eighth of what the relay takes for an event of a backlog,
    and a sixth of what it takes for a reply of one row. A reply that begins in another way, as
    mongos' and an error's do, is decoded by the driver.
    """
    usual = cursor._unpack_response  # noqa: SLF001
    cursor._unpack_response = functools.partial(_unpacked, usual)  # noqa: SLF001


def _unpacked(
    usual: Callable[..., Sequence[Any]], response: Any, *args: Any, **kwargs: Any
) -> Sequence[Any]:
    reply = response.payload_document
    is_known = reply[_LENGTH.size : _INNER_AT] == _CURSOR and reply[_ROWS_AT:_ARRAY_AT] == _ROWS
    if not is_known:
        return usual(response, *args, **kwargs)
    whole, inner, size = (_LENGTH.unpack_from(reply, at)[0] for at in (0, _INNER_AT, _ARRAY_AT))
    less, end = size - len(_NO_ROWS), _ARRAY_AT + size
    without_rows = (
        *(_LENGTH.pack(whole - less), _CURSOR, _LENGTH.pack(inner - less)),
        *(_ROWS, _NO_ROWS, reply[end:]),
    )
    found = bson.decode(b"".join(without_rows))
    rows = bson._array_of_documents_to_buffer(reply[_ARRAY_AT:end])  # noqa: SLF001
    found["cursor"]["nextBatch"] = [rows] if rows else []
    return [found]


def namespace_of(operation: object) -> str | None:
    """Return the namespace that an operation of a bulk write names for itself, if it does."""
    namespace: str | None = operation._namespace  # type: ignore[attr-defined]  # noqa: SLF001
    return namespace


def add_to(bulk: object, operation: object) -> None:
    """Have an operation of a bulk write say of what kind it is, by the call that it makes of that.

    Raises:
        TypeError: it is none.

    """
    if not hasattr(operation, "_add_to_bulk"):
        raise TypeError(f"{type(operation).__name__} is not a valid request")
    operation._add_to_bulk(bulk)  # noqa: SLF001


def unshared(operation: Any) -> Any:
    """Return an operation of a bulk write that PyMongo leaves as it is.

    It gives an InsertOne's document an _id where that has none, and so the same one to all who send
    the same operation.
    """
    if not isinstance(operation, InsertOne):
        return operation
    document = operation._doc  # noqa: SLF001
    if not isinstance(document, MutableMapping) or "_id" in document:
        return operation
    return InsertOne({"_id": ObjectId(), **document})
