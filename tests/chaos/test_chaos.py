"""A minute of chaos with each kind of worker; `make chaos` runs longer ones."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from devstack.jars import has_java
from devstack.stack import Stack
from tests.chaos.consumer_chaos import ConsumerChaos
from tests.chaos.relay_chaos import RelayChaos, judge
from tests.conftest import REQUIRE_ALL
from tests.namespaces import UNDEDUPLICATED, make_undeduplicated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.pulsar, pytest.mark.chaos, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Lend services that may be killed."""
    if not has_java():
        reason = "Apache Pulsar needs Java 17 or later and Maven"
        pytest.fail(reason) if REQUIRE_ALL else pytest.skip(reason)
    found = Stack(tmp_path_factory.mktemp("chaos"), real_pulsar=True, given={}, usual_ports=False)
    found.start()
    yield found
    found.stop()


def environment(stack: Stack, name: str) -> dict[str, str]:
    """Return the variables of one run."""
    return {
        **stack.environment,
        "POSTROOM_MONGODB_DATABASE": name,
        "POSTROOM_TOPIC": f"public/default/{name}",
        "POSTROOM_MUTEX_TOPIC": f"public/default/{name}-mutex",
        "POSTROOM_MUTEX_RETRY_SECONDS": "0.3",
    }


def test_relays_lose_repeat_and_reorder_nothing(stack: Stack, tmp_path: Path) -> None:
    """Two relays, killed, stopped and frozen, with the broker and MongoDB killed as well."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    verdict = RelayChaos(
        environment=environment(stack, f"relays{seed}"),
        seconds=60,
        seed=seed,
        logs=tmp_path,
        services={service.name: service for service in stack.services},
    ).run()
    assert verdict.clean, str(verdict)
    assert verdict.written > 1000
    assert verdict.actions["kills of both in the first start"]


def test_relays_without_the_tail_repeat(stack: Stack, tmp_path: Path) -> None:
    """The same driver sees duplicates where the tail is switched off: it can fail."""
    assert stack.broker is not None
    assert stack.broker.admin_url is not None
    make_undeduplicated(stack.broker.admin_url)
    found = environment(stack, "tailless")
    verdict = RelayChaos(
        environment={**found, "POSTROOM_TOPIC": f"{UNDEDUPLICATED}/tailless"},
        seconds=8,
        seed=1,
        logs=tmp_path,
        application="tests.tailless",
        only_kills=True,
        backlog=0,
    ).run()
    assert verdict.duplicated > 0, str(verdict)
    assert not verdict.lost, str(verdict)


def test_consumers_apply_everything_once_in_order(stack: Stack, tmp_path: Path) -> None:
    """Two consumers, killed, stopped and frozen, with the broker and MongoDB killed as well."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    verdict = ConsumerChaos(
        environment=environment(stack, f"consumers{seed}"),
        seconds=30,
        seed=seed,
        logs=tmp_path,
        services={service.name: service for service in stack.services},
    ).run()
    assert verdict.clean, str(verdict)


def test_the_judge_sees_what_is_wrong() -> None:
    """Lost, doubled and reordered events are counted; a driver that cannot fail proves nothing."""
    assert judge("abcd", "abcd", {}).clean
    assert judge("abcd", "abd", {}).lost == 1
    assert judge("abcd", "abbcd", {}).duplicated == 1
    assert judge("abcd", "acbd", {}).out_of_order == 1
