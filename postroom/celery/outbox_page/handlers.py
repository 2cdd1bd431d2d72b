"""The handlers of the Outbox page: the page, its assets, what it asks, and what it does."""

from __future__ import annotations

import http
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import tornado.web

from postroom.celery.outbox_page import acts, adapter
from postroom.celery.outbox_page.json_handler import JsonHandler
from postroom.celery.outbox_page.listing import Place
from postroom.celery.outbox_page.requests import (
    RequestRefused,
    filter_of,
    rate_of,
    text_of,
    time_in,
    whole_of,
)
from postroom.operations import actions, quarantined, scheduled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.celery.outbox_page.desk import Desk
    from postroom.celery.poller import Seen

__all__ = ["routes"]

MOST_ON_A_PAGE = 500
MOST = 10_000_000


class PageHandler(adapter.FlowerHandler):
    """The page itself; what it shows, it asks for."""

    @tornado.web.authenticated
    def get(self) -> None:
        """Answer with the page."""
        self.set_header("Cache-Control", "no-store")
        self.render_page()


class AssetHandler(adapter.FlowerHandler, tornado.web.StaticFileHandler):
    """The page's own script and style, behind the same login."""

    def prepare(self) -> None:
        """Let in whom Flower lets in."""
        if not self.current_user:
            raise tornado.web.HTTPError(http.HTTPStatus.UNAUTHORIZED)

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - Tornado's signature
        """Have browsers ask each time whether it is another one now."""
        self.set_header("Cache-Control", "no-cache")


class WatchedHandler(JsonHandler):
    """What is looked at again and again; each answer says when that was, and what is wrong."""

    def get(self, part: str) -> None:
        """Answer at once with what was seen last."""
        desk = self.desk
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "partitions": lambda: {
                "partitions": _seen(desk.rows()),
                "complete": _complete(desk),
                "workers": _seen(desk.fleet.seen(), value=False),
                "relays": desk.relays(),
            },
            "topics": lambda: {"topics": _seen(desk.topics.seen())},
            "doctor": lambda: {"doctor": _seen(desk.doctor.seen())},
            "running-acts": lambda: {"running_acts": desk.running_acts.all()},
            "places": lambda: {
                "places": [{"subscription": s, "topic": t} for s, t in desk.wiring.subscribed()],
                "partitions": _names(desk),
                "outboxes": [desk.settings.partition],
            },
        }
        self.answer({"now": datetime.now(UTC), "may_not_act": self.may_not_act, **parts[part]()})


class SteeringHandler(JsonHandler):
    """Pauses an outbox partition, or has it relayed again."""

    async def post(self, what: str) -> None:
        """Do it, and answer whether that changed anything."""
        partition = text_of(self.told, "partition")
        changed = await self.ask(acts.steer, self.desk, what, who=self.who, partition=partition)
        self.answer({"changed": changed})


class QuarantineHandler(JsonHandler):
    """A page of the quarantined rows that match, and what is done with them."""

    async def get(self) -> None:
        """Answer with a page, and how many match."""
        desk, told = self.desk, self.told
        found = await self.ask(
            lambda: quarantined.page(
                desk.database,
                filter_of(told),
                partition=text_of(told, "partition"),
                key_field=desk.wiring.key_field,
                skip=whole_of(told, "skip", default=0, most=MOST),
                limit=whole_of(told, "limit", default=50, most=MOST_ON_A_PAGE),
            )
        )
        self.answer({"page": found, "at": datetime.now(UTC), "may_not_act": self.may_not_act})


class QuarantineActsHandler(JsonHandler):
    """Redrives or discards quarantined rows."""

    async def post(self, what: str) -> None:
        """Begin, and answer with how far it is."""
        running = await self.ask(
            acts.act_on_rows,
            self.desk,
            what,
            filter_of(self.told),
            who=self.who,
            partition=text_of(self.told, "partition"),
            confirmed=whole_of(self.told, "confirmed", default=None, most=MOST),
            rate=rate_of(self.told),
        )
        self.answer({"running_act": running})


class ScheduledHandler(JsonHandler):
    """A page of the scheduled events that match."""

    async def get(self) -> None:
        """Answer with a page, and how many match."""
        desk, told = self.desk, self.told
        found = await self.ask(
            lambda: scheduled.page(
                desk.database,
                filter_of(told),
                outbox=text_of(told, "outbox"),
                schedule=text_of(told, "schedule"),
                key_field=desk.wiring.key_field,
                skip=whole_of(told, "skip", default=0, most=MOST),
                limit=whole_of(told, "limit", default=50, most=MOST_ON_A_PAGE),
            )
        )
        self.answer({"page": found, "at": datetime.now(UTC), "may_not_act": self.may_not_act})


