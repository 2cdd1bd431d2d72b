"""Sessions: what PyMongo's sessions do for the storage in memory, and nothing beyond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.client_session import ClientSession
from pymongo.errors import InvalidOperation

from postroom.testing.refusal import not_faked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.testing.storage import Storage, Transaction

__all__ = ["AsyncSession", "Session", "transaction_of"]


class _Both:
    """What a session of either kind has here: a transaction of the storage, or none."""

    _storage: Storage
    _of: Any
    _current: Transaction | None
    _ended: bool

    def _begin(self, storage: Storage, client: Any) -> None:
        self._storage, self._of = storage, client
        self._current, self._ended = None, False

    @property
    def client(self) -> Any:
        """The client in memory that the session is of."""
        return self._of

    @property
    def session_id(self) -> Mapping[str, Any]:
        """What tells it from others."""
        return {"id": id(self)}

    @property
    def options(self) -> Any:
        """Nothing that counts here."""
        return None

    @property
    def has_ended(self) -> bool:
        """Whether it has been ended."""
        return self._ended

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of it is open."""
        return self._current is not None

    def _start(self) -> None:
        if self._ended:
            raise InvalidOperation("Cannot use ended session")
        if self._current is not None:
            raise InvalidOperation("Transaction already in progress")
        # Asked for by name each time: a guard takes the class' place meanwhile.
        self._current = self._storage.begin(lambda reply: self._process_response(reply))  # noqa: PLW0108

    def _finish(self, *, commit: bool) -> None:
        if self._current is None:
            raise InvalidOperation("No transaction started")
        ending, self._current = self._current, None
        self._storage.end(ending, commit=commit)

    def _process_response(self, _reply: Mapping[str, Any]) -> None:
        """Do nothing with an error that MongoDB has replied with; a guard does."""

    def _close(self) -> None:
        if self._current is not None:
            self._finish(commit=False)
        self._ended = True

    def __getattr__(self, name: str) -> Any:
        # What a collection of a real client asks it for first.
        raise not_faked(
            f"a session of the test kit, asked for {name}",
            "it is of the client in memory, and a collection of another client cannot write with "
            "it (take the database from outbox_recorder, or from tx.session.client)",
        )


def _with_both(cls: Any) -> Any:
    # Copied and not inherited: with a second base Python would not let a guard take the class'
    # place, as it does while a handler has the session.
    for name, value in vars(_Both).items():
        if callable(value) or isinstance(value, property):
            setattr(cls, name, value)
    return cls


# PyMongo's own, of which nothing but the name is used.
_Sync: Any = ClientSession
_Async: Any = AsyncClientSession


@_with_both
class Session(_Sync):  # type: ignore[misc]
    """A session of the client in memory; to isinstance() it is PyMongo's own."""

    def __init__(self, storage: Storage, client: Any) -> None:
        self._begin(storage, client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_session()

    def start_transaction(self, *_args: Any, **_options: Any) -> Any:
        """Begin a transaction; its options mean nothing here."""
        self._start()
        return _Block(self)

    def commit_transaction(self) -> None:
        """Have all see what was written."""
        self._finish(commit=True)

    def abort_transaction(self) -> None:
        """Have nothing been written."""
        self._finish(commit=False)

    def end_session(self) -> None:
        """End it, and undo what is not committed."""
        self._close()

    def with_transaction(self, callback: Any, *_args: Any, **_options: Any) -> Any:
        """Run a callback in a transaction, once."""
        with self.start_transaction():
            return callback(self)


@_with_both
class AsyncSession(_Async):  # type: ignore[misc]
    """The same for asyncio."""

    def __init__(self, storage: Storage, client: Any) -> None:
        self._begin(storage, client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end_session()

    async def start_transaction(self, *_args: Any, **_options: Any) -> Any:
        """Begin a transaction; its options mean nothing here."""
        self._start()
        return _Block(self)

    async def commit_transaction(self) -> None:
        """Have all see what was written."""
        self._finish(commit=True)

    async def abort_transaction(self) -> None:
        """Have nothing been written."""
        self._finish(commit=False)

    async def end_session(self) -> None:
        """End it, and undo what is not committed."""
        self._close()

    async def with_transaction(self, callback: Any, *_args: Any, **_options: Any) -> Any:
        """Run a callback in a transaction, once."""
        async with await self.start_transaction():
            return await callback(self)


class _Block:
    """What start_transaction() returns: its block commits, or undoes where it fails."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if self._session.in_transaction:
            self._session._finish(commit=kind is None)  # noqa: SLF001 - its other half

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, *_: object) -> None:
        self.__exit__(kind)


def transaction_of(session: object) -> Transaction | None:
    """Return the open transaction of a session, or None where the write stands alone.

    Raises:
        NotFaked: the session is none of the test kit's.
        OperationFailure: an error has ended the transaction.

    """
    if session is None:
        return None
    if not isinstance(session, (Session, AsyncSession)):
        raise not_faked(
            f"a write to the database in memory with a {type(session).__name__} of a real client",
            "the two share no transaction (make the Outbox of outbox_recorder.database)",
        )
    if session.has_ended:
        raise InvalidOperation("Cannot use ended session")
    found: Transaction | None = session._current  # noqa: SLF001 - the other half of this module
    if found is not None:
        found.require_going_on()
    return found
