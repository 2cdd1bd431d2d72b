"""The pytest plugin: fixtures that come by themselves where postroom is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.settings import Settings
    from postroom.testing.recorder import OutboxRecorder
    from postroom.testing.site import OutboxSite, SharedClients

__all__ = ["outbox_recorder", "outbox_routing", "outbox_services", "outbox_site"]


@pytest.fixture
def outbox_recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[OutboxRecorder]:
    """Lend databases in memory, and what was published there; no server is needed."""
    # Imported here: a test run that uses none of this should not pay for it.
    from postroom.testing.active import recording

    # How many there are would be asked of a server.
    monkeypatch.setenv("POSTROOM_PARTITIONS", "1")
    with recording() as recorder:
        yield recorder


@pytest.fixture(scope="session")
def outbox_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the variables that lead to MongoDB, a broker and Valkey.

    What POSTROOM_MONGODB_URI, POSTROOM_PULSAR_URL and POSTROOM_REDIS_URL name is used; the rest is
    started from the wheels of postroom[testing], once for a process of xdist.
    """
    from postroom.testing.servers import serving

    given = {name: value for name, value in os.environ.items() if name.startswith("POSTROOM_")}
    with serving(tmp_path_factory.mktemp("postroom"), given) as started:
        yield {**given, **started}


@pytest.fixture(scope="session")
def outbox_routing() -> Any:
    """Say where events go and who reads them; a conftest.py may say it otherwise.

    By `Wired(topics=…, key=…, consume=…)`, or by what install() has returned (`app.postroom`).
    """
    from postroom.testing.wired import Wired

    return Wired()


@pytest.fixture(scope="session")
def _outbox_clients(outbox_services: dict[str, str]) -> Iterator[SharedClients]:
    from postroom.testing.site import names_of, sharing

    with pytest.MonkeyPatch.context() as patch:
        settings = _settings(names_of(outbox_services), patch)
    with sharing(settings) as clients:
        yield clients


@pytest.fixture
def outbox_site(
    outbox_services: dict[str, str],
    _outbox_clients: SharedClients,
    outbox_routing: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OutboxSite]:
    """Lend a database and topics that no other test has, on the real services."""
    from postroom.testing.site import OutboxSite, names_of
    from postroom.testing.wired import Wired, Wiring

    environment = names_of(outbox_services)
    settings = _settings(environment, monkeypatch)
    installed = getattr(outbox_routing, "settings", settings)
    wiring = Wiring(
        Wired.of(outbox_routing),
        settings,
        default=installed.topic,
        own=settings.mongodb_database,
    )
    site = OutboxSite(_outbox_clients, settings, wiring, environment)
    yield site
    site.close()


def _settings(environment: dict[str, str], patch: pytest.MonkeyPatch) -> Settings:
    from postroom.settings import load

    for name, value in environment.items():
        patch.setenv(name, value)
    return load()