class ScheduledActsHandler(JsonHandler):
    """Cancels, reschedules or fires scheduled events."""

    async def post(self, what: str) -> None:
        """Begin, and answer with how far it is."""
        told = self.told
        running = await self.ask(
            acts.act_on_plan,
            self.desk,
            what,
            filter_of(told),
            who=self.who,
            outbox=text_of(told, "outbox"),
            schedule=text_of(told, "schedule"),
            at=time_in(told, "at"),
            confirmed=whole_of(told, "confirmed", default=None, most=MOST),
            rate=rate_of(told),
        )
        self.answer({"running_act": running})


class DeadLettersHandler(JsonHandler):
    """A page of the dead letters that match, of what was read of them last."""

    async def get(self) -> None:
        """Answer with a page, how many match, and how far they are read."""
        place, where = _place(self), filter_of({**self.told, "topic": None})
        if self.told.get("again"):
            self.desk.listings.read(place, again=True)
        found = await self.ask(
            self.desk.listings.listed,
            place,
            where,
            skip=whole_of(self.told, "skip", default=0, most=MOST),
            limit=whole_of(self.told, "limit", default=50, most=MOST_ON_A_PAGE),
        )
        self.answer({"listed": found, "may_not_act": self.may_not_act})


class DeadLetterActsHandler(JsonHandler):
    """Redrives or discards dead letters."""

    async def post(self, what: str) -> None:
        """Begin, and answer with how far it is."""
        place = _place(self)
        running = await self.ask(
            acts.act_on_letters,
            self.desk,
            what,
            filter_of({**self.told, "topic": place.topic}),
            who=self.who,
            subscription=place.subscription,
            confirmed=whole_of(self.told, "confirmed", default=None, most=MOST),
            rate=rate_of(self.told),
        )
        self.answer({"running_act": running})


class StopHandler(JsonHandler):
    """Stops an act that is under way."""

    def post(self, number: str) -> None:
        """Have it stop, and answer with how far it is."""
        self.answer({"running_act": self.desk.running_acts.stop(int(number), who=self.who)})


class JourneyHandler(JsonHandler):
    """The way of one event, with its tasks in Flower."""

    async def get(self) -> None:
        """Answer with what each place on its way knows of it.

        Raises:
            RequestRefused: no id was given.

        """
        event_id = text_of(self.told, "id")
        if event_id is None:
            raise RequestRefused("Say which event: its id")
        found = await self.ask(self.desk.journey, event_id)
        self.answer({**found, "tasks": self.tasks_of(event_id)})


class ActionLogHandler(JsonHandler):
    """The action log, newest first."""

    async def get(self) -> None:
        """Answer with a page of it, and one more to tell whether there is a next one."""
        limit = whole_of(self.told, "limit", default=50, most=MOST_ON_A_PAGE)
        skip = whole_of(self.told, "skip", default=0, most=MOST)
        desk = self.desk
        found = await self.ask(lambda: actions.latest(desk.database, skip=skip, limit=limit + 1))
        self.answer({"actions": found[:limit], "more": len(found) > limit, "skip": skip})


def _place(handler: JsonHandler) -> Place:
    settings = handler.desk.settings
    return Place(
        topic=text_of(handler.told, "topic") or settings.topic,
        subscription=text_of(handler.told, "subscription") or settings.subscription,
    )


def _names(desk: Desk) -> list[str]:
    seen = desk.views.seen().value
    return [view.partition for view in seen.partitions] if seen else []


def _complete(desk: Desk) -> bool:
    seen = desk.views.seen().value
    return seen is None or seen.complete


def _seen(seen: Seen[Any], *, value: bool = True) -> dict[str, Any]:
    told = {"at": seen.at, "trouble": seen.trouble}
    return {**told, "value": seen.value} if value else told


def routes(desk: Desk) -> Sequence[tuple[str, type, dict[str, Any]]]:
    """Return the handlers of the page, by what comes behind Flower's prefix."""
    given = {"desk": desk}
    return [
        (r"/outbox/?", PageHandler, {}),
        (r"/outbox/assets/(.*)", AssetHandler, {"path": str(adapter.ASSETS)}),
        (r"/outbox/api/(partitions|topics|doctor|running-acts|places)", WatchedHandler, given),
        (r"/outbox/api/partitions/(pause|resume)", SteeringHandler, given),
        (r"/outbox/api/quarantine", QuarantineHandler, given),
        (r"/outbox/api/quarantine/(redrive|discard)", QuarantineActsHandler, given),
        (r"/outbox/api/scheduled", ScheduledHandler, given),
        (r"/outbox/api/scheduled/(cancel|reschedule|fire)", ScheduledActsHandler, given),
        (r"/outbox/api/dead-letters", DeadLettersHandler, given),
        (r"/outbox/api/dead-letters/(redrive|discard)", DeadLetterActsHandler, given),
        (r"/outbox/api/running-acts/(\d{1,9})/stop", StopHandler, given),
        (r"/outbox/api/journey", JourneyHandler, given),
        (r"/outbox/api/actions", ActionLogHandler, given),
    ]
