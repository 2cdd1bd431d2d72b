"""PulsarCluster: two brokers or more of Apache Pulsar over one bookie and one ZooKeeper."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

from devstack.brokers import TOPICS, Broker, answers_at
from devstack.jars import LIGHT, broker_conf, java
from devstack.service import DevstackError, Service, accepts, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["ClusterBroker", "PulsarCluster"]

CLUSTER = "standalone"
# How long a broker that was killed or frozen still owns its topics.
SESSION_MS = 5000
BUNDLES = 8
LOAD_MANAGER = "org.apache.pulsar.broker.loadbalance.impl.ModularLoadManagerImpl"

ZOOKEEPER_CONF = """\
tickTime=1000
dataDir={folder}
clientPort={port}
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=ruok
"""


BOOKIE_CONF = """\
bookiePort={port}
listeningInterface=lo
allowLoopback=true
advertisedAddress=127.0.0.1
metadataServiceUri=metadata-store:{metadata}
journalDirectories={folder}/journal
ledgerDirectories={folder}/ledgers
ledgerStorageClass=org.apache.bookkeeper.bookie.storage.ldb.DbLedgerStorage
dbStorage_writeCacheMaxSizeMb=32
dbStorage_readAheadCacheMaxSizeMb=32
dbStorage_rocksDB_blockCacheSize=8388608
journalMaxGroupWaitMSec=1
nettyMaxFrameSizeBytes=5253120
diskUsageThreshold=0.99
httpServerEnabled=false
"""
# The bookie finds ZooKeeper as Pulsar does.
DRIVERS = [
    f"-Dbookkeeper.metadata.{side}.drivers=org.apache.pulsar.metadata.bookkeeper.{driver}"
    for side, driver in (
        ("bookie", "PulsarMetadataBookieDriver"),
        ("client", "PulsarMetadataClientDriver"),
    )
]


class ZooKeeper(Service):
    """The metadata store of the brokers and the bookie."""

    name = "zookeeper"

    @property
    def url(self) -> str:
        """The address of the metadata store, as Pulsar writes it."""
        return f"zk:127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        config = self.folder / "zoo.cfg"
        config.write_text(ZOOKEEPER_CONF.format(folder=self.folder / "data", port=self.port))
        main = "org.apache.zookeeper.server.ZooKeeperServerMain"
        return java(main, str(config), options=LIGHT, heap_mb=96)

    def answers(self) -> bool:
        """Say whether it is well."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"ruok")
                return connection.recv(16) == b"imok"
        except OSError:
            return False


class Bookie(Service):
    """The one server that stores the topics."""

    name = "bookie"

    def __init__(self, folder: Path, *, port: int, zookeeper: ZooKeeper) -> None:
        super().__init__(folder, port=port)
        self._zookeeper = zookeeper

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """Return the command of the server."""
        config = self.folder / "bookkeeper.conf"
        config.write_text(
            BOOKIE_CONF.format(folder=self.folder, port=self.port, metadata=self._zookeeper.url)
        )
        main = "org.apache.bookkeeper.server.Main"
        return java(main, "--conf", str(config), options=[*LIGHT, *DRIVERS], heap_mb=192)

    def answers(self) -> bool:
        """Say whether it accepts connections."""
        return accepts(self.port)


class ClusterBroker(Broker):
    """One broker of the cluster."""

    ready_seconds = 120.0

    def __init__(self, folder: Path, *, number: int, conf: Mapping[str, object]) -> None:
        self.name = f"broker-{number}"
        super().__init__(folder, port=free_port())
        self._admin_port = free_port()
        self._conf = {
            **conf,
            "brokerServicePort": self.port,
            "webServicePort": self._admin_port,
        }

    @property
    def admin_url(self) -> str:
        """The admin interface; what is asked of a topic of another broker is redirected to that."""
        return f"http://127.0.0.1:{self._admin_port}"

    def command(self) -> Sequence[str]:
        """Return the command of the broker."""
        config = self.folder / "broker.conf"
        config.write_text(broker_conf(self._conf))
        main = "org.apache.pulsar.PulsarBrokerStarter"
        return java(main, "-c", str(config), options=LIGHT, heap_mb=512)

    def answers(self) -> bool:
        """Say whether it serves and has an admin interface."""
        return accepts(self.port) and answers_at(f"{self.admin_url}/{TOPICS}")


class PulsarCluster:
    """Brokers over one bookie and one ZooKeeper; kill(), freeze() and so on are each broker's own.

    A broker that is killed or frozen owns its topics for another five seconds, then the other one
    takes them. `conf` are settings of the brokers by their names in broker.conf.
    """

    name = "pulsar"

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 2,
        topic_policies: bool = False,
        conf: Mapping[str, object] | None = None,
    ) -> None:
        self._log = folder / "logs" / "cluster-setup.log"
        self.zookeeper = ZooKeeper(folder, port=free_port())
        shared = {
            "brokerDeduplicationEnabled": True,
            "systemTopicEnabled": topic_policies,
            "topicLevelPoliciesEnabled": topic_policies,
            "metadataStoreUrl": self.zookeeper.url,
            "configurationMetadataStoreUrl": self.zookeeper.url,
            "metadataStoreSessionTimeoutMillis": SESSION_MS,
            "loadBalancerEnabled": True,
            "loadManagerClassName": LOAD_MANAGER,
            **(conf or {}),
        }
        self.bookie = Bookie(folder, port=free_port(), zookeeper=self.zookeeper)
        self.brokers = [ClusterBroker(folder, number=n, conf=shared) for n in range(brokers)]

    @property
    def url(self) -> str:
        """The address that POSTROOM_PULSAR_URL takes: all brokers."""
        return "pulsar://" + ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    @property
    def admin_url(self) -> str:
        """The admin interface of a broker that runs, or of the first one."""
        running = [broker for broker in self.brokers if broker.running]
        return (running or self.brokers)[0].admin_url

    @property
    def running(self) -> bool:
        """Whether all processes are there."""
        return all(service.running for service in self._services)

    def start(self) -> None:
        """Start what does not run; wait_ready() says when it can be used.

        Raises:
            DevstackError: the cluster could not be prepared at its first start.

        """
        if not self.zookeeper.running:
            first = not self.zookeeper.folder.exists()
            self.zookeeper.start()
            self.zookeeper.wait_ready()
            if first:
                self._prepare()
        if not self.bookie.running:
            self.bookie.start()
            self.bookie.wait_ready()
        for broker in self.brokers:
            if not broker.running:
                broker.start()

    def wait_ready(self) -> None:
        """Wait until every broker answers."""
        for broker in self.brokers:
            broker.wait_ready()

    def stop(self) -> None:
        """Stop everything."""
        for service in reversed(self._services):
            service.stop()

    def restore(self) -> None:
        """Thaw and start all, and wait until every broker answers."""
        for service in self._services:
            service.thaw()
        self.start()
        self.wait_ready()

    @property
    def _services(self) -> Sequence[Service]:
        return [self.zookeeper, self.bookie, *self.brokers]

    def _prepare(self) -> None:
        webs = ",".join(broker.admin_url.removeprefix("http://") for broker in self.brokers)
        with self._log.open("wb") as log:
            done = subprocess.run(
                java(
                    "org.apache.pulsar.PulsarClusterMetadataSetup",
                    *("-c", CLUSTER, "-md", self.zookeeper.url, "-cms", self.zookeeper.url),
                    *("-uw", f"http://{webs}", "-ub", self.url, "-bn", str(BUNDLES)),
                    options=LIGHT,
                    heap_mb=96,
                ),
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise DevstackError(f"The Pulsar cluster could not be prepared; see {self._log}")
