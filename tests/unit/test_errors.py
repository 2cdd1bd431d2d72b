"""Errors: one tree, and every error of the libraries below is classified."""

from __future__ import annotations

import inspect

import pulsar
import pytest
from pymongo import errors as mongo

from postroom import errors, transience

# What no wait mends: wrong calls, wrong data, missing rights, results of one's own making.
MONGO_FINAL = {
    "BulkWriteError",
    "ClientBulkWriteException",
    "CollectionInvalid",
    "ConfigurationError",
    "DocumentTooLarge",
    "DuplicateKeyError",
    "EncryptedCollectionError",
    "EncryptionError",
    "InvalidName",
    "InvalidOperation",
    "InvalidURI",
    "OperationFailure",
    "ProtocolError",
    "PyMongoError",
    "WriteError",
}
PULSAR_FINAL = {
    "AuthenticationError",
    "AuthorizationError",
    "CryptoError",
    "ErrorGettingAuthenticationData",
    "TransactionNotFound",
    "InvalidConfiguration",
    "InvalidMessage",
    "InvalidTopicName",
    "InvalidTxnStatusError",
    "InvalidUrl",
    "MessageTooBig",
    "NotAllowedError",
    "OperationNotSupported",
    "TopicTerminated",
    "TransactionCoordinatorNotFoundError",
    "UnsupportedVersionError",
    "CumulativeAcknowledgementNotAllowedError",
    "DuplicateKeyError",
    "IncompatibleSchema",
}


def test_every_pymongo_error_is_classified() -> None:
    """Each class of pymongo.errors either passes by itself or is known to be final."""
    passing = set(transience.MONGO)
    unknown = [
        name
        for name, kind in inspect.getmembers(mongo, inspect.isclass)
        if issubclass(kind, mongo.PyMongoError)
        and not name.startswith("_")
        and kind not in passing
        and name not in MONGO_FINAL
    ]
    assert unknown == []


def test_every_pulsar_error_is_classified() -> None:
    """Each exception of the Pulsar client either passes by itself or is known to be final."""
    known = transience.PULSAR | PULSAR_FINAL
    unknown = {
        name
        for name, kind in inspect.getmembers(pulsar, inspect.isclass)
        if issubclass(kind, Exception) and name not in known
    }
    assert unknown == set()


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (mongo.AutoReconnect(), True),
        (mongo.OperationFailure("not primary", 10107), True),
        (mongo.OperationFailure("no rights", 13), False),
        (mongo.DuplicateKeyError("twice"), False),
        (errors.Superseded(), True),
        (errors.Poison(), False),
        (errors.Retry(), True),
        (errors.Reject(), False),
        (ConnectionRefusedError(), True),
        (ValueError(), False),
    ],
)
def test_an_error_says_whether_it_passes(error: Exception, *, passes: bool) -> None:
    """is_transient() says whether a failure passes by itself."""
    assert errors.is_transient(error) is passes


def test_an_error_without_words_speaks_its_docstring() -> None:
    """The first line of the class's docstring is the default message."""
    assert str(errors.ScopeClosed()) == "The scope has ended; open a new one to publish more."


def test_the_drawn_tree_is_the_tree() -> None:
    """The module's docstring names every class, and no other."""
    drawn = [
        line.strip("│├└─ ").split()[0]
        for line in (errors.__doc__ or "").splitlines()[2:]
        if line.strip()
    ]
    real = [
        n
        for n, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    ]
    assert sorted(drawn) == sorted(real)
