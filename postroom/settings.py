"""Settings: one frozen object, read from the environment with the prefix POSTROOM_."""

from __future__ import annotations

import difflib
import os
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from postroom import address, errors, names, topics, wire
from postroom.cloud_events import CloudEvents
from postroom.envelope import Envelopes, key_ring
from postroom.partitioning import MOST_PARTITIONS
from postroom.private_text import quoted
from postroom.secret_files import WHOLE_SENTENCE
from postroom.secured import HOSTS_ALONE, Secured

__all__ = [
    "MOST_MESSAGE_BYTES",
    "PREFIX",
    "CloudSource",
    "MessageBytes",
    "Name",
    "PartitionCount",
    "Settings",
    "SubscriptionType",
    "load",
    "misspelt",
    "sentence",
    "stripped",
]

PREFIX = "POSTROOM_"


def _uri_reference(value: str) -> str:
    if (
        not value
        or len(value) > 500
        or not value.isascii()
        or not value.isprintable()
        or " " in value
    ):
        raise ValueError("a source is a URI reference: 1 to 500 characters of ASCII, no blank")
    return value


Name = Annotated[str, AfterValidator(names.checked)]
DatabaseName = Annotated[str, AfterValidator(names.database)]
Topic = Annotated[str, AfterValidator(topics.checked)]
MongoUrl = Annotated[str, AfterValidator(address.mongodb), HOSTS_ALONE]
PulsarUrl = Annotated[str, AfterValidator(address.pulsar), HOSTS_ALONE]
HttpUrl = Annotated[str, AfterValidator(address.http), HOSTS_ALONE]
RedisUrl = Annotated[str, AfterValidator(address.redis), HOSTS_ALONE]
SubscriptionType = Literal["key_shared", "failover"]
CloudSource = Annotated[str, AfterValidator(_uri_reference)]
# Shorter waits are none to any service, or turn a thread in circles.
Positive = Annotated[float, Field(ge=0.001, le=86_400)]
# Below a millisecond it would be none to Pulsar's client, and below a second no broker keeps to it.
Timeout = Annotated[float, Field(ge=1, le=86_400)]
# MongoDB keeps a time to live in seconds of 31 bits, and none as such; ids begin in 1970.
MOST_DAYS = 20_000
# How much alike two names are, of which one is the other misspelt; the prefix counts.
NEARLY = 0.92
# Pulsar's own limit, 5 MiB, less what the broker adds.
MOST_MESSAGE_BYTES = 5 * 1024 * 1024 - 16 * 1024
Count = Annotated[int, Field(ge=1, le=1_000_000)]
MessageBytes = Annotated[int, Field(ge=1024, le=1 << 30)]
PartitionCount = Annotated[int, Field(ge=1, le=MOST_PARTITIONS)]


class Settings(Secured):
    """What a deployment may choose. Every field is the variable POSTROOM_<FIELD IN CAPITALS>.

    Frozen: read once, when the application is made. Durations carry their unit in the name. Blanks
    around a value mean nothing. No repr and no error shows an address, which may hold a password.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        validate_default=True,
        hide_input_in_errors=True,
    )

    mongodb_uri: MongoUrl = Field(
        "mongodb://127.0.0.1:27017/?replicaSet=rs0&directConnection=true",
        description="MongoDB, a replica set or a sharded cluster",
    )
    mongodb_database: DatabaseName = Field(
        "aid-kit", description="The database of data, outbox and inbox"
    )
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
    subscription_type: SubscriptionType = Field(
        "key_shared",
        description="`failover` has one worker at a time read a topic, or topic partition, so that "
        "batches may hold many keys",
    )
    dead_letter_topic: Topic | None = Field(
        None, description="Where given-up events go; `<topic>-<subscription>-DLQ` unless set"
    )
    partition: Name = Field("default", description="The outbox partition written and relayed")
    relay_share: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        None,
        description="How many outbox partitions a relay worker serves at most; its fair share "
        "unless set",
    )
    partitions: PartitionCount = Field(
        1,
        description="Into how many outbox partitions that outbox is divided, by the events' keys; "
        "one and the same for all its writers and relays",
    )
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
    poison_limit: Annotated[int, Field(ge=0)] = Field(
        100,
        description="How many rows more than are relayed may be set aside before the relay stops "
        "and asks; 0 is no limit",
    )
    retention_days: float = Field(
        7.0, ge=0, le=MOST_DAYS, description="Age at which relayed rows are pruned; 0 keeps them"
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
    send_timeout_seconds: Timeout = Field(
        30.0, description="How long Pulsar may take to store an event before the term ends"
    )
    history_margin_hours: Annotated[float, Field(ge=0.0001, le=24 * 365)] = Field(
        0.25,
        description="The longest transaction and the writers' clock skew together, at most: rows "
        "that much older than the lost history are looked at again",
    )
    batch_keyed: bool = Field(
        default=False,
        description="Batch events of different keys whoever reads them: twice as fast, but then "
        "only one consumer of a Key_Shared subscription keeps the order of a key",
    )
    max_message_bytes: MessageBytes = Field(
        MOST_MESSAGE_BYTES,
        description="The largest message the broker takes, properties included; publish() refuses "
        "what is larger, too",
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
    handler_timeout_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        60.0, description="How long a handler may run before it is reported and tried again"
    )
    strict: bool = Field(
        default=False, description="Send events without a handler to the dead letters"
    )
    inbox_days: Annotated[float, Field(ge=0.001, le=MOST_DAYS)] = Field(
        30.0, description="How long the inbox remembers an event; longer than the topic keeps it"
    )
    shutdown_seconds: Positive = Field(
        8.0, description="How long a stopping worker waits for what is in flight"
    )
    show_payloads: bool = Field(
        default=False, description="Show events' data in Flower; they are private otherwise"
    )
    cloudevents: bool = Field(
        default=False, description="Have messages say what they are as CloudEvents, in binary mode"
    )
    cloudevents_source: CloudSource | None = Field(
        None, description="Their `source`; `/<database>` unless set"
    )
    log_format: Literal["plain", "json"] = Field(
        "plain", description="`json` has workers and Flower log one JSON object a line"
    )
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        None,
        description="The port on which a worker answers /metrics, /livez and /readyz; 0 is a free "
        "one, which the log names",
    )
    metrics_host: Name = Field(
        "127.0.0.1", description="The address on which it does; `0.0.0.0` is every one"
    )
    hang_seconds: Positive = Field(
        30.0,
        description="How long a read, a send, a checkpoint or a thread may stand still before that "
        "is said, by name",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: Any) -> Any:
        return stripped(values)

    @property
    def retention(self) -> timedelta | None:
        """The age at which relayed rows are pruned, or None where they are kept."""
        return timedelta(days=self.retention_days) if self.retention_days else None

    @property
    def envelopes(self) -> Envelopes:
        """What payloads are sealed and opened with here.

        Raises:
            ConfigurationError: there is no such codec, or its package is not installed.

        """
        keys = self.encryption_keys
        ring = key_ring(keys.get_secret_value()) if keys else None
        return Envelopes(ring, codec=self.envelope, seals_all=self.encrypt == "all")

    @property
    def cloud_events_of_database(self) -> CloudEvents | None:
        """What messages say of themselves as CloudEvents, or None where they do not."""
        if not self.cloudevents:
            return None
        return CloudEvents.of(self.cloudevents_source, self.mongodb_database)

    def dead_letters_of(self, topic: str, subscription: str) -> str:
        """Name the dead-letter topic of `subscription` on `topic`."""
        return self.dead_letter_topic or f"{topic}-{subscription}{wire.DEAD}"


def stripped(values: Any) -> Any:
    """Return what was given without blanks around it, and without what is given as nothing."""
    if not isinstance(values, dict):
        return values
    stripped = {k: v.strip() if isinstance(v, str) else v for k, v in values.items()}
    # `VARIABLE=` is how many a deployment says that a variable is not set.
    return {k: v for k, v in stripped.items() if not (v == "" and k in OPTIONAL)}


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; the message names it.

    """
    try:
        return Settings()
    except ValidationError as error:
        raise errors.ConfigurationError(sentence(error)) from None


def misspelt() -> list[str]:
    """Return a sentence for each variable of the environment that is nearly one of ours.

    It means nothing: whoever set it believes in something else. Others with the prefix are their
    owners' affair.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    found = []
    for given in sorted(set(map(str.upper, os.environ)) - known):
        meant = difflib.get_close_matches(given, known, n=1, cutoff=NEARLY)
        if given.startswith(PREFIX) and meant:
            found.append(f"{given} is set and is no setting; {meant[0]} is one")
    return found


# What has no value unless it is given one.
OPTIONAL = {name for name, field in Settings.model_fields.items() if field.default is None}
SHOWN_NOWHERE = ("_uri", "_url", "_password", "_token", "_keys")
ADDRESSES = {name for name in Settings.model_fields if name.endswith(SHOWN_NOWHERE)}


def sentence(error: ValidationError) -> str:
    """Say which variables cannot be used and why, without a value that may be private."""
    found = [
        each["msg"]
        if each["type"] == WHOLE_SENTENCE
        else _told(each["loc"], each["msg"], each["input"])
        for each in error.errors()
    ]
    return f"{'; '.join(found)}. Nothing was started; set it right and start again."


def _told(where: tuple[int | str, ...], message: str, value: object) -> str:
    name = str(where[0]) if where else "the settings"
    why = message.removeprefix("Value error, ")
    if name in ADDRESSES:
        return (
            f"{PREFIX}{name.upper()} is {why} (its value is not shown, as it may hold a password)"
        )
    return f"{PREFIX}{name.upper()} is {quoted(value, hidden='not shown')}: {why}"
