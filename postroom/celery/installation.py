"""install(): makes a Celery application's workers relay and consume events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import signals

from postroom import broker, errors
from postroom import settings as settings_module
from postroom.celery import consumer_step, flower, relay_step
from postroom.celery.outage import wait_for_broker
from postroom.inbox.selection import Selection

if TYPE_CHECKING:
    from celery import Celery

    from postroom.routing import Key, Topics
    from postroom.settings import Settings

__all__ = ["Consume", "Installation", "install"]

Consume = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What install() was given; found again as `app.postroom`.

    `topics` routes events: names or patterns to topics, or a function of name and data.
    `key` names the field of the wire data that keys an event, or is a function of name and data.
    `shared` names topics, or patterns, that other producers send to too: they are not fenced.
    `consume` says which topics (or `re:` patterns of topics) each subscription reads; left out,
    POSTROOM_SUBSCRIPTION reads POSTROOM_TOPIC and all that `topics` names.
    """

    settings: Settings
    topics: Topics
    key: Key | None
    consume: Consume
    shared: Sequence[str] = ()


def install(
    app: Celery,
    settings: Settings | None = None,
    *,
    topics: Topics | None = None,
    key: Key | None = None,
    consume: Consume | None = None,
    shared: Sequence[str] = (),
) -> Installation:
    """Give the application's workers the queues `relay` and `consumer`.

    Nothing is opened here: a worker started with `-Q relay` relays, one with `-Q consumer` runs
    each event as a task, every other worker is left as it is. Settings come from the environment
    unless given; topics not routed go to POSTROOM_TOPIC.

    Raises:
        SystemExit: a setting is wrong, or a topic of `consume`; the sentence names it.

    """
    try:
        settings = settings or settings_module.load()
    except errors.ConfigurationError as error:
        raise SystemExit(str(error)) from None
    installation = Installation(
        settings=settings,
        topics=topics or {},
        key=key,
        consume=consume or {settings.subscription: _routed_to(settings, topics)},
        shared=shared,
    )
    try:
        for subscription, consumed in installation.consume.items():
            Selection.of(settings, subscription, consumed)
    except errors.ConfigurationError as error:
        raise SystemExit(str(error)) from None
    app.postroom = installation
    relay_step.install(app)
    consumer_step.install(app)
    flower.install()
    signals.worker_init.connect(_shape, weak=False, dispatch_uid="postroom-init")
    return installation


def _shape(sender: Any, **_: Any) -> None:
    """Make a worker of the application fit for what it was started for, or refuse it."""
    app = sender.app
    if getattr(app, "postroom", None) is None:
        return
    if relay_step.partitions_of(app):
        relay_step.shape_worker(sender)
    elif consumer_step.subscriptions_of(app):
        consumer_step.shape_worker(sender)
    else:
        wait_for_broker(sender)


def _routed_to(settings: Settings, topics: Topics | None) -> list[str]:
    named = topics.values() if isinstance(topics, Mapping) else ()
    return list({broker.canonical(topic): topic for topic in (settings.topic, *named)}.values())
