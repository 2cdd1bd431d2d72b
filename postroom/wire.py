"""Names of stored collections, fields and message properties: the wire format, frozen by a test.

They are those of Hermes for MongoDB where it has them, so that both can share a database.
"""

from __future__ import annotations

OUTBOX = "__outboxMessages"
CHECKPOINTS = "__outboxConsumers"
QUARANTINE = "__outboxQuarantine"
INBOX = "__inboxMessages"

# Hermes makes this very index at each start and fails on another name or one that is not unique.
CHECKPOINT_INDEX = "idx_partitionKey_asc"

# Properties of a Pulsar message.
ID = "id"
POSITION = "position"
PARTITION = "partition"
