"""The desk: all that the page's handlers ask, looked at in threads and never in Flower's loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import errors as mongo

from postroom import broker, errors, refusals
from postroom.access import mongodb as mongodb_access
from postroom.access import pulsar as pulsar_access
from postroom.celery.outbox_page import fleet, partitions
from postroom.celery.outbox_page.history import History
from postroom.celery.outbox_page.lookout import Lookout, Seen
from postroom.relay.watching.view import views
from postroom.store import clients

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from pymongo.database import Database

    from postroom.celery.outbox_page.fleet import Fleet
    from postroom.celery.outbox_page.topics import TopicRow, Topics
    from postroom.relay.watching.view import Views
    from postroom.settings import Settings

__all__ = ["Busy", "Desk"]

T = TypeVar("T")

EVERY_SECONDS, IDLE_SECONDS = 3.0, 15.0
MOST_THREADS, MOST_WAITING = 4, 16
ANSWER_SECONDS = 20.0


class Busy(errors.PostroomError):
    """So many questions are under way that no more are taken, or one took too long."""


class Desk:
    """What one Flower has to say about the outbox. Nothing is opened before it is asked for."""

    def __init__(self, app: Celery, settings: Settings, topics: Topics) -> None:
        self.settings = settings
        self._history = History()
        self._opening = threading.Lock()
        self._opened: Database[Any] | None = None
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="outbox-page")
        self.views: Lookout[Views] = Lookout(
            "MongoDB", self._look, why=self.why, every=EVERY_SECONDS, idle=IDLE_SECONDS
        )
        self.fleet: Lookout[Fleet] = Lookout(
            "Redis", lambda: fleet.look(app), why=_why_redis, every=EVERY_SECONDS
        )
        self.topics: Lookout[list[TopicRow]] = Lookout(
            "Pulsar's admin interface",
            lambda: topics.look(self._relayed()),
            why=self.why,
            every=EVERY_SECONDS,
        )

    def start(self) -> None:
        """Begin to keep the last hour, whether somebody watches or not."""
        self.views.start()

    @property
    def database(self) -> Database[Any]:
        """The database; may block, so it is for threads of the desk alone."""
        with self._opening:
            if self._opened is None:
                client = clients.for_command_line(self.settings.mongodb_uri)
                self._opened = client[self.settings.mongodb_database]
            return self._opened

    async def ask(self, question: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Have a question answered in a thread, for some seconds.

        Raises:
            Busy: too many are under way, or this one is not answered in time.

        """
        if not self._room.acquire(blocking=False):
            raise Busy(f"{MOST_WAITING} questions wait for an answer already; ask again later")
        asked = self._threads.submit(functools.partial(question, *args, **kwargs))
        asked.add_done_callback(lambda _: self._room.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), ANSWER_SECONDS)
        except TimeoutError:
            raise Busy(f"There was no answer within {ANSWER_SECONDS:.0f} seconds") from None

    def rows(self) -> Seen[list[partitions.Row]]:
        """Return the outbox partitions as they were seen last, joined with what workers tell."""
        seen, told = self.views.seen(), self.fleet.seen()
        found = None
        if seen.value is not None:
            known = None if told.trouble else told.value
            found = partitions.rows(seen.value.partitions, known, self._history)
        return Seen(value=found, at=seen.at, trouble=seen.trouble)

    def why(self, error: Exception) -> str:
        """Return the sentence of a failure: which service, and what it said."""
        if isinstance(error, mongo.PyMongoError):
            uri = self.settings.mongodb_uri
            return f"MongoDB at {broker.masked(uri)} failed ({mongodb_access.why(error, uri)})."
        if isinstance(error, errors.PostroomError):
            return str(error)
        if _is_pulsars(error):
            why = refusals.why(error, pulsar_access.of(self.settings))
            return f"Pulsar at {broker.masked(self.settings.pulsar_url)} failed ({why})."
        return f"It failed with {type(error).__name__}; Flower's log tells more."

    def is_a_mistake(self, error: Exception) -> bool:
        """Say whether an error is no service's, but this code's own."""
        known = (mongo.PyMongoError, errors.PostroomError)
        return not isinstance(error, known) and not _is_pulsars(error)

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


def _is_pulsars(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("_pulsar", "pulsar")


def _why_redis(error: Exception) -> str:
    return (
        f"Redis did not pass the question on to the workers ({type(error).__name__}): who stands "
        "by, and what consumers do, is not known. Relaying and consuming go on without it."
    )
