"""Rights that a relay lacks, or loses while it runs, on real Pulsar that looks them up."""

from __future__ import annotations

import contextlib
import urllib.error
from typing import TYPE_CHECKING

import pytest

from devstack.jars import NEEDED, has_java
from devstack.service import free_port
from postroom import wire
from tests.certificates import Authority
from tests.conftest import REQUIRE_ALL
from tests.relays import relaying, saved
from tests.secured_pulsar import SecuredPulsar, token
from tests.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ROLE = "relay"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredPulsar]:
    """Lend a broker where nobody but the superuser may do anything."""
    if not has_java():
        pytest.fail(NEEDED) if REQUIRE_ALL else pytest.skip(NEEDED)
    folder = tmp_path_factory.mktemp("rights")
    found = SecuredPulsar(folder, Authority(folder / "certificates"), port=free_port())
    found.start()
    found.wait_ready()
    yield found
    found.stop()


@pytest.fixture
def site(server: SecuredPulsar, environment: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """Lend a corner of it, as the superuser sees it."""
    found = Site({**environment, **server.environment_of_superuser}, tmp_path)
    yield found
    found.close()


def path(topic: str) -> str:
    """Return a topic's path in the admin interface."""
    return topic.replace("://", "/")


def grant(server: SecuredPulsar, site: Site, topics: Sequence[str]) -> None:
    """Make topics, and let the relay use them, its mutex and its probe."""
    beside = [f"{site.topic}-mutex", "persistent://public/default/postroom-probe"]
    for topic in [*topics, *beside]:
        with contextlib.suppress(urllib.error.HTTPError):  # it is there already
            server.admin("PUT", path(topic))
        server.grant(ROLE, ["produce", "consume"], on=path(topic))


@pytest.mark.parametrize("left", [[], ["consume"], ["produce"]])
def test_a_topic_whose_right_is_taken_away_waits_alone_and_goes_on_when_it_is_back(
    server: SecuredPulsar, site: Site, left: list[str]
) -> None:
    """The topic is unloaded in between, so that the broker looks again."""
    second = f"{site.topic}-second"
    grant(server, site, [site.topic, second])
    site.subscribe(topic=site.topic).close()
    with relaying(site, topics={"B*": second}, pulsar_token=token(ROLE)) as relay:
        first, written = site.insert(5, name="B"), site.insert(5)
        saved(site, 10)
        server.admin("DELETE", f"{path(second)}/permissions/{ROLE}")
        if left:
            server.grant(ROLE, left, on=path(second))
        server.admin("PUT", f"{path(second)}/unload")
        first += site.insert(5, name="B")
        written += site.insert(5)
        saved(site, 20)
        assert site.stored() == written
        found = list(site.database[wire.QUARANTINE].find())
        assert {each["topic"] for each in found} == {second}
        assert all("the right" in each["reason"] and second in each["reason"] for each in found)
        shut = relay.status.topics_shut[second]
        assert "grant it the right" in shut or "grant it `produce` and `consume`" in shut
        server.grant(ROLE, ["produce", "consume"], on=path(second))
        wait_until(
            lambda: not site.database[wire.QUARANTINE].count_documents({}),
            description="all have returned",
            seconds=60,
        )
        wait_until(lambda: site.stored(second) == first, description="all are there")
