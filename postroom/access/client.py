"""The client's library with an access: it says what was tried, and why nobody was let in."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from postroom import address
from postroom.access.diagnosis import reason_for_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pulsar

    from postroom.access.pulsar import Access

__all__ = ["access_of", "explanation", "make", "tried"]

# What the library makes of a server that cannot be reached, is not trusted or lets nobody in.
SILENT = {"AuthenticationError", "ConnectError", "NotConnected", "Timeout"}


def make(access: Access, **options: Any) -> pulsar.Client:
    """Return a client; `options` are further arguments of pulsar.Client."""
    client = _class()(str(access.url), **access.client_arguments(), **options)
    client.access = access
    return client


def access_of(client: pulsar.Client) -> Access:
    """Return the access that a client was made with."""
    found: Access = client.access
    return found


def tried(error: BaseException) -> str:
    """Return what a client was to do when this error of its was raised; empty where none says."""
    return "; ".join(getattr(error, "__notes__", ()))


def explanation(access: Access, error: BaseException | None) -> str | None:
    """Return the sentence for an error that a wrong access explains, None for all others.

    Where the library does not tell the reason the broker is asked for it, once, in bounded time.
    """
    where, who = address.shown(access.url), access.credentials.description()
    name = type(error).__name__
    if error is not None and name == "AuthorizationError":
        what = tried(error) or "do this"
        return (
            f"Pulsar at {where} does not let {who} {what}: grant the right to it "
            "(docs/security.md says which). It is tried again"
        )
    if name not in SILENT:
        return None
    reason = reason_for_refusal(access)
    if reason is None:
        return None
    return f"Pulsar (POSTROOM_PULSAR_URL): {reason}. It is tried again"


@functools.cache
def _class() -> type[pulsar.Client]:
    import pulsar

    class NotingClient(pulsar.Client):  # type: ignore[misc]  # it has no types
        access: Access

        def create_producer(self, topic: str, *args: Any, **options: Any) -> Any:
            with _noted(f"produce to {topic}"):
                return super().create_producer(topic, *args, **options)

        def subscribe(self, topic: Any, subscription_name: str, *args: Any, **options: Any) -> Any:
            with _noted(f"consume {topic} as {subscription_name!r}"):
                return super().subscribe(topic, subscription_name, *args, **options)

        def create_reader(self, topic: str, *args: Any, **options: Any) -> Any:
            with _noted(f"read {topic}"):
                return super().create_reader(topic, *args, **options)

        def get_topic_partitions(self, topic: str) -> Any:
            with _noted(f"look at {topic}"):
                return super().get_topic_partitions(topic)

    return NotingClient


@contextlib.contextmanager
def _noted(what: str) -> Iterator[None]:
    import pulsar

    try:
        yield
    except pulsar.PulsarException as error:
        error.add_note(what)
        raise
