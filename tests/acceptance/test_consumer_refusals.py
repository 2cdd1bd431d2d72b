"""What Pulsar refuses a consumer is said: what, which topic, which subscription, what to do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from devstack.jars import NEEDED, has_java
from devstack.service import free_port
from tests.certificates import Authority
from tests.secured_pulsar import SecuredPulsar, token
from tests.shops import Shop
from tests.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devstack.brokers import Pulsar

pytestmark = pytest.mark.pulsar

REQUIRE_ALL = os.environ.get("POSTROOM_REQUIRE_ALL") == "1"


@pytest.fixture
def secured_pulsar(tmp_path: Path) -> Iterator[SecuredPulsar]:
    """Lend a broker on which nobody but its superuser may do anything."""
    if not has_java():
        pytest.fail(NEEDED) if REQUIRE_ALL else pytest.skip(NEEDED)
    found = SecuredPulsar(tmp_path / "secured", Authority(tmp_path / "authority"), port=free_port())
    found.start()
    found.wait_ready()
    yield found
    found.stop()


def test_a_right_that_is_missing_is_named(
    secured_pulsar: SecuredPulsar, environment: dict[str, str], tmp_path: Path
) -> None:
    """Topics that may be read are read; who may not do what, and where, is said once."""
    site = Site({**environment, **secured_pulsar.environment_of_superuser}, tmp_path)
    try:
        shop = Shop(site)
        closed = f"{site.topic}-closed"
        for topic in (site.topic, f"{site.topic}-test-REDRIVE"):
            site.pulsar.create_producer(topic).close()
            secured_pulsar.grant("worker", ["consume"], on=topic.replace("://", "/"))
        worker = shop.worker(
            SHOP_TOPICS=f"{site.topic} {closed}", POSTROOM_PULSAR_TOKEN=token("worker")
        )
        shop.send("Rejected", 0, key="a")
        shop.send("Counted", 1, key="b")
        assert shop.wait_for(1) == [1]
        worker.wait_for(f"The topic {closed} is not read for the subscription 'test'")
        said = f"the token of POSTROOM_PULSAR_TOKEN for 'worker' may not consume {closed}"
        worker.wait_for(said)
        wait_until(lambda: f"{site.topic}-test-DLQ" in shop.troubles(), description="both are said")
        assert "may not consume" in shop.troubles()
        shop.producer = site.pulsar.create_producer(closed)
        shop.send("Counted", 2)
        secured_pulsar.grant("worker", ["consume", "produce"], on="namespaces/public/default")
        assert sorted(shop.wait_for(2)) == [1, 2]
        wait_until(lambda: shop.status()["dead_letters"] == 1, description="it is kept", seconds=90)
        assert worker.text().count(said) == 1
        shop.worker(SHOP_TOPICS=f"re:{closed}.*", POSTROOM_PULSAR_TOKEN=token("worker"))
        path = f"{closed.replace('://', '/')}/stats"

        def consumers() -> int:
            stats = json.loads(secured_pulsar.admin("GET", path))
            return len(stats["subscriptions"]["test"]["consumers"])

        wait_until(lambda: consumers() == 2, description="a pattern finds it")
    finally:
        site.close()


def test_a_broker_that_goes_away_is_said_once_and_read_again(
    new_pulsar: Callable[..., Pulsar], environment: dict[str, str], tmp_path: Path
) -> None:
    """Each topic is named once, not with every attempt; nothing has to be started again."""
    server = new_pulsar()
    where = {"POSTROOM_PULSAR_URL": server.url, "POSTROOM_PULSAR_ADMIN_URL": server.admin_url}
    site = Site({**environment, **where}, tmp_path)
    try:
        shop = Shop(site)
        other = f"{site.topic}-other"
        worker = shop.worker(SHOP_TOPICS=f"{site.topic} {other}")
        shop.send("Counted", 1)
        shop.wait_for(1)
        server.stop()
        for topic in (site.topic, other):
            worker.wait_for(f"The topic {topic} is not read for the subscription 'test'")
        wait_until(lambda: shop.status()["state"] == "waiting", description="nothing is read")
        wait_until(lambda: "nothing listens there" in shop.troubles(), description="it says why")
        server.start()
        server.wait_ready()
        worker.wait_for(f"The topic {other} is read for the subscription 'test'", seconds=60)
        shop.producer = site.pulsar.create_producer(other)
        shop.send("Counted", 2)
        assert shop.wait_for(2) == [1, 2]
        assert worker.text().count(f"The topic {other} is not read") == 1
        wait_until(lambda: shop.status()["state"] == "consuming", description="all is well")
        assert worker.stop() == 0
    finally:
        site.close()


def test_a_topic_that_nobody_makes_is_named(pulsar_site: Site) -> None:
    """Where topics are made by hand the missing one is waited for, and others are read."""
    shop = Shop(pulsar_site)
    namespace = f"public/{pulsar_site.name}"
    pulsar_site.admin_namespace(namespace, "autoTopicCreation", {"allowAutoTopicCreation": False})
    missing = f"persistent://{namespace}/missing"
    worker = shop.worker(SHOP_TOPICS=f"{pulsar_site.topic} {missing}")
    shop.send("Counted", 1)
    assert shop.wait_for(1) == [1]
    worker.wait_for(f"The topic {missing} is not read for the subscription 'test' (TopicNotFound")
    pulsar_site.admin("PUT", "", topic=missing)
    shop.producer = pulsar_site.pulsar.create_producer(missing)
    shop.send("Counted", 2)
    assert shop.wait_for(2) == [1, 2]


def test_a_terminated_topic_is_read_to_its_end(pulsar_site: Site) -> None:
    """That nothing more comes is no failure."""
    shop = Shop(pulsar_site)
    for number in range(3):
        shop.send("Counted", number, key="k")
    pulsar_site.admin("POST", "/terminate")
    shop.worker()
    assert shop.wait_for(3) == [0, 1, 2]
    assert shop.status()["state"] == "consuming"
