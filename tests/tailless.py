"""The aid-kit with a relay that does not look what earlier terms have sent: it has to repeat."""

from __future__ import annotations

from postroom.relay.sending.tail import Tail, TailReader
from tasks import app

__all__ = ["app"]

TailReader.read = lambda *_, **__: Tail()  # type: ignore[method-assign]
