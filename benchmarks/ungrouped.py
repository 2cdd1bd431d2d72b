"""The aid-kit, whose handler has a transaction of its own for each event."""

from __future__ import annotations

import dataclasses

from postroom.inbox.handling.handlers import registry
from tasks import app
from workers import consumer

__all__ = ["app", "consumer"]

registry.handlers["workers.keep_chart"] = dataclasses.replace(
    registry.handlers["workers.keep_chart"], group=1
)
