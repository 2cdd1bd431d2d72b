"""The aid-kit with a relay whose thread dies of something that nobody has thought of."""

from __future__ import annotations

from postroom.relay.relay import Relay
from tasks import app

__all__ = ["app"]


def die(_: Relay) -> None:
    """Raise what no relay should."""
    raise KeyError("nobody has thought of this")


Relay.run = die  # type: ignore[method-assign, assignment]
