"""Repertoire: which events the handlers here want, and whether another worker's want one."""

from __future__ import annotations

import logging
import time
import uuid
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.inbox.handling.handlers import name_of
from postroom.server_codes import UNAUTHORIZED
from postroom.store.repertoires import Repertoires

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.inbox.handling.handlers import Registry

__all__ = ["Repertoire"]

logger = logging.getLogger(__name__)

TELL_SECONDS = 20.0
# What was found may be so old: a worker is known to all others so long after it has begun.
FRESH_SECONDS = 1.0
CALL_SECONDS = 2.0
BEGIN_SECONDS = 10.0
# Strangers name events as they like.
MOST_NAMES_KEPT = 1000


class Repertoire:
    """What one consumer tells the others of its subscription, and asks of them.

    It begins before anything is read, and is then asked by the dispatcher: both in the consumer's
    thread. Each call is bounded, to two seconds, or ten at the start. Where MongoDB refuses it that
    is said, and every event that no handler wants is taken for one that nobody does.
    """

    def __init__(self, database: Database[Any], registry: Registry, subscription: str) -> None:
        self._rows = Repertoires(database, subscription=subscription, worker=uuid.uuid4().hex)
        self._subscription = subscription
        self._registry = registry
        self._is_allowed = True
        self._tell_at = 0.0
        self._ask_at = float("-inf")
        self._others: frozenset[str] | None = None
        self._known: dict[str, bool] = {}

    def begin(self) -> None:
        """Tell what is handled here, from now on.

        Raises:
            pymongo.errors.PyMongoError: MongoDB does not answer.

        """
        self._is_allowed = True
        try:
            with pymongo.timeout(BEGIN_SECONDS):
                self._rows.prepare()
                self._rows.tell(self._matches())
        except mongo.OperationFailure as error:
            if errors.is_transient(error):
                raise
            self._refused(error)
        self._tell_at = time.monotonic() + TELL_SECONDS

    def keep(self) -> None:
        """Tell it again, once in a while."""
        if not self._is_allowed or time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + TELL_SECONDS
        try:
            with pymongo.timeout(CALL_SECONDS):
                self._rows.tell(self._matches())
        except mongo.PyMongoError as error:
            logger.debug("What is handled here was not told (%s)", type(error).__name__)

    def end(self) -> None:
        """Tell that this consumer has left, if MongoDB answers."""
        if not self._is_allowed:
            return
        try:
            with pymongo.timeout(CALL_SECONDS):
                self._rows.leave()
        except mongo.PyMongoError as error:
            logger.debug("That the consumer leaves was not told (%s)", type(error).__name__)

    def is_wanted_elsewhere(self, name: str) -> bool | None:
        """Say whether another worker's handlers want events of a name; None where nobody answers.

        What a worker wants is known so from a second after it has begun.
        """
        now = time.monotonic()
        if now >= self._ask_at and self._is_allowed:
            self._ask_at = now + FRESH_SECONDS
            self._ask()
        if self._others is None:
            return None
        if name not in self._known:
            if len(self._known) >= MOST_NAMES_KEPT:
                self._known.clear()
            self._known[name] = any(fnmatchcase(name, each) for each in self._others)
        return self._known[name]

    def _ask(self) -> None:
        self._known = {}
        try:
            with pymongo.timeout(CALL_SECONDS):
                self._others = self._rows.others()
        except mongo.OperationFailure as error:
            self._others = None
            if not errors.is_transient(error):
                self._refused(error)
        except mongo.PyMongoError:
            self._others = None

    def _refused(self, error: mongo.OperationFailure) -> None:
        self._is_allowed = False
        self._others = frozenset()
        needs = "; it needs createIndex, find, insert and update: docs/security.md"
        logger.warning(
            "MongoDB refuses the consumer of %r the collection %s (code %s%s). It consumes "
            "without: while a deploy goes on, a worker that lacks a new handler acknowledges that "
            "one's events unseen",
            self._subscription,
            wire.REPERTOIRES,
            error.code,
            needs if error.code == UNAUTHORIZED else "",
            extra={"action": "rights"},
        )

    def _matches(self) -> list[str]:
        return sorted(
            {
                name_of(each)
                for handler in self._registry.handlers.values()
                if handler.subscription in (None, self._subscription)
                for each in handler.matches
            }
        )
