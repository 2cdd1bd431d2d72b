"""The MongoDB client of each purpose: what it may wait for, and what the URI may not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.store.server_watch import ServerWatch

__all__ = [
    "PRIMARY",
    "for_change_stream",
    "for_command_line",
    "for_consumer",
    "for_relay",
    "require_fit_server",
]

# Options of a client that reads from the primary, whatever the URI says: a secondary that lags
# would call rows and epochs gone.
PRIMARY: Mapping[str, Any] = {
    "readPreference": "primary",
    "readPreferenceTags": "",
    "maxStalenessSeconds": -1,
}
SELECTION_MS = 5_000
CALL_MS = 15_000

# What a server of MongoDB 5.0 says of its wire protocol. Before that it has no snapshot reads
# outside of transactions.
WIRE_VERSION_5_0 = 13

Client = MongoClient[dict[str, Any]]


def for_relay(uri: str) -> Client:
    """Make the relay's client, whose every call ends within bounded time."""
    return _client(uri, appname="postroom-relay", socketTimeoutMS=CALL_MS)


def for_change_stream(uri: str) -> Client:
    """Make the client of the change stream, whose calls last while the server works at them.

    The first read of a change stream takes long where the relay was down for hours. A server that
    has frozen it notices by its heartbeat, and closes the connection.
    """
    return _client(uri, appname="postroom-relay", socketTimeoutMS=None)


def for_consumer(uri: str, *, name: str, watch: ServerWatch) -> Client:
    """Make a consumer's client, known to the server by `name`; nothing is connected yet.

    A handler's query lasts as long as it needs: what bounds it is the handler's timeout.
    """
    return _client(
        uri,
        appname=name,
        connect=False,
        maxPoolSize=None,
        socketTimeoutMS=None,
        event_listeners=[watch],
    )


def for_command_line(uri: str) -> Client:
    """Make a command's client."""
    return _client(uri, appname="postroom-cli")


def _client(uri: str, **options: Any) -> Client:
    return MongoClient(
        uri,
        serverSelectionTimeoutMS=SELECTION_MS,
        connectTimeoutMS=SELECTION_MS,
        tz_aware=True,
        **{**PRIMARY, **options},
    )


def require_fit_server(client: MongoClient[Any]) -> None:
    """Refuse a MongoDB that has neither transactions nor change streams, or is older than 5.0.

    Raises:
        ServiceUnavailable: it is not fit; the message says how to mend that.
        pymongo.errors.PyMongoError: it does not answer.

    """
    lacking = _lacking(client.admin.command("hello"))
    if lacking is not None:
        where = ", ".join(f"{host}:{port}" for host, port in sorted(client.nodes)) or "its address"
        raise errors.ServiceUnavailable(f"MongoDB at {where} {lacking}. It is looked at again")


def _lacking(hello: Mapping[str, Any]) -> str | None:
    if hello.get("maxWireVersion", 0) < WIRE_VERSION_5_0:
        return "is older than 5.0, and cannot show the outbox as it was at one time: upgrade it"
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        return (
            "is not a replica set, so it has no transactions and no change streams. Start mongod "
            "with --replSet rs0 and run rs.initiate() once; a single member is enough"
        )
    return None
