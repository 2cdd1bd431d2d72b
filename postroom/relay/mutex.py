"""PulsarMutex: an Exclusive subscription as the lock that makes one relay active."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from postroom import broker, errors, jitter
from postroom.relay.occupant import Occupant
from postroom.reminders import Announcement
from postroom.topics import Topic

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    import pulsar

    from postroom.relay.candidate import Candidate
    from postroom.relay.occupant import Occupants
    from postroom.relay.state import State

__all__ = ["PulsarMutex"]

logger = logging.getLogger(__name__)

# A broker that is restarted or unloads the topic is back within this; the client reconnects.
TOLERATED_DISCONNECT_SECONDS = 5.0
REMIND_SECONDS = 600.0
HELD = Occupant(sentence="")


class PulsarMutex:
    """Held by whoever's consumer sits on an Exclusive subscription of one topic.

    It elects; it does not protect. A frozen holder wakes up believing, and the client silently
    takes the subscription again after a break: what keeps two holders from harm is the epoch and
    the fenced lanes. Not thread-safe; acquire() blocks.
    """

    def __init__(
        self,
        client: pulsar.Client,
        candidate: Candidate,
        *,
        properties: Mapping[str, str],
        occupants: Occupants,
        retry: timedelta,
    ) -> None:
        self._client = client
        self._candidate = candidate
        self._topic = candidate.mutex_topic
        self._properties = dict(properties)
        self._occupants = occupants
        self._retry_seconds = retry.total_seconds()
        self._consumer: pulsar.Consumer | None = None
        self._lost_since: float | None = None

    def acquire(self, stopping: threading.Event, *, waiting: Callable[[State, str], None]) -> bool:
        """Ask until the mutex is held, and return True; return False once `stopping` is set.

        Asks every `retry` with a little jitter. `waiting` is told how and why it waits, each
        time; the log when the reason changes, and every ten minutes.

        Raises:
            ServiceUnavailable: Pulsar cannot be used with these settings.
            pulsar.PulsarException: it does not answer, or refuses the subscription otherwise.

        """
        announced = Announcement(every_seconds=REMIND_SECONDS)
        while not stopping.is_set():
            refused = self.ask()
            if refused is None:
                return True
            if announced.is_due(refused.sentence):
                level = logging.INFO if refused.is_ours else logging.WARNING
                logger.log(level, "%s", refused.sentence, extra={"action": "mutex_wait"})
            waiting(refused.state, refused.sentence)
            stopping.wait(jitter.around(self._retry_seconds, by=0.2))
        return False

    def ask(self) -> Occupant | None:
        """Ask once; return None if the mutex is ours now, else who has it.

        Raises what acquire() does.
        """
        return self._asked(self._occupants.now)

    def take(self) -> Occupant | None:
        """Ask as ask() does, but nobody is asked who has a mutex that is held.

        That takes the admin interface and MongoDB, and is most of what a refusal costs.
        """
        return self._asked(lambda _: HELD)

    def _asked(self, occupant: Callable[[str], Occupant]) -> Occupant | None:
        import pulsar

        # One log: a broker that makes topics partitioned by itself makes several of it.
        log = broker.partitions_of(self._client, self._topic)[0]
        try:
            self._consumer = self._client.subscribe(
                log,
                self._candidate.subscription,
                consumer_type=pulsar.ConsumerType.Exclusive,
                consumer_name=self._candidate.owner,
                properties={
                    **self._properties,
                    "since": datetime.now(UTC).isoformat("T", "seconds"),
                },
                receiver_queue_size=1,
            )
        except pulsar.ConsumerBusy:
            return occupant(log)
        except pulsar.Timeout as error:
            broker.require_let_in(self._client, error)
            return self._occupants.silent(Topic(log))
        return None

    def check(self) -> None:
        """Look whether the broker still is there to hold the mutex for us.

        Raises:
            MutexLost: the connection has been gone for a while.

        """
        if self._consumer is None or self._consumer.is_connected():
            self._lost_since = None
            return
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        if now - self._lost_since > TOLERATED_DISCONNECT_SECONDS:
            raise errors.MutexLost(
                f"The connection that holds the mutex on {self._topic} is gone; the relay stands by"
            )

    def release(self) -> None:
        """Give the mutex back; the next relay has it within its retry time."""
        # close() and not unsubscribe(): the latter keeps the lock where the connection is broken.
        if self._consumer is not None:
            broker.close(self._consumer)
            self._consumer = None
