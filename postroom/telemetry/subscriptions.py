"""Subscriptions: what Pulsar's admin interface alone tells of topics and consumers, as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from postroom.inbox.topic_view import DEAD
from postroom.telemetry.catalogue import TOPICS, family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import GaugeMetricFamily

    from postroom.inbox.topic_view import TopicRow

__all__ = ["Subscriptions"]


class Subscriptions(Collector):
    """Tells what `seen` returns, which is to return at once: None where nobody has told it.

    Of the application's own subscriptions alone; what others leave behind, the doctor names.
    """

    def __init__(self, seen: Callable[[], Sequence[TopicRow] | None]) -> None:
        self._seen = seen

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name what collect() may give."""
        return (family(TOPICS, name) for name in TOPICS)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Tell what was seen last."""
        rows = self._seen()
        metrics = {name: family(TOPICS, name) for name in TOPICS}
        readable = metrics["postroom_pulsar_admin_readable"]
        readable.add_metric([], float(rows is not None))
        for row in rows or ():
            _tell(row, metrics)
        yield from metrics.values()


def _tell(row: TopicRow, metrics: dict[str, GaugeMetricFamily]) -> None:
    for each in row.subscriptions:
        if not each.ours:
            continue
        if row.role == DEAD:
            metrics["postroom_dead_letters_waiting"].add_metric([row.topic], each.backlog)
            continue
        of = [row.topic, each.name]
        metrics["postroom_subscription_consumers"].add_metric(of, len(each.consumers))
        metrics["postroom_subscription_backlog_entries"].add_metric(of, each.backlog)
        if not each.backlog or each.oldest_seconds is not None:
            age = each.oldest_seconds or 0
            metrics["postroom_subscription_oldest_seconds"].add_metric(of, age)
