"""Exposition: the metrics of a process, and where they are told. Needs prometheus-client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry

from postroom.telemetry.counting import Counting
from postroom.telemetry.endpoint import Endpoint
from postroom.telemetry.partitions import Partitions
from postroom.telemetry.scraping import Scraping
from postroom.telemetry.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.inbox.consumer import Consumer
    from postroom.inbox.topic_view import TopicRow
    from postroom.relay.relay import Relay
    from postroom.settings import Settings
    from postroom.telemetry.health import Health
    from postroom.telemetry.pulse import Pulse

__all__ = ["Exposition", "of_the_database", "of_topics", "registry_of_all"]


class Exposition:
    """What a worker tells Prometheus: the process' own registry, and so the application's metrics.

    Raises:
        ConfigurationError: the port cannot be had.

    """

    def __init__(
        self,
        settings: Settings,
        health: Health,
        *,
        registry: CollectorRegistry = prometheus_client.REGISTRY,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._endpoint = Endpoint(
            settings.metrics_host, settings.metrics_port or 0, registry=registry, health=health
        )
        self._counting = Counting(registry)
        self._scraping = Scraping()
        registry.register(self._scraping)
        self._tells_partitions = False

    @property
    def url(self) -> str:
        """Where it is answered."""
        return self._endpoint.url

    def follow_relay(self, relay: Relay, pulse: Pulse) -> None:
        """Count what a relay does, and tell what the database says of all partitions."""
        self._counting.begin_relay(relay.status.partition)
        relay.observer.subscribe(self._counting.hear_relay)
        self._scraping.add_relay(relay.status, pulse)
        if not self._tells_partitions:
            self._tells_partitions = True
            of_the_database(self._settings, registry=self._registry)

    def follow_consumer(self, consumer: Consumer, pulse: Pulse) -> None:
        """Count what a consumer does."""
        self._counting.begin_consumer(consumer.status.subscription)
        consumer.observer.subscribe(self._counting.hear_consumer)
        self._scraping.add_consumer(pulse)

    def follow_broker(self, answers: Callable[[], bool]) -> None:
        """Tell whether the broker of Celery answers."""
        self._scraping.follow_broker(answers)

    def start(self) -> None:
        """Begin to answer."""
        self._endpoint.start()

    def stop(self) -> None:
        """Give the port back."""
        self._endpoint.stop()


def of_the_database(
    settings: Settings, *, registry: CollectorRegistry = prometheus_client.REGISTRY
) -> Partitions:
    """Have a registry tell what the database says of every outbox partition."""
    found = Partitions(settings)
    registry.register(found)
    return found


def of_topics(
    seen: Callable[[], Sequence[TopicRow] | None],
    *,
    registry: CollectorRegistry = prometheus_client.REGISTRY,
) -> None:
    """Have a registry tell what `seen` knows of topics and subscriptions; see Subscriptions."""
    registry.register(Subscriptions(seen))


def registry_of_all(settings: Settings) -> CollectorRegistry:
    """Return a registry of its own with every metric that there is, for what checks their names."""
    found = CollectorRegistry()
    Counting(found)
    found.register(Scraping())
    of_the_database(settings, registry=found)
    of_topics(lambda: None, registry=found)
    return found
