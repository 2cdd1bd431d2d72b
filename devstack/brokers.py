"""The Pulsar brokers: a small compatible one from a PyPI wheel, and real Apache Pulsar."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from devstack.service import DevstackError, Service, accepts, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Broker", "Pulsar", "PulsarLite", "fetch_jars", "has_java"]

HERE = Path(__file__).parent / "pulsar"
JARS = Path(__file__).parents[1] / ".devstack" / "pulsar-4.2.4"
JAVA_AT_LEAST = 17
# What the broker's own scripts open for it in the Java runtime.
OPENED = (
    "java.base/java.lang",
    "java.base/java.io",
    "java.base/java.util.zip",
    "java.base/sun.net",
    "java.base/java.nio",
    "java.base/jdk.internal.misc",
    "java.management/sun.management",
    "jdk.management/com.sun.management.internal",
)

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
    broker.conf, above those of standalone.conf: `{"defaultRetentionTimeInMinutes": 0}`.
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
        conf: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(folder, port=port)
        self._admin_port = admin_port or free_port()
        self._bookie_port = free_port()
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
        config.write_text(broker_conf(HERE / "standalone.conf", self._conf))
        opened = [word for module in OPENED for word in ("--add-opens", f"{module}=ALL-UNNAMED")]
        return [
            *("java", "-Xmx768m", "-XX:MaxDirectMemorySize=768m", *opened),
            "-Dio.netty.tryReflectionSetAccessible=true",
            f"-Dlog4j.configurationFile={HERE / 'log4j2.xml'}",
            *("-cp", f"{fetch_jars()}/*", "org.apache.pulsar.PulsarStandaloneStarter"),
            *("-c", str(config), "-nfw", "-nss"),
            *("--metadata-dir", str(self.folder / "metadata")),
            *("--bookkeeper-dir", str(self.folder / "bookkeeper")),
            *("--bookkeeper-port", str(self._bookie_port)),
        ]

    def answers(self) -> bool:
        """Say whether the broker is healthy and its default namespace is there."""
        namespace = f"{self.admin_url}/admin/v2/persistent/public/default"
        try:
            with urllib.request.urlopen(namespace, timeout=2) as answer:
                return bool(answer.status == 200) and accepts(self.port)
        except (urllib.error.URLError, OSError):
            return False


def broker_conf(base: Path, changes: Mapping[str, object]) -> str:
    """Return a broker's configuration: a file's, less what is changed, and the changes."""
    settings: dict[str, object] = {}
    for line in base.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings[name] = value
    settings |= changes
    return "".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}\n"
        for name, value in settings.items()
    )


@functools.cache
def has_java() -> bool:
    """Say whether Java 17 or later and Maven are there, or Java and the jars."""
    if shutil.which("java") is None or not (shutil.which("mvn") or JARS.exists()):
        return False
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', said.stderr)
    return version is not None and int(version.group(1)) >= JAVA_AT_LEAST


def fetch_jars() -> Path:
    """Return the folder of the broker's jars, fetched by Maven at the first call.

    Raises:
        DevstackError: Maven failed; the sentence has its last words.

    """
    done = JARS / ".complete"
    if not done.exists():
        fetched = subprocess.run(
            [
                *("mvn", "-q", "-B", "-s", str(HERE / "settings.xml"), "-f", str(HERE / "pom.xml")),
                *("dependency:copy-dependencies", "-DincludeScope=runtime"),
                f"-DoutputDirectory={JARS}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode:
            raise DevstackError(
                f"Maven could not fetch Apache Pulsar: {fetched.stdout[-800:].strip()}"
            )
        done.touch()
    return JARS
