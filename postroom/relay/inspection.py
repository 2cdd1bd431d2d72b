"""The inspection: what a relay looks at before it stands for office, and before a term."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import abilities, broker, findings, preflight, rights, wire
from postroom.access import pulsar as pulsar_access
from postroom.expiry import expiry
from postroom.findings import Grade
from postroom.pulsar_admin import PulsarAdmin
from postroom.topics import subscribed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pulsar
    from pymongo import MongoClient

    from postroom.abilities import Abilities
    from postroom.routing import Routing
    from postroom.settings import Settings
    from postroom.topics import Topic

__all__ = ["Inspection"]


# The outbox itself is looked at before each term: it may be made anew.
KEEPS = (
    wire.CHECKPOINTS,
    wire.QUARANTINE,
    wire.SCHEDULED,
    wire.SCHEDULE_NAMES,
    wire.FIRED,
    wire.PARTITIONS,
)


class Inspection:
    """Looks at the services of one relay, or of all of a pool, by its settings.

    before_standing() in one thread at a time, before_term() in the thread of any of the relays.

    What the broker can do is tried once, and then taken to stay as it is.
    """

    def __init__(
        self,
        settings: Settings,
        routing: Routing,
        *,
        subscriptions: Mapping[str, Sequence[str]],
    ) -> None:
        self._settings = settings
        self._routing = routing
        self._subscriptions = subscriptions
        self._admin = PulsarAdmin(pulsar_access.of(settings))
        self._abilities: Abilities | None = None

    def before_standing(self, mongodb: MongoClient[Any], client: pulsar.Client) -> Abilities:
        """Look at MongoDB and, the first time, at the broker; return what that can do.

        Raises:
            ConfigurationError: the relay cannot work with them as they are set up.
            ServiceUnavailable: one of them does not answer, or is not fit now.

        """
        database = self._settings.mongodb_database
        seen = preflight.mongodb(mongodb) + preflight.collections(mongodb[database], KEEPS)
        findings.obey(
            seen if self._abilities is None else [each for each in seen if each.grade is Grade.FAIL]
        )
        if self._abilities is None:
            findings.obey(preflight.deletions(mongodb[database], (wire.OUTBOX, *KEEPS)))
            findings.obey(rights.in_mongodb(mongodb, database, "relay"), action="rights")
            self._abilities = self._looked_at(client)
        return self._abilities

    def before_term(self, client: pulsar.Client) -> None:
        """Make the subscriptions that consumers will use: a topic without one keeps nothing."""
        made = preflight.subscriptions(self._subscriptions, self._maker(client), admin=self._admin)
        findings.obey(made, action="subscribe_ahead")

    def _looked_at(self, client: pulsar.Client) -> Abilities:
        settings, topics = self._settings, self._routing.topics
        findings.obey(
            preflight.topics(client, topics, partitions=self._routing.partitions, admin=self._admin)
        )
        findings.obey(rights.in_pulsar(client, topics), action="rights")
        found = abilities.probe(client, topics, self._admin)
        delivery = preflight.delivery(
            found,
            demanded=settings.delivery == "exactly_once",
            has_shared=self._routing.has_shared,
            where=broker.masked(settings.pulsar_url),
        )
        findings.obey(delivery, action="probe")
        findings.obey(preflight.retention(self._admin, topics), action="probe")
        findings.obey(expiry(self._admin, subscribed(self._subscriptions)), action="probe")
        return found

    def _maker(self, client: pulsar.Client) -> preflight.MakeSubscription:
        if self._abilities is not None and self._abilities.fencing:

            def make(topic: Topic, subscription: str) -> None:
                broker.ensure_subscription(client, topic, subscription)

        else:

            def make(topic: Topic, subscription: str) -> None:
                broker.ensure_subscription_leniently(
                    pulsar_access.of(self._settings), topic, subscription
                )

        return make
