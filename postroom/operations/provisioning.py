"""Provisioning: what an operator has Pulsar's admin interface make."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from postroom.pulsar_admin import VERSION, PulsarAdmin

if TYPE_CHECKING:
    from postroom.topics import Topic

__all__ = ["Provisioning"]

FINE = {200, 204}
NOT_FOUND = 404
MOST_SHOWN = 100


class Provisioning(PulsarAdmin):
    """The admin interface for those who set things up; like all of it, it may not answer."""

    def version(self) -> str | None:
        """Return the broker's version, None where the interface does not answer."""
        answer = self._ask("GET", VERSION)
        if answer is None or answer.status not in FINE:
            return None
        return answer.body.decode(errors="replace").strip()[:MOST_SHOWN]

    def create(self, topic: Topic) -> bool:
        """Make a topic without partitions, and say whether that was done."""
        answer = self._ask("PUT", topic.replace("://", "/"))
        return answer is not None and answer.status in FINE

    def grow(self, topic: Topic, count: int) -> bool:
        """Have a topic that has fewer topic partitions get so many; say if that failed, by False.

        One that has none, or is not there, is no failure.
        """
        path = f"{topic.replace('://', '/')}/partitions"
        there = self._partitions(path)
        if there is None:
            return False
        if not 0 < there < count:
            return True
        answer = self._ask("POST", path, str(count).encode())
        # It is refused where somebody else does so at the same moment.
        return (answer is not None and answer.status in FINE) or self._partitions(path) == count

    def _partitions(self, path: str) -> int | None:
        found = self._get(path)
        there = found.get("partitions") if isinstance(found, dict) else None
        return there if isinstance(there, int) else None

    def backlogs(self, topic: Topic) -> dict[str, int] | None:
        """Return how many messages wait for each subscription of one log; None if not told."""
        path = f"{topic.replace('://', '/')}/stats?getPreciseBacklog=true"
        found = self._get(path)
        if not isinstance(found, dict) or not isinstance(found.get("subscriptions"), dict):
            return None
        return {name: int(d.get("msgBacklog", 0)) for name, d in found["subscriptions"].items()}

    def unsubscribe(self, topic: Topic, subscription: str) -> bool:
        """Take a subscription away, whoever is there, and say whether none is left."""
        path = f"{topic.replace('://', '/')}/subscription/{quote(subscription, safe='')}"
        answer = self._ask("DELETE", f"{path}?force=true")
        return answer is not None and answer.status in {*FINE, NOT_FOUND}

    def deduplicates(self, namespace: str) -> bool | None:
        """Say whether a namespace's own policy is to deduplicate; None where it has none."""
        found = self._get(f"namespaces/{namespace}/deduplication")
        return found if isinstance(found, bool) else None

    def deduplicate(self, namespace: str) -> bool:
        """Have a namespace deduplicate, and say whether that was done."""
        answer = self._ask("POST", f"namespaces/{namespace}/deduplication", b"true")
        return answer is not None and answer.status in FINE
