"""A transactional outbox and inbox for MongoDB and Apache Pulsar, on Celery.

`Outbox` writes events beside data, `postroom.celery.install` makes workers that relay and consume
them, `@handles` registers what a consumer does with an event. Nothing is opened by an import.
"""

from postroom.async_outbox import AsyncOutbox, AsyncTransaction
from postroom.declaring import event_class, upcasts
from postroom.errors import (
    AlreadyScheduled,
    ConfigurationError,
    InvalidEvent,
    OutboxError,
    PostroomError,
    Reject,
    Retry,
    ScopeClosed,
)
from postroom.events import DomainEvent, Event
from postroom.inbox.handling.registration import handles
from postroom.inbox.handling.writes import Write
from postroom.outbox import Outbox, Transaction
from postroom.settings import Settings
from postroom.store.plan import PlanChange

__all__ = [
    "AlreadyScheduled",
    "AsyncOutbox",
    "AsyncTransaction",
    "ConfigurationError",
    "DomainEvent",
    "Event",
    "InvalidEvent",
    "Outbox",
    "OutboxError",
    "PlanChange",
    "PostroomError",
    "Reject",
    "Retry",
    "ScopeClosed",
    "Settings",
    "Transaction",
    "Write",
    "event_class",
    "handles",
    "upcasts",
]
