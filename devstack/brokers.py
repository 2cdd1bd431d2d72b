"""The Pulsar brokers: a small compatible one from a PyPI wheel, and real Apache Pulsar."""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from devstack.jars import LIGHT, broker_conf, java
from devstack.service import DevstackError, Service, accepts, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TOPICS", "Broker", "Pulsar", "PulsarLite", "answers_at"]

TOPICS = "admin/v2/persistent/public/default"

# Left to itself it takes half a minute and more to notice that a killed client is gone, and its
# metrics listen on port 8080 of every interface.
LITE_CONFIG = """\
keep_alive_interval_secs = 2
connection_liveness_check_timeout_secs = 2

[metrics]
enabled = false
"""


class Broker(Service):
    """A Pulsar broker, real or compatible."""

    @property
    def url(self) -> str:
        """The address that POSTROOM_PULSAR_URL takes."""
        return f"pulsar://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str | None:
        """The admin interface, where the broker has one."""
        return None

    def answers(self) -> bool:
        """Say whether it accepts connections."""
        return accepts(self.port)


class PulsarLite(Broker):
    """The compatible broker: neither fencing nor deduplication, and no admin interface."""

    name = "pulsar-lite"

    def command(self) -> Sequence[str]:
        """Return the command of the broker."""
        spec = importlib.util.find_spec("pulsar_lite")
        if spec is None or spec.origin is None:
            raise DevstackError("There is no pulsar-lite: run `make setup`")
        binary = Path(spec.origin).parent / "bin" / "pulsar-lite"
        binary.chmod(0o755)
        config = self.folder / "pulsar-lite.toml"
        config.write_text(LITE_CONFIG)
        address, data = f"127.0.0.1:{self.port}", self.folder / "data"
        return [
            *(str(binary), "--config", str(config), "--addr", address),
            *("--db-path", str(data), "--log-level", "warn"),
        ]


class Pulsar(Broker):
    """Apache Pulsar 4.2 standalone, with deduplication on, from its jars.

    `topic_policies` lets a topic have policies of its own, which a broker that is killed does not
    always survive: see standalone.conf. `conf` are settings of the broker by their names in
    broker.conf, above those of standalone.conf: `{"defaultRetentionTimeInMinutes": 0}`. `light`
    takes half the processor time in the first minute, for less throughput.
    """

    name = "pulsar"
    ready_seconds = 120.0

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        admin_port: int | None = None,
        deduplication: bool = True,
        topic_policies: bool = False,
        light: bool = False,
        conf: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(folder, port=port)
        self._admin_port = admin_port or free_port()
        self._bookie_port = free_port()
        self._light = light
        self._conf: dict[str, object] = {
            "brokerServicePort": port,
            "webServicePort": self._admin_port,
            "brokerDeduplicationEnabled": deduplication,
            "systemTopicEnabled": topic_policies,
            "topicLevelPoliciesEnabled": topic_policies,
            **(conf or {}),
        }

    @property
    def admin_url(self) -> str:
        """The admin interface."""
        return f"http://127.0.0.1:{self._admin_port}"

    def command(self) -> Sequence[str]:
        """Return the command of the broker; fetches its jars if they are not there."""
        config = self.folder / "standalone.conf"
        config.write_text(broker_conf(self._conf))
        return java(
            "org.apache.pulsar.PulsarStandaloneStarter",
            *("-c", str(config), "-nfw", "-nss"),
            *("--metadata-dir", str(self.folder / "metadata")),
            *("--bookkeeper-dir", str(self.folder / "bookkeeper")),
            *("--bookkeeper-port", str(self._bookie_port)),
            options=LIGHT if self._light else (),
            heap_mb=768,
        )

    def answers(self) -> bool:
        """Say whether the broker is healthy and its default namespace is there."""
        return accepts(self.port) and answers_at(f"{self.admin_url}/{TOPICS}")


def answers_at(address: str) -> bool:
    """Say whether a web server answers there with what was asked for."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
