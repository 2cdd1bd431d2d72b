"""Every error that postroom raises, and the one rule that says which failures may pass.

PostroomError
├── ConfigurationError        a setting or an argument is wrong: nothing starts
│   ├── OtherPartitioning     the outbox has another number of outbox partitions
│   │   └── OtherGeneration   the same number, of other names
│   └── PartitionedTopic      the relay cannot send to it
├── InvalidEvent              an event is not one: refused where it was made or read
│   └── KeyMissing            it is encrypted under a key that is not here
├── OutboxError
│   ├── AlreadyScheduled      an event waits under that name, and was not to be replaced
│   ├── PartitioningChanged   the outbox was divided anew; the transaction is to be run again
│   └── ScopeClosed           publish() after the scope has ended
├── RelayError
│   ├── TermEnded             the relay begins a new term
│   │   ├── Superseded        a newer relay has raised the epoch or fenced us
│   │   ├── OpeningLeft       it is to end before it was open
│   │   ├── MutexLost         the mutex is no longer ours
│   │   ├── HistoryLost       the change stream no longer reaches back to the checkpoint
│   │   ├── RoutingFailed     a routing or key function failed for a reason that passes
│   │   └── Refused           an event was lost with the connection while it was sent alone
│   ├── PartitioningUnderWay  the outbox is being divided as this relay has it
│   ├── CheckpointRefused     a newer release has written it, or it cannot be read
│   ├── Poison                one row that can never be sent
│   ├── TopicNotOpen          a row's topic cannot be opened now
│   └── Blocked               a poison row, and POSTROOM_ON_POISON=block
├── InboxError
│   ├── Retry                 a handler asks to be tried again
│   ├── Reject                a handler gives its event up at once
│   ├── HandlerTimeout        a handler ran past its timeout
│   ├── HandlerLost           Celery failed around a handler
│   ├── NotItsTurn            others of the handler that write the same come first
│   ├── TransactionTooLong    MongoDB has ended a handler's transaction for its length
│   ├── TransactionEnded      … or for an error within it, which the handler has caught
│   ├── NothingDone           a handler has returned what nobody does
│   ├── InvalidWrite          a handler has made a write that is none
│   ├── WriteRefused          MongoDB does not take a write that a handler has returned
│   └── TransactionTouched    a handler has laid hands on the inbox's transaction or client
└── ServiceUnavailable        MongoDB, Pulsar or Redis does not answer, or is not fit
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pymongo import errors as mongo

from postroom import transience

__all__ = [
    "AlreadyScheduled",
    "Blocked",
    "CheckpointRefused",
    "ConfigurationError",
    "HandlerLost",
    "HandlerTimeout",
    "HistoryLost",
    "InboxError",
    "InvalidEvent",
    "InvalidWrite",
    "KeyMissing",
    "MutexLost",
    "NotItsTurn",
    "NothingDone",
    "OpeningLeft",
    "OtherGeneration",
    "OtherPartitioning",
    "OutboxError",
    "PartitionedTopic",
    "PartitioningChanged",
    "PartitioningUnderWay",
    "Poison",
    "PostroomError",
    "Refused",
    "Reject",
    "RelayError",
    "Retry",
    "RoutingFailed",
    "ScopeClosed",
    "ServiceUnavailable",
    "Superseded",
    "TermEnded",
    "TopicNotOpen",
    "TransactionEnded",
    "TransactionTooLong",
    "TransactionTouched",
    "WriteRefused",
    "is_transient",
]


class PostroomError(Exception):
    """Something in postroom failed; the message says what, where and what happens next."""

    transient: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class ConfigurationError(PostroomError):
    """A setting is wrong; nothing was started."""


class OtherPartitioning(ConfigurationError):
    """The outbox has another number of outbox partitions; nothing is written or relayed here."""


class OtherGeneration(OtherPartitioning):
    """The outbox has one outbox partition as here, of another name; that one is to be relayed."""


class PartitionedTopic(ConfigurationError):
    """A topic with several partitions keeps no order; nothing is sent there."""


class InvalidEvent(PostroomError):
    """This is not an event: it needs a name and an object as data."""


class KeyMissing(InvalidEvent):
    """The event is encrypted under a key that is not here."""


class OutboxError(PostroomError):
    """The outbox refused to write an event."""


class AlreadyScheduled(OutboxError):
    """An event waits under that name, and was not to be replaced; nothing was written."""


class PartitioningChanged(OutboxError):
    """The outbox was divided anew meanwhile; nothing was written, run the transaction again."""

    transient: ClassVar[bool] = True


class ScopeClosed(OutboxError):
    """The scope has ended; open a new one to publish more."""


class RelayError(PostroomError):
    """The relay cannot go on as it is."""


class TermEnded(RelayError):
    """The relay's term has ended; it stands by and begins a new one."""

    transient: ClassVar[bool] = True


