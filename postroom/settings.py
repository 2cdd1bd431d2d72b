"""Settings: one frozen object, read from the environment with the prefix POSTROOM_."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from postroom import errors

__all__ = ["Settings", "load"]

PREFIX = "POSTROOM_"

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\s/]+$")]
Topic = Annotated[
    str, StringConstraints(pattern=r"^(persistent://)?[\w.=:-]+/[\w.=:-]+/[^\s/]+$", max_length=500)
]
MongoUrl = Annotated[str, StringConstraints(pattern=r"^mongodb(\+srv)?://.+")]
PulsarUrl = Annotated[str, StringConstraints(pattern=r"^pulsar(\+ssl)?://.+")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://.+")]
RedisUrl = Annotated[str, StringConstraints(pattern=r"^(rediss?|unix)://.+")]
Positive = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseSettings):
    """What a deployment may choose. Every field is the variable POSTROOM_<FIELD IN CAPITALS>.

    Frozen: read once, when the application is made. Durations carry their unit in the name.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    mongodb_uri: MongoUrl = Field(
        "mongodb://127.0.0.1:27017/?replicaSet=rs0&directConnection=true",
        description="MongoDB, a replica set or a sharded cluster",
    )
    mongodb_database: Name = Field("aid-kit", description="The database of data, outbox and inbox")
    pulsar_url: PulsarUrl = Field("pulsar://localhost:6650", description="The Pulsar broker")
    pulsar_admin_url: HttpUrl = Field(
        "http://localhost:8080", description="Pulsar's admin interface"
    )
    redis_url: RedisUrl = Field(
        "redis://localhost:6379/0", description="Celery's broker and result store"
    )
    topic: Topic = Field(
        "public/default/events", description="Where events go unless routing says otherwise"
    )
    mutex_topic: Topic = Field(
        "public/default/mutex", description="The topic whose Exclusive subscription is the mutex"
    )
    subscription: Name = Field("test", description="The consumer worker's subscription")
    dead_letter_topic: Topic | None = Field(
        None, description="Where given-up events go; `<topic>-<subscription>-DLQ` unless set"
    )
    partition: Name = Field("default", description="The outbox partition written and relayed")
    mutex_retry_seconds: Positive = Field(
        0.25, description="How often a standby relay asks for the mutex"
    )
    delivery: Literal["best_available", "exactly_once"] = Field(
        "best_available",
        description="`exactly_once` refuses a broker without fencing or deduplication",
    )
    on_poison: Literal["quarantine", "block"] = Field(
        "quarantine", description="What becomes of a row that can never be sent"
    )
    retention_days: float = Field(
        7.0, ge=0, le=36_500, description="Age at which relayed rows are pruned; 0 keeps them"
    )
    mark_sent: bool = Field(
        default=False,
        description="Also write Hermes' `sentAt` into relayed rows, by chunks",
    )
    checkpoint_seconds: Positive = Field(
        0.25, description="The longest that stored events wait for their checkpoint"
    )
    idle_checkpoint_seconds: Positive = Field(
        5.0, description="How often an idle relay stores its token and looks at its epoch"
    )
    send_timeout_seconds: Positive = Field(
        30.0, description="How long Pulsar may take to store an event before the term ends"
    )
    history_margin_hours: Annotated[float, Field(gt=0, le=24 * 365)] = Field(
        24.0,
        description="The longest transaction and the writers' clock skew together, at most: rows "
        "younger than that are not pruned, and are looked at again when history was lost",
    )
    batch_keyed: bool = Field(
        default=False,
        description="Batch events of different keys: twice as fast, but then only one consumer "
        "of a Key_Shared subscription keeps the order of a key",
    )
    max_message_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = Field(
        5 * 1024 * 1024 - 16 * 1024,
        description="The largest message the broker takes, properties included",
    )
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Handlers that run side by side in a consumer worker"
    )
    prefetch: Count = Field(
        500, description="Events that a consumer worker holds unacknowledged at most"
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        5, description="Attempts of a handler before its event becomes a dead letter"
    )
    backoff_seconds: Positive = Field(
        1.0, description="The wait before a handler's second attempt; it doubles, with jitter"
    )
    backoff_max_seconds: Positive = Field(60.0, description="The longest wait between attempts")
    handler_timeout_seconds: Positive = Field(
        60.0, description="How long a handler may run before it is reported and tried again"
    )
    strict: bool = Field(
        default=False, description="Send events without a handler to the dead letters"
    )
    inbox_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        30.0, description="How long the inbox remembers an event; longer than the topic keeps it"
    )
    shutdown_seconds: Positive = Field(
        8.0, description="How long a stopping worker waits for what is in flight"
    )
    show_payloads: bool = Field(
        default=False, description="Show events' data in Flower; they are private otherwise"
    )

    @property
    def retention(self) -> timedelta | None:
        """The age at which relayed rows are pruned, or None where they are kept."""
        return timedelta(days=self.retention_days) if self.retention_days else None

    def dead_letters_of(self, topic: str, subscription: str) -> str:
        """Name the dead-letter topic of `subscription` on `topic`."""
        return self.dead_letter_topic or f"{topic}-{subscription}-DLQ"


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; the message names it.

    """
    try:
        return Settings()
    except ValidationError as error:
        raise errors.ConfigurationError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    found = [
        f"{PREFIX}{str(e['loc'][0]).upper()} is {_shown(e['input'])}: {e['msg']}"
        for e in error.errors(include_url=False)
    ]
    return f"{'; '.join(found)}. Nothing was started; set it right and start again."


def _shown(value: object) -> str:
    return repr(re.sub(r"//[^/@]*@", "//***@", str(value)))
