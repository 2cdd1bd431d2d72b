"""Opening: how a lane comes to be, fenced first, its tail read then."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from postroom import broker, errors, restraints
from postroom.abilities import stores_anything
from postroom.access.client import access_of
from postroom.refusals import is_away, why
from postroom.relay.sending.acknowledgements import Acknowledgements
from postroom.relay.sending.lane import BATCH_MESSAGES, Lane
from postroom.relay.sending.outlet import Outlet, SendTimeout
from postroom.relay.sending.readback import ConnectionLostError
from postroom.relay.sending.tail import Tail, TailReader
from postroom.relay.sending.tap import Tap
from postroom.topics import base_topic

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import pulsar

    from postroom.relay.saving.tenure import Tenure
    from postroom.relay.sending.acknowledgements import Refusal
    from postroom.relay.sending.cursors import Cursors
    from postroom.relay.sending.experience import Experience
    from postroom.relay.sending.lane_options import LaneOptions
    from postroom.relay.sending.tail import Span
    from postroom.routing import Routing
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["Opened", "Opening"]

# More than the term keeps in flight, so that the client never blocks inside a send.
MAX_PENDING_MESSAGES = 50_000
# A lane cuts its batches itself, but for full ones: these keep the client from doing it.
CLIENT_BATCH_BYTES = 64 << 20
CLIENT_BATCH_DELAY_MS = 60_000
READ_TIMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open lane, the tail behind it, and the mark from which it counts."""

    lane: Lane
    tail: Tail
    mark: Mark | None


