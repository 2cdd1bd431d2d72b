"""MongoDB as the rooms use it: what it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo import MongoClient

__all__ = ["PRIMARY", "require_fit_server"]

# Options of a client that reads from the primary, whatever the URI says: a secondary that lags
# would call rows and epochs gone.
PRIMARY: Mapping[str, Any] = {
    "readPreference": "primary",
    "readPreferenceTags": "",
    "maxStalenessSeconds": -1,
}

# What a server of MongoDB 5.0 says of its wire protocol. Before that it has no snapshot reads
# outside of transactions.
WIRE_VERSION_5_0 = 13


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
