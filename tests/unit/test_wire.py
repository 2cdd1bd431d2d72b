"""The wire format: names that Hermes, running services and stored data rely on."""

from __future__ import annotations

import postroom
from postroom import wire


def test_the_names_are_frozen() -> None:
    """None of these may change without a migration of stored data."""
    found = {name: value for name, value in vars(wire).items() if name.isupper()}
    assert found == {
        "OUTBOX": "__outboxMessages",
        "CHECKPOINTS": "__outboxConsumers",
        "QUARANTINE": "__outboxQuarantine",
        "INBOX": "__inboxMessages",
        "CHECKPOINT_INDEX": "idx_partitionKey_asc",
        "INBOX_EXPIRY_INDEX": "idx_handledAt_ttl",
        "BEGUN_EXPIRY_INDEX": "idx_begunAt_ttl",
        "ID": "id",
        "POSITION": "position",
        "RELAY": "postroom-relay-",
        "REPLAY": "replay",
        "ENVELOPE": "postroom-envelope",
        "ENVELOPE_KEY": "postroom-envelope-key",
        "DEAD_TOPIC": "dead-letter-topic",
        "DEAD_SUBSCRIPTION": "dead-letter-subscription",
        "DEAD_MESSAGE_ID": "dead-letter-message-id",
        "DEAD_HANDLER": "dead-letter-handler",
        "DEAD_REASON": "dead-letter-reason",
        "DEAD_ATTEMPTS": "dead-letter-attempts",
        "DEAD_FIRST_FAILURE": "dead-letter-first-failure",
        "DEAD_LAST_FAILURE": "dead-letter-last-failure",
        "REDRIVE_HANDLER": "redrive-handler",
        "DEAD": "-DLQ",
        "REDRIVE": "-REDRIVE",
        "BEGUN": "__inboxBegun",
        "REPERTOIRES": "__inboxRepertoires",
        "REPERTOIRES_EXPIRY_INDEX": "idx_seenAt_ttl",
        "ACTIONS": "__outboxActions",
        "PARTITIONS": "__outboxPartitions",
        "SCHEDULED": "__outboxScheduled",
        "SCHEDULED_DUE_INDEX": "idx_partitionKey_dueAt_id_slot",
        "SCHEDULE_NAMES": "__outboxScheduleNames",
        "FIRED": "__outboxFired",
        "FIRED_INDEX": "idx_firedInto_firedAt",
        "FIRED_IDS_INDEX": "idx_firedIds",
        "ACTIONS_EXPIRY_INDEX": "idx_beganAt_ttl",
        "QUARANTINE_INDEX": "idx_partitionKey_retriedAt_topic_position",
    }


def test_the_fields_are_frozen() -> None:
    """Each stored form has these; Hermes reads and writes those of outbox and checkpoint too."""
    found = {
        name: [value for field, value in vars(form).items() if field.isupper()]
        for name, form in vars(wire).items()
        if name.endswith("Field")
    }
    assert found == {
        "OutboxField": [
            *("_id", "partitionKey", "occurredAt", "data", "key", "headers", "deliverAt", "sentAt"),
            "encrypted",
        ],
        "CheckpointField": [
            *("_id", "partitionKey", "resumeToken", "lastProcessedId", "createdAt"),
            *("lastUpdatedAt", "position", "epoch", "owner", "ownedAt", "mutex", "aliveAt"),
            *("clusterTime", "lanes", "brakeLevel", "pausedAt", "pausedBy"),
            *(
                "heldBy",
                "wantedBy",
                "session",
                "mover",
                "collection",
                "scan",
                "intents",
                "version",
                "worker",
                "pinned",
                "brokers",
                "topic",
            ),
            *("messageId", "since", "publishedSince", "replaced", "streamFirst", "streamLost"),
            "first",
            *("at", "before", "sent", "last", "ids"),
        ],
        "QuarantineField": [
            *("_id", "partitionKey", "position", "reason", "topic", "inOrder"),
            *("quarantinedAt", "retriedAt", "discardedAt"),
        ],
        "ScheduledField": [
            *("_id", "partitionKey", "dueAt", "slot", "schedule", "refused", "givenDueAt"),
        ],
        "ScheduleNameField": ["_id", "partitionKey", "schedule", "eventId"],
        "FiredField": [
            *("_id", "partitionKey", "firedInto", "firedAt", "firedIds", "named", "eventId"),
            "schedule",
        ],
        "InboxField": [
            *("_id", "subscription", "handler", "eventId", "name", "handledAt", "afterCommit"),
            *("turns", "contendedAt"),
        ],
        "BegunField": ["_id", "begunAt", "owner", "alone", "aloneEnds", "toldEnds"],
        "RepertoireField": [
            *("_id", "subscription", "matches", "startedAt", "seenAt", "leftAt"),
        ],
        "PartitioningField": [
            *("_id", "count", "generation", "nextCount", "sealed", "closedAt"),
            *("nextWritten", "closed"),
        ],
        "ActionField": [
            *("_id", "what", "who", "by", "target", "where", "beganAt", "endedAt", "count"),
            "result",
        ],
    }


def test_the_public_names_are_frozen() -> None:
    """What users import; a name is added here on purpose and never taken away."""
    assert postroom.__all__ == [
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
