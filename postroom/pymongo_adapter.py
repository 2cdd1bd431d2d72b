"""What we use of PyMongo beside its public interface.

`tests/unit/test_adapters.py` names what a new version lacks.
"""

from __future__ import annotations

import contextlib
import linecache
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import InsertOne

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pymongo.synchronous.command_cursor import CommandCursor

__all__ = ["add_to", "namespace_of", "post_batch_resume_token", "unread", "unshared"]


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
