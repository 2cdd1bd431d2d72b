"""Transience: which errors of PyMongo and of the Pulsar client pass by themselves."""

from __future__ import annotations

from pymongo import errors as mongo

__all__ = ["MONGO", "MONGO_CODES", "PULSAR", "of_mongo"]

# Classes of pymongo.errors that pass by themselves. Every other one there is final: a test walks
# the module and fails on a class that stands in neither list.
MONGO = (
    mongo.AutoReconnect,
    mongo.ConnectionFailure,
    mongo.CursorNotFound,
    mongo.ExecutionTimeout,
    mongo.NetworkTimeout,
    mongo.NotPrimaryError,
    mongo.ServerSelectionTimeoutError,
    mongo.WTimeoutError,
    mongo.WaitQueueTimeoutError,
    mongo.WriteConcernError,
)
# Server codes behind a plain OperationFailure that pass: stepping down, shutting down, write
# conflicts, interrupted operations and no primary yet (MongoDB's error_codes.yml).
MONGO_CODES = frozenset(
    {6, 7, 50, 64, 89, 91, 112, 133, 134, 189, 202, 246, 251, 262, 317, 384, 388}
    | {9001, 10058, 10107, 11600, 11602, 13388, 13435, 13436}
)
# By name: the Pulsar client is not fork-safe and not to be imported where it is not needed.
PULSAR = frozenset(
    {
        "AlreadyClosed",
        "BrokerMetadataError",
        "BrokerPersistenceError",
        "ChecksumError",
        "ConnectError",
        "ConsumerAssignError",
        "ConsumerBusy",
        "ConsumerNotFound",
        "ConsumerNotInitialized",
        "Interrupted",
        "LookupError",
        "MemoryBufferIsFull",
        "NotConnected",
        "ProducerBlockedQuotaExceededError",
        "ProducerBlockedQuotaExceededException",
        "ProducerBusy",
        "ProducerFenced",
        "ProducerNotInitialized",
        "ProducerQueueIsFull",
        "PulsarException",
        "ReadError",
        "ServiceUnitNotReady",
        "SubscriptionNotFound",
        "Timeout",
        "TooManyLookupRequestException",
        "TopicNotFound",
        "TransactionConflict",
        "UnknownError",
    }
)


def of_mongo(error: mongo.PyMongoError) -> bool:
    """Say whether an error of PyMongo's passes by itself."""
    if isinstance(error, MONGO) or error.has_error_label("TransientTransactionError"):
        return True
    return isinstance(error, mongo.OperationFailure) and error.code in MONGO_CODES
