"""Guard: keeps a handler's hands off the transaction that the inbox runs for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pymongo.client_session import ClientSession

__all__ = ["Guard"]

REFUSED = ("start_transaction", "commit_transaction", "with_transaction")
# They undo, which is right where the transaction is given up in any case.
NOTED = ("abort_transaction", "end_session")


class Guard:
    """For the time in which a handler runs, its session refuses to commit or to begin anew.

    A transaction that the handler ended would leave an effect without the inbox row that remembers
    it, or a row without the effect. Also where the handler swallows the refusal, or aborts, its
    event is given up before anything is committed.
    """

    def __init__(self, session: ClientSession, handler: str) -> None:
        self._session = session
        self._handler = handler
        self._touched = ""

    def __enter__(self) -> None:
        for name in REFUSED:
            setattr(self._session, name, self._refusing(name))
        for name in NOTED:
            setattr(self._session, name, self._noting(name, getattr(self._session, name)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in (*REFUSED, *NOTED):
            delattr(self._session, name)
        if not self._touched and (self._session.has_ended or not self._session.in_transaction):
            self._touched = "the end of its transaction"
        if self._touched:
            raise self._refusal() from error

    def _refusal(self) -> errors.PostroomError:
        return errors.TransactionTouched(
            f"The handler {self._handler} has used {self._touched} of the session it was given: "
            "that transaction is the inbox's, which commits it when the handler returns and undoes "
            "it when it raises. Nothing was written; use a session of its own for another one"
        )

    def _refusing(self, name: str) -> Callable[..., Any]:
        def refuse(*_args: Any, **_options: Any) -> None:
            self._touched = self._touched or f"{name}()"
            raise self._refusal()

        return refuse

    def _noting(self, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any, **options: Any) -> Any:
            self._touched = self._touched or f"{name}()"
            return own(*args, **options)

        return note
