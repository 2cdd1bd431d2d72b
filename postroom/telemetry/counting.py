"""Counting: subscribers that keep the metrics of relays and consumers, once a chunk and a job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postroom.inbox import facts as inbox_facts
from postroom.relay import facts as relay_facts
from postroom.relay.state import State
from postroom.telemetry.catalogue import CONSUMER, RELAY, Instruments

if TYPE_CHECKING:
    from datetime import datetime

    from prometheus_client import CollectorRegistry

    from postroom.observation import Fact

__all__ = ["Counting"]

STOPPED = "stop"


class Counting:
    """Hears the facts of all relays and consumers of a process. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._relay = Instruments(registry, RELAY)
        self._consumer = Instruments(registry, CONSUMER)

    def begin_relay(self, partition: str) -> None:
        """Show a relay's counters from 0 on, so that the first increase is seen."""
        for name in ("events_published", "published_bytes", "events_skipped", "events_quarantined"):
            self._relay.add(f"postroom_relay_{name}_total", 0, partition)

    def begin_consumer(self, subscription: str) -> None:
        """Show a consumer's counters from 0 on."""
        self._consumer.add("postroom_consumer_received_total", 0, subscription)

    def hear_relay(self, fact: Fact) -> None:
        """Count a relay's fact."""
        match fact:
            case relay_facts.ChunkStored(partition=partition):
                self._stored(fact, partition)
            case relay_facts.CheckpointWritten(partition=partition, seconds=seconds):
                self._relay.observe(
                    "postroom_relay_checkpoint_duration_seconds", seconds, partition
                )
            case relay_facts.RowsQuarantined(partition=partition, rows=rows):
                self._relay.add("postroom_relay_events_quarantined_total", rows, partition)
            case relay_facts.RowsReturned(partition=partition, rows=rows):
                self._relay.add("postroom_relay_events_returned_total", rows, partition)
            case relay_facts.RowsPruned(partition=partition, rows=rows):
                self._relay.add("postroom_relay_rows_pruned_total", rows, partition)
            case relay_facts.EventsFired(partition=partition, events=events):
                self._relay.add("postroom_relay_events_fired_total", events, partition)
            case relay_facts.TopicsShut(partition=partition, reasons=reasons):
                self._relay.set("postroom_relay_shut_topics", len(reasons), partition)
            case relay_facts.TermFailed(partition=partition, error=error):
                self._relay.add("postroom_relay_terms_total", 1, partition, error)
            case relay_facts.StateEntered(partition=partition, state=State.STOPPED):
                self._relay.add("postroom_relay_terms_total", 1, partition, STOPPED)

    def _stored(self, fact: relay_facts.ChunkStored, partition: str) -> None:
        if not (fact.events or fact.skipped):
            return
        relay = self._relay
        relay.add("postroom_relay_events_published_total", fact.events, partition)
        relay.add("postroom_relay_published_bytes_total", fact.payload_bytes, partition)
        relay.add("postroom_relay_events_skipped_total", fact.skipped, partition)
        if fact.events:
            relay.set("postroom_relay_last_event_timestamp_seconds", time.time(), partition)
        began = fact.committed_at or fact.occurred_at
        if began is not None:
            relay.observe("postroom_relay_commit_to_stored_seconds", _since(began), partition)

    def hear_consumer(self, fact: Fact) -> None:
        """Count a consumer's fact."""
        match fact:
            case inbox_facts.Handled():
                self._handled(fact)
            case inbox_facts.Received():
                self._consumer.add(
                    "postroom_consumer_received_total", fact.messages, fact.subscription
                )
            case inbox_facts.Retried() | inbox_facts.GivenUp():
                outcome = "retried" if isinstance(fact, inbox_facts.Retried) else "given_up"
                self._came_to(fact.subscription, fact.handler, outcome, fact.events)
                self._consumer.observe(
                    "postroom_consumer_handler_duration_seconds",
                    fact.seconds,
                    fact.subscription,
                    fact.handler,
                )
            case inbox_facts.TimedOut():
                self._came_to(fact.subscription, fact.handler, "timed_out")
            case inbox_facts.Ignored():
                self._came_to(fact.subscription, "", "ignored")
            case inbox_facts.Parked():
                self._consumer.add(
                    "postroom_consumer_dead_letters_total", 1, fact.subscription, fact.handler
                )
            case inbox_facts.Troubled():
                self._consumer.set(
                    "postroom_consumer_troubles", len(fact.sentences), fact.subscription
                )
            case inbox_facts.Load():
                self._holding(fact)

    def _handled(self, fact: inbox_facts.Handled) -> None:
        subscription, handler = fact.subscription, fact.handler
        self._came_to(subscription, handler, "handled", fact.handled)
        self._came_to(subscription, handler, "repeated", fact.repeated)
        observe = self._consumer.observe
        observe("postroom_consumer_handler_duration_seconds", fact.seconds, subscription, handler)
        if fact.occurred_at is not None and fact.handled:
            observe(
                "postroom_consumer_commit_to_handled_seconds",
                _since(fact.occurred_at),
                subscription,
                handler,
            )

    def _came_to(self, subscription: str, handler: str, outcome: str, events: int = 1) -> None:
        self._consumer.add("postroom_consumer_events_total", events, subscription, handler, outcome)

    def _holding(self, fact: inbox_facts.Load) -> None:
        held = self._consumer.set
        held("postroom_consumer_held_events", fact.held, fact.subscription)
        held("postroom_consumer_held_bytes", fact.held_bytes, fact.subscription)
        held("postroom_consumer_running_jobs", fact.running, fact.subscription)
        held("postroom_consumer_waiting_jobs", fact.waiting_to_retry, fact.subscription)


def _since(at: datetime) -> float:
    # A writer's clock may be ahead of this one.
    return max(0.0, time.time() - at.timestamp())
