"""TlsProxy: a port that speaks TLS with a certificate of choice, before a server of ours."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from typing import TYPE_CHECKING

from tests.listening import TICK_SECONDS, Listening

if TYPE_CHECKING:
    from tests.certificates import Authority, Certificate

__all__ = ["TlsProxy"]


class TlsProxy(Listening):
    """Decrypts what comes, passes it on, and counts; a context manager.

    `target` is a port here, which is spoken to by TLS as well if `encrypted`; without a certificate
    the proxy itself does not encrypt, and with `clients` it wants a certificate of theirs that this
    authority has signed. `connections` counts who has come, `received` the bytes that
    somebody has sent who took the certificate for good.
    """

    def __init__(
        self,
        target: int,
        certificate: Certificate | None,
        *,
        encrypted: bool = False,
        clients: Authority | None = None,
    ) -> None:
        super().__init__()
        self.received = 0
        self._target = target
        self._server_context: ssl.SSLContext | None = None
        if certificate is not None:
            self._server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server_context.load_cert_chain(certificate.certificate, certificate.key)
            if clients is not None:
                self._server_context.load_verify_locations(clients.file)
                self._server_context.verify_mode = ssl.CERT_REQUIRED
        self._client_context: ssl.SSLContext | None = None
        if encrypted:
            self._client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._client_context.check_hostname = False
            self._client_context.verify_mode = ssl.CERT_NONE

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.ExitStack() as open_, contextlib.suppress(OSError):
            open_.enter_context(accepted)
            accepted.settimeout(5)
            here = there = accepted
            if self._server_context is not None:
                here = self._server_context.wrap_socket(accepted, server_side=True)
                open_.enter_context(here)
            there = socket.create_connection(("127.0.0.1", self._target), 5)
            open_.enter_context(there)
            if self._client_context is not None:
                there = self._client_context.wrap_socket(there)
                open_.enter_context(there)
            self._pass_on(here, there)

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(here, selectors.EVENT_READ, there)
            waiting.register(there, selectors.EVENT_READ, here)
            while not self._closing.is_set():
                for key, _ in waiting.select(TICK_SECONDS):
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    piece = source.recv(65_536)
                    while isinstance(source, ssl.SSLSocket) and source.pending():
                        piece += source.recv(source.pending())
                    if not piece:
                        return
                    self.received += len(piece) if source is here else 0
                    sink.sendall(piece)
