"""Relays under disturbances: what the topics hold is compared with what was committed."""

from __future__ import annotations

import json
import random
import re
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from tests.chaos import disturbances, relay_disturbances
from tests.chaos.changes import Changes
from tests.chaos.fleet import Fleet
from tests.chaos.judge import Verdict, judge
from tests.chaos.layout import Layout
from tests.chaos.ledger import Ledger
from tests.chaos.outcome import Outcome
from tests.chaos.torment import Disturbance, Torment
from tests.chaos.witness import SUBSCRIPTION, Witness
from tests.chaos.writers import Writers
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.chaos.scenario import Scenario
    from tests.chaos.services import Services

__all__ = ["RelayChaos"]

FIRST_START_SECONDS = 120.0
FIRST_START_KILLS = 2
SCANNED = {"resumeToken": {"$ne": None}, "scan": None}
SCANNING = {"scan": {"$ne": None}, "lanes.0": {"$exists": True}}
# What follows after the last round may take what its backlog takes.
SETTLING = Disturbance(name="the end", act=lambda: None, seconds=45)


@dataclass(kw_only=True)
class RelayChaos:
    """One run; everything that is random comes from the scenario's seed.

    `only` names the disturbances that are left; without it, all that the scenario has.
    """

    scenario: Scenario
    services: Services
    name: str
    seconds: float
    logs: Path
    application: str = "tests.chaos.relays"
    only: Sequence[str] = ()
    say: Callable[[str], None] = print
    _kills: int = field(default=0, init=False)

    def run(self) -> Outcome[Verdict]:
        """Write and disturb for `seconds`, let it settle, and judge."""
        self._dice = random.Random(self.scenario.seed)
        self._layout = Layout(count=max(1, self.scenario.partitions))
        environment = self._environment()
        uri, topic = environment["POSTROOM_MONGODB_URI"], environment["POSTROOM_TOPIC"]
        self._topics = relay_disturbances.topics_of(topic)
        if self._layout.count > 1:
            for each in self._topics:
                self.services.admin("PUT", each, "partitions", self._layout.count)
        self._changes = Changes(
            self.application,
            self.services,
            self._dice,
            topics=self._topics,
            layout=self._layout,
            most=self.scenario.divided_to,
        )
        self._client: MongoClient[Any] = MongoClient(uri, serverSelectionTimeoutMS=60_000)
        ledger = Ledger(uri, self.name)
        witness = Witness(
            self.services.pulsar.url,
            self._layout.logs(self._topics),
            ledger.accounts.arrived,
            self.logs,
        )
        # The ids of one writer have the order of its commits, which is a scan's.
        count = 1 if self.scenario.oplog_mb else 2
        seed = self.scenario.seed
        writers = Writers(uri, self.name, seed=seed, count=count, layout=self._layout)
        fleet = Fleet(self.application, "relay", environment, self.logs)
        try:
            return self._run(fleet, writers, ledger, witness)
        finally:
            fleet.end_all()
            for part in (writers, witness, ledger, self._client):
                part.close()

    def _run(
        self, fleet: Fleet, writers: Writers, ledger: Ledger, witness: Witness
    ) -> Outcome[Verdict]:
        writers.backlog(self.scenario.backlog, keep_up=ledger.mark)
        first = ledger.mark()
        if self.scenario.early_writers:
            writers.start()
        fleet.start(self.scenario.relays)
        self._first_start(fleet)
        later = ledger.mark()
        if not self.scenario.early_writers:
            writers.start()

        def look_after() -> None:
            ledger.require_sound()
            fleet.look_after()

        torment = Torment(
            dice=self._dice,
            disturbances=self._disturbances(fleet, writers, ledger, witness),
            progress=ledger.accounts,
            look_after=look_after,
            say=self.say,
        )
        torment.run(self.seconds)
        writers.close()
        torment.rest([SETTLING])
        self.say("All is written; the topics are read to their ends")
        disturbances.pause(2.0)  # what comes twice may come last
        witness.close()
        ledger.require_sound()
        verdict = judge(
            ledger.rows,
            witness.events,
            ledger.quarantined(),
            first=first,
            later=later,
            by_id=self.scenario.oplog_mb is not None,
            late=self._late(),
            layouts=self._changes.layouts,
        )
        if self._kills:
            torment.actions["kill of all in the first start"] = self._kills
        return Outcome.of(verdict, torment, fleet)

    def _late(self) -> set[str]:
        """Return what relays have said to come late by a deploy, since its topic has later ones."""
        if not self.scenario.deploys:
            return set()
        logs = [log.read_text(errors="replace") for log in self.logs.glob("relay*.log")]
        found = {row_id for log in logs for row_id in re.findall(r"Row (\w+) comes late", log)}
        if found:
            self.say(f"{len(found)} events came late by a deploy, as the relays have said")
        return found

    def _environment(self) -> dict[str, str]:
        found = dict(self.services.environment(self.name))
        topics = relay_disturbances.topics_of(found["POSTROOM_TOPIC"])
        return {
            **found,
            "POSTROOM_SEND_TIMEOUT_SECONDS": str(self.scenario.send_timeout_seconds),
            **({"POSTROOM_PARTITIONS": str(self._layout.count)} if self._layout.count > 1 else {}),
            "CHAOS_CONSUME": json.dumps({SUBSCRIPTION: topics}),
        }

    def _disturbances(
        self, fleet: Fleet, writers: Writers, ledger: Ledger, witness: Witness
    ) -> Sequence[Disturbance]:
        scenario, services, dice = self.scenario, self.services, self._dice
        found = [
            *disturbances.of_workers(fleet, dice),
            *disturbances.of_mongodb(services, dice),
            *disturbances.of_brokers(
                services,
                dice,
                topics=self._topics,
                outage_seconds=scenario.send_timeout_seconds + 2,
            ),
            *disturbances.of_redis(services, dice),
        ]
        if self._layout.count > 1:
            found += relay_disturbances.of_comings(fleet, dice)
            found += self._changes.of(fleet, writers, ledger, witness)
        if scenario.deploys:
            found += relay_disturbances.of_deploys(fleet, dice, self._topics)
        if scenario.topic_policies:
            found += relay_disturbances.of_policies(
                services, dice, self._topics, keeps=scenario.retention
            )
        if scenario.oplog_mb:
            found += relay_disturbances.of_history(fleet, writers, ledger, self._client)
        return [d for d in found if not self.only or d.name in self.only]

    def _first_start(self, fleet: Fleet) -> None:
        """Kill all relays while they relay what was there before them."""

        def done() -> bool:
            fleet.look_after()
            if self._kills < FIRST_START_KILLS and self._count_of(SCANNING):
                disturbances.pause(self._dice.uniform(0.1, 0.6))
                for n in range(len(fleet)):
                    fleet.end(n, signal.SIGKILL)
                self._kills += 1
            return self._count_of(SCANNED) == self._layout.count

        wait_until(done, description="the backlog is relayed", seconds=FIRST_START_SECONDS)

    def _count_of(self, what: Mapping[str, Any]) -> int:
        return self._client[self.name]["__outboxConsumers"].count_documents(what)