class Opening:
    """Opens the lanes of one term; used by the term's thread alone.

    The fence makes an older holder's sends fail from here on; the tail, read after it, is all that
    was stored since the checkpoint, so that nothing is sent a second time. `tell` hears of what the
    broker did not store, as Acknowledgements are told of it; `say` shows what is waited for.
    """

    def __init__(
        self,
        client: pulsar.Client,
        *,
        options: LaneOptions,
        routing: Routing,
        experience: Experience,
        tenure: Tenure,
        cursors: Cursors,
        tell: Callable[[Refusal], None],
        say: Callable[[str], None],
        stopping: threading.Event,
        paused: threading.Event,
    ) -> None:
        self._tail_reader = functools.partial(
            TailReader,
            options=options,
            admin=experience.admin,
            stopping=stopping,
            paused=paused,
            say=say,
        )
        self.tails = self._tail_reader(client)
        self._client = client
        self._options = options
        self._routing = routing
        self._experience = experience
        experience.is_well = functools.partial(stores_anything, client, experience.admin)
        self._tenure = tenure
        self._cursors = cursors
        self._tell = tell
        self._timeout = SendTimeout(options.send_timeout.total_seconds(), stopping)

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
        import pulsar

        self.require_one_log(topic)
        try:
            return self._open(topic, span, early=Tail())
        except (
            pulsar.ConsumerBusy,
            pulsar.NotAllowedError,
            pulsar.ProducerBlockedQuotaExceededError,
            pulsar.ProducerBlockedQuotaExceededException,
        ) as error:
            # A subscription of our own, and what it keeps, counts as others do. First the tail is
            # read, which is gone then perhaps.
            early = self._read_early(topic, span)
            reason = why(error, access_of(self._client))
            if not self._is_fenced(self._routing.is_shared(topic)) or not self._cursors.give_up(
                topic, reason
            ):
                raise
        try:
            return self._open(topic, span, early=early)
        except pulsar.PulsarException:
            self._cursors.take_back(topic, None if span is None else span.mark)
            raise

    def _read_early(self, topic: Topic, span: Span | None) -> Tail:
        import pulsar

        with contextlib.suppress(pulsar.PulsarException):
            if span is not None:
                return self._read(topic, span, is_terminated=False)
        return Tail()

    def _open(self, topic: Topic, span: Span | None, *, early: Tail) -> Opened:
        shared = self._routing.is_shared(topic)
        batches_keys = self._experience.audience.expect(topic)
        batching = batches_keys or not self._routing.keyed
        producer = self._produce(topic, shared=shared, batching=batching)
        # With deduplication the broker drops what is not above the last id that it knows.
        pushed = producer.last_sequence_id()
        try:
            if span is None or (span.is_unsure and pushed < 0 and self._cursors.are_unknown(topic)):
                tail, mark = Tail(floor=max(0, pushed)), self.tails.end(topic)
                self._cursors.follow(topic, mark, shared=shared)
            else:
                tail = self._read_tail(topic, span, shared=shared, pushed=pushed).joined(early)
                mark = span.mark
            self._experience.intents.opened(topic, tail.ids, tail.first)
        except BaseException:
            broker.close(producer)
            raise
        self._experience.of(topic).silence = 0
        lane = Lane(
            topic,
            self._outlet(topic, producer, shared=shared, batching=batching),
            shared=shared,
            floor=tail.floor,
            experience=self._experience,
            reopened=functools.partial(self._reopened, topic, shared=shared),
        )
        lane.outlet.takes_keys = batches_keys
        return Opened(lane=lane, tail=tail, mark=mark)

    def _read_tail(self, topic: Topic, span: Span, *, shared: bool, pushed: int) -> Tail:
        def begun(is_cut: bool) -> bool:  # noqa: FBT001 - all that there is to tell
            is_new = is_cut and pushed < 0 and self._cursors.are_unknown(topic)
            self._cursors.follow(topic, span.mark, shared=shared)
            return is_new and not shared and not self._experience.of(topic).no_cursor

        checked = dataclasses.replace(span, is_checked=span.published_since is None)
        return self.tails.read(topic, checked, shared=shared, pushed=pushed, begun=begun)

    def require_one_log(self, topic: Topic) -> None:
        """Make sure that a topic is one log: whole, or one of as many topic partitions as needed.

        Raises:
            PartitionedTopic: it is partitioned, or has another number of topic partitions.
            pulsar.PulsarException: the broker does not say.

        """
        count = self._routing.partitions
        if count == 1:
            broker.require_unpartitioned(self._client, topic)
        else:
            self._experience.make_if_absent(base_topic(topic), count)
            broker.require_topic_partitions(self._client, base_topic(topic), count)

    def read_unopened(self, topic: Topic, span: Span, *, is_terminated: bool) -> Tail:
        """Read the tail of a topic that cannot be opened, perhaps since it was terminated.

        Raises:
            TermEnded: the connection was lost meanwhile, or the relay was stopped.
            pulsar.PulsarException: as the broker refuses it.

        """
        tail = self._read(topic, span, is_terminated=is_terminated)
        self._experience.intents.opened(topic, tail.ids, tail.first)
        return tail

    def _read(self, topic: Topic, span: Span, *, is_terminated: bool) -> Tail:
        if not is_terminated:
            return self.tails.read(topic, span, shared=self._routing.is_shared(topic), pushed=-1)
        # At the end of a terminated one the client loses its connection.
        shared, access = self._routing.is_shared(topic), access_of(self._client)
        for is_last in (*[False] * (READ_TIMES - 1), True):
            with broker.connected(access, operation_timeout=self._options.read_timeout) as own:
                reader = self._tail_reader(own)
                try:
                    return reader.read_terminated(topic, span, shared=shared)
                except ConnectionLostError:
                    if is_last:
                        raise
        raise AssertionError(topic)  # the last attempt has returned or raised

    def why_not(self, topic: Topic, error: Exception) -> str:
        """Say why a topic could not be opened, and what can be done."""
        known = self._experience.of(topic)
        known.silence = known.silence + 1 if is_away(type(error).__name__) else 0
        if isinstance(error, errors.PartitionedTopic):
            return str(error)
        reason = why(error, access_of(self._client))
        if known.silence:
            reason = restraints.silence(reason, self._experience.admin, [topic])
        return f"The topic {topic} cannot be opened ({reason})"

    def silence(self, topic: Topic) -> int:
        """Return how many times in succession nobody answered when a topic was to be opened."""
        return self._experience.of(topic).silence

    def _reopened(self, topic: Topic, *, batching: bool, shared: bool) -> Outlet:
        producer = self._produce(topic, shared=shared, batching=batching)
        # Frozen before that, the relay has now fenced out the one that replaced it.
        self._tenure.confirm()
        return self._outlet(topic, producer, shared=shared, batching=batching)

    def _produce(self, topic: Topic, *, shared: bool, batching: bool) -> pulsar.Producer:
        import pulsar

        mode = pulsar.ProducerAccessMode
        return self._client.create_producer(
            topic,
            producer_name=self._options.name_on(shared=shared),
            access_mode=mode.ExclusiveWithFencing if self._is_fenced(shared) else mode.Shared,
            batching_enabled=batching,
            batching_max_messages=BATCH_MESSAGES,
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
        acknowledgements = Acknowledgements(
            topic, counted=self._is_fenced(shared), batched=batching, tell=self._tell
        )
        return Outlet(
            Tap(producer),
            acknowledgements,
            batch_messages=BATCH_MESSAGES if batching else None,
            timeout=self._timeout,
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
        sentence = refusal.sentence
        if refusal.is_silence:
            sentence = restraints.silence(sentence, self._experience.admin, [refusal.topic])
        raise errors.TermEnded(f"{sentence}; a new term begins")
