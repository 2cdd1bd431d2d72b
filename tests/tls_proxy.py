"""TlsProxy: a port that speaks TLS with a certificate of choice, before a server that does not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import TYPE_CHECKING, Self

from devstack.service import free_port

if TYPE_CHECKING:
    from tests.certificates import Certificate

__all__ = ["TlsProxy"]


class TlsProxy:
    """Decrypts what comes, passes it on, and counts; a context manager.

    `target` is a port here, which is spoken to by TLS as well if `encrypted`. `connections` counts
    who has come, `received` the bytes that somebody has sent who took the certificate for good.
    """

    def __init__(
        self, target: int, certificate: Certificate | None, *, encrypted: bool = False
    ) -> None:
        self.port = free_port()
        self.connections = 0
        self.received = 0
        self._target = target
        self._server_context: ssl.SSLContext | None = None
        if certificate is not None:
            self._server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server_context.load_cert_chain(certificate.certificate, certificate.key)
        self._client_context: ssl.SSLContext | None = None
        if encrypted:
            self._client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._client_context.check_hostname = False
            self._client_context.verify_mode = ssl.CERT_NONE
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        # The connections are counted before the handshake, which many of them do not survive.
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                if self._server_context is not None:
                    await writer.start_tls(self._server_context, ssl_handshake_timeout=5)
                there = await asyncio.open_connection(
                    "127.0.0.1", self._target, ssl=self._client_context
                )
                try:
                    await asyncio.gather(
                        self._pass_on(reader, there[1], count=True),
                        self._pass_on(there[0], writer, count=False),
                    )
                finally:
                    there[1].close()
            finally:
                writer.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, count: bool
    ) -> None:
        while piece := await source.read(65_536):
            if count:
                self.received += len(piece)
            sink.write(piece)
            await sink.drain()
        sink.close()
