"""CloudEvents: what an event's message says of itself in their words; docs/cloudevents.md binds it.

Version 1.0.2, binary mode: attributes are properties of the message, the payload is the event.
"""

from __future__ import annotations

import urllib.parse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SEQUENCE", "CloudEvents"]

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
# The position, which is known only when the message is made.
SEQUENCE = "ce_sequence"


class CloudEvents:
    """Dresses the messages of one outbox; `source` is a URI reference that names it. Immutable."""

    def __init__(self, source: str) -> None:
        self._fixed = {
            "ce_specversion": SPEC_VERSION,
            "ce_source": source,
            "content-type": CONTENT_TYPE,
        }

    @classmethod
    def of(cls, source: str | None, database: str) -> CloudEvents:
        """Return those of a source, or of the database where none is named."""
        return cls(source or f"/{urllib.parse.quote(database, safe='')}")

    def dress(
        self,
        headers: Mapping[str, str],
        *,
        event_id: str,
        name: str,
        key: str | None,
        occurred_at: int,
    ) -> dict[str, str]:
        """Return an event's headers with the attributes; `occurred_at` is in milliseconds, 0 none.

        A header of the event's own stands before an attribute, but for what makes it that event.
        """
        found = {**self._fixed, "ce_type": name}
        if occurred_at:
            at = datetime.fromtimestamp(occurred_at / 1000, UTC)
            found["ce_time"] = at.isoformat("T", "milliseconds").replace("+00:00", "Z")
        if key is not None:
            found["ce_partitionkey"] = key
        found.update(headers)
        found.pop(SEQUENCE, None)
        return {**found, "ce_id": event_id, "ce_specversion": SPEC_VERSION}
