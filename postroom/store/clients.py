"""The MongoDB client of each purpose: what it may wait for, and what the URI may not change."""

from __future__ import annotations

import functools
import logging
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import MongoClient
from pymongo import errors as mongo

from postroom import address, errors, mongodb_options, pymongo_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bson import Timestamp
    from pymongo import monitoring
    from pymongo.database import Database

    from postroom.store.server_watch import ServerWatch

__all__ = [
    "HandlersClient",
    "for_change_stream",
    "for_command_line",
    "for_consumer",
    "for_relay",
    "is_sharded",
    "members",
    "members_away",
    "operation_time",
    "require_fit_server",
]

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

SELECTION_MS = 5_000
CALL_MS = 15_000
HEARTBEAT_MS = 10_000
PAUSE_SECONDS = 0.05

# What reads and writes mean, which no URI may change: a secondary that lags, or a primary that
# reads or writes what may be rolled back, would call rows and epochs gone.
_MEANING: Mapping[str, Any] = {
    "readPreference": "primary",
    "w": "majority",
    "journal": True,
    "retryReads": True,
    "retryWrites": True,
    "tz_aware": True,
}
# How long one waits for what. A timeout over a whole call, or on its socket, ends for ever what is
# slow once: the first read of a change stream, a handler's query.
_PATIENCE: Mapping[str, Any] = {
    "serverSelectionTimeoutMS": SELECTION_MS,
    "connectTimeoutMS": SELECTION_MS,
    "heartbeatFrequencyMS": HEARTBEAT_MS,
    "timeoutMS": None,
    "socketTimeoutMS": None,
    "waitQueueTimeoutMS": None,
    "maxPoolSize": None,
}
# These go with the ones above, or are said where it counts: what a read shows, by each collection.
_LEFT_OUT = {
    "readConcernLevel",
    *("readPreferenceTags", "maxStalenessSeconds", "wTimeoutMS", "wTimeout", "j", "fsync"),
    *("minPoolSize", "maxIdleTimeMS", "maxConnecting", "waitQueueMultiple", "appName"),
}
# How values are decoded: a handler's are its application's affair, ours are not.
_DECODING = {"datetime_conversion", "unicode_decode_error_handler", "uuidRepresentation"}

# What a server of MongoDB 5.0 says of its wire protocol. Before that it has no snapshot reads
# outside of transactions.
WIRE_VERSION_5_0 = 13

Client = MongoClient[dict[str, Any]]


class HandlersClient(MongoClient[dict[str, Any]]):
    """The one client of a consumer and all its handlers, which get it by their sessions.

    A handler that closed it, by `with session.client as client:` for one, would have each later
    event fail, its own and others', until all were given up. So it stays open while it is lent.
    """

    is_lent = False

    def close(self) -> None:
        """Close it, unless it is lent.

        Raises:
            TransactionTouched: it is; a handler that asks for this has its event given up.

        """
        if self.is_lent:
            raise errors.TransactionTouched(
                "A handler has closed the client that its session came from, which is the "
                "consumer's and all handlers': that is refused. Use a client of its own for what "
                "is to be closed"
            )
        super().close()


def for_relay(uri: str) -> Client:
    """Make the relay's client, whose every call ends within bounded time."""
    return _client(uri, appname="postroom-relay", socketTimeoutMS=CALL_MS)


def for_change_stream(uri: str, *, vigil: monitoring.CommandListener | None = None) -> Client:
    """Make the client of the change stream, whose calls last while the server works at them.

    The first read of a change stream takes long where the relay was down for hours. `vigil` hears
    of each call, and has to find out whether an answer will come: no timeout ends one.
    """
    return _client(uri, appname="postroom-relay", event_listeners=[vigil] if vigil else [])


def for_consumer(uri: str, *, name: str, watch: ServerWatch) -> HandlersClient:
    """Make a consumer's client, known to the server by `name`; nothing is connected yet.

    Its handlers use it too, and have as much time as their own timeout gives them.
    """
    options: dict[str, Any] = {"appname": name, "connect": False, "event_listeners": [watch]}
    return _made(HandlersClient, uri, decoding=True, **options)


def for_command_line(uri: str) -> Client:
    """Make a command's client."""
    return _client(uri, appname="postroom-cli", socketTimeoutMS=CALL_MS)


