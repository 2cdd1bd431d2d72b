"""What we use of Pulsar's client beside its public interface.

Its wrapper around a send checks and copies each argument again, a fifth of the relay's time; there
is no public way around it. `tests/unit/test_adapters.py` names what a new version of the client
lacks. Like the client itself it is imported inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pulsar

__all__ = [
    "Acknowledged",
    "Message",
    "SendAsync",
    "close_soon",
    "message_builder",
    "send_async",
    "silence",
]

# The library has no name for "nothing": its highest level is Error.
ABOVE_ERROR = 1

# Of the client's own, without types.
Message = Any
# Called with a pulsar.Result and a message id, in a thread of the client: quickly, never raising.
# Or within the send, in the thread that sends, where the client refuses a message at once.
Acknowledged = Callable[[Any, Any], None]
SendAsync = Callable[[Message, Acknowledged | None], None]


def message_builder() -> Any:
    """Return the class whose objects build messages: content(), property(), …, build()."""
    import _pulsar

    return _pulsar.MessageBuilder


def send_async(producer: pulsar.Producer) -> SendAsync:
    """Return the producer's function that queues a built message, with a callback or None."""
    send: SendAsync = producer._producer.send_async  # noqa: SLF001 - the module's purpose
    return send


def close_soon(producer: pulsar.Producer) -> None:
    """Refuse all further sends from now on and fail what is pending; do not wait for the broker."""
    producer._producer.close_async(_nothing)  # noqa: SLF001


def silence() -> Any:
    """Return the logger of a client that writes nothing, not even errors.

    Each contender that the mutex refuses would be a line otherwise. A logger of Python's takes the
    GIL in the client's own threads. The library's logger to a file, be it the null device, has all
    of its threads write to one stream without a lock: lines come torn, and a write may meet a
    buffer that another thread has just taken away.
    """
    import pulsar

    nothing = type(pulsar.LoggerLevel.Error)(int(pulsar.LoggerLevel.Error) + ABOVE_ERROR)
    return pulsar.ConsoleLogger(nothing)


def _nothing(_: Any) -> None:
    """Take the result of a close that nobody waits for."""
