"""Services: the cluster of one scenario."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from devstack.brokers import Pulsar
from devstack.cluster import PulsarCluster
from devstack.mongodb import MongoDB
from devstack.replica_set import ReplicaSet
from devstack.service import free_port
from devstack.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.chaos.scenario import Scenario

__all__ = ["Services"]

NAMESPACE = "public/default"
# Nothing is kept once it is acknowledged, and that is looked after all the time.
NO_RETENTION = {
    "defaultRetentionTimeInMinutes": 0,
    "defaultRetentionSizeInMB": 0,
    "managedLedgerMaxEntriesPerLedger": 2000,
    "managedLedgerMinLedgerRolloverTimeMinutes": 0,
    "managedLedgerCursorRolloverTimeInSeconds": 60,
    "retentionCheckIntervalInSeconds": 2,
}
ADMIN_SECONDS = 60.0


class Services:
    """MongoDB, Pulsar and Valkey as a scenario wants them, on ports of their own."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        mongodb: dict[str, Any] = {"oplog_mb": scenario.oplog_mb}
        self.replica_set = ReplicaSet(folder, **mongodb) if scenario.members > 1 else None
        self.mongodb = self.replica_set or MongoDB(folder, port=free_port(), **mongodb)
        conf: dict[str, object] = {"brokerDeduplicationEnabled": scenario.deduplication}
        if not scenario.retention:
            conf |= NO_RETENTION
        self.cluster = (
            PulsarCluster(folder, brokers=scenario.brokers, conf=conf)
            if scenario.brokers > 1
            else None
        )
        self.pulsar = self.cluster or Pulsar(
            folder,
            port=free_port(),
            light=True,
            topic_policies=scenario.topic_policies,
            conf=conf,
        )
        self.valkey = Valkey(folder, port=free_port())

    def start(self) -> None:
        """Start all, and wait until they answer."""
        for service in (self.mongodb, self.valkey, self.pulsar):
            service.start()
        for service in (self.mongodb, self.valkey, self.pulsar):
            service.wait_ready()

    def stop(self) -> None:
        """Stop all."""
        for service in (self.pulsar, self.mongodb, self.valkey):
            service.stop()

    def environment(self, name: str) -> Mapping[str, str]:
        """Return the variables that lead workers to the services, with database and topics."""
        return {
            "POSTROOM_MONGODB_URI": self.mongodb.url,
            "POSTROOM_PULSAR_URL": self.pulsar.url,
            "POSTROOM_PULSAR_ADMIN_URL": self.pulsar.admin_url,
            "POSTROOM_REDIS_URL": self.valkey.url,
            "POSTROOM_MONGODB_DATABASE": name,
            "POSTROOM_TOPIC": f"{NAMESPACE}/{name}",
            "POSTROOM_MUTEX_TOPIC": f"{NAMESPACE}/{name}-mutex",
            "POSTROOM_MUTEX_RETRY_SECONDS": "0.3",
        }

    def admin(self, method: str, topic: str, what: str, body: object = None) -> bytes:
        """Ask the admin interface something of a topic, for as long as the broker is away.

        Raises:
            TimeoutError: it did not answer for a minute.

        """
        data = None if body is None else json.dumps(body).encode()
        end = time.monotonic() + ADMIN_SECONDS
        while True:
            address = f"{self.pulsar.admin_url}/admin/v2/persistent/{topic}/{what}"
            request = urllib.request.Request(
                address, data, {"Content-Type": "application/json"}, method=method
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"{method} {address}: {error.read()[:300]!r}") from None
            except OSError as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"{method} {address}: {error}") from None
            time.sleep(0.5)