def _client(uri: str, **options: Any) -> Client:
    return _made(MongoClient, uri, **options)


def _made(kind: Callable[..., Made], uri: str, **options: Any) -> Made:
    """Make a client; what was in order at the start may be so no more, such as a rotated file.

    Raises:
        ServiceUnavailable: none can be made; the message says what of the URI is at fault.

    """
    try:
        with pymongo_adapter.unread():
            return kind(**_arguments(uri, **options))
    except (OSError, ValueError, KeyError, mongo.PyMongoError) as error:
        try:
            address.mongodb(uri)
        except ValueError as why:
            raise errors.ServiceUnavailable(
                f"No client of MongoDB can be made: POSTROOM_MONGODB_URI is {why}. That is tried "
                "again"
            ) from None
        if isinstance(error, mongo.PyMongoError):
            raise
        raise errors.ServiceUnavailable(
            f"No client of MongoDB can be made ({type(error).__name__}). That is tried again"
        ) from None


def _arguments(uri: str, *, decoding: bool = False, **options: Any) -> dict[str, Any]:
    ours = {*_MEANING, *_PATIENCE, *_LEFT_OUT} | (set() if decoding else _DECODING)
    uri, not_obeyed = _without(uri, ours)
    if not_obeyed:
        _say(", ".join(sorted(not_obeyed)))
    return {"host": uri, **_MEANING, **_PATIENCE, **options}


def _without(uri: str, names: set[str]) -> tuple[str, set[str]]:
    """Take options out of a URI, split as the driver does; return it, and those that were there."""
    before, mark, query = uri.partition("?")
    lower = {name.lower() for name in names}
    options = [(each, each.partition("=")[0]) for each in re.split("[&;]", query)]
    # An option that PyMongo does not know means nothing, and it warns of it by its name: which may
    # be a part of a password whose & is not encoded.
    known = mongodb_options.names()
    kept = [each for each, name in options if name.lower() in known - lower]
    return before + mark + "&".join(kept), {name for _, name in options if name.lower() in lower}


@functools.cache
def _say(names: str) -> None:
    # Once a process: a relay makes its clients anew for every term.
    logger.info(
        "POSTROOM_MONGODB_URI has options that are not obeyed, since what is promised hangs on "
        "them: %s",
        names,
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
    if hello.get("secondary"):
        return (
            "is not the primary, and directConnection=true in POSTROOM_MONGODB_URI leads to no "
            "other member: leave that out"
        )
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        return (
            "is not a replica set, so it has no transactions and no change streams. Start mongod "
            "with --replSet rs0 and run rs.initiate() once; a single member is enough"
        )
    return None


def is_sharded(client: MongoClient[Any]) -> bool:
    """Say whether a sharded cluster's router answers.

    Raises:
        pymongo.errors.PyMongoError: nobody answers.

    """
    return bool(client.admin.command("hello").get("msg") == "isdbgrid")


def members(client: MongoClient[Any]) -> str:
    """Return which MongoDB a client has reached, in the same words from wherever it is asked.

    Raises:
        pymongo.errors.PyMongoError: it did not answer.

    """
    hello = client.admin.command("hello")
    if "setName" in hello:
        return f"{hello['setName']} ({', '.join(sorted(hello['hosts']))})"
    return ", ".join(f"{host}:{port}" for host, port in sorted(client.nodes))


def members_away(client: MongoClient[Any], *, seconds: float = 0.0) -> list[str]:
    """Return the servers, of those that belong together, that a client has asked in vain.

    For so many `seconds` those are waited for of which that is not certain yet.
    """
    end = time.monotonic() + seconds
    while True:
        servers = client.topology_description.server_descriptions().items()
        unknown = {address: each for address, each in servers if not each.is_server_type_known}
        if time.monotonic() > end or all(each.error is not None for each in unknown.values()):
            away = [address for address, each in unknown.items() if each.error is not None]
            return [f"{host}:{port}" for host, port in sorted(away)]
        time.sleep(PAUSE_SECONDS)


def operation_time(database: Database[Any]) -> Timestamp:
    """Return the server's time: all that was committed before is before it in change streams."""
    time: Timestamp = database.command("ping")["operationTime"]
    return time
