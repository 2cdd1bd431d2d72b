"""The desk: all that the page's handlers ask, looked at in threads and never in Flower's loop."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from bson import json_util
from pymongo import errors as mongo

from postroom import broker, errors, refusals
from postroom.access import mongodb as mongodb_access
from postroom.access import pulsar as pulsar_access
from postroom.celery import fleet_settings, queue_broker
from postroom.celery.outbox_page import fleet, partitions
from postroom.celery.outbox_page.database import LateDatabase
from postroom.celery.outbox_page.history import History
from postroom.celery.outbox_page.listing import Listings
from postroom.celery.outbox_page.question_threads import QuestionThreads
from postroom.celery.outbox_page.running_acts import RunningActs
from postroom.celery.poller import Poller, Seen
from postroom.operations import doctor, journey
from postroom.relay.watching.view import views
from postroom.sentences import is_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery
    from pymongo.database import Database

    from postroom.celery.outbox_page.fleet import Fleet, Member
    from postroom.findings import Finding
    from postroom.inbox.topic_view import TopicRow, Topics
    from postroom.operations.wiring import Wiring
    from postroom.relay.watching.view import Views
    from postroom.settings import Settings

__all__ = ["Desk"]

logger = logging.getLogger(__name__)

EVERY_SECONDS, IDLE_SECONDS = 3.0, 15.0
# It asks all services, and some of them much.
DOCTOR_SECONDS, DOCTOR_PATIENCE_SECONDS = 20.0, 40.0
MOST_SHOWN = 100_000
BUSY = "Somebody else lists or redrives these dead letters now; look again later."


class Desk:
    """What one Flower has to say about the outbox. Nothing is opened before it is asked for."""

    def __init__(self, app: Celery, wiring: Wiring, topics: Topics) -> None:
        self.wiring = wiring
        self.pool = QuestionThreads()
        self.running_acts = RunningActs(self.why)
        self.listings = Listings(wiring.settings, self.why)
        self._history = History()
        self._database = LateDatabase(wiring.settings)
        self.views: Poller[Views] = Poller(
            "MongoDB", self._look, why=self.why, every=EVERY_SECONDS, idle=IDLE_SECONDS
        )
        self.fleet: Poller[Fleet] = Poller(
            "Redis", lambda: fleet.look(app), why=_why_redis, every=EVERY_SECONDS
        )
        self.topics: Poller[list[TopicRow]] = Poller(
            "Pulsar's admin interface",
            lambda: topics.look(self._relayed()),
            why=self.why,
            every=EVERY_SECONDS,
            idle=IDLE_SECONDS,
        )
        self.doctor: Poller[list[Finding]] = Poller(
            "The doctor",
            lambda: doctor.examine(
                wiring,
                answers=fleet_settings.ask(app),
                broker=functools.partial(queue_broker.examine, app),
            ),
            why=self.why,
            every=DOCTOR_SECONDS,
            patience=DOCTOR_PATIENCE_SECONDS,
        )

    def start(self) -> None:
        """Begin to look at partitions and topics, whether somebody watches or not."""
        self.views.start()
        self.topics.start()

    @property
    def settings(self) -> Settings:
        """What the application was installed with."""
        return self.wiring.settings

    @property
    def database(self) -> Database[Any]:
        """The database; may block, so it is for threads of the desk alone."""
        return self._database.get()

    def rows(self) -> Seen[list[partitions.Row]]:
        """Return the outbox partitions as they were seen last, joined with what workers tell."""
        seen, told = self.views.seen(), self.fleet.seen()
        found = None
        if seen.value is not None:
            known = None if told.trouble else told.value
            found = partitions.rows(seen.value.partitions, known, self._history)
        return Seen(value=found, at=seen.at, trouble=seen.trouble)

    def journey(self, event_id: str) -> dict[str, Any]:
        """Return the way of an event; its data only where payloads are to be shown. Blocks."""
        found = journey.journey(self.database, self.wiring, event_id)
        told = {"journey": found, "found": found.is_found, "name": found.name, "data": None}
        if self.settings.show_payloads and found.row is not None:
            told["data"] = _shown(journey.event_of(found, self.database))
        return told

    def topics_for_metrics(self) -> Sequence[TopicRow] | None:
        """Return the topics as they were seen last, or None where the last look found nothing."""
        seen = self.topics.seen()
        return None if seen.trouble else seen.value

    def relays(self) -> Sequence[Member]:
        """Return the relays that answered last, whatever the database does."""
        told = self.fleet.seen().value
        return told.relays if told else ()

    def why(self, error: Exception) -> str:
        """Return the sentence of a failure: which service, and what it said."""
        if isinstance(error, mongo.PyMongoError):
            uri = self.settings.mongodb_uri
            return f"MongoDB at {broker.masked(uri)} failed ({mongodb_access.why(error, uri)})."
        if isinstance(error, errors.PostroomError):
            return str(error)
        if type(error).__name__ == "ConsumerBusy":
            return BUSY
        if is_named(error):
            why = refusals.why(error, pulsar_access.of(self.settings))
            return f"Pulsar at {broker.masked(self.settings.pulsar_url)} failed ({why})."
        logger.error("The Outbox page met with a mistake", exc_info=error)
        return f"It failed with {type(error).__name__}; Flower's log tells more."

    def is_a_mistake(self, error: Exception) -> bool:
        """Say whether an error is no service's, but this code's own."""
        return not is_named(error)

    def refusal(self, who: str, *, read_only: bool) -> str:
        """Return why a user may change nothing, or nothing where he may."""
        if read_only:
            return "Flower was started with --read_only: nothing can be changed from here."
        operators = self.settings.flower_operators
        named = [each.strip() for each in (operators or "").split(",")]
        if operators is not None and (not who or who not in named):
            return (
                f"{who or 'Who asks'} is not among POSTROOM_FLOWER_OPERATORS, and may look, but "
                "change nothing."
            )
        return ""

    def _look(self) -> Views:
        found = views(self.database)
        self._history.note(found.partitions)
        return found

    def _relayed(self) -> list[str]:
        seen = self.views.seen().value
        return [topic for view in seen.partitions for topic in view.topics] if seen else []


def _shown(event: Mapping[str, Any] | None) -> str:
    shown = json_util.dumps(event, indent=2, ensure_ascii=False)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…"


def _why_redis(error: Exception) -> str:
    return (
        f"Redis did not pass the question on to the workers ({type(error).__name__}): who stands "
        "by, and what consumers do, is not known. Relaying and consuming go on without it."
    )
