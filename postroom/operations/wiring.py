"""Wiring: how an application was installed, as operators' acts need to know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import topics
from postroom.inbox.handling import task_ids
from postroom.inbox.handling.handlers import registry
from postroom.sentences import Sentences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.routing import Routing
    from postroom.settings import Settings
    from postroom.topics import Topic

__all__ = ["Wiring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The settings, where events go, and which topics (or patterns) each subscription reads.

    `key_field` is the field of the data by which `install(key=…)` keys events, where it is one.
    """

    settings: Settings
    routing: Routing
    consume: Mapping[str, Sequence[str]]
    key_field: str | None = None

    @property
    def sentences(self) -> Sentences:
        """What a failure of MongoDB or Pulsar is called."""
        return Sentences(
            mongodb_uri=self.settings.mongodb_uri,
            pulsar_url=self.settings.pulsar_url,
            next_step="try again once it answers",
        )

    def subscribed(self) -> list[tuple[str, Topic]]:
        """Return each subscription with each topic that it reads by name."""
        return topics.subscribed(self.consume)

    def task_id(self, event_id: str, *, name: str | None, subscription: str, handler: str) -> str:
        """Return the id of the task in which a handler runs for an event alone, as Flower has it.

        Several events in one call have the task of the first one; what is redriven, one of its own.
        """
        alone = name is None or len(registry.for_event(name, subscription)) <= 1
        own = task_ids.of_handler(event_id, handler, alone=alone)
        return task_ids.of_subscription(own, subscription, alone=len(self.consume) == 1)
