"""Scraping: what a worker finds out about itself at the moment at which it is asked."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from postroom.relay.state import State
from postroom.telemetry.catalogue import SCRAPED, family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import GaugeMetricFamily

    from postroom.relay.status import Status
    from postroom.telemetry.pulse import Pulse

__all__ = ["Scraping"]

RELAY_STATES = tuple(state.value for state in State)
CONSUMER_STATES = ("connecting", "consuming", "waiting", "draining", "stopped")


class Scraping(Collector):
    """States, lag and what hangs; right also while the thread that they speak of stands still.

    collect() is called in the endpoint's threads, while a worker's main thread, or a crew's, adds
    who is shown: lists that only grow.
    """

    def __init__(self) -> None:
        self._relays: list[tuple[Status, Pulse]] = []
        self._consumers: list[Pulse] = []
        self._broker_answers: Callable[[], bool] | None = None

    def add_relay(self, status: Status, pulse: Pulse) -> None:
        """Show a relay from now on."""
        self._relays.append((status, pulse))

    def add_consumer(self, pulse: Pulse) -> None:
        """Show a consumer from now on."""
        self._consumers.append(pulse)

    def follow_broker(self, answers: Callable[[], bool]) -> None:
        """Show from now on whether the broker of Celery answers."""
        self._broker_answers = answers

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name what collect() may give."""
        return (family(SCRAPED, name) for name in SCRAPED)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Find it out."""
        relays = [pulse for _, pulse in self._relays]
        yield _states("postroom_relay_state", relays, RELAY_STATES)
        yield _states("postroom_consumer_state", self._consumers, CONSUMER_STATES)
        lag = family(SCRAPED, "postroom_relay_lag_seconds")
        for status, _ in self._relays:
            if (seconds := status.lag_seconds()) is not None:
                lag.add_metric([status.partition], seconds)
        yield lag
        hanging = family(SCRAPED, "postroom_hang_seconds")
        for pulse in (*relays, *self._consumers):
            for hang in pulse.hangs():
                hanging.add_metric([pulse.name, hang.what], hang.seconds)
        yield hanging
        up = family(SCRAPED, "postroom_celery_broker_up")
        if self._broker_answers is not None:
            up.add_metric([], float(self._broker_answers()))
        yield up
        build = family(SCRAPED, "postroom_build_info")
        build.add_metric([_version()], 1)
        yield build


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("postroom")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _states(name: str, pulses: Sequence[Pulse], states: Sequence[str]) -> GaugeMetricFamily:
    found = family(SCRAPED, name)
    for pulse in pulses:
        now = pulse.state
        for state in states:
            found.add_metric([pulse.name, state], float(state == now))
    return found
