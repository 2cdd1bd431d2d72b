"""Requests: the id and the trace of a request, carried by the events that it publishes.

Middleware for ASGI (FastAPI, Starlette, Django) and WSGI (Flask, Django); it needs no framework.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from postroom.carrying import carrying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["ASGICarrier", "WSGICarrier", "headers_of"]

REQUEST_ID = "x-request-id"
# Of what comes from outside: by name in a request, and as a header of an event.
TAKEN = {REQUEST_ID: "request-id", "traceparent": "traceparent", "tracestate": "tracestate"}
LONGEST = 200
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may have more behind it.
PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def headers_of(found: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the events of a request with these headers, by names in lower case.

    What is too long, no printable ASCII, or no W3C context is left out; a request without an id
    gets one.
    """
    own = {
        name: found[taken]
        for taken, name in TAKEN.items()
        if 0 < len(found.get(taken, "")) <= LONGEST and _is_plain(found[taken])
    }
    own.setdefault("request-id", uuid.uuid4().hex)
    if not PARENT.fullmatch(own.get("traceparent", "")):
        own.pop("traceparent", None)
        own.pop("tracestate", None)
    return own


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable()


class ASGICarrier:
    """`app.add_middleware(ASGICarrier)`: events carry `request-id` and the request's trace.

    The answer says the id as well, in X-Request-ID.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(
        self, scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        """Pass a request on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        pairs = scope.get("headers", ())
        own = headers_of({name.decode("latin-1").lower(): v.decode("latin-1") for name, v in pairs})

        async def answer(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                said = (REQUEST_ID.encode(), own["request-id"].encode())
                kept = [each for each in message.get("headers", ()) if each[0].lower() != said[0]]
                message = {**message, "headers": [*kept, said]}
            await send(message)

        with carrying(own):
            await self._app(scope, receive, answer)


class WSGICarrier:
    """`app.wsgi_app = WSGICarrier(app.wsgi_app)`: the same for WSGI."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(
        self, environ: Mapping[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Pass a request on. What the body yields later on is not within it any more."""
        variables = {taken: f"HTTP_{taken.upper().replace('-', '_')}" for taken in TAKEN}
        own = headers_of({name: environ.get(value, "") for name, value in variables.items()})

        def answer(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [each for each in headers if each[0].lower() != REQUEST_ID]
            return start_response(status, [*kept, ("X-Request-ID", own["request-id"])], *more)

        with carrying(own):
            return self._app(environ, answer)
