"""Provisioning: what an operator has Pulsar's admin interface make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.pulsar_admin import PulsarAdmin

if TYPE_CHECKING:
    from postroom.topics import Topic

__all__ = ["Provisioning"]

FINE = {200, 204}
MOST_SHOWN = 100


class Provisioning(PulsarAdmin):
    """The admin interface for those who set things up; like all of it, it may not answer."""

    def version(self) -> str | None:
        """Return the broker's version, None where the interface does not answer."""
        answer = self._ask("GET", "brokers/version")
        if answer is None or answer.status not in FINE:
            return None
        return answer.body.decode(errors="replace").strip()[:MOST_SHOWN]

    def create(self, topic: Topic) -> bool:
        """Make a topic without partitions, and say whether that was done."""
        answer = self._ask("PUT", topic.replace("://", "/"))
        return answer is not None and answer.status in FINE

    def deduplicates(self, namespace: str) -> bool | None:
        """Say whether a namespace's own policy is to deduplicate; None where it has none."""
        found = self._get(f"namespaces/{namespace}/deduplication")
        return found if isinstance(found, bool) else None

    def deduplicate(self, namespace: str) -> bool:
        """Have a namespace deduplicate, and say whether that was done."""
        answer = self._ask("POST", f"namespaces/{namespace}/deduplication", b"true")
        return answer is not None and answer.status in FINE
