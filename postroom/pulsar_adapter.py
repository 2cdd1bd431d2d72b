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
]

# Of the client's own, without types.
Message = Any
# Called with a pulsar.Result and a message id, in a thread of the client: quickly, never raising.
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


def _nothing(_: Any) -> None:
    """Take the result of a close that nobody waits for."""
