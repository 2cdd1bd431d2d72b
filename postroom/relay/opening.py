"""Opening: how a lane comes to be, fenced first, its tail read then."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from postroom import broker, errors
from postroom.relay.acknowledgements import Acknowledgements
from postroom.relay.lane import Lane
from postroom.relay.outlet import Outlet, Patience
from postroom.relay.tail import Tail, TailReader

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import pulsar

    from postroom.relay.acknowledgements import Refusal
    from postroom.relay.experience import Experience
    from postroom.relay.lane_options import LaneOptions
    from postroom.relay.tail import Span
    from postroom.relay.tenure import Tenure
    from postroom.routing import Routing
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["Opened", "Opening"]

# More than the term keeps in flight, so that the client never blocks inside a send.
MAX_PENDING_MESSAGES = 50_000
# A lane cuts its batches itself: these keep the client from doing it.
CLIENT_BATCH_MESSAGES = 10_000
CLIENT_BATCH_BYTES = 64 << 20
CLIENT_BATCH_DELAY_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open lane, the tail behind it, and the mark from which it counts."""

    lane: Lane
    tail: Tail
    mark: Mark | None


class Opening:
    """Opens the lanes of one term; used by the term's thread alone.

    The fence makes an older holder's sends fail from here on; the tail, read after it, is all that
    was stored since the checkpoint, so that nothing is sent a second time. `tell` hears, in the
    client's threads, of what the broker did not store.
    """

    def __init__(
        self,
        client: pulsar.Client,
        *,
        options: LaneOptions,
        routing: Routing,
        experience: Experience,
        tenure: Tenure,
        tell: Callable[[Refusal], None],
        stopping: threading.Event,
    ) -> None:
        self.tails = TailReader(client, options=options, stopping=stopping)
        self._client = client
        self._options = options
        self._routing = routing
        self._experience = experience
        self._tenure = tenure
        self._tell = tell
        self._patience = Patience(options.send_timeout.total_seconds(), stopping)

    def open(self, topic: Topic, span: Span | None) -> Opened:
        """Fence a topic, then read its tail over a span.

        Without one the topic was never declared: nothing was sent there, and it has no tail; the
        lane's mark is the topic's end as it is now. A shared topic has other producers, which a
        fence would throw out: there a frozen relay that wakes up may send some twice.

        Raises:
            PartitionedTopic: it is not one log.
            TermEnded: the connection was lost meanwhile, or the relay was stopped.
            pulsar.PulsarException: as the broker refuses it.

        """
        broker.require_unpartitioned(self._client, topic)
        shared, options = self._routing.is_shared(topic), self._options
        batching = options.batch_keyed or not self._routing.keyed
        producer = self._produce(topic, shared=shared, batching=batching)
        # With deduplication the broker drops what is not above the last id that it knows.
        pushed = producer.last_sequence_id()
        try:
            if span is None:
                tail, mark = Tail(floor=max(0, pushed)), self.tails.end(topic)
            else:
                tail = self.tails.read(topic, span, shared=shared, pushed=pushed)
                mark = span.mark
        except BaseException:
            broker.close(producer)
            raise
        lane = Lane(
            topic,
            self._outlet(topic, producer, shared=shared, batching=batching),
            shared=shared,
            floor=tail.floor,
            experience=self._experience,
            unbatched=None
            if options.batch_keyed
            else functools.partial(self._unbatched, topic, shared=shared),
        )
        return Opened(lane=lane, tail=tail, mark=mark)

    def _unbatched(self, topic: Topic, *, shared: bool) -> Outlet:
        producer = self._produce(topic, shared=shared, batching=False)
        # Frozen before that, the relay has now fenced out the one that replaced it.
        self._tenure.confirm()
        return self._outlet(topic, producer, shared=shared, batching=False)

    def _produce(self, topic: Topic, *, shared: bool, batching: bool) -> pulsar.Producer:
        import pulsar

        mode = pulsar.ProducerAccessMode
        return self._client.create_producer(
            topic,
            producer_name=self._options.name_on(shared=shared),
            access_mode=mode.ExclusiveWithFencing if self._is_fenced(shared) else mode.Shared,
            batching_enabled=batching,
            batching_max_messages=CLIENT_BATCH_MESSAGES,
            batching_max_allowed_size_in_bytes=CLIENT_BATCH_BYTES,
            batching_max_publish_delay_ms=CLIENT_BATCH_DELAY_MS,
            max_pending_messages=MAX_PENDING_MESSAGES,
            block_if_queue_full=True,
            # Never: it would fail what is pending and go on with what comes next.
            send_timeout_millis=0,
        )

    def _is_fenced(self, shared: bool) -> bool:  # noqa: FBT001 - a topic's only quality here
        return self._options.fenced and not shared

    def _outlet(
        self, topic: Topic, producer: pulsar.Producer, *, shared: bool, batching: bool
    ) -> Outlet:
        acknowledgements = Acknowledgements(topic, counted=self._is_fenced(shared), tell=self._tell)
        return Outlet(
            producer,
            acknowledgements,
            batching=batching,
            patience=self._patience,
            fail=self.fail,
        )

    def fail(self, refusal: Refusal) -> NoReturn:
        """End the term over what was not stored.

        Raises:
            Superseded: a newer relay has taken over.
            TermEnded: none has.

        """
        import pulsar

        if refusal.result == pulsar.Result.ProducerFenced:
            self._tenure.confirm()
            raise errors.TermEnded(
                f"Another producer has fenced {refusal.topic}, and it is no newer relay of this "
                "outbox partition: is a relay of another one, or of another service, sending "
                "there? A topic has one, unless it is declared shared; a new term begins"
            )
        raise errors.TermEnded(f"{refusal.sentence}; a new term begins")
