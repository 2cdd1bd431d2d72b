"""Scopes whose block ends the transaction or the session itself: no event ever stands alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import AsyncMongoClient

from postroom import AsyncOutbox, Outbox, ScopeClosed

if TYPE_CHECKING:
    from tests.site import Site

FIRST, SECOND = ({"name": "Counted", "data": {"number": number}} for number in (1, 2))
STAND_ALONE = "the event would stand alone; it was not written"


def numbers(site: Site) -> list[int]:
    """Return the numbers of the events that are stored."""
    return [row["data"]["data"]["number"] for row in site.outbox.find()]


async def calls(site: Site, *methods: str, inside: bool) -> Any:
    """Publish, call methods of the session, publish again `inside`; return the transaction."""
    async with AsyncMongoClient[Any](site.environment["POSTROOM_MONGODB_URI"]) as client:
        async with AsyncOutbox(client[site.name]).scope() as tx:
            await tx.publish(FIRST)
            for method in methods:
                result = getattr(tx.session, method)()
                if asyncio.iscoroutine(result):
                    await result
            if inside:
                await tx.publish(SECOND)
        return tx


def called(site: Site, *methods: str, inside: bool) -> Any:
    """Do the same without asyncio."""
    with Outbox(site.database).scope() as tx:
        tx.publish(FIRST)
        for method in methods:
            getattr(tx.session, method)()
        if inside:
            tx.publish(SECOND)
    return tx


def run(site: Site, *methods: str, inside: bool = True, with_asyncio: bool) -> Any:
    """Do either."""
    if with_asyncio:
        return asyncio.run(calls(site, *methods, inside=inside))
    return called(site, *methods, inside=inside)


@pytest.mark.parametrize("with_asyncio", [False, True])
@pytest.mark.parametrize(
    ("method", "stored"), [("abort_transaction", []), ("commit_transaction", [1])]
)
def test_an_event_behind_the_transactions_end_is_refused(
    lite_site: Site, method: str, stored: list[int], *, with_asyncio: bool
) -> None:
    """It would be there whatever becomes of the rest."""
    with pytest.raises(ScopeClosed, match=STAND_ALONE):
        run(lite_site, method, with_asyncio=with_asyncio)
    assert numbers(lite_site) == stored


@pytest.mark.parametrize("with_asyncio", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_block_that_ends_the_session_is_told_what_that_undoes(
    lite_site: Site, *, inside: bool, with_asyncio: bool
) -> None:
    """As `with tx.session:` does it; nothing is taken for written."""
    with pytest.raises(ScopeClosed):
        run(lite_site, "end_session", inside=inside, with_asyncio=with_asyncio)
    assert numbers(lite_site) == []


@pytest.mark.parametrize("with_asyncio", [False, True])
def test_a_transaction_that_the_block_begins_anew_is_the_scopes(
    lite_site: Site, *, with_asyncio: bool
) -> None:
    """What was given up is gone, what came behind is committed with it."""
    tx = run(lite_site, "abort_transaction", "start_transaction", with_asyncio=with_asyncio)
    assert tx.committed is True
    assert numbers(lite_site) == [2]


@pytest.mark.parametrize("with_asyncio", [False, True])
def test_a_block_may_end_its_transaction_last(lite_site: Site, *, with_asyncio: bool) -> None:
    """Nothing more is done, and what became of it is the block's to know."""
    tx = run(lite_site, "commit_transaction", inside=False, with_asyncio=with_asyncio)
    assert tx.committed is None
    assert numbers(lite_site) == [1]
