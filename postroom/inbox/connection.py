"""Connection: one life of a subscription's client, topics and dispatcher."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.access.client import access_of
from postroom.inbox import facts
from postroom.inbox.dispatcher import Dispatcher
from postroom.inbox.parking.dead_letters import DeadLetters
from postroom.inbox.parking.parking import Parking
from postroom.inbox.receiving.feed import Feed
from postroom.inbox.receiving.lookout import Lookout
from postroom.inbox.receiving.selection import Selection
from postroom.inbox.receiving.source import Source
from postroom.inbox.receiving.sources import Sources
from postroom.inbox.receiving.troubles import Troubles
from postroom.inbox.scheduling.admission import Admission
from postroom.inbox.scheduling.elsewhere import Elsewhere
from postroom.inbox.scheduling.hanging import Hanging
from postroom.inbox.scheduling.intake import Intake
from postroom.inbox.scheduling.mailbox import Mailbox, Woken
from postroom.inbox.scheduling.patience import Patience
from postroom.inbox.scheduling.underway import Underway

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    import pulsar

    from postroom.envelope import Envelopes
    from postroom.inbox.facts import Teller
    from postroom.inbox.handling.handlers import Registry
    from postroom.inbox.handling.repertoire import Repertoire
    from postroom.inbox.scheduling.underway import Runner
    from postroom.settings import Settings

__all__ = ["Connection", "Consumption"]

logger = logging.getLogger(__name__)

# What it waits for where no trouble says more.
NONE, CLOSED = "no topic fits", "its topics are not open at the moment; they are opened again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What all connections of one subscription have in common: what is read, and by whom handled.

    `topics` are names, or patterns that begin with `re:`. The runner has so many `threads`, and is
    given up to `ahead` jobs more.
    """

    settings: Settings
    registry: Registry
    envelopes: Envelopes
    subscription: str
    topics: Sequence[str]
    runner: Runner
    threads: int
    ahead: int


class Connection:
    """Consumes through one client until it is told to stop, or an error ends it.

    Of the consumer's thread. That of Sources tells it how many topics are open and what stands
    still, and touches nothing else of it; wake() is called from any.
    """

    def __init__(
        self,
        client: pulsar.Client,
        consumption: Consumption,
        *,
        repertoire: Repertoire,
        tell: Teller,
    ) -> None:
        settings, subscription = consumption.settings, consumption.subscription
        self._consumption = consumption
        self._tell = tell
        self._mailbox = Mailbox()
        self._troubles = Troubles(subscription, self._on_troubles)
        self._waits: str | None = None
        admission = Admission(settings.prefetch)
        self._feed = Feed(self._mailbox, admission)
        self._dead_letters = DeadLetters(
            settings,
            subscription=subscription,
            has_room=lambda: admission.has_room,
            troubles=self._troubles,
        )
        selection = Selection.of(settings, subscription, consumption.topics)
        for topic in selection.names:
            self._dead_letters.prepare(topic)
        self._sources = Sources(
            client,
            Lookout(client, selection, access=access_of(client), troubles=self._troubles),
            self._feed,
            source=functools.partial(
                Source,
                subscription=subscription,
                kind=settings.subscription_type,
                feed=self._feed,
            ),
            prefetch=settings.prefetch,
            troubles=self._troubles,
            changed=self._on_open,
        )
        self._dispatcher = self._made(admission, repertoire)

    def _made(self, admission: Admission, repertoire: Repertoire) -> Dispatcher:
        consumption, settings = self._consumption, self._consumption.settings
        return Dispatcher(
            intake=Intake(
                consumption.registry,
                subscription=consumption.subscription,
                envelopes=consumption.envelopes,
                elsewhere=Elsewhere(
                    repertoire,
                    subscription=consumption.subscription,
                    most=max(1, settings.prefetch // 2),
                ),
                strict=settings.strict,
                noted=settings.prefetch,
            ),
            mailbox=self._mailbox,
            admission=admission,
            underway=Underway(
                consumption.runner,
                self._mailbox,
                settings,
                hanging=Hanging(self._troubles),
                threads=consumption.threads,
                ahead=consumption.ahead,
            ),
            parking=Parking(self._dead_letters, self._mailbox),
            patience=Patience(consumption.subscription),
            tell=self._tell,
        )

    def run(self, stopping: threading.Event) -> None:
        """Consume until `stopping` is set, then let running handlers finish."""
        self._sources.start()
        try:
            while not stopping.is_set():
                self._dispatcher.step()
        finally:
            self._drain()

    def wake(self) -> None:
        """Have a run() that waits look at `stopping`; safe from any thread."""
        self._mailbox.post(Woken())

    def _on_open(self, count: int, known: int) -> None:
        """Note, in the thread of Sources, how many of the known topics are read now."""
        reason = "" if count else self._troubles.of_topics or (CLOSED if known else NONE)
        if reason == self._waits:
            return
        self._waits = reason
        if not reason:
            logger.info(
                "Consuming %s as %r",
                ", ".join(self._consumption.topics),
                self._consumption.subscription,
                extra={"action": "consuming"},
            )
        self._tell(
            facts.ReadingChanged,
            state="waiting" if reason else "consuming",
            reason=reason,
        )

    def _on_troubles(self, sentences: tuple[str, ...]) -> None:
        self._tell(facts.Troubled, sentences=sentences)

    def _drain(self) -> None:
        # Handlers that run finish and are acknowledged; only then is the rest handed back, since
        # another worker would otherwise get later events of a key that is still at work here.
        seconds = self._consumption.settings.shutdown_seconds
        self._sources.stop()
        self._tell(facts.StateEntered, state="draining")
        self._dead_letters.hand_back()
        try:
            unfinished = self._dispatcher.drain(seconds)
        finally:
            self._feed.close()
            self._dead_letters.close()
        if unfinished:
            logger.warning(
                "%d handlers did not finish within %g s; their events are delivered again",
                unfinished,
                seconds,
            )
