"""The occupant: who sits on a mutex that was refused, as far as that can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo import errors as mongo

from postroom import restraints
from postroom.access.cache import Cache
from postroom.relay.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.relay.candidate import Candidate
    from postroom.store.checkpoints import Checkpoints
    from postroom.store.claims import Claim
    from postroom.topics import Topic

__all__ = ["Occupant", "Occupants"]

# A standby asks for the mutex four times a second, and who has it far less often.
SAME_SECONDS = 30.0
OWN_MUTEX = "give each service a POSTROOM_MUTEX_TOPIC of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """Who holds a mutex, in a sentence; `is_ours` unless it is known to relay something else.

    Not `is_held`: nobody has it, and the broker's rules keep it from everyone.
    """

    sentence: str
    is_ours: bool = True
    is_held: bool = True

    @property
    def state(self) -> State:
        """The state of a relay that this keeps from the mutex."""
        return State.STANDBY if self.is_held else State.WAITING


class Occupants:
    """Tells who holds a candidate's mutex: by the admin interface, else by the checkpoint.

    `properties` are those of the candidate's own consumer: what another one's say otherwise is what
    the two differ in. Used by the relay's thread alone; asks every half a minute, in bounded time.
    """

    def __init__(
        self,
        candidate: Candidate,
        *,
        properties: Mapping[str, str],
        admin: PulsarAdmin,
        checkpoints: Checkpoints,
    ) -> None:
        self._candidate = candidate
        self._properties = properties
        self._admin = admin
        self._checkpoints = checkpoints
        self._answers: Cache[Occupant] = Cache(seconds=SAME_SECONDS)
        self._seen: list[Claim | None] = []
        self._found_nobody = False

    def now(self, log: str) -> Occupant:
        """Say who sits on the mutex; `log` is the topic that was asked, or its topic partition."""
        # Who was found to be gone has most often been followed by another one: that is looked for
        # at the next question already.
        return self._answers.of((log, self._found_nobody), lambda: self._ask(log))

    def silent(self, log: Topic) -> Occupant:
        """Say what is known where the broker did not say whether the mutex is free."""
        topic, subscription = self._candidate.mutex_topic, self._candidate.subscription
        if restraints.lacks_subscription(self._admin, log, subscription):
            return Occupant(
                sentence=f"The mutex on {topic} was not given in time: its subscription does not "
                "exist, and the broker did not make it. Where it makes none by itself "
                "(allowAutoSubscriptionCreation): pulsar-admin topics create-subscription "
                f"{topic} -s {subscription}; asking on",
                is_ours=False,
                is_held=False,
            )
        # The embedded broker lets a contender wait instead of refusing it.
        return Occupant(
            sentence=f"The mutex on {topic} was not given in time: another relay holds it, or the "
            "broker was busy; standing by"
        )

    def _ask(self, log: str) -> Occupant:
        topic = self._candidate.mutex_topic
        found = self._admin.holder(log, self._candidate.subscription)
        if found is None:
            return self._by_checkpoint()
        again, self._found_nobody = self._found_nobody, not found
        if found:
            return self._by_properties(found)
        if not again:
            return Occupant(
                sentence=f"The holder of the mutex on {topic} has just left; asking on",
                is_held=False,
            )
        return Occupant(
            sentence=f"The mutex on {topic} is refused, although nobody holds it: a limit on "
            "consumers of that topic or namespace forbids one (maxConsumersPerTopic, "
            "maxConsumersPerSubscription), so raise it; asking on",
            is_ours=False,
            is_held=False,
        )

    def _by_properties(self, found: Mapping[str, str]) -> Occupant:
        topic, name = self._candidate.mutex_topic, found.get("name", "?")
        differing = [
            f"{what} {found[what]!r}, not {ours!r}"
            for what in ("database", "mongodb", "partition")
            if what in found and found[what] != (ours := self._properties.get(what))
        ]
        if "partition" not in found:
            differing = ["nothing of ours: it is no relay"]
        if not differing:
            since = f" since {found['since']}" if "since" in found else ""
            return Occupant(
                sentence=f"Another relay holds the mutex on {topic}{since}: {name}; standing by"
            )
        return Occupant(
            sentence=f"The mutex on {topic} is held by {name}, which serves "
            f"{' and '.join(differing)}. This relay relays nothing meanwhile: {OWN_MUTEX}; "
            "standing by",
            is_ours=False,
        )

    def _by_checkpoint(self) -> Occupant:
        topic = self._candidate.mutex_topic
        try:
            checkpoint = self._checkpoints.of(self._candidate.partition)
        except mongo.PyMongoError:
            checkpoint = None
        claim = None if checkpoint is None else checkpoint.claim
        before, self._seen = self._seen, [claim]
        if not before:
            # One look does not tell whether it moves.
            return Occupant(sentence=f"Another relay holds the mutex on {topic}; standing by")
        if claim is None or claim.owner is None or claim in before:
            return Occupant(
                sentence=f"Another relay holds the mutex on {topic}, and by the checkpoint none "
                f"relays outbox partition {self._candidate.partition!r} of this database (nothing "
                "answers at POSTROOM_PULSAR_ADMIN_URL, which would tell more): if it serves "
                f"another one, {OWN_MUTEX}; standing by",
            )
        return Occupant(
            sentence=f"Another relay holds the mutex on {topic}: {claim.owner} by the checkpoint; "
            "standing by"
        )
