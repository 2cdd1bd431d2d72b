"""Readback: a topic's messages up to its end, and a word about it where that takes long."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from postroom import errors, restraints

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.relay.sending.lane_options import LaneOptions
    from postroom.topics import Topic

__all__ = ["ConnectionLostError", "Readback", "Surroundings"]

logger = logging.getLogger(__name__)

FIRST_WORD_SECONDS = 5.0
REMIND_SECONDS = 10.0
LOOK_MS = 1_000


class ConnectionLostError(errors.TermEnded):
    """The connection was lost while a tail was read."""


class Surroundings:
    """What a readback asks and tells while it waits; used by the term's thread alone.

    `require_office` raises where the relay is to stop, `say` shows what is waited for.
    """

    def __init__(
        self,
        *,
        options: LaneOptions,
        admin: PulsarAdmin,
        require_office: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.options = options
        self.admin = admin
        self.require_office = require_office
        self.say = say


class Readback:
    """Reads one topic with one reader, for one tail.

    A policy on how fast a topic hands out its messages (dispatchRate, subscriptionDispatchRate)
    makes that long: without its tail nothing may go there, so it is waited for, and said.
    """

    def __init__(self, topic: Topic, reader: pulsar.Reader, around: Surroundings) -> None:
        self.messages = 0
        self._topic = topic
        self._reader = reader
        self._around = around
        self._began = time.monotonic()
        self._said_at: float | None = None

    def next(self) -> pulsar.Message | None:
        """Return the next message, None at the topic's end.

        Raises:
            TermEnded: the relay was stopped meanwhile, or the connection was lost.
            pulsar.Timeout: none comes although there are some, and no policy is known to hold back.
            pulsar.PulsarException: the topic cannot be read.

        """
        import pulsar

        self._around.require_office()
        try:
            message = self._handed_out() if self._has_more() else None
        except pulsar.UnknownError:
            if self._around.options.fenced:
                raise
            # The embedded broker's way to say that the topic is empty.
            return None
        if message is not None:
            self.messages += 1
            self._speak()
        elif self._said_at is not None:
            self._around.say("")
        return message

    def _has_more(self) -> bool:
        # The client answers no as well where the connection was lost while it asked.
        for _ in range(2):
            if self._reader.has_message_available():
                return True
            self._require_connection()
        return False

    def _handed_out(self) -> pulsar.Message:
        import pulsar

        began, limit = time.monotonic(), self._around.options.read_timeout.total_seconds()
        while True:
            try:
                return self._reader.read_next(LOOK_MS)
            except pulsar.Timeout:
                self._around.require_office()
                self._require_connection()
                held_back = self._speak()
                if time.monotonic() - began > limit and not (held_back or self._restraints()):
                    raise

    def _require_connection(self) -> None:
        if not self._reader.is_connected():
            raise ConnectionLostError(
                f"The connection was lost while the end of {self._topic} was read; a new term "
                "begins"
            )

    def _restraints(self) -> str:
        return restraints.on_giving(self._around.admin, self._topic)

    def _speak(self) -> bool:
        """Say how far this is if it is time to, and whether a policy is known to hold it back."""
        now = time.monotonic()
        since, every = self._said_at or self._began, REMIND_SECONDS
        if now - since < (every if self._said_at else FIRST_WORD_SECONDS):
            return False
        self._said_at = now
        reasons = self._restraints()
        word = restraints.added(
            f"Reading what {self._topic} received since the checkpoint, before anything is sent "
            f"there: {self.messages} messages so far, in {now - self._began:.0f} s",
            reasons,
        )
        level = logging.WARNING if reasons else logging.INFO
        logger.log(level, "%s", word, extra={"action": "tail_read", "topic": self._topic})
        self._around.say(word)
        return bool(reasons)
