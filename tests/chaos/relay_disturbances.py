"""What is done to relays alone: deploys with another routing, policies, a lost history."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from tests.chaos.disturbances import pause
from tests.chaos.torment import Disturbance
from tests.chaos.writers import NAMES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from pymongo import MongoClient

    from tests.chaos.fleet import Fleet
    from tests.chaos.ledger import Ledger
    from tests.chaos.services import Services
    from tests.chaos.writers import Writers

__all__ = ["of_comings", "of_deploys", "of_history", "of_policies", "topics_of"]

POLICY_BYTES = 15_000
# What a topic may be told for a while: a name, a value, how often it is drawn. What it makes
# the broker refuse is to wait, or to be set aside, and nothing is to overtake it.
POLICIES: Sequence[tuple[str, str, object, int]] = (
    ("small messages only", "maxMessageSize", POLICY_BYTES, 4),
    (
        "low rate",
        "publishRate",
        {"publishThrottlingRateInMsg": 300, "publishThrottlingRateInByte": -1},
        1,
    ),
    (
        "short delays only",
        "delayedDelivery",
        {"active": True, "tickTime": 1000, "maxDeliveryDelayInMillis": 1000},
        2,
    ),
    (
        "small quota",
        "backlogQuota",
        {"limitSize": 20_000, "policy": "producer_exception"},
        2,
    ),
    (
        "small quota, hold",
        "backlogQuota",
        {"limitSize": 20_000, "policy": "producer_request_hold"},
        1,
    ),
    ("one producer", "maxProducers", 1, 1),
    ("one consumer", "maxConsumers", 1, 1),
    ("one subscription", "maxSubscriptionsPerTopic", 1, 1),
    ("schemas enforced", "schemaValidationEnforced", True, 1),
)
AGAINST_SUBSCRIPTIONS = ("backlogQuota", "maxConsumers", "maxSubscriptionsPerTopic")
# A topic that cannot be opened is looked at again after up to half a minute.
POLICY_SECONDS = 60.0


def topics_of(topic: str) -> Sequence[str]:
    """Return all topics that events are ever routed to, the default one first."""
    return [topic, f"{topic}-b", f"{topic}-c"]


def of_deploys(fleet: Fleet, dice: random.Random, topics: Sequence[str]) -> Sequence[Disturbance]:
    """Start relays again, one after the other, with another routing."""

    def deploy() -> None:
        routing = {name: dice.choice(topics) for name in NAMES if dice.random() < 0.7}
        fleet.environment["CHAOS_TOPICS"] = json.dumps(routing)
        for n in range(len(fleet)):
            fleet.end(n, dice.choice([signal.SIGKILL, signal.SIGTERM]))
            pause(dice.uniform(0.0, 4.0))

    return [Disturbance(name="deploy", act=deploy, seconds=20, weight=4)]


def of_comings(fleet: Fleet, dice: random.Random) -> Sequence[Disturbance]:
    """Have workers join and leave, and all of them start anew one by one: shares move."""

    def join() -> None:
        fleet.start(len(fleet) + 1)
        pause(dice.uniform(0.0, 8.0))
        fleet.leave(dice.randrange(len(fleet)), dice.choice([signal.SIGTERM, signal.SIGKILL]))

    def leave() -> None:
        count = len(fleet)
        fleet.leave(dice.randrange(count), dice.choice([signal.SIGTERM, signal.SIGKILL]))
        pause(dice.uniform(0.0, 8.0))
        fleet.start(count)

    def roll() -> None:
        for n in range(len(fleet)):
            fleet.end(n, signal.SIGTERM)
            pause(dice.uniform(0.5, 4.0))

    return [
        Disturbance(name="worker joins", act=join, seconds=15, weight=3),
        Disturbance(name="worker leaves", act=leave, seconds=15, weight=3),
        Disturbance(name="rolling restart", act=roll, seconds=15, weight=2),
    ]


def of_policies(
    services: Services, dice: random.Random, topics: Sequence[str], *, keeps: bool
) -> Sequence[Disturbance]:
    """Have a topic refuse what is large, or late, or take little, or nobody, for a while.

    Where topics keep nothing they keep the relay's own subscription, or it says that it may repeat.
    """

    def with_policy(name: str, value: object) -> Callable[[], None]:
        def act() -> None:
            topic = dice.choice(topics)
            services.admin("POST", topic, name, value)
            pause(dice.uniform(1.0, 10.0))
            if value is True:
                services.admin("POST", topic, name, False)  # noqa: FBT003 - what is sent
            else:
                services.admin("DELETE", topic, name)

        return act

    return [
        Disturbance(name=title, act=with_policy(name, value), seconds=POLICY_SECONDS, weight=weight)
        for title, name, value, weight in POLICIES
        if keeps or name not in AGAINST_SUBSCRIPTIONS
    ]


def of_history(
    fleet: Fleet, writers: Writers, ledger: Ledger, client: MongoClient[Any]
) -> Sequence[Disturbance]:
    """Have the oplog forget where the relays were, while there is none, but not where we are."""

    def forgotten() -> bool:
        rows = list(client[ledger.database]["__outboxConsumers"].find({}))
        oldest = client["local"]["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)]) or {}
        times = [row["clusterTime"] for row in rows if "clusterTime" in row]
        return len(times) == len(rows) > 0 and oldest["ts"] > max(times)

    def lose() -> None:
        count = len(fleet)
        fleet.end_all()
        writers.roll_over(forgotten, keep_up=ledger.mark)
        fleet.start(count)

    return [Disturbance(name="lost history", act=lose, seconds=45, weight=2)]
