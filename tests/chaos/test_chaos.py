"""A minute of chaos with each kind of worker; `make chaos` runs longer ones, and draws more."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from devstack.jars import NEEDED, has_java
from tests.chaos.consumer_chaos import ConsumerChaos
from tests.chaos.relay_chaos import RelayChaos
from tests.chaos.scenario import Scenario
from tests.chaos.services import Services
from tests.conftest import REQUIRE_ALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.pulsar, pytest.mark.chaos, pytest.mark.timeout(400)]


@contextlib.contextmanager
def running(scenario: Scenario, folder: Path) -> Iterator[Services]:
    """Run the services of a scenario."""
    if not has_java():
        pytest.fail(NEEDED) if REQUIRE_ALL else pytest.skip(NEEDED)
    print(f"seed {scenario.seed}: {scenario}")
    services = Services(scenario, folder)
    try:
        services.start()
        yield services
    finally:
        services.stop()


def test_relays_lose_repeat_and_reorder_nothing(tmp_path: Path) -> None:
    """Three members of MongoDB, policies, deploys, a send timeout shorter than the freezes."""
    scenario = Scenario(
        seed=random.randrange(10**6),
        members=3,
        send_timeout_seconds=3.0,
        topic_policies=True,
        deploys=True,
        early_writers=True,
        backlog=20_000,
    )
    with running(scenario, tmp_path) as services:
        outcome = RelayChaos(
            scenario=scenario, services=services, name="relays", seconds=35, logs=tmp_path
        ).run()
    assert outcome.clean, str(outcome)
    assert outcome.verdict.written > 1000
    assert outcome.actions["kill of all in the first start"]


def test_relays_that_share_lose_repeat_and_reorder_nothing(tmp_path: Path) -> None:
    """Four outbox partitions, three workers that come, go, die, freeze: keys keep their order."""
    scenario = Scenario(seed=random.randrange(10**6), partitions=4, relays=3, backlog=2_000)
    moving = ["worker kill", "worker freeze", "worker joins", "worker leaves", "rolling restart"]
    with running(scenario, tmp_path) as services:
        outcome = RelayChaos(
            scenario=scenario,
            services=services,
            name="sharing",
            seconds=5,
            logs=tmp_path,
            only=moving,
        ).run()
    assert outcome.clean, str(outcome)
    assert outcome.verdict.written > 1000


def require_repeats(
    scenario: Scenario, folder: Path, *, application: str, only: str, seconds: float
) -> None:
    """Torment relays of an application that lacks something: the driver sees what they repeat."""
    with running(scenario, folder) as services:
        outcome = RelayChaos(
            scenario=scenario,
            services=services,
            name=application.rpartition(".")[2],
            seconds=seconds,
            logs=folder,
            application=application,
            only=[only],
        ).run()
    assert outcome.verdict.duplicated > 0, str(outcome)
    assert not outcome.verdict.lost, str(outcome)


def test_relays_without_the_tail_repeat(tmp_path: Path) -> None:
    """The same driver sees duplicates where the tail is switched off: it can fail."""
    scenario = Scenario(seed=1, deduplication=False, backlog=0)
    require_repeats(scenario, tmp_path, application="tests.tailless", only="worker kill", seconds=8)


def test_relays_that_share_without_the_fence_repeat(tmp_path: Path) -> None:
    """The same driver sees what a woken worker sends where nobody was fenced out: it can fail."""
    scenario = Scenario(seed=3, partitions=4, relays=2, deduplication=False, backlog=0)
    require_repeats(
        scenario, tmp_path, application="tests.fenceless", only="worker freeze", seconds=10
    )


def test_consumers_apply_everything_once_in_order(tmp_path: Path) -> None:
    """A pattern of topics, handlers of each kind, bursts of dead letters, Redis in bad states."""
    scenario = Scenario(seed=random.randrange(10**6), pattern=True)
    with running(scenario, tmp_path) as services:
        outcome = ConsumerChaos(
            scenario=scenario, services=services, name="consumers", seconds=25, logs=tmp_path
        ).run()
    assert outcome.clean, str(outcome)
