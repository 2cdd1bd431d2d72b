"""install(): makes a Celery application's workers relay and consume events."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from postroom import broker, errors
from postroom import settings as settings_module
from postroom.celery import arguments, consumer_step, flower, logs, relay_step, telemetry_step
from postroom.celery.outage import wait_for_broker
from postroom.celery.queues import Queues
from postroom.inbox.receiving.selection import Selection
from postroom.operations.wiring import Wiring
from postroom.private_text import quoted
from postroom.routing import Routing
from postroom.settings import Settings

if TYPE_CHECKING:
    from postroom.celery.arguments import Consume
    from postroom.routing import Key, Topics
    from postroom.topics import Topic

__all__ = ["Installation", "install"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What install() was given; found again as `app.postroom`.

    `topics` routes events: names or patterns to topics, or a function of name and data.
    `key` names the field of the wire data that keys an event, or is a function of name and data.
    `shared` names topics, or patterns, that other producers send to too: they are not fenced.
    `consume` says which topics (or `re:` patterns of topics) each subscription reads; left out,
    POSTROOM_SUBSCRIPTION reads POSTROOM_TOPIC and all that `topics` names.
    `queues` are the names by which a worker's -Q asks for a relay or a consumer.
    """

    settings: Settings
    topics: Topics
    key: Key | None
    consume: Consume
    shared: Sequence[str] = ()
    queues: Queues = field(default_factory=Queues)

    @property
    def routing(self) -> Routing:
        """Where events go, and what their messages say of themselves; each time one of its own."""
        return Routing(
            default=self.settings.topic,
            topics=self.topics,
            key=self.key,
            shared=self.shared,
            cloud_events=self.settings.cloud_events_of_database,
            read_by_failover=self._read_by_failover,
            partitions=self.settings.partitions,
            envelopes=self.settings.envelopes,
        )

    def _read_by_failover(self, topic: Topic) -> frozenset[str]:
        if self.settings.subscription_type != "failover":
            return frozenset()
        readers = (Selection.of(self.settings, name, read) for name, read in self.consume.items())
        return frozenset(each.subscription for each in readers if each.reads(topic))

    @property
    def wiring(self) -> Wiring:
        """The same for those who operate it."""
        return Wiring(
            settings=self.settings,
            routing=self.routing,
            consume=self.consume,
            key_field=self.key if isinstance(self.key, str) else None,
        )


def install(
    app: Celery,
    settings: Settings | None = None,
    *,
    topics: Topics | None = None,
    key: Key | None = None,
    consume: Mapping[str, Sequence[str]] | None = None,
    shared: Sequence[str] = (),
    relay_queue: str = "relay",
    consumer_queue: str = "consumer",
) -> Installation:
    """Give the application's workers the queues `relay` and `consumer`.

    Nothing is opened here: a worker started with `-Q relay` relays, one with `-Q consumer` runs
    each event as a task, every other worker is left as it is, but that it outlives a Redis that
    refuses. Settings come from the environment unless given; topics not routed go to
    POSTROOM_TOPIC. Called again with the same arguments it changes nothing.

    Raises:
        SystemExit: a setting or an argument is wrong, or the application has another installation;
            the sentence names it.

    """
    try:
        installation = _checked(
            app,
            settings_module.load() if settings is None else settings,
            topics={} if topics is None else topics,
            key=key,
            consume=consume,
            shared=shared,
            queues=(relay_queue, consumer_queue),
        )
        return _installed(app, installation)
    except errors.ConfigurationError as error:
        raise SystemExit(str(error)) from None


def _checked(
    app: object,
    settings: object,
    *,
    topics: object,
    key: object,
    consume: object,
    shared: object,
    queues: tuple[str, str],
) -> Installation:
    if not isinstance(app, Celery):
        raise errors.ConfigurationError(
            f"install() takes a Celery application first, not {quoted(app)}"
        )
    if not isinstance(settings, Settings):
        raise errors.ConfigurationError(
            f"install() takes postroom.Settings as settings, not {type(settings).__name__}"
        )
    routed = arguments.routed(topics)
    default = {settings.subscription: _routed_to(settings, routed)}
    consumed = arguments.consumed(default if consume is None else consume)
    for subscription, written in consumed.items():
        Selection.of(settings, subscription, written)
    return Installation(
        settings=settings,
        topics=routed,
        key=arguments.keyed(key),
        consume=consumed,
        shared=arguments.shared(shared),
        queues=Queues(**arguments.queues(*queues)),
    )


def _installed(app: Celery, installation: Installation) -> Installation:
    there: Installation | None = getattr(app, "postroom", None)
    if there is None:
        app.postroom = installation
        relay_step.install(app)
        consumer_step.install(app)
        telemetry_step.install(app)
        logs.install(app)
        flower.install()
        signals.worker_init.connect(_shape, weak=False, dispatch_uid="postroom-init")
    elif there != installation:
        raise errors.ConfigurationError(
            f"install() was called twice for the application {app.main!r}, with different "
            "arguments: call it once, with all of them"
        )
    return there or installation


def _shape(sender: Any, **_: Any) -> None:
    """Make a worker of the application fit for what it was started for, or refuse it.

    Raises:
        SystemExit: it is refused. Celery logs and swallows all else that a signal handler raises.

    """
    app = sender.app
    installation: Installation | None = getattr(app, "postroom", None)
    if installation is None:
        return
    try:
        installation.queues.require_free(app)
        if relay_step.is_wanted(app):
            relay_step.shape_worker(sender)
        elif consumer_step.is_wanted(app):
            consumer_step.shape_worker(sender)
        else:
            wait_for_broker(sender)
        for sentence in settings_module.misspelt():
            logger.warning("%s", sentence)
        telemetry_step.prepare(sender)
        logs.keep_to_lines(sender)
    except errors.ConfigurationError as error:
        raise SystemExit(str(error)) from None


def _routed_to(settings: Settings, topics: Topics) -> list[str]:
    named = topics.values() if isinstance(topics, Mapping) else ()
    return list({broker.canonical(topic): topic for topic in (settings.topic, *named)}.values())
