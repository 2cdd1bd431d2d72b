"""A Failover topic that changes hands is read on from what is unacknowledged, in its order."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from postroom.inbox.receiving.source import Condition, Source
from postroom.topics import Topic
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pulsar

    from postroom.inbox.scheduling.delivery import Acknowledger
    from tests.site import Site

pytestmark = pytest.mark.pulsar

SUBSCRIPTION = "billing"
# More than the sockets between broker and consumer hold, so that a write to a frozen one lasts.
PADDING = bytes(200_000)
# More than the broker takes in one entry.
IN_CHUNKS = bytes(6_000_000)
# Its name is behind that of any source, so that it has the topic only while it is alone.
HOLDER = """
import pulsar, sys
url, topic, subscription = sys.argv[1:]
consumer = pulsar.Client(url).subscribe(
    topic, subscription, pulsar.ConsumerType.Failover, consumer_name="~", receiver_queue_size=100,
    initial_position=pulsar.InitialPosition.Earliest,
)
while True:
    consumer.receive()
    print("has it", flush=True)
"""


class Reading:
    """A source, and the numbers that it has passed on."""

    def __init__(self, site: Site, topic: Topic) -> None:
        self.numbers: list[int] = []
        self.has_room = True
        self._client = site.pulsar
        self._source = Source(topic, subscription=SUBSCRIPTION, kind="failover", feed=self)  # type: ignore[arg-type]

    def take(self, source: Acknowledger, message: pulsar.Message) -> None:
        """Note a message, and acknowledge each third one."""
        number = int(message.data()[:6])
        self.numbers.append(number)
        if number % 3 == 0:
            source.acknowledge(message)

    def open(self, *, own_thread: bool = True) -> None:
        """Begin to read."""
        self._source.open(self._client, queue_size=50, own_thread=own_thread)

    def close(self) -> None:
        """Read no more."""
        self._source.close()

    def wait_for(self, count: int) -> None:
        """Look after the source until it has passed on so many, each first time in order."""

        def is_there() -> bool:
            match self._source.look():
                case Condition.GOOD:
                    self._source.tend()
                case Condition.STALE:
                    self.open()
            return len(set(self.numbers)) >= count

        wait_until(is_there, description=f"{count} messages are passed on")
        found = list(dict.fromkeys(self.numbers))
        assert found == list(range(len(found)))


@pytest.fixture
def topic(pulsar_site: Site) -> Topic:
    """Lend a topic partition, of which the consumer with the first name is the active one."""
    pulsar_site.admin("PUT", "/partitions", body=b"1")
    return Topic(f"{pulsar_site.topic}-partition-0")


@pytest.fixture
def reading(pulsar_site: Site, topic: Topic) -> Iterator[Reading]:
    """Lend a source of the topic, not opened yet."""
    found = Reading(pulsar_site, topic)
    yield found
    found.close()


@pytest.fixture
def send(pulsar_site: Site, topic: Topic) -> Iterator[Callable[..., None]]:
    """Lend a way to send so many numbers more."""
    producer = pulsar_site.pulsar.create_producer(topic, block_if_queue_full=True)
    sent = iter(range(1_000_000))

    def some(count: int, *, padding: bytes = b"") -> None:
        for _ in range(count):
            producer.send_async(b"%06d" % next(sent) + padding, None)
        producer.flush()

    yield some
    producer.close()


@contextlib.contextmanager
def holder(
    site: Site, topic: Topic, send: Callable[..., None]
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process read the topic, and a first message from it, and acknowledge nothing."""
    url = site.environment["POSTROOM_PULSAR_URL"]
    words = [sys.executable, "-c", HOLDER, url, topic, SUBSCRIPTION]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        send(1)
        while b"has it" not in process.stdout.readline():
            assert process.poll() is None
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("more", [0, 40], ids=["a topic that comes to rest", "a topic that flows"])
def test_what_the_consumer_before_had_is_passed_on_first(
    pulsar_site: Site,
    topic: Topic,
    reading: Reading,
    send: Callable[..., None],
    more: int,
) -> None:
    """Pulsar hands the newest messages out first where it was writing to the one before."""
    with holder(pulsar_site, topic, send) as before:
        before.send_signal(signal.SIGSTOP)
        send(59, padding=PADDING)
        reading.open()
        wait_until(lambda: is_given(pulsar_site, topic), description="it changes hands")
        before.send_signal(signal.SIGCONT)  # within activeConsumerFailoverDelayTimeMillis
        send(more)
        reading.wait_for(60 + more)


@pytest.mark.parametrize("end", ["kill", "unload"])
def test_a_topic_is_read_on_whatever_ends_the_turn_before(
    pulsar_site: Site, topic: Topic, reading: Reading, send: Callable[..., None], end: str
) -> None:
    """A death, and a topic that moves, leave out nothing."""
    with holder(pulsar_site, topic, send) as before:
        send(300)
        if end == "kill":
            before.kill()
        reading.open()
        send(300)
        if end == "unload":
            pulsar_site.admin("PUT", "/unload", topic=topic)
        send(100)
        reading.wait_for(701)


@pytest.mark.parametrize("receives_in", ["its own thread", "the client's"])
def test_messages_in_chunks_and_keyed_batches_follow_each_other(
    pulsar_site: Site, topic: Topic, reading: Reading, receives_in: str
) -> None:
    """Between them entries are missing, or hold several messages; none of them is."""
    client = pulsar_site.pulsar
    batching = client.create_producer(topic, batching_enabled=True, block_if_queue_full=True)
    chunking = client.create_producer(topic, batching_enabled=False, chunking_enabled=True)
    reading.open(own_thread=receives_in == "its own thread")
    for first in range(0, 80, 20):
        for number in range(first, first + 17):
            batching.send_async(b"%06d" % number, None)
        batching.flush()
        for number in range(first + 17, first + 20):
            chunking.send(b"%06d" % number + IN_CHUNKS)
    reading.wait_for(80)
    batching.close()
    chunking.close()


def test_messages_in_chunks_keep_their_order_over_connections(
    pulsar_site: Site, topic: Topic, reading: Reading
) -> None:
    """A topic that moves again and again while one is half received lets none overtake it."""
    chunking = pulsar_site.pulsar.create_producer(topic, chunking_enabled=True)
    for number in range(6):
        chunking.send(b"%06d" % number + IN_CHUNKS)
    chunking.close()
    reading.open()
    for seen in range(1, 4):
        with contextlib.suppress(OSError):
            pulsar_site.admin("PUT", "/unload", topic=topic)
        reading.wait_for(seen)
    reading.wait_for(6)


def is_given(site: Site, topic: Topic) -> bool:
    """Say whether the topic is another consumer's than the holder's."""
    stats = json.loads(site.admin("GET", "/stats", topic=topic))
    return bool(stats["subscriptions"][SUBSCRIPTION]["activeConsumerName"] != "~")
