"""The catalogue: every metric, with its kind, labels and help text.

Names are as Prometheus wants them: a unit, and `_total` for what only grows. No label is a key or
an id: partitions, subscriptions, handlers, states and outcomes are few, and events are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

__all__ = [
    "CONSUMER",
    "DATABASE",
    "RELAY",
    "SCRAPED",
    "TOPICS",
    "Described",
    "Instruments",
    "family",
]

# From a few milliseconds, which is what an event takes, to an outage's hour.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
PARTITION = ("partition",)
SUBSCRIPTION = ("subscription",)
HANDLER = (*SUBSCRIPTION, "handler")
OF_TOPIC = ("topic", *SUBSCRIPTION)


@dataclass(frozen=True, slots=True)
class Described:
    """One metric; `kind` is prometheus-client's."""

    kind: type[Any]
    text: str
    labels: tuple[str, ...] = ()


# Counted by a relay's process, as the facts are told.
RELAY: Mapping[str, Described] = {
    "postroom_relay_events_published_total": Described(
        Counter, "Events that Pulsar has stored for this relay", PARTITION
    ),
    "postroom_relay_published_bytes_total": Described(
        Counter, "Bytes of the payloads of those events", PARTITION
    ),
    "postroom_relay_events_skipped_total": Described(
        Counter, "Events that their topics had already", PARTITION
    ),
    "postroom_relay_events_quarantined_total": Described(
        Counter, "Rows that this relay set aside", PARTITION
    ),
    "postroom_relay_events_returned_total": Described(
        Counter, "Rows set aside for a topic that could not be opened, and sent since", PARTITION
    ),
    "postroom_relay_rows_pruned_total": Described(
        Counter, "Relayed rows that were deleted by age", PARTITION
    ),
    "postroom_relay_events_fired_total": Described(
        Counter,
        "Scheduled events that were due, and that this relay moved to the outbox",
        PARTITION,
    ),
    "postroom_relay_terms_total": Described(
        Counter,
        "Terms and candidacies that ended, by the class of the error, or by a stop",
        (*PARTITION, "end"),
    ),
    "postroom_relay_last_event_timestamp_seconds": Described(
        Gauge, "When this relay last had an event stored, in seconds since 1970", PARTITION
    ),
    "postroom_relay_shut_topics": Described(
        Gauge, "Topics that cannot be opened; their rows are set aside", PARTITION
    ),
    "postroom_relay_commit_to_stored_seconds": Described(
        Histogram,
        "From the commit of an event, by MongoDB's clock, to its place on the topic; of the "
        "oldest event of each reply. By its writer's clock where the commit's time is not told",
        PARTITION,
    ),
    "postroom_relay_checkpoint_duration_seconds": Described(
        Histogram, "What writing a checkpoint took", PARTITION
    ),
}
# Counted by a consumer's process.
CONSUMER: Mapping[str, Described] = {
    "postroom_consumer_received_total": Described(
        Counter, "Messages received from Pulsar", SUBSCRIPTION
    ),
    "postroom_consumer_events_total": Described(
        Counter,
        "What came of events: handled, repeated (handled before), retried, timed_out, given_up, "
        "ignored",
        (*HANDLER, "outcome"),
    ),
    "postroom_consumer_dead_letters_total": Described(
        Counter, "Dead letters that their topic has stored", HANDLER
    ),
    "postroom_consumer_handler_duration_seconds": Described(
        Histogram, "For how long a thread had a job, its transaction included", HANDLER
    ),
    "postroom_consumer_commit_to_handled_seconds": Described(
        Histogram,
        "From the writing of an event, by its writer's clock, until it is handled; of the first "
        "event of each job",
        HANDLER,
    ),
    "postroom_consumer_held_events": Described(
        Gauge, "Events that were received and are not acknowledged yet", SUBSCRIPTION
    ),
    "postroom_consumer_held_bytes": Described(
        Gauge, "About how many bytes of memory they fill", SUBSCRIPTION
    ),
    "postroom_consumer_running_jobs": Described(
        Gauge, "Jobs that a thread has begun", SUBSCRIPTION
    ),
    "postroom_consumer_waiting_jobs": Described(
        Gauge, "Jobs that wait to be tried again, for their turn or to run alone", SUBSCRIPTION
    ),
    "postroom_consumer_troubles": Described(
        Gauge, "Topics that cannot be read, or take no dead letters", SUBSCRIPTION
    ),
}
# Found out when they are asked for, by the process that is asked.
SCRAPED: Mapping[str, Described] = {
    "postroom_relay_state": Described(
        Gauge, "1 for the state that the relay is in, 0 for the others", (*PARTITION, "state")
    ),
    "postroom_relay_lag_seconds": Described(
        Gauge,
        "How old the oldest event that is not relayed may be, as the relay in office knows it; "
        "absent out of office and in a first scan",
        PARTITION,
    ),
    "postroom_consumer_state": Described(
        Gauge, "1 for the state that the consumer is in, 0 for the others", (*SUBSCRIPTION, "state")
    ),
    "postroom_hang_seconds": Described(
        Gauge,
        "For how long something has stood still that may not for as long; absent where nothing "
        "does. `what` is thread, read, send, checkpoint, handler or commit; `name` an outbox "
        "partition or a subscription",
        ("name", "what"),
    ),
    "postroom_celery_broker_up": Described(
        Gauge,
        "1 where Celery's broker (Redis) took a connection and a key of this worker's, 0 where "
        "not. Relaying and consuming go on without it",
    ),
    "postroom_build_info": Described(Gauge, "1, with the version of postroom", ("version",)),
}
# By the database alone, for every outbox partition, whether or not a relay lives.
DATABASE: Mapping[str, Described] = {
    "postroom_relay_backlog_events": Described(
        Gauge,
        "Rows that are committed and not relayed; counted up to 100,000, see _backlog_partial",
        PARTITION,
    ),
    "postroom_relay_backlog_partial": Described(
        Gauge, "1 where there may be more than _backlog_events says", PARTITION
    ),
    "postroom_relay_oldest_unsent_seconds": Described(
        Gauge, "The age of the oldest of them, 0 where none waits", PARTITION
    ),
    "postroom_relay_quarantined_rows": Described(
        Gauge, "Rows that are set aside at this moment", PARTITION
    ),
    "postroom_relay_checkpoint_age_seconds": Described(
        Gauge, "How long ago the checkpoint was written", PARTITION
    ),
    "postroom_relay_ever_relayed": Described(
        Gauge, "0 where no relay was ever started for rows that are there", PARTITION
    ),
    "postroom_relay_served": Described(
        Gauge,
        "1 where a relay worker has this outbox partition of a divided outbox, 0 where nobody has",
        PARTITION,
    ),
    "postroom_relay_paused": Described(
        Gauge, "1 while an operator has it stand still, whether or not a relay runs", PARTITION
    ),
    "postroom_relay_scanning": Described(
        Gauge,
        "1 while the collection itself is relayed, in which the backlog is not known",
        PARTITION,
    ),
    "postroom_relay_oplog_window_seconds": Described(
        Gauge, "How far back MongoDB's oplog reaches; absent where it may not be read"
    ),
    "postroom_scheduled_events": Described(
        Gauge, "Events that are due later, or were not moved yet; counted up to 100,000", PARTITION
    ),
    "postroom_scheduled_overdue_events": Described(
        Gauge, "Those of them that are due; counted up to 100,000", PARTITION
    ),
    "postroom_scheduled_refused_events": Described(
        Gauge, "Those that cannot go into the outbox", PARTITION
    ),
    "postroom_scheduled_oldest_overdue_seconds": Described(
        Gauge, "For how long the oldest of those has been due, 0 where none is", PARTITION
    ),
    "postroom_database_readable": Described(
        Gauge, "Whether MongoDB told all this a few seconds ago; where 0, the rest is absent"
    ),
    "postroom_database_members_away": Described(
        Gauge, "Members of MongoDB's replica set that do not answer"
    ),
}
# By Pulsar's admin interface alone, whether or not a consumer lives.
TOPICS: Mapping[str, Described] = {
    "postroom_subscription_consumers": Described(
        Gauge, "Consumers that are connected to a subscription of this application", OF_TOPIC
    ),
    "postroom_subscription_backlog_entries": Described(
        Gauge,
        "What none of them has acknowledged, as Pulsar counts: a batch of messages once",
        OF_TOPIC,
    ),
    "postroom_subscription_oldest_seconds": Described(
        Gauge, "How long ago the oldest of them was sent, 0 where there is none", OF_TOPIC
    ),
    "postroom_dead_letters_waiting": Described(
        Gauge,
        "Dead letters on a dead-letter topic of this application; a batch of them once",
        ("topic",),
    ),
    "postroom_pulsar_admin_readable": Described(
        Gauge,
        "Whether Pulsar's admin interface told all this at the last look; where 0, the rest is "
        "absent",
    ),
}


class Instruments:
    """Metrics of one table, made in a registry. Thread-safe, as prometheus-client's are."""

    def __init__(self, registry: CollectorRegistry, table: Mapping[str, Described]) -> None:
        self._made: dict[str, Any] = {}
        self._labelled: dict[tuple[str, ...], Any] = {}
        for name, each in table.items():
            more = {"buckets": SECONDS} if each.kind is Histogram else {}
            self._made[name] = each.kind(name, each.text, each.labels, registry=registry, **more)

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Add to a counter."""
        self._of(name, *labels).inc(amount)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._of(name, *labels).set(value)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Put a duration into a histogram."""
        self._of(name, *labels).observe(seconds)

    def _of(self, *name: str) -> Any:
        """Return a metric by its name and labels; to look it up is dearer than what it counts."""
        found = self._labelled.get(name)
        if found is None:
            found = self._labelled[name] = self._made[name[0]].labels(*name[1:])
        return found


def family(table: Mapping[str, Described], name: str) -> GaugeMetricFamily:
    """Return an empty family of a metric that is found out when it is asked for."""
    found = table[name]
    return GaugeMetricFamily(name, found.text, labels=found.labels)
