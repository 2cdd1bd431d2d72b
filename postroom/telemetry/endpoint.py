"""Endpoint: the port on which a worker answers /metrics, /livez and /readyz."""

from __future__ import annotations

import errno
import os
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from postroom import errors

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from postroom.telemetry.health import Answer, Health

__all__ = ["Endpoint"]

PLAIN = "text/plain; charset=utf-8"
# Whoever asks has this long to do so, and no more ask at once.
REQUEST_SECONDS = 5.0
MOST_AT_ONCE = 16


class Endpoint:
    """Answers as soon as start() was called; the port is taken when it is made.

    `host` is a name or an address of this machine, of IPv4 or IPv6; `::` is every one of both.

    Raises:
        ConfigurationError: the port cannot be had.

    """

    def __init__(
        self, host: str, port: int, *, registry: CollectorRegistry, health: Health
    ) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry, "health": health})
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        server = _ServerOfIPv6 if ":" in bare else _Server
        try:
            self._server = server((bare, port), handler)
        except (OSError, UnicodeError) as error:
            raise errors.ConfigurationError(_why(host, port, error)) from None
        # A process that a fork makes would keep the port beyond this one's end.
        os.register_at_fork(after_in_child=self._server.socket.close)
        shown = f"[{bare}]" if ":" in bare else bare
        self.url = f"http://{shown}:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to answer, in a thread of its own."""
        threading.Thread(
            target=self._server.serve_forever, name="postroom-endpoint", daemon=True
        ).start()

    def stop(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()


def _why(host: str, port: int, error: OSError | UnicodeError) -> str:
    said = getattr(error, "strerror", None) or type(error).__name__
    number = getattr(error, "errno", None)
    if isinstance(error, (socket.gaierror, UnicodeError)) or number == errno.EADDRNOTAVAIL:
        return (
            f"POSTROOM_METRICS_HOST is {host!r}, which is no address of this machine ({said}). "
            "Nothing was started"
        )
    others = (
        "Give each worker of a host a port of its own, or 0 for a free one, which its log names"
    )
    remedy = f". {others}" if number == errno.EADDRINUSE else ""
    return (
        f"POSTROOM_METRICS_PORT is {port}, which cannot be had on {host} ({said}){remedy}. "
        "Nothing was started"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    allow_reuse_port = False

    def __init__(self, *args: Any) -> None:
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], address: Any
    ) -> None:
        """Say nothing: who asks may go away, and an answer that fails is none."""


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    registry: CollectorRegistry
    health: Health

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._send(HTTPStatus.OK, generate_latest(self.registry), CONTENT_TYPE_LATEST)
            case "/livez":
                self._tell("alive", self.health.liveness())
            case "/readyz":
                self._tell("ready", self.health.readiness())
            case _:
                self._send(HTTPStatus.NOT_FOUND, b"/metrics, /livez or /readyz\n", PLAIN)

    def _tell(self, what: str, answer: Answer) -> None:
        lines = "\n".join([what if answer.well else f"not {what}", *answer.lines, ""])
        status = HTTPStatus.OK if answer.well else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(status, lines.encode(), PLAIN)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "postroom"

    def log_message(self, *_args: object) -> None:
        """Say nothing: a probe comes every few seconds."""
