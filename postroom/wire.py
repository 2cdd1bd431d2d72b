"""Names of stored collections, fields and message properties: the wire format, frozen by a test.

They are those of Hermes for MongoDB where it has them, so that both can share a database.
"""

from __future__ import annotations

OUTBOX = "__outboxMessages"
CHECKPOINTS = "__outboxConsumers"
QUARANTINE = "__outboxQuarantine"
INBOX = "__inboxMessages"
BEGUN = "__inboxBegun"

# Hermes makes this very index at each start and fails on another name or one that is not unique.
CHECKPOINT_INDEX = "idx_partitionKey_asc"

# Properties of a Pulsar message.
ID = "id"
POSITION = "position"

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
