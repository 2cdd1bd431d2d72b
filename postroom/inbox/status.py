"""What a consumer is doing, in numbers, for `inspect stats` and Flower's worker page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Status"]


@dataclass(slots=True)
class Status:
    """Written by the dispatcher's thread alone; read from any, number by number."""

    subscription: str
    topics: str
    state: str = "connecting"
    reason: str = ""
    received: int = 0
    handled: int = 0
    repeated: int = 0
    retried: int = 0
    timed_out: int = 0
    dead_letters: int = 0
    ignored: int = 0
    held: int = 0
    held_bytes: int = 0
    running: int = 0
    waiting_to_retry: int = 0

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers as JSON can hold them."""
        return asdict(self)
