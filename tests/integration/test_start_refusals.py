"""A relay whose broker does not let it begin: it says what, where, and what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from devstack.service import free_port
from postroom import broker
from postroom.relay import facts, stand
from postroom.relay.state import State
from postroom.store.values import OutboxPartition
from tests.conftest import addresses
from tests.relays import relaying, sharing
from tests.site import Site, ids
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from devstack.brokers import Pulsar
    from postroom.relay.relay import Relay
    from postroom.relay.sharing.pool import Pool

pytestmark = pytest.mark.pulsar


def says(relay: Relay, *words: str) -> None:
    """Wait until a relay's status has all these words."""
    wait_until(
        lambda: all(word in relay.status.reason for word in words),
        description=f"{words}, not {relay.status.reason!r}",
        seconds=15,
    )


@pytest.mark.parametrize("namespace", ["public/nowhere", "nobody/default"])
def test_a_namespace_or_tenant_that_is_missing(pulsar_site: Site, namespace: str) -> None:
    """It is named by the topic in it, with what was tried."""
    mutex = f"{namespace}/mutex"
    with relaying(pulsar_site, wait=False, mutex_topic=mutex) as relay:
        says(relay, f"persistent://{mutex}", "namespace")


NOT_LET_IN: dict[str, Callable[[], dict[str, str]]] = {
    "Pulsar is away": lambda: {"pulsar_url": f"pulsar://127.0.0.1:{free_port()}"},
    "the mutex topic is refused": lambda: {"mutex_topic": "public/no-such-namespace/mutex"},
}


@pytest.mark.parametrize("why", NOT_LET_IN)
@pytest.mark.parametrize("way", [relaying, sharing])
def test_who_is_not_let_in_stands_by_for_nobody(
    pulsar_site: Site, way: Callable[..., AbstractContextManager[object]], why: str
) -> None:
    """A rollout waits until a new relay stands by, and ends those that work then."""
    told: list[object] = []
    wait = {"wait": False} if way is relaying else {}
    with way(pulsar_site, hear=told.append, **wait, **NOT_LET_IN[why]()):

        def states() -> list[State]:
            return [fact.state for fact in list(told) if isinstance(fact, facts.StateEntered)]

        def failures() -> int:
            return sum(isinstance(f, facts.StateEntered) and bool(f.reason) for f in list(told))

        least = 2 if way is relaying else 5  # four relays share
        wait_until(lambda: failures() >= least, description="it has tried again")
        assert set(states()) == {State.WAITING}


@pytest.mark.parametrize("share", [2, 1])
def test_who_shares_stands_by_once_it_was_let_in(pulsar_site: Site, share: int) -> None:
    """Where it has room and others have all, and where it has no room."""
    site, pins = pulsar_site, frozenset({OutboxPartition("default-0")})
    with sharing(site, 2, relay_share=share) as first:

        def states(pool: Pool) -> list[State]:
            return sorted((r.status.state for r in pool.relays), key=lambda state: state.value)

        well = [State.RELAYING, State.RELAYING if share == 2 else State.STANDBY]
        wait_until(lambda: states(first) == well, description="its share")
        with sharing(site, 2, pins=pins) as second:
            both = [State.RELAYING, State.STANDBY]
            wait_until(lambda: states(second) == both, description="what it is pinned to")
            wait_until(lambda: states(first) == both, description="the rest")


def test_topics_are_not_made_by_themselves(
    new_pulsar: Callable[..., Pulsar],
    environment: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The mutex topic, then the events' one: each is named, and once it is there all goes on."""
    server = new_pulsar(conf={"allowAutoTopicCreation": False})
    site = Site({**environment, **addresses(server)}, tmp_path)
    try:
        with relaying(site, wait=False) as relay:
            says(relay, f"{site.topic}-mutex", "TopicNotFound", "create it")
            assert f"pulsar-admin topics create {site.topic}" in caplog.text
            site.admin("PUT", "", topic=f"{site.topic}-mutex")
            wait_until(lambda: relay.status.state is State.RELAYING, description="a term")
            site.admin("PUT", "")
            plain, written = site.subscribe(), site.insert(3)
            assert ids(site.receive(plain, 3)) == written
    finally:
        site.close()
    assert "Traceback" not in caplog.text
    assert "does not answer" not in caplog.text


def test_subscriptions_are_not_made_by_themselves(
    new_pulsar: Callable[..., Pulsar],
    environment: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker does not answer then: each is named, and those of consumers hold up nothing."""
    monkeypatch.setattr(stand, "OPERATION_TIMEOUT", timedelta(seconds=1))
    server = new_pulsar(conf={"allowAutoSubscriptionCreation": False})
    site = Site({**environment, **addresses(server)}, tmp_path)
    try:
        with relaying(site, wait=False) as relay:
            mutex = f"{site.topic}-mutex"
            says(relay, f"pulsar-admin topics create-subscription {mutex} -s mutex")
            site.admin("PUT", "/subscription/mutex", topic=mutex)
            written = site.insert(3)
            wait_until(lambda: site.stored() == written, description="it relays")
            assert f"create-subscription {site.topic} -s plain" in caplog.text
            assert f"create-subscription {site.topic} -s postroom-relay-default" in caplog.text
    finally:
        site.close()
    assert "Traceback" not in caplog.text


def test_a_namespace_that_takes_no_further_topic(policies_site: Site) -> None:
    """What is there already is relayed to; that nothing could be tried there is said."""
    site, namespace = policies_site, "public/full"
    topic, mutex = f"{namespace}/{site.name}", f"{namespace}/{site.name}-mutex"
    site.admin_namespace(namespace, "maxTopicsPerNamespace", 1)
    site.subscribe(topic=topic)
    with relaying(site, wait=False, topic=topic, mutex_topic=mutex) as relay:
        says(relay, broker.canonical(mutex), "NotAllowed")
        site.admin_namespace(namespace, "maxTopicsPerNamespace", 9)
        wait_until(lambda: relay.status.state is State.RELAYING, description="a term")


MISHAPS: dict[str, Callable[[Site, str], Any]] = {
    "terminated": lambda site, mutex: site.admin("POST", "/terminate", topic=mutex),
    "deleted": lambda site, mutex: site.admin("DELETE", "?force=true", topic=mutex),
    "unloaded": lambda site, mutex: site.admin("PUT", "/unload", topic=mutex),
}


@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_mutex_topic_to_which_something_happens_while_it_is_held(
    pulsar_site: Site, caplog: pytest.LogCaptureFixture, mishap: str
) -> None:
    """Nothing is lost or sent twice, one of the two relays goes on, and no traceback is seen."""
    site, mutex = pulsar_site, f"{pulsar_site.topic}-mutex"
    plain = site.subscribe()
    with relaying(site), relaying(site, wait=False) as standby:
        says(standby, "standing by")
        written = site.insert(20)
        assert ids(site.receive(plain, 20)) == written
        MISHAPS[mishap](site, mutex)
        written = site.insert(20, first=20)
        assert ids(site.receive(plain, 20)) == written
    with relaying(site):
        written = site.insert(20, first=40)
        assert ids(site.receive(plain, 20)) == written
    assert "Traceback" not in caplog.text
