"""What a request carries into its events, and what both kinds of outboxes have in common."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from postroom import AsyncOutbox, AsyncTransaction, Outbox, Transaction
from postroom.carrying import carried, carrying
from postroom.contrib.requests import ASGICarrier, WSGICarrier, headers_of

if TYPE_CHECKING:
    from postroom.testing import OutboxRecorder

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("one", "other"), [(Outbox, AsyncOutbox), (Transaction, AsyncTransaction)])
def test_both_outboxes_have_the_same(one: type, other: type) -> None:
    """Each public name, with the same parameters in the same order and the same defaults."""

    def shape(kind: type) -> dict[str, Any]:
        found: dict[str, Any] = {"": parameters(kind)}
        for name, value in vars(kind).items():
            if not name.startswith("_"):
                found[name] = parameters(value) if callable(value) else "property"
        return found

    def parameters(call: Any) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(call)
        return [(each.name, each.kind, each.default) for each in signature.parameters.values()]

    assert shape(one) == shape(other)


def test_events_carry_what_is_around(outbox_recorder: OutboxRecorder) -> None:
    """Also of blocks within one another; what publish() is given wins."""
    outbox = Outbox(outbox_recorder.database)
    with carrying({"a": "1", "b": "1"}):
        with carrying({"b": "2"}):
            outbox.publish({"name": "A", "data": {}}, headers={"c": "3"})
            outbox.publish({"name": "A", "data": {}}, headers={"a": "9"})
        outbox.publish({"name": "A", "data": {}})
    outbox.publish({"name": "A", "data": {}})
    assert [each.headers for each in outbox_recorder.events] == [
        {"a": "1", "b": "2", "c": "3"},
        {"a": "9", "b": "2"},
        {"a": "1", "b": "1"},
        {},
    ]


def test_what_comes_from_outside_is_looked_at() -> None:
    """What is too long or no plain text is replaced or left out."""
    good = {"x-request-id": "r-1", "traceparent": TRACE, "tracestate": "x=1", "other": "no"}
    wanted = {"request-id": "r-1", "traceparent": TRACE, "tracestate": "x=1"}
    assert headers_of(good) == wanted
    for bad in ("", "x" * 201, "a\nb", "ä"):
        found = headers_of({"x-request-id": bad, "tracestate": "x=1"})
        assert list(found) == ["request-id"]
        assert len(found["request-id"]) == 32
    for bad in ("bogus", TRACE[:-1], TRACE.upper(), f"{TRACE}0", f"{TRACE}\n"):
        assert list(headers_of({**good, "traceparent": bad})) == ["request-id"]
    later = f"cc{TRACE[2:]}-more"
    assert headers_of({**good, "traceparent": later})["traceparent"] == later


def test_requests_are_told_apart() -> None:
    """Each of several at once has its own id, and its answer says it."""
    seen = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        seen.append(carried()["request-id"])
        await send({"type": "http.response.start", "headers": [(b"X-Request-ID", b"no")]})

    async def ask(number: str) -> list[Any]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.extend(message["headers"])

        scope = {"type": "http", "headers": [(b"X-Request-Id", number.encode())]}
        await ASGICarrier(app)(scope, None, send)  # type: ignore[arg-type]
        return said

    async def main() -> list[list[Any]]:
        return await asyncio.gather(*map(ask, "abc"))

    assert asyncio.run(main()) == [[(b"x-request-id", each.encode())] for each in "abc"]
    assert seen == ["a", "b", "c"]
    assert carried() == {}


def test_wsgi_has_the_same() -> None:
    """By the variables of its environment."""
    said: list[Any] = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [carried()["traceparent"].encode()]

    environ = {"HTTP_X_REQUEST_ID": "r", "HTTP_TRACEPARENT": TRACE}
    assert WSGICarrier(app)(environ, lambda *given: said.extend(given)) == [TRACE.encode()]
    assert said == ["200 OK", [("X-Request-ID", "r")]]
