"""Server: one of the hosts that a URL names."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from postroom.secured import has_tls

__all__ = ["Server", "servers"]

PORT, TLS_PORT = 6650, 6651


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of the hosts that a URL names."""

    host: str
    port: int

    def __str__(self) -> str:
        """Show it as in a URL."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def servers(url: str) -> list[Server]:
    """Return the hosts that a URL of Pulsar names, in order."""
    scheme, _, rest = url.partition("://")
    port = TLS_PORT if has_tls(url) else PORT
    parts = [urlsplit(f"{scheme}://{host}") for host in rest.partition("/")[0].split(",")]
    return [Server(host=p.hostname or "localhost", port=p.port or port) for p in parts]
