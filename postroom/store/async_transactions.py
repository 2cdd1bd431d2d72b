"""Transactions that end one way or the other, for asyncio; see postroom.store.transactions.

What interrupts here is a cancellation, also one after the other: the end of a transaction runs in a
task of its own, which they do not reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import ReadPreference
from pymongo import errors as mongo

from postroom.store.transactions import (
    COMMIT_SECONDS,
    INTERRUPTED_SECONDS,
    MAJORITY,
    PAUSE_SECONDS,
    Fate,
    is_unknown,
    require_session,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pymongo.asynchronous.client_session import AsyncClientSession

__all__ = ["async_transaction"]


@contextlib.asynccontextmanager
async def async_transaction(session: AsyncClientSession, fate: Fate) -> AsyncIterator[None]:
    """Run a block in a transaction of the session; commit it, or abort it where the block fails.

    Raises:
        ScopeClosed: the block has ended the session.
        pymongo.errors.PyMongoError: the commit failed.
        BaseException: what the block raised, or the cancellation that interrupted the end.

    """
    await session.start_transaction(write_concern=MAJORITY, read_preference=ReadPreference.PRIMARY)
    try:
        yield
    except BaseException as error:
        if session.in_transaction:
            fate.committed = False
            ending = asyncio.create_task(_abort(session, cut_off=not isinstance(error, Exception)))
            if (cancellation := await _end_of(ending)) is not None:
                raise fate.on(cancellation) from error
            if not isinstance(error, Exception):
                fate.on(error)
        raise
    if session.in_transaction:
        await _finish(session, fate)
    require_session(session)


async def _finish(session: AsyncClientSession, fate: Fate) -> None:
    committing = asyncio.create_task(_commit(session))
    cancellation = await _end_of(committing)
    if committing.done() and not committing.cancelled():
        error = committing.exception()
        if error is None:
            fate.committed = True
        else:
            fate.failed(error)
            if cancellation is None:
                raise error
    if cancellation is not None:
        # To the driver the session is in a transaction for as long as the task is in the commit.
        committing.cancel()
        await _end_of(committing)
        raise fate.on(cancellation)


async def _commit(session: AsyncClientSession) -> None:
    deadline = time.monotonic() + COMMIT_SECONDS
    while True:
        try:
            await session.commit_transaction()
        except mongo.PyMongoError as error:
            if not is_unknown(error) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


async def _abort(session: AsyncClientSession, *, cut_off: bool) -> None:
    with pymongo.timeout(INTERRUPTED_SECONDS), contextlib.suppress(mongo.PyMongoError):
        await session.abort_transaction()
        if cut_off:
            # A command that was cut off may still be at work.
            await session.client.admin.command("killSessions", [session.session_id])


async def _end_of(task: asyncio.Task[Any]) -> asyncio.CancelledError | None:
    """Wait until a task has ended, for ten seconds once cancelled; return that cancellation."""
    cancellation: asyncio.CancelledError | None = None
    end: float | None = None
    while not task.done() and (end is None or time.monotonic() < end):
        try:
            await asyncio.wait({task}, timeout=None if end is None else end - time.monotonic())
        except asyncio.CancelledError as error:
            if cancellation is None:
                cancellation, end = error, time.monotonic() + INTERRUPTED_SECONDS
    return cancellation
