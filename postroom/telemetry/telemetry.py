"""Telemetry of one worker: the pulses of its threads, and an endpoint where one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import errors
from postroom.telemetry import pulse
from postroom.telemetry.health import Health
from postroom.telemetry.watchdog import Watchdog

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from postroom.inbox.consumer import Consumer
    from postroom.relay.relay import Relay
    from postroom.settings import Settings
    from postroom.telemetry.exposition import Exposition

__all__ = ["Telemetry"]


# postroom.supervision's longest wait, and its jitter.
LONGEST_PAUSE_SECONDS = 11.0


class Telemetry:
    """Follows the relays and consumers of a worker; made, started and stopped by its main thread.

    Whom it is to follow that one says, and once it has said all a crew's thread, whose relays come
    and go; runs_in() and forget_relay() are safe from any. Without POSTROOM_METRICS_PORT nothing is
    counted and no port opened; what hangs is said in the log all the same.

    Raises:
        ConfigurationError: the port cannot be had, or prometheus-client is not installed.

    """

    def __init__(self, settings: Settings) -> None:
        # A standby waits between two questions, everyone after an error.
        pause_seconds = max(LONGEST_PAUSE_SECONDS, 1.2 * settings.mutex_retry_seconds)
        self._limits = {"hang_seconds": settings.hang_seconds, "pause_seconds": pause_seconds}
        self.health = Health()
        self._watchdog = Watchdog(self.health)
        self._exposition = _exposition(settings, self.health)

    @property
    def url(self) -> str | None:
        """Where it is answered, if anywhere."""
        return None if self._exposition is None else self._exposition.url

    def follow_relay(self, relay: Relay) -> None:
        """Hear a relay that has not begun yet."""
        # The facts of relays are 0.2 MiB in a worker that hears none of them.
        from postroom.telemetry import spans
        from postroom.telemetry.relay_fields import RelayFields

        found, hear = pulse.of_relay(relay.status.partition, **self._limits)
        relay.observer.subscribe(hear)
        relay.observer.subscribe(RelayFields().hear)
        relay.observer.subscribe(spans.hear)
        self.health.follow(found)
        if self._exposition is not None:
            self._exposition.follow_relay(relay, found)

    def forget_relay(self, relay: Relay) -> None:
        """Let nothing hang on a relay that was stopped for good while its worker goes on."""
        self.health.forget(relay.status.partition)

    def follow_consumer(self, consumer: Consumer) -> None:
        """Hear a consumer that has not begun yet."""
        found, hear = pulse.of_consumer(consumer.status.subscription, **self._limits)
        consumer.observer.subscribe(hear)
        self.health.follow(found)
        if self._exposition is not None:
            self._exposition.follow_consumer(consumer, found)

    def follow_broker(self, answers: Callable[[], bool]) -> None:
        """Tell whether the broker of Celery answers, asked at each scrape; bounded in time."""
        if self._exposition is not None:
            self._exposition.follow_broker(answers)

    def runs_in(self, name: str, thread: threading.Thread) -> None:
        """Note the thread of the relay or consumer of this name."""
        for each in self.health.pulses:
            if each.name == name:
                each.is_running = thread.is_alive

    def start(self) -> None:
        """Begin to watch and to answer."""
        self._watchdog.start()
        if self._exposition is not None:
            self._exposition.start()

    def stop(self) -> None:
        """Answer no more."""
        self._watchdog.stop()
        if self._exposition is not None:
            self._exposition.stop()


def _exposition(settings: Settings, health: Health) -> Exposition | None:
    if settings.metrics_port is None:
        return None
    try:
        from postroom.telemetry.exposition import Exposition
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise errors.ConfigurationError(
            "POSTROOM_METRICS_PORT is set, and prometheus-client is not installed: "
            "pip install 'postroom[metrics]'. Nothing was started"
        ) from None
    return Exposition(settings, health)
