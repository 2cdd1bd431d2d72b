"""Clients in memory: what an application asks PyMongo's client and databases for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from bson import CodecOptions
from bson.binary import UuidRepresentation
from pymongo import MongoClient
from pymongo.database import Database as PyMongosDatabase

from postroom.testing.collection import Collection
from postroom.testing.commands import answered
from postroom.testing.refusal import not_faked
from postroom.testing.sessions import AsyncSession, Session
from postroom.testing.shelf import Shelf
from postroom.testing.storage import Place, Storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from postroom.testing.cursors import Cursor

__all__ = ["AsyncClient", "Client"]

USUAL: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


class Client:
    """A MongoClient whose databases are in memory."""

    def __init__(self, storage: Storage, codec: CodecOptions[Any] = USUAL) -> None:
        self.storage = storage
        self.codec = codec

    def __getitem__(self, name: str) -> Database:
        return Database(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if hasattr(MongoClient, name):  # its own, and no database of that name
            raise not_faked(f"{name} of a client")
        return self[name]

    def get_database(self, name: str, **_options: Any) -> Database:
        """Return a database."""
        return self[name]

    def start_session(self, **_options: Any) -> Session:
        """Start a session."""
        return Session(self.storage, self)

    def drop_database(self, name: Any, **_options: Any) -> None:
        """Remove all of a database."""
        self.storage.drop(getattr(name, "name", name))

    def close(self) -> None:
        """Do nothing."""

    def watch(self, *_args: Any, **_options: Any) -> Any:
        """Refuse."""
        raise not_faked("a change stream")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Database:
    """A database in memory."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    def __getitem__(self, name: str) -> Collection:
        place = Place(self.name, name)
        return Collection(Shelf(self.client.storage, place, self.client.codec))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if hasattr(PyMongosDatabase, name):
            raise not_faked(f"{name} of a database")
        return self[name]

    def get_collection(self, name: str, **_options: Any) -> Collection:
        """Return a collection."""
        return self[name]

    def with_options(self, **_options: Any) -> Self:
        """Return it."""
        return self

    def command(
        self, command: Any, *_args: Any, session: Any = None, **_options: Any
    ) -> Mapping[str, Any]:
        """Answer what postroom's writers send; refuse all else."""
        return answered(self, command, session)

    def list_collection_names(self, **_options: Any) -> list[str]:
        """Name the collections."""
        return list(self.client.storage.collections(self.name))

    def drop_collection(self, name: str, **_options: Any) -> None:
        """Remove a collection."""
        self.client.storage.drop(self.name, name)

    def watch(self, *_args: Any, **_options: Any) -> Any:
        """Refuse."""
        raise not_faked("a change stream")

    def aggregate(self, *_args: Any, **_options: Any) -> Any:
        """Refuse."""
        raise not_faked("aggregate() of a database")


class AsyncClient(Client):
    """An AsyncMongoClient whose databases are in memory; those of a Client with its storage."""

    def __getitem__(self, name: str) -> Any:
        return _AsyncDatabase(Database(self, name))

    def start_session(self, **_options: Any) -> Any:
        """Start a session."""
        return AsyncSession(self.storage, self)

    async def drop_database(self, name: Any, **_options: Any) -> None:  # type: ignore[override]
        """Remove all of a database."""
        self.storage.drop(getattr(name, "name", name))

    async def close(self) -> None:  # type: ignore[override]
        """Do nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class _Awaited:
    """The same calls, to be awaited."""

    def __init__(self, of: Any) -> None:
        self._inner = of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        call = getattr(self._inner, name)
        if not callable(call):
            return call

        async def awaited(*args: Any, **options: Any) -> Any:
            return call(*args, **options)

        return awaited


class _AsyncDatabase(_Awaited):
    def __getitem__(self, name: str) -> _AsyncCollection:
        return _AsyncCollection(self._inner[name])

    def __getattr__(self, name: str) -> Any:
        if name in PLAIN:
            return getattr(self._inner, name)
        if hasattr(PyMongosDatabase, name):
            return super().__getattr__(name)
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def get_collection(self, name: str, **_options: Any) -> _AsyncCollection:
        return self[name]

    def with_options(self, **_options: Any) -> Self:
        return self


PLAIN = {"client", "name"}


class _AsyncCollection(_Awaited):
    def find(self, *args: Any, **options: Any) -> _AsyncCursor:
        return _AsyncCursor(self._inner.find(*args, **options))

    def with_options(self, **_options: Any) -> Self:
        return self


class _AsyncCursor:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def sort(self, *args: Any) -> Self:
        self._cursor.sort(*args)
        return self

    def skip(self, count: int) -> Self:
        self._cursor.skip(count)
        return self

    def limit(self, count: int) -> Self:
        self._cursor.limit(count)
        return self

    async def to_list(self, length: int | None = None) -> list[Any]:
        return self._cursor.to_list(length)

    async def close(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Any]:
        for each in self._cursor:
            yield each

    async def __anext__(self) -> Any:
        for each in self._cursor:
            return each
        raise StopAsyncIteration

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise not_faked(f"{name}() of a cursor")
