"""The aid-kit with a relay that does not look what earlier terms have sent: it has to repeat."""

from __future__ import annotations

from postroom.relay.lane import Lane
from tasks import app

__all__ = ["app"]

Lane._read_tail = lambda *_: None  # type: ignore[method-assign]
