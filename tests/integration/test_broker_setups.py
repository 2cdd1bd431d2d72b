"""The relay on brokers that are set up in other ways than ours."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import orjson
import pytest

from postroom.errors import ConfigurationError
from postroom.relay.relay import Relay
from postroom.routing import Routing
from tests.conftest import addresses
from tests.relays import relaying, saved
from tests.site import Site
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devstack.brokers import Pulsar

pytestmark = pytest.mark.pulsar


def topics_on(server: Pulsar) -> set[str]:
    """Return the names of all topics of the default namespace, partitioned ones as one."""
    names = set()
    for kind in ("", "/partitioned"):
        address = f"{server.admin_url}/admin/v2/persistent/public/default{kind}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            names |= set(orjson.loads(answer.read()))
    return {name.rpartition("/")[2] for name in names}


def test_a_broker_that_makes_topics_partitioned_by_itself(
    new_pulsar: Callable[..., Pulsar],
    environment: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it can do is seen rightly, nothing is left behind, and one relay holds the mutex."""
    server = new_pulsar(
        conf={"allowAutoTopicCreationType": "partitioned", "defaultNumPartitions": 4}
    )
    site = Site({**environment, **addresses(server)}, tmp_path)
    try:
        settings = site.settings(delivery="exactly_once")
        refused = Relay(settings, Routing(default=settings.topic, topics={}, key=None))
        with pytest.raises(ConfigurationError, match=f"pulsar-admin topics create {site.topic}"):
            refused.run()
        site.admin("DELETE", "/partitions?force=true")
        site.admin("PUT", "")
        with relaying(site, delivery="exactly_once"):
            written = site.insert(10)
            saved(site, 10)
            with relaying(site, wait=False, delivery="exactly_once") as standby:
                wait_until(lambda: "standing by" in standby.status.reason, description="standby")
        assert site.stored() == written
        assert not [name for name in topics_on(server) if "probe" in name]
    finally:
        site.close()
    assert "lacks" not in caplog.text


def test_nothing_is_left_of_what_was_tried_at_the_start(pulsar_site: Site) -> None:
    """A consumer of a pattern would find it."""
    address = f"{pulsar_site.environment['POSTROOM_PULSAR_ADMIN_URL']}/admin/v2/persistent"

    def topics() -> set[str]:
        with urllib.request.urlopen(f"{address}/public/default", timeout=10) as answer:
            return set(json.load(answer))

    before = topics()  # of a relay that was killed while it tried
    with relaying(pulsar_site):
        pass
    assert not any("probe" in each for each in topics() - before)
