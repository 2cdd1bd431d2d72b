"""MongoDB as the tasks use it: one client a process, made after the fork."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from postroom import Outbox
from tasks.celery import app

if TYPE_CHECKING:
    from pymongo.collection import Collection

__all__ = ["medicines", "outbox"]


@functools.cache
def _client() -> MongoClient[Any]:
    # Called by tasks only, that is in the pool's processes: a client made before the fork is none
    # afterwards.
    return MongoClient(app.postroom.settings.mongodb_uri, serverSelectionTimeoutMS=5_000)


def medicines() -> Collection[Any]:
    """Return the collection of assignments."""
    return _client()[app.postroom.settings.mongodb_database]["medicines"]


@functools.cache
def outbox() -> Outbox:
    """Return the outbox."""
    settings = app.postroom.settings
    return Outbox(
        _client()[settings.mongodb_database],
        partition=settings.partition,
        max_message_bytes=settings.max_message_bytes,
    )
