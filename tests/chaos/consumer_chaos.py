"""Two consumer workers under disturbances: what they did is compared with what was sent."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chaos import disturbances
from tests.chaos.accounts import Accounts
from tests.chaos.consumer_judge import Applied, ConsumerVerdict, judge_consumers
from tests.chaos.fleet import Fleet
from tests.chaos.handling.failing import CRASH_CODE
from tests.chaos.handling.notes import APPLIED, OWN
from tests.chaos.letter_policies import of_letters
from tests.chaos.outcome import Outcome
from tests.chaos.sender import Sender
from tests.chaos.tail import ChangeTail
from tests.chaos.torment import Disturbance, Torment
from tests.chaos.witness import Witness
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.chaos.scenario import Scenario
    from tests.chaos.services import Services

__all__ = ["ConsumerChaos"]

SUBSCRIPTION = OWN
AUDITORS = "audit"
# Longer than the dead letters and the acknowledgements in flight may take.
OUTAGE_SECONDS = 8.0
BURST = 200
SETTLING = Disturbance(name="the end", act=lambda: None, seconds=60)


@dataclass(kw_only=True)
class ConsumerChaos:
    """One run; everything that is random comes from the scenario's seed.

    `only` names the disturbances that are left; without it, all that the scenario has.
    """

    scenario: Scenario
    services: Services
    name: str
    seconds: float
    logs: Path
    only: Sequence[str] = ()
    say: Callable[[str], None] = print

    def run(self) -> Outcome[ConsumerVerdict]:
        """Send and disturb for `seconds`, let it settle, and judge."""
        self._dice = random.Random(self.scenario.seed)
        environment = dict(self.services.environment(self.name))
        base = environment["POSTROOM_TOPIC"]
        self._topics = [f"{base}-{letter}" for letter in "abc"]
        accounts = Accounts(lambda: accounts.count)
        self._tail = ChangeTail(
            environment["POSTROOM_MONGODB_URI"],
            self.name,
            [APPLIED],
            lambda _, row: accounts.arrived([row["event"]] if row["handler"] == "main" else []),
        )
        url = self.services.pulsar.url
        self._letters = [f"{topic}-{SUBSCRIPTION}-DLQ" for topic in self._topics]
        parked = Witness(url, self._letters, accounts.arrived, self.logs)
        if self.scenario.partitions:
            for topic in self._topics:
                self.services.admin("PUT", topic, "partitions", self.scenario.partitions)
        sender = Sender(
            url,
            self._topics,
            accounts,
            seed=self.scenario.seed,
            mixes_keys=self.scenario.failover,
        )
        topics = [f"re:persistent://{base}-[a-c]"] if self.scenario.pattern else self._topics
        self._subscriptions = [SUBSCRIPTION, AUDITORS][: self.scenario.subscriptions]
        environment["CHAOS_CONSUME"] = json.dumps(dict.fromkeys(self._subscriptions, topics))
        environment["CHAOS_AUDITORS"] = self._subscriptions[-1]
        environment["CHAOS_GROUP"] = str(self.scenario.group)
        kind = "failover" if self.scenario.failover else "key_shared"
        environment["POSTROOM_SUBSCRIPTION_TYPE"] = kind
        fleet = Fleet("tests.chaos.consumers", "consumer", environment, self.logs)
        fleet.expected.add(CRASH_CODE)
        try:
            fleet.start(2)
            return self._run(fleet, sender, accounts, parked)
        finally:
            fleet.end_all()
            for part in (sender, parked, self._tail):
                part.close()

    def _run(
        self, fleet: Fleet, sender: Sender, accounts: Accounts, parked: Witness
    ) -> Outcome[ConsumerVerdict]:
        torment = Torment(
            dice=self._dice,
            disturbances=self._disturbances(fleet, sender),
            progress=accounts,
            look_after=fleet.look_after,
            say=self.say,
        )
        torment.rest([SETTLING])  # they have started
        torment.run(self.seconds)
        sender.close()
        torment.rest([SETTLING])
        self.say("All is sent; the subscriptions are looked at")
        self._empty_soon()
        parked.close()
        self._tail.require_sound()
        letters = [event for events in parked.events.values() for event in events]
        verdict = judge_consumers(
            sender.sent, Applied.read(self._tail.database), letters, backlog=self._backlog()
        )
        return Outcome.of(verdict, torment, fleet)

    def _disturbances(self, fleet: Fleet, sender: Sender) -> Sequence[Disturbance]:
        services, dice = self.services, self._dice

        def burst_while_frozen() -> None:
            sender.burst(BURST, large=True)
            disturbances.pause(dice.uniform(0.0, 1.0))
            next(d for d in of_brokers if d.name == "broker freeze").act()

        def crash() -> None:
            sender.crash()
            for _ in range(20):
                disturbances.pause(0.5)
                fleet.look_after()

        of_brokers = disturbances.of_brokers(
            services, dice, topics=self._topics, outage_seconds=OUTAGE_SECONDS
        )
        found = [
            *disturbances.of_workers(fleet, dice),
            *disturbances.of_mongodb(services, dice),
            *of_brokers,
            *disturbances.of_redis(services, dice),
            Disturbance(name="burst", act=lambda: sender.burst(BURST), seconds=20, weight=2),
            Disturbance(
                name="burst with a large one",
                act=lambda: sender.burst(BURST, large=True),
                seconds=30,
                weight=2,
            ),
            Disturbance(name="burst, freeze", act=burst_while_frozen, seconds=45, weight=2),
            Disturbance(name="crash", act=crash, seconds=40, weight=3),
        ]
        if self.scenario.topic_policies:
            found += of_letters(services, dice, self._letters)
        return [d for d in found if not self.only or d.name in self.only]

    def _empty_soon(self) -> None:
        """Wait until the subscriptions are, or it is clear that they will not be."""
        try:
            wait_until(lambda: not self._backlog(), description="nothing is unacknowledged")
        except AssertionError as error:
            self.say(str(error))

    def _backlog(self) -> int:
        kind = "partitioned-stats" if self.scenario.partitions else "stats"
        found = 0
        for topic in self._topics:
            stats: Any = json.loads(
                self.services.admin("GET", topic, f"{kind}?getPreciseBacklog=true")
            )
            for name in self._subscriptions:
                found += int(stats["subscriptions"][name]["msgBacklog"])
        return found
