"""Pulsar's admin interface, where it answers: nothing that a promise rests on is asked there."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from postroom.topics import Topic

__all__ = ["PulsarAdmin"]

TIMEOUT_SECONDS = 2.0
OK = 200
NOT_FOUND = 404


class _Answer(NamedTuple):
    status: int
    body: bytes


class PulsarAdmin:
    """Asks one admin interface; whatever is not answered within two seconds is None. Thread-safe.

    It may not be there, may want credentials that nobody gave, or may be another cluster's: what it
    says explains and tidies up, and decides nothing.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def holder(self, topic: Topic, subscription: str) -> dict[str, str] | None:
        """Return the properties of the consumer that sits on a subscription, and its `name`."""
        stats = self._get(f"{_path(topic)}/stats")
        with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
            (holder,) = stats["subscriptions"][subscription]["consumers"][:1]
            return {**holder.get("metadata", {}), "name": str(holder["consumerName"])}
        return None

    def keeps_for_minutes(self, namespace: str) -> int | None:
        """Return for how many minutes a namespace keeps what all subscriptions have acknowledged.

        0 is not at all, -1 for ever.
        """
        found = self._get(f"namespaces/{namespace}/retention")
        if not isinstance(found, dict):
            return None
        minutes, megabytes = found.get("retentionTimeInMinutes"), found.get("retentionSizeInMB")
        # Where one of the two is 0, nothing is kept.
        return 0 if megabytes == 0 else minutes

    def is_absent(self, topic: Topic) -> bool:
        """Say whether it is known for certain that there is no such topic, partitioned or not."""
        answers = (self._ask("GET", f"{_path(topic)}/{what}") for what in ("stats", "partitions"))
        return all(answer is not None and answer.status == NOT_FOUND for answer in answers)

    def delete(self, topic: Topic) -> None:
        """Delete a topic, partitioned or not, with all that is on it."""
        for kind in ("", "/partitions"):
            self._ask("DELETE", f"{_path(topic)}{kind}?force=true")

    def _get(self, path: str) -> Any:
        answer = self._ask("GET", path)
        if answer is None or answer.status != OK:
            return None
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(answer.body)
        return None

    def _ask(self, method: str, path: str) -> _Answer | None:
        # The setting's type allows for http and https only.
        request = urllib.request.Request(f"{self._url}/admin/v2/{path}", method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                return _Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return _Answer(error.code, b"")
        except (OSError, http.client.HTTPException):
            return None


def _path(topic: Topic) -> str:
    return topic.replace("://", "/")
