"""Commit, and again while its result is unknown: one rule, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pymongo import errors as mongo

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.client_session import ClientSession

__all__ = ["COMMIT_SECONDS", "commit", "commit_async"]

# As long as with_transaction() of the driver goes on.
COMMIT_SECONDS = 120.0
PAUSE_SECONDS = 0.1


def commit(session: ClientSession, *, seconds: float = COMMIT_SECONDS) -> None:
    """Commit the session's transaction; nothing where it was ended already.

    MongoDB's driver tries a commit twice. It is safe to go on: the server commits a transaction
    once, however often it is told.

    Raises:
        pymongo.errors.PyMongoError: it was not committed, or after `seconds` nobody knows; the
            error is labelled UnknownTransactionCommitResult then.

    """
    deadline = time.monotonic() + seconds
    # To the driver a session is in no transaction any more once a commit was tried.
    is_open = session.in_transaction
    while is_open:
        try:
            session.commit_transaction()
        except mongo.PyMongoError as error:
            if not _is_unknown(error, deadline):
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


async def commit_async(session: AsyncClientSession, *, seconds: float = COMMIT_SECONDS) -> None:
    """Do the same for asyncio."""
    deadline = time.monotonic() + seconds
    # To the driver a session is in no transaction any more once a commit was tried.
    is_open = session.in_transaction
    while is_open:
        try:
            await session.commit_transaction()
        except mongo.PyMongoError as error:
            if not _is_unknown(error, deadline):
                raise
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


def _is_unknown(error: mongo.PyMongoError, deadline: float) -> bool:
    unknown = error.has_error_label("UnknownTransactionCommitResult")
    return unknown and time.monotonic() < deadline
