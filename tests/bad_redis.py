"""Every bad state that a Redis can have, entered and left on a real one."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import redis

from devstack.service import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devstack.valkey import Valkey

__all__ = ["STATES"]


def client(server: Valkey, password: str | None = None) -> Any:
    """Connect to the server as its operator."""
    return redis.Redis(port=server.port, password=password, socket_timeout=5)


def cut_all(operator: Any) -> None:
    """Close everybody else's connection."""
    for kind in ("normal", "pubsub"):
        operator.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@contextlib.contextmanager
def configured(server: Valkey, **values: str) -> Iterator[None]:
    """Set some of its configuration, for a time."""
    operator = client(server)
    before = {name: operator.config_get(name.replace("_", "-")) for name in values}
    for name, value in values.items():
        operator.config_set(name.replace("_", "-"), value)
    yield
    for found in before.values():
        for name, value in found.items():
            operator.config_set(name, value)


@contextlib.contextmanager
def killed(server: Valkey) -> Iterator[None]:
    """Have it gone."""
    server.kill()
    yield
    server.start()
    server.wait_ready()


@contextlib.contextmanager
def frozen(server: Valkey) -> Iterator[None]:
    """Have it take connections and not answer."""
    server.freeze()
    yield
    server.thaw()


@contextlib.contextmanager
def replica(server: Valkey) -> Iterator[None]:
    """Make it a replica of a server that is away; it can be read."""
    client(server).execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
    yield
    client(server).execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def silent_replica(server: Valkey) -> Iterator[None]:
    """Make it one that cannot even be read (MASTERDOWN)."""
    with configured(server, replica_serve_stale_data="no"), replica(server):
        yield


def without_replicas(server: Valkey) -> contextlib.AbstractContextManager[None]:
    """Have it refuse writes for want of replicas (NOREPLICAS)."""
    return configured(server, min_replicas_to_write="1")


def without_memory(server: Valkey) -> contextlib.AbstractContextManager[None]:
    """Have it refuse writes for want of memory (OOM)."""
    return configured(server, maxmemory="1", maxmemory_policy="noeviction")


@contextlib.contextmanager
def without_disk(server: Valkey) -> Iterator[None]:
    """Have it refuse writes since it could not save (MISCONF)."""
    file = server.folder / "dump.rdb"
    file.unlink(missing_ok=True)
    file.mkdir()
    with configured(server, save="3600 1000000"):
        operator = client(server)
        operator.set("something", "to save")
        operator.bgsave()
        wait_until(
            lambda: operator.info("persistence")["rdb_last_bgsave_status"] == "err",
            description="the save has failed",
        )
        yield
        file.rmdir()
        operator.config_set("stop-writes-on-bgsave-error", "no")


@contextlib.contextmanager
def with_other_password(server: Valkey) -> Iterator[None]:
    """Give it another password, which the workers do not know (NOAUTH)."""
    client(server).config_set("requirepass", "other")
    operator = client(server, "other")
    cut_all(operator)
    yield
    operator.config_set("requirepass", "")


@contextlib.contextmanager
def without_rights(server: Valkey) -> Iterator[None]:
    """Take its user the right to write (NOPERM)."""
    operator = client(server)
    operator.execute_command("ACL", "SETUSER", "default", "-@write")
    yield
    operator.execute_command("ACL", "SETUSER", "default", "+@all")


@contextlib.contextmanager
def clustered(server: Valkey) -> Iterator[None]:
    """Make it a node of a cluster that serves no slot (CLUSTERDOWN)."""
    server.kill()
    plain = server.command
    # Not the port's own number and 10,000, which may be somebody's.
    cluster = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    server.command = lambda: [*plain(), *cluster]  # type: ignore[method-assign]
    server.start()
    server.wait_ready()
    yield
    server.kill()
    server.command = plain  # type: ignore[method-assign]
    server.start()
    server.wait_ready()


@contextlib.contextmanager
def paused(server: Valkey) -> Iterator[None]:
    """Have it answer no command that writes."""
    client(server).execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    yield
    client(server).execute_command("CLIENT", "UNPAUSE")


@contextlib.contextmanager
def full(server: Valkey) -> Iterator[None]:
    """Have it take no more clients than the operator."""
    operator = client(server)
    operator.config_set("maxclients", "1")
    cut_all(operator)
    yield
    operator.config_set("maxclients", "1000")


@contextlib.contextmanager
def cutting(server: Valkey) -> Iterator[None]:
    """Have it close all connections again and again."""
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.3):
            cut_all(client(server))

    thread = threading.Thread(target=cut)
    thread.start()
    yield
    over.set()
    thread.join()


@contextlib.contextmanager
def another_service(server: Valkey) -> Iterator[None]:
    """Put something else in its place, which answers in another language."""
    server.kill()
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", server.port), reuse_port=False)
    listener.settimeout(0.1)

    def answer() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    over.set()
    thread.join()
    listener.close()
    server.start()
    server.wait_ready()


STATES: dict[str, Callable[[Valkey], contextlib.AbstractContextManager[None]]] = {
    state.__name__: state
    for state in (
        killed,
        frozen,
        replica,
        silent_replica,
        without_replicas,
        without_memory,
        without_disk,
        with_other_password,
        without_rights,
        clustered,
        paused,
        full,
        cutting,
        another_service,
    )
}
