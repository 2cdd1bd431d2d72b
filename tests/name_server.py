"""NameServer: a tiny server of DNS on this machine, and programs' own look-ups led to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

import dns.exception
import dns.message
import dns.rdatatype
import dns.resolver
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NameServer"]

TICK_SECONDS = 0.2
MOST_BYTES = 4096
TTL = 60


class NameServer:
    """Answers from a table of names and types, over UDP; a context manager.

    Within its block this process finds all names there, those that the driver looks up as services
    (SRV, TXT) and those that it connects to (A).
    """

    def __init__(self, records: Mapping[tuple[str, str], str]) -> None:
        self.asked: list[str] = []
        self._records = records
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(TICK_SECONDS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        own = dns.resolver.Resolver(configure=False)
        own.nameservers, own.port = ["127.0.0.1"], self._socket.getsockname()[1]
        own.lifetime = 2.0
        self._before = dns.resolver.default_resolver
        dns.resolver.default_resolver = own
        dns.resolver.override_system_resolver(own)
        return self

    def __exit__(self, *exc: object) -> None:
        dns.resolver.restore_system_resolver()
        dns.resolver.default_resolver = self._before
        self._closing.set()
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError, dns.exception.DNSException):
                asked, who = self._socket.recvfrom(MOST_BYTES)
                self._socket.sendto(self._answer(asked), who)

    def _answer(self, asked: bytes) -> bytes:
        query = dns.message.from_wire(asked)
        answer = dns.message.make_response(query)
        (question,) = query.question
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        found = self._records.get((name, kind))
        if found is not None:
            answer.answer.append(dns.rrset.from_text(name, TTL, "IN", kind, found))
        return answer.to_wire()
