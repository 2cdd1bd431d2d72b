"""FastAPI: a lifespan that opens the outbox, and dependencies that give a request its transaction.

Needs FastAPI 0.121 or later: before, a dependency ended when the answer had been sent, and a commit
that failed was told to nobody.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from postroom.async_outbox import AsyncOutbox, AsyncTransaction
from postroom.settings import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from postroom.settings import Settings

__all__ = ["Database", "Outbox", "Tx", "database", "lifespan", "outbox", "transaction"]


def lifespan(
    settings: Settings | None = None,
    *,
    client: Callable[[str], AsyncMongoClient[Any]] = AsyncMongoClient,
    outbox: Callable[[AsyncDatabase[Any]], AsyncOutbox] = AsyncOutbox,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan for `FastAPI(lifespan=lifespan())`.

    It runs in each worker process, after the fork, opens MongoDB's client and the outbox of
    POSTROOM_MONGODB_DATABASE, and closes them. One of your own enters it by
    `async with lifespan()(app):`. `outbox` makes the outbox, where it has options.
    """

    @contextlib.asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        found = settings or load()
        async with client(found.mongodb_uri) as connected:
            app.state.postroom_database = connected[found.mongodb_database]
            app.state.postroom_outbox = outbox(app.state.postroom_database)
            yield

    return opened


def database(request: Request) -> AsyncDatabase[Any]:
    """Return the database that the lifespan has opened."""
    found: AsyncDatabase[Any] = request.app.state.postroom_database
    return found


def outbox(request: Request) -> AsyncOutbox:
    """Return the outbox that the lifespan has opened."""
    found: AsyncOutbox = request.app.state.postroom_outbox
    return found


async def transaction(
    outbox: Annotated[AsyncOutbox, Depends(outbox)],
) -> AsyncIterator[AsyncTransaction]:
    """Open a transaction for the time of a path operation; see AsyncOutbox.scope().

    It is committed when the function has returned and before the answer is sent: an answer that
    the client gets is true. An error that the function raises undoes it, an HTTPException too.
    """
    async with outbox.scope() as tx:
        yield tx


Database = Annotated[AsyncDatabase[Any], Depends(database)]
Outbox = Annotated[AsyncOutbox, Depends(outbox)]
Tx = Annotated[AsyncTransaction, Depends(transaction, scope="function")]
