"""The replies of a change stream, as MongoDB gives them and the relay reads them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pymongo.synchronous.command_cursor import RawBatchCommandCursor

from postroom.relay.reading.stream import open_stream, replies
from postroom.store.clients import operation_time
from postroom.store.codec import id_of
from postroom.store.values import DEFAULT_PARTITION

if TYPE_CHECKING:
    import pytest

    from tests.site import Site


def test_the_driver_makes_no_object_of_a_row(
    lite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the rows of a large reply, nor of one without any; each row and token is there."""
    site, unpacked, usual = lite_site, list[Any](), RawBatchCommandCursor._unpack_response

    def noted(*args: Any, **options: Any) -> Any:
        unpacked.append(args)
        return usual(*args, **options)

    monkeypatch.setattr(RawBatchCommandCursor, "_unpack_response", noted)
    site.database.create_collection(site.outbox.name)
    token = open_stream(
        site.outbox, partition=DEFAULT_PARTITION, after=operation_time(site.database)
    )
    ids, found, tokens = site.insert(3000), list[str](), {str(token.document)}
    with contextlib.closing(
        replies(site.outbox, partition=DEFAULT_PARTITION, token=token, await_ms=100)
    ) as stream:
        for reply in stream:
            found += [str(id_of(row)) for rows in reply.slices() for row in rows]
            tokens.add(str(dict(reply.token.document)))
            if not reply.rows and found:
                break
    assert found == ids
    assert len(tokens) > 2
    assert not unpacked
