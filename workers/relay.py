"""Which topic each event goes to; what is not named here goes to POSTROOM_TOPIC."""

from __future__ import annotations

__all__ = ["TOPICS"]

# For instance {"Medicine*": "public/default/medicines"}.
TOPICS: dict[str, str] = {}
