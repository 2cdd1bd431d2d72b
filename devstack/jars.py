"""The jars of Apache Pulsar, and the Java that runs them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from devstack.service import DevstackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LIGHT", "broker_conf", "fetch_jars", "has_java", "java"]

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


# Half the processor time in the first minute, in which the runtime compiles, for less throughput.
LIGHT = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def java(main: str, *arguments: str, heap_mb: int, options: Sequence[str] = ()) -> Sequence[str]:
    """Return the command that runs a class of the jars, which are fetched if they are not there."""
    opened = [word for module in OPENED for word in ("--add-opens", f"{module}=ALL-UNNAMED")]
    return [
        *("java", f"-Xmx{heap_mb}m", f"-XX:MaxDirectMemorySize={heap_mb}m", *opened),
        "-Dio.netty.tryReflectionSetAccessible=true",
        f"-Dlog4j.configurationFile={HERE / 'log4j2.xml'}",
        *options,
        *("-cp", f"{fetch_jars()}/*", main, *arguments),
    ]


def broker_conf(changes: Mapping[str, object]) -> str:
    """Return a broker's configuration: standalone.conf, less what is changed, and that."""
    settings: dict[str, object] = {}
    for line in (HERE / "standalone.conf").read_text().splitlines():
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
