"""Lifetime: how long MongoDB lets a transaction be open, and for which handlers that is short."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors
from postroom.server_codes import LIFETIME_EXCEEDED, NO_SUCH_TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymongo import MongoClient

    from postroom.inbox.handling.handlers import Handler

__all__ = ["Lifetime"]

logger = logging.getLogger(__name__)

PARAMETER = "transactionLifetimeLimitSeconds"
# MongoDB's default, taken where it may not be asked.
USUAL_SECONDS = 60.0
ENDED_CODES = frozenset({NO_SUCH_TRANSACTION, LIFETIME_EXCEEDED})


class Lifetime:
    """MongoDB's limit for a transaction, which a handler's is as well. Frozen once it is made."""

    def __init__(self, seconds: float | None) -> None:
        self._known = seconds is not None
        self._seconds = USUAL_SECONDS if seconds is None else seconds

    @classmethod
    def of(cls, client: MongoClient[Any]) -> Lifetime:
        """Ask a server for it; some users may not, and a mongos does not know."""
        try:
            found = client.admin.command({"getParameter": 1, PARAMETER: 1})
        except mongo.OperationFailure:
            return cls(None)
        return cls(float(found[PARAMETER]))

    def check(self, handlers: Iterable[Handler], *, default_seconds: float) -> None:
        """Refuse a handler that asks for more time than its transaction can last.

        Raises:
            ConfigurationError: there is one; the message names it.

        """
        if not self._known:
            return
        for handler in handlers:
            if (handler.timeout_seconds or 0.0) > self._seconds:
                raise errors.ConfigurationError(
                    f"The handler {handler.name} has timeout_seconds={handler.timeout_seconds:g}, "
                    f"but MongoDB ends its transaction after {PARAMETER}={self._seconds:g}: it "
                    "could never be handled. Make the handler shorter, or raise MongoDB's limit"
                )
        if default_seconds > self._seconds:
            logger.warning(
                "POSTROOM_HANDLER_TIMEOUT_SECONDS is %g, but MongoDB ends a handler's transaction "
                "after %s=%g: an attempt that lasts longer fails",
                default_seconds,
                PARAMETER,
                self._seconds,
            )

    def over(self, error: BaseException, *, handler: str, seconds: float) -> BaseException:
        """Return the error of a transaction that was open for `seconds`, by its right name."""
        ended = isinstance(error, mongo.OperationFailure) and error.code in ENDED_CODES
        if not ended or seconds < self._seconds:
            return error
        known = "" if self._known else " (its default; this user may not ask for it)"
        return errors.TransactionTooLong(
            f"The handler {handler} held its transaction for {seconds:.1f} s, and MongoDB has "
            f"ended it after {PARAMETER}={self._seconds:g}{known}"
        )
