"""Dead letters: events that were given up, sent where they are kept with the reason."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from postroom import broker, wire
from postroom.access import pulsar as pulsar_access
from postroom.inbox.parking.chute import Clients
from postroom.inbox.parking.letterbox import Letterbox, Plight
from postroom.inbox.parking.letters import UnsentLetter
from postroom.inbox.receiving.selection import dead_letter_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.inbox.handling.handlers import Handler
    from postroom.inbox.receiving.troubles import Troubles
    from postroom.inbox.scheduling.delivery import Delivery
    from postroom.inbox.scheduling.held import Failures
    from postroom.settings import Settings

__all__ = ["DeadLetters"]

LONGEST_REASON = 1000
LATEST_TIMESTAMP = 1 << 62
OPERATION_TIMEOUT = timedelta(seconds=10)


class DeadLetters:
    """Sends given-up deliveries of one subscription to their dead-letter topics. Never blocks.

    The message keeps payload, keys and properties; reason, handler, attempts and times are added.
    What a topic does not take waits, is said, and is tried again; no other topic waits for it. The
    dispatcher calls it, and letterboxes answer in their own threads.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        subscription: str,
        has_room: Callable[[], bool],
        troubles: Troubles,
    ) -> None:
        self._settings = settings
        self._subscription = subscription
        self._has_room = has_room
        self._troubles = troubles
        self._access = pulsar_access.of(settings)
        self._clients = Clients(
            together=broker.connect(self._access, operation_timeout=OPERATION_TIMEOUT),
            alone=broker.connect(self._access, operation_timeout=OPERATION_TIMEOUT),
        )
        self._boxes: dict[str, Letterbox] = {}

    def prepare(self, topic: str) -> None:
        """Make ready for the dead letters of a topic; returns at once."""
        self._box(topic)

    def park(
        self,
        delivery: Delivery,
        *,
        reason: str,
        handler: Handler | None,
        failures: Failures,
        stored: Callable[[bool], None],
    ) -> None:
        """Send a delivery away; returns at once.

        `stored` is told, as a rule in the letterbox's thread, whether it has arrived, however long
        that takes; False where it was handed back.
        """
        ours = {
            wire.ID: delivery.event_id,
            wire.DEAD_TOPIC: delivery.origin,
            wire.DEAD_SUBSCRIPTION: self._subscription,
            wire.DEAD_MESSAGE_ID: ":".join(map(str, delivery.place[1:])),
            wire.DEAD_HANDLER: handler.name if handler else delivery.only_for or "",
            wire.DEAD_REASON: _sendable(reason)[:LONGEST_REASON],
            wire.DEAD_ATTEMPTS: str(failures.attempts),
            wire.DEAD_FIRST_FAILURE: str(failures.first or ""),
            wire.DEAD_LAST_FAILURE: str(failures.last or ""),
        }
        theirs = {k: v for k, v in delivery.properties.items() if k != wire.REDRIVE_HANDLER}
        at = delivery.message.event_timestamp()
        letter = UnsentLetter(
            payload=delivery.message.data(),
            properties={**theirs, **ours},
            partition_key=delivery.key,
            ordering_key=delivery.ordering_key,
            event_timestamp=at if 0 < at < LATEST_TIMESTAMP else None,
            stored=stored,
        )
        self._box(delivery.origin).put(letter)

    def hand_back(self) -> None:
        """Keep nothing any longer that cannot be stored now: it is told so."""
        for box in self._boxes.values():
            box.hand_back()

    def close(self) -> None:
        """Let go of everything; what was not stored is delivered again."""
        for box in self._boxes.values():
            box.close()
        for client in (self._clients.together, self._clients.alone):
            broker.close(client)

    def _box(self, topic: str) -> Letterbox:
        dead = dead_letter_topic(self._settings, topic, self._subscription)
        found = self._boxes.get(dead)
        if found is None:
            found = self._boxes[dead] = Letterbox(
                dead,
                self._clients,
                access=self._access,
                timeout_seconds=self._settings.send_timeout_seconds,
                changed=self._on_change,
            )
        return found

    def _on_change(self, topic: str, plight: Plight | None) -> None:
        if plight is None:
            self._troubles.end(f"dead letters on {topic}")
            return
        self._troubles.begin(
            f"dead letters on {topic}",
            self._sentence(topic, plight),
            mended=f"The dead-letter topic {topic} has everything that waited for it",
        )

    def _sentence(self, topic: str, plight: Plight) -> str:
        what = "" if plight.letter_bytes is None else f" a letter of {plight.letter_bytes:,} bytes"
        full = "" if self._has_room() else ". That is as many as may be held: nothing is received"
        return (
            f"The dead-letter topic {topic} did not take{what or ' what is given up'} "
            f"({plight.why}). {plight.waiting} events of the subscription "
            f"{self._subscription!r} wait for it, later ones of their keys behind them, and all "
            f"others are handled; it is tried again{full}"
        )


def _sendable(text: str) -> str:
    # File names that are no UTF-8 come as lone surrogates.
    return text.encode("utf-8", "replace").decode()
