"""Guard: keeps a handler's hands off the transaction that the inbox runs for it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Self

from pymongo import errors as mongo
from pymongo.client_session import ClientSession

from postroom import errors
from postroom.server_codes import NO_SUCH_TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["Guard", "is_ended", "watched"]


class Guard:
    """For the time in which a handler runs, its session refuses to commit or to begin anew.

    A transaction that the handler ended would leave an effect without the inbox row that remembers
    it, or a row without the effect. Also where the handler swallows the refusal, or aborts, its
    event is given up before anything is committed.

    It also hears of errors by which MongoDB ends the transaction, conflicts apart: what the handler
    does or we do next in it fails, and says nothing of the cause.
    """

    def __init__(self, session: ClientSession, handler: str) -> None:
        self._session: Any = watched(session)
        self._handler = handler
        self._touched = ""
        self._ended_by: int | None = None

    def __enter__(self) -> Self:
        self._session.postroom_guard = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session = self._session
        session.postroom_guard = None
        if not self._touched and (session.has_ended or not session.in_transaction):
            self._touched = "the end of its transaction"
        if self._touched:
            raise self.refusal() from error
        if is_ended(error) and (named := self.ended) is not None:
            raise named from error

    @property
    def ended(self) -> errors.PostroomError | None:
        """What is wrong where an error has ended the transaction; for when that shows."""
        if self._ended_by is None:
            return None
        return errors.TransactionEnded(
            f"The handler {self._handler} has caught an error of MongoDB (code {self._ended_by}), "
            "which has ended its transaction: nothing more can be done in it. Look first, or use "
            "an upsert, and let such an error pass"
        )

    def heard(self, reply: Mapping[str, Any]) -> None:
        """Note the first error of the server's in the session."""
        if self._ended_by is None:
            self._ended_by = _error_in(reply)

    def touched(self, what: str) -> Guard:
        """Note what the handler has used, if it is the first such thing."""
        self._touched = self._touched or what
        return self

    def refusal(self) -> errors.PostroomError:
        """Say what the handler has used first."""
        return errors.TransactionTouched(
            f"The handler {self._handler} has used {self._touched} of the session it was given: "
            "that transaction is the inbox's, which commits it when the handler returns and undoes "
            "it when it raises. Nothing was written; use a session of its own for another one"
        )


class _Watched(ClientSession):
    """A session that asks its guard, for as long as it has one."""

    postroom_guard: Guard | None = None

    def start_transaction(self, *args: Any, **options: Any) -> Any:
        self._refuse("start_transaction()")
        return super().start_transaction(*args, **options)

    def commit_transaction(self) -> None:
        self._refuse("commit_transaction()")
        super().commit_transaction()

    def with_transaction(self, *args: Any, **options: Any) -> Any:
        self._refuse("with_transaction()")
        return super().with_transaction(*args, **options)

    def _refuse(self, what: str) -> None:
        if self.postroom_guard is not None:
            raise self.postroom_guard.touched(what).refusal()

    # Internal to PyMongo. Were it called no more, a caught error would be taken for a conflict.

    def _process_response(self, reply: Mapping[str, Any]) -> None:
        if self.postroom_guard is not None:
            self.postroom_guard.heard(reply)
        super()._process_response(reply)

    # These undo, which is right where the transaction is given up in any case.

    def abort_transaction(self) -> None:
        if self.postroom_guard is not None:
            self.postroom_guard.touched("abort_transaction()")
        super().abort_transaction()

    def end_session(self) -> None:
        if self.postroom_guard is not None:
            self.postroom_guard.touched("end_session()")
        super().end_session()


def watched(session: ClientSession) -> ClientSession:
    """Have a session ask its guard from now on; before its transaction is begun.

    Of another class for good, and not for the handler's calls only: the interpreter makes PyMongo's
    code fast for sessions of one class, and begins anew with each that changes.
    """
    kind: Any = type(session)
    if not issubclass(kind, _Watched):
        session.__class__ = _watched(kind)
    return session


@functools.cache
def _watched(kind: Any) -> type[Any]:
    return _Watched if kind is ClientSession else type(kind.__name__, (_Watched, kind), {})


def is_ended(error: BaseException | None) -> bool:
    """Say whether MongoDB does not know a transaction any more."""
    return isinstance(error, mongo.OperationFailure) and error.code == NO_SUCH_TRANSACTION


def _error_in(reply: Mapping[str, Any]) -> int | None:
    """Return the code of an error that is the transaction's own; None for a conflict."""
    if "TransientTransactionError" in reply.get("errorLabels", ()):
        return None
    if not reply.get("ok"):
        return int(reply.get("code", 0)) or None
    faults = reply.get("writeErrors")
    return int(faults[0].get("code", 0)) or None if faults else None