class Superseded(TermEnded):
    """A newer relay has taken over; this one sends nothing more and stands by."""


class OpeningLeft(TermEnded):
    """The relay was stopped or paused, or is to give its mutex back, before its term was open."""


class MutexLost(TermEnded):
    """The mutex is no longer held; the relay stands by."""


class HistoryLost(TermEnded):
    """The change stream no longer reaches back to the checkpoint; the collection is scanned."""


class RoutingFailed(TermEnded):
    """A routing or key function failed for a reason that passes; it is asked again."""


class Refused(TermEnded):
    """What was sent alone was not stored; `too_large` where it exceeds what brokers take at all."""

    def __init__(self, message: str | None = None, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class PartitioningUnderWay(RelayError):
    """The outbox is being divided as this relay has it; it begins when that is done."""

    transient: ClassVar[bool] = True


class CheckpointRefused(RelayError):
    """The checkpoint is of a newer release, or cannot be read; nothing is relayed by it."""


class Poison(RelayError):
    """This row can never be sent."""


class TopicNotOpen(RelayError):
    """A row's topic cannot be opened now; the row is set aside until it can be."""

    transient: ClassVar[bool] = True

    def __init__(self, message: str | None = None, *, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class Blocked(RelayError):
    """A row can never be sent, and POSTROOM_ON_POISON=block keeps the relay at it."""

    transient: ClassVar[bool] = True


class InboxError(PostroomError):
    """An event could not be handled."""


class Retry(InboxError):
    """The handler asks to be tried again, `after` a time if it says one.

    Raise it in a handler: the attempt counts, the wait is `after`, a timedelta or seconds, instead
    of the handler's backoff.
    """

    transient: ClassVar[bool] = True

    def __init__(
        self, message: str | None = None, *, after: timedelta | float | None = None
    ) -> None:
        super().__init__(message)
        self.after: timedelta | None = None
        if after is not None:
            self.after = after if isinstance(after, timedelta) else timedelta(seconds=float(after))


class Reject(InboxError):
    """The handler gives this event up: it goes to the dead letters at once."""


class HandlerTimeout(InboxError):
    """The handler ran past its timeout; its event is delivered again."""

    transient: ClassVar[bool] = True


class HandlerLost(InboxError):
    """Celery failed around the handler; its event is delivered again."""

    transient: ClassVar[bool] = True


class NotItsTurn(InboxError):
    """Others of the handler that write the same come first; the handler was not called."""

    transient: ClassVar[bool] = True


class TransactionTooLong(InboxError):
    """MongoDB has ended the handler's transaction for its length; the event is tried again."""

    transient: ClassVar[bool] = True


class TransactionEnded(InboxError):
    """The handler has caught an error that ended its transaction; the event is tried again."""

    transient: ClassVar[bool] = True


class NothingDone(InboxError):
    """The handler has returned something to be awaited or run; its event is given up."""


class InvalidWrite(InboxError):
    """This is not a write: it needs a collection's name, and operations of PyMongo."""


class WriteRefused(InboxError):
    """MongoDB does not take a write that a handler has returned; the event is tried again.

    What the server or PyMongo has said is the error's cause. Of several events whose writes were
    sent together it was the `turn`th, counted from 0; None where nobody knows.
    """

    transient: ClassVar[bool] = True

    def __init__(self, message: str | None = None, *, turn: int | None = None) -> None:
        super().__init__(message)
        self.turn = turn


class TransactionTouched(InboxError):
    """The handler has laid hands on the inbox's transaction or client; its event is given up."""


class ServiceUnavailable(PostroomError):
    """A service does not answer; it is tried again."""

    transient: ClassVar[bool] = True


def is_transient(error: BaseException) -> bool:
    """Say whether the same call may succeed later without anyone changing anything.

    Our own errors carry the answer as `transient`; those of PyMongo and the Pulsar client are
    looked up. It decides how loud the log of relay and consumer is, whether a failure of a
    routing function passes, and whether it is worth to ask a service what an error was about, or to
    ask it again; what becomes of an event in the consumer is decided by `failures.kind_of`.
    """
    if isinstance(error, PostroomError):
        return error.transient
    if isinstance(error, mongo.PyMongoError):
        return transience.of_mongo(error)
    if type(error).__module__.startswith(("pulsar", "_pulsar")):
        return type(error).__name__ in transience.PULSAR
    return isinstance(error, (ConnectionError, TimeoutError))
