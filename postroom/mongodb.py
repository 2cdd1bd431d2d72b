"""MongoDB as the rooms use it: what it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import errors

if TYPE_CHECKING:
    from pymongo import MongoClient

__all__ = ["require_replica_set"]


def require_replica_set(client: MongoClient[Any]) -> None:
    """Refuse a MongoDB that has neither transactions nor change streams.

    Raises:
        ServiceUnavailable: it is a single server; the message says how to mend that.
        pymongo.errors.PyMongoError: it does not answer.

    """
    hello = client.admin.command("hello")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        where = ", ".join(f"{host}:{port}" for host, port in sorted(client.nodes)) or "its address"
        raise errors.ServiceUnavailable(
            f"MongoDB at {where} is not a replica set, so it has no transactions and no change "
            "streams. Start mongod with --replSet rs0 and run rs.initiate() once; a single member "
            "is enough. It is looked at again"
        )
