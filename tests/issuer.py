"""Issuer: a tiny server of OAuth 2 that gives tokens for client credentials."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Issuer"]


class Issuer:
    """Knows one client and one audience; a context manager. `asked` counts requests for tokens."""

    def __init__(
        self, make_token: Callable[[], str], *, client: str, secret: str, audience: str
    ) -> None:
        self.asked = 0
        self.expires_in = 3600
        self._wanted = {
            "grant_type": ["client_credentials"],
            "client_id": [client],
            "client_secret": [secret],
            "audience": [audience],
        }
        self._make_token = make_token
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, {"token_endpoint": f"{issuer.url}/token"})

            def do_POST(self) -> None:
                issuer.asked += 1
                size = int(self.headers["Content-Length"])
                if parse_qs(self.rfile.read(size).decode()) == issuer._wanted:
                    token = issuer._make_token()
                    found = {"access_token": token, "expires_in": issuer.expires_in}
                    self._answer(200, found)
                else:
                    self._answer(401, {"error": "invalid_client", "error_description": "who?"})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler
