"""Names of stored collections, fields and message properties: the wire format, frozen by a test.

They are those of Hermes for MongoDB where it has them, so that both can share a database. Each
stored form is owned by one module of postroom.store; others there know some of its fields: claims,
scans, pauses, holdings, beginnings and due_rows of the checkpoint, turns of the inbox; key_rows,
quarantine_search, scheduled_search and traces of what they look for. Rows of the outbox are known
to more: those who write them (outbox, async_outbox and store.row_writer, due_rows), store's
generations, partitionings, letter, newest_rows and old_rows, relay.reading's pages and stream,
relay.watching's backlog and unattended, relay.saving.chunk, and the desk of the Outbox page.
"""

from __future__ import annotations

OUTBOX = "__outboxMessages"
CHECKPOINTS = "__outboxConsumers"
QUARANTINE = "__outboxQuarantine"
INBOX = "__inboxMessages"
BEGUN = "__inboxBegun"
REPERTOIRES = "__inboxRepertoires"
ACTIONS = "__outboxActions"
PARTITIONS = "__outboxPartitions"
SCHEDULED = "__outboxScheduled"
SCHEDULE_NAMES = "__outboxScheduleNames"
FIRED = "__outboxFired"

# Hermes makes this very index at each start and fails on another name or one that is not unique.
CHECKPOINT_INDEX = "idx_partitionKey_asc"
INBOX_EXPIRY_INDEX = "idx_handledAt_ttl"
BEGUN_EXPIRY_INDEX = "idx_begunAt_ttl"
REPERTOIRES_EXPIRY_INDEX = "idx_seenAt_ttl"
ACTIONS_EXPIRY_INDEX = "idx_beganAt_ttl"
QUARANTINE_INDEX = "idx_partitionKey_retriedAt_topic_position"
SCHEDULED_DUE_INDEX = "idx_partitionKey_dueAt_id_slot"
FIRED_INDEX = "idx_firedInto_firedAt"
FIRED_IDS_INDEX = "idx_firedIds"


class OutboxField:
    """A row of the outbox: an event on its way. Hermes knows the first four, and `sentAt`."""

    ID = "_id"
    PARTITION = "partitionKey"
    OCCURRED_AT = "occurredAt"
    DATA = "data"
    KEY = "key"
    HEADERS = "headers"
    # A date before which no consumer is to see the event, where its subscription is Key_Shared or
    # Shared: Pulsar's delayed delivery, passed on as it is. Nothing here writes it.
    DELIVER_AT = "deliverAt"
    SENT_AT = "sentAt"
    # Where the event's class or its writer says that no broker is to be able to read it.
    ENCRYPTED = "encrypted"


class CheckpointField:
    """The checkpoint of an outbox partition. Hermes knows all up to `lastUpdatedAt`."""

    ID = "_id"
    PARTITION = "partitionKey"
    RESUME_TOKEN = "resumeToken"  # noqa: S105 - no secret
    LAST_ID = "lastProcessedId"
    CREATED_AT = "createdAt"
    UPDATED_AT = "lastUpdatedAt"
    POSITION = "position"
    EPOCH = "epoch"
    OWNER = "owner"
    OWNED_AT = "ownedAt"
    # Where the owner meets other relays, until it leaves in order; and MongoDB's time at which it
    # last showed that it lives.
    MUTEX = "mutex"
    ALIVE_AT = "aliveAt"
    CLUSTER_TIME = "clusterTime"
    LANES = "lanes"
    BRAKE_LEVEL = "brakeLevel"
    # While an operator has the partition stand still.
    PAUSED_AT = "pausedAt"
    PAUSED_BY = "pausedBy"
    # Where relay workers share the outbox partitions: who has this one's lock, and who wants it.
    HELD_BY = "heldBy"
    WANTED_BY = "wantedBy"
    # The sessions of the owner, and of who moves scheduled events: whoever comes behind them ends
    # the transaction that they may have left open.
    SESSION = "session"
    MOVER = "mover"
    # The UUID of the collection that `resumeToken` and `clusterTime` speak of.
    COLLECTION = "collection"
    SCAN = "scan"
    # By their numbers.
    INTENTS = "intents"
    # Of the form of all this; 1 where it is not said.
    VERSION = "version"
    # Within heldBy and wantedBy.
    WORKER = "worker"
    PINNED = "pinned"
    # Within a mutex.
    BROKERS = "brokers"
    # Within a mutex, a lane and an intent.
    TOPIC = "topic"
    MARK = "messageId"
    # Within a scan.
    SINCE = "since"
    PUBLISHED_SINCE = "publishedSince"
    REPLACED = "replaced"
    STREAM_FIRST = "streamFirst"
    STREAM_LOST = "streamLost"
    FIRST = "first"
    AT = "at"
    BEFORE = "before"
    SENT = "sent"
    LAST = "last"
    # Within an intent, beside its topic and position.
    IDS = "ids"


class QuarantineField:
    """A row that can never be sent, under the row's own id."""

    ID = "_id"
    PARTITION = "partitionKey"
    POSITION = "position"
    REASON = "reason"
    # Only where the row waits for a topic that could not be opened.
    TOPIC = "topic"
    # Only there, and only where the change stream showed the row: it was numbered as committed.
    IN_ORDER = "inOrder"
    QUARANTINED_AT = "quarantinedAt"
    RETRIED_AT = "retriedAt"
    # Beside RETRIED_AT, which hides the entry, where the row is never to be sent.
    DISCARDED_AT = "discardedAt"


class ScheduledField:
    """An event that is not due yet: a row of the outbox with these fields more.

    Its `partitionKey` is the name that all outbox partitions of its outbox share: which of them it
    goes to is decided when it is due.
    """

    ID = "_id"
    PARTITION = "partitionKey"
    # When it is due, by MongoDB's clock; not `deliverAt`, which is Pulsar's delay.
    DUE_AT = "dueAt"
    # The hash of its key, or of its id where it has none: modulo the number of outbox partitions it
    # is the index of the one that it goes to.
    SLOT = "slot"
    SCHEDULE = "schedule"
    # Why it cannot go into the outbox; there only while that is so.
    REFUSED = "refused"
    # What it had for a due moment, where that was no date.
    GIVEN_DUE_AT = "givenDueAt"


class ScheduleNameField:
    """Which event waits under a name, or was the last that did; the id is an object."""

    ID = "_id"
    PARTITION = "partitionKey"
    SCHEDULE = "schedule"
    EVENT_ID = "eventId"


class FiredField:
    """What was moved out of the plan together: one row for all of it."""

    ID = "_id"
    PARTITION = "partitionKey"
    # The outbox partition, and MongoDB's time.
    INTO = "firedInto"
    AT = "firedAt"
    IDS = "firedIds"
    # Those of them that had names, where there are any.
    NAMED = "named"
    EVENT_ID = "eventId"
    SCHEDULE = "schedule"


class InboxField:
    """An event that a handler has handled; the id is an object."""

    ID = "_id"
    SUBSCRIPTION = "subscription"
    HANDLER = "handler"
    EVENT_ID = "eventId"
    NAME = "name"
    HANDLED_AT = "handledAt"
    # There while what the handler does after its commit has still to be done.
    AFTER_COMMIT = "afterCommit"
    # Of a handler's turn, which has no event id.
    TURNS = "turns"
    CONTENDED_AT = "contendedAt"


class BegunField:
    """An event that a handler was begun with, under the id of its inbox row."""

    ID = "_id"
    BEGUN_AT = "begunAt"
    OWNER = "owner"
    ALONE = "alone"
    ALONE_ENDS = "aloneEnds"
    TOLD = "toldEnds"


class RepertoireField:
    """Which events the handlers of one consumer want; MongoDB's times."""

    ID = "_id"
    SUBSCRIPTION = "subscription"
    # Names of events, and patterns.
    MATCHES = "matches"
    STARTED_AT = "startedAt"
    SEEN_AT = "seenAt"
    # There once it has left in order.
    LEFT_AT = "leftAt"


class PartitioningField:
    """Into how many outbox partitions an outbox is divided, by the name that they share."""

    ID = "_id"
    COUNT = "count"
    GENERATION = "generation"
    # The count of the next generation, while a change is under way; and since when, by MongoDB's
    # cluster time, nothing is written any more into the current one.
    NEXT = "nextCount"
    SEALED = "sealed"
    CLOSED_AT = "closedAt"
    # Whether rows are written into the next one already, which wait for its relays.
    NEXT_WRITTEN = "nextWritten"
    # The generations before, by count and generation.
    CLOSED = "closed"


class ActionField:
    """What an operator did: a row of the action log."""

    ID = "_id"
    WHAT = "what"
    WHO = "who"
    BY = "by"
    TARGET = "target"
    WHERE = "where"
    BEGAN_AT = "beganAt"
    ENDED_AT = "endedAt"
    COUNT = "count"
    RESULT = "result"


# What the names of the relays' producers and own subscriptions begin with.
RELAY = "postroom-relay-"

# Properties of a Pulsar message.
ID = "id"
POSITION = "position"
# When an old event was sent again on purpose; such a message has no position.
REPLAY = "replay"
# Of a message whose payload is sealed: by which codec, and under which key.
ENVELOPE = "postroom-envelope"
ENVELOPE_KEY = "postroom-envelope-key"

# Further properties of a dead letter, beside those of the message it was.
DEAD_TOPIC = "dead-letter-topic"
DEAD_SUBSCRIPTION = "dead-letter-subscription"
DEAD_MESSAGE_ID = "dead-letter-message-id"
DEAD_HANDLER = "dead-letter-handler"
DEAD_REASON = "dead-letter-reason"
DEAD_ATTEMPTS = "dead-letter-attempts"
DEAD_FIRST_FAILURE = "dead-letter-first-failure"
DEAD_LAST_FAILURE = "dead-letter-last-failure"
# A dead letter that was put back runs this handler only; all of them where it is empty.
REDRIVE_HANDLER = "redrive-handler"

# How the names of our own topics end.
DEAD = "-DLQ"
REDRIVE = "-REDRIVE"
