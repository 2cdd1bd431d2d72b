"""Tries: a job's transaction, again where another one stood in its way."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors, jitter
from postroom.store.turns import TurnTaken

if TYPE_CHECKING:
    from pymongo import MongoClient

    from postroom.inbox.handling.applying import Applying
    from postroom.inbox.handling.call import Call
    from postroom.inbox.handling.orphans import Orphans
    from postroom.store.turns import Turns

__all__ = ["Tries"]

# Two quick handlers that write the same document conflict for a moment: tried again at once.
CONFLICT_TRIES = 6
MOMENT_SECONDS = 0.1
# How long a thread waits for its turn, and how long between two looks.
TURN_SECONDS = 2.0
TURN_PAUSE_SECONDS = 0.05


class Tries:
    """One job's tries, each with a session of its own; of the thread that runs it alone.

    A thread that a handler has left behind may still use an earlier one's.
    """

    def __init__(
        self,
        applying: Applying,
        handler: str,
        client: MongoClient[Any],
        *,
        orphans: Orphans,
    ) -> None:
        self._applying = applying
        self._handler = handler
        self._client = client
        self._orphans = orphans

    def at_once(self, call: Call) -> None:
        """Try, and a few times more where a quick one has met a conflict.

        Raises:
            Exception: what Applying.transact() raises.

        """
        for attempt in range(1, CONFLICT_TRIES + 1):
            began = time.monotonic()
            try:
                self._transact(call)
            except mongo.PyMongoError as error:
                if not _is_conflict(error) or attempt == CONFLICT_TRIES:
                    raise
                if time.monotonic() - began > MOMENT_SECONDS:
                    # Not tried again here: where MongoDB is far away or busy all of them are slow.
                    self._orphans.end()
                    raise
            else:
                return
            if attempt == CONFLICT_TRIES - 1:
                self._orphans.end()
            time.sleep(jitter.between(0.5, 1.0) * 0.005 * 2**attempt)

    def in_turn(self, turns: Turns, call: Call) -> None:
        """Try until it is the handler's turn.

        Raises:
            NotItsTurn: others had theirs meanwhile; the handler was not called.
            Exception: what Applying.transact() raises.

        """
        end = time.monotonic() + TURN_SECONDS
        while True:
            # Also before the first time: whoever has just had the turn would have it again.
            time.sleep(jitter.between(0, TURN_PAUSE_SECONDS))
            try:
                self._transact(call)
            except TurnTaken:
                self._applying.applied = replace(self._applying.applied, waited=True)
                if time.monotonic() > end:
                    self._orphans.end()
                    raise errors.NotItsTurn from None
            except mongo.PyMongoError as error:
                if _is_conflict(error):
                    # With one that does not queue, or cannot any more.
                    self._orphans.end()
                    turns.call_to_queue(self._handler)
                raise
            else:
                return

    def _transact(self, call: Call) -> None:
        with self._client.start_session() as session:
            call.opened(session.session_id)
            self._applying.transact(session, call)


def _is_conflict(error: mongo.PyMongoError) -> bool:
    # A server that is away conflicts with nobody, to the driver's label it does.
    labelled = error.has_error_label("TransientTransactionError")
    return labelled and not isinstance(error, mongo.ConnectionFailure)
