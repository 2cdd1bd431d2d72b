"""Writing: the few settings that programs read which write events and do no more."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from postroom import errors
from postroom.cloud_events import CloudEvents
from postroom.private_text import quoted
from postroom.secured import Encrypt  # noqa: TC001 - pydantic looks it up
from postroom.settings import (
    MOST_MESSAGE_BYTES,
    PREFIX,
    CloudSource,
    MessageBytes,
    PartitionCount,
    sentence,
    stripped,
)

__all__ = ["cloud_events", "encrypts_all", "max_message_bytes", "partitions"]


class _Writing(BaseSettings):
    """What programs that write events read, by the same rules as Settings does."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    max_message_bytes: MessageBytes = MOST_MESSAGE_BYTES
    cloudevents: bool = False
    cloudevents_source: CloudSource | None = None
    partitions: PartitionCount = 1
    encrypt: Encrypt = "marked"

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: Any) -> Any:
        return stripped(values)


def cloud_events(database: str) -> CloudEvents | None:
    """Read POSTROOM_CLOUDEVENTS alone: what it adds counts for the size of an event.

    Raises:
        ConfigurationError: it has a value that cannot be used.

    """
    found = _writing()
    return CloudEvents.of(found.cloudevents_source, database) if found.cloudevents else None


def encrypts_all() -> bool:
    """Read POSTROOM_ENCRYPT alone, as max_message_bytes() does; it counts for an event's size.

    Raises:
        ConfigurationError: it has a value that cannot be used.

    """
    return _writing().encrypt == "all"


def max_message_bytes(given: int | None = None) -> int:
    """Return what an outbox is given, or POSTROOM_MAX_MESSAGE_BYTES alone where that is nothing.

    Raises:
        ConfigurationError: it is no number that can be used.

    """
    if given is None:
        return _writing().max_message_bytes
    try:
        return TypeAdapter(MessageBytes).validate_python(given, strict=True)
    except ValidationError as error:
        raise errors.ConfigurationError(
            f"Outbox(): max_message_bytes is {quoted(given)}: {error.errors()[0]['msg']}"
        ) from None


def partitions() -> int:
    """Read POSTROOM_PARTITIONS alone, as max_message_bytes() does.

    Raises:
        ConfigurationError: it is no number that can be used.

    """
    return _writing().partitions


def _writing() -> _Writing:
    try:
        return _Writing()
    except ValidationError as error:
        raise errors.ConfigurationError(sentence(error)) from None
