"""Writing: the few settings that programs read which write events and do no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

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

__all__ = ["Writing"]


class _Variables(BaseSettings):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What an outbox's rows are made by: into how many outbox partitions, how large, in what form.

    `max_message_bytes` is of a message with all that `cloud_events` and encryption add to it, which
    concerns every event where it `encrypts_all`.
    """

    partitions: int
    max_message_bytes: int
    cloud_events: CloudEvents | None
    encrypts_all: bool

    @classmethod
    def of(
        cls, database: str, *, partitions: int | None = None, max_message_bytes: int | None = None
    ) -> Self:
        """Take what an outbox of this database is given, and the variables for all else.

        Raises:
            ConfigurationError: a variable, or `max_message_bytes`, cannot be used.

        """
        try:
            found = _Variables()
        except ValidationError as error:
            raise errors.ConfigurationError(sentence(error)) from None
        given = max_message_bytes
        return cls(
            partitions=found.partitions if partitions is None else partitions,
            max_message_bytes=found.max_message_bytes if given is None else _checked(given),
            cloud_events=(
                CloudEvents.of(found.cloudevents_source, database) if found.cloudevents else None
            ),
            encrypts_all=found.encrypt == "all",
        )


def _checked(most: int) -> int:
    try:
        return TypeAdapter(MessageBytes).validate_python(most, strict=True)
    except ValidationError as error:
        raise errors.ConfigurationError(
            f"Outbox(): max_message_bytes is {quoted(most)}: {error.errors()[0]['msg']}"
        ) from None
