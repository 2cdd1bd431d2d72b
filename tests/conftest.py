"""Services for the tests: embedded ones for the session, a corner of them for each test."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from devstack.brokers import Pulsar, has_java
from devstack.service import free_port
from devstack.stack import Stack
from tests.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUIRE_ALL = os.environ.get("POSTROOM_REQUIRE_ALL") == "1"
REDIS_DATABASES = 16


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> None:
    """Keep the developer's own POSTROOM_* out of the tests."""
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        if name != "POSTROOM_REQUIRE_ALL":
            del os.environ[name]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the session's services."""
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="session")
def stack(folder: Path) -> Iterator[Stack]:
    """Lend MongoDB, the compatible broker and Valkey."""
    found = Stack(folder, given={}, usual_ports=False)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="session")
def pulsar_server(folder: Path) -> Iterator[Pulsar]:
    """Lend real Apache Pulsar, or skip where it cannot run."""
    if not has_java():
        reason = "Apache Pulsar needs Java 17 or later and Maven"
        pytest.fail(reason) if REQUIRE_ALL else pytest.skip(reason)
    server = Pulsar(folder, port=free_port())
    server.start()
    server.wait_ready()
    yield server
    server.stop()


_redis_database = itertools.cycle(range(1, REDIS_DATABASES))


@pytest.fixture
def environment(stack: Stack) -> dict[str, str]:
    """Return the variables that lead to the session's services, with an own Redis database."""
    found = stack.environment
    address = found["POSTROOM_REDIS_URL"].rpartition("/")[0]
    return {**found, "POSTROOM_REDIS_URL": f"{address}/{next(_redis_database)}"}


@pytest.fixture(params=["lite", pytest.param("pulsar", marks=pytest.mark.pulsar)])
def site(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> Iterator[Site]:
    """Lend a corner of the services, once with each broker."""
    if request.param == "pulsar":
        environment = _with_pulsar(request, environment)
    found = Site(environment, tmp_path)
    yield found
    found.close()


@pytest.fixture
def pulsar_site(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path: Path
) -> Iterator[Site]:
    """Lend a corner of the services with real Apache Pulsar."""
    found = Site(_with_pulsar(request, environment), tmp_path)
    yield found
    found.close()


@pytest.fixture
def lite_site(environment: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """Lend a corner of the services with the compatible broker."""
    found = Site(environment, tmp_path)
    yield found
    found.close()


def _with_pulsar(request: pytest.FixtureRequest, environment: dict[str, str]) -> dict[str, str]:
    server: Pulsar = request.getfixturevalue("pulsar_server")
    return {
        **environment,
        "POSTROOM_PULSAR_URL": server.url,
        "POSTROOM_PULSAR_ADMIN_URL": server.admin_url,
    }
