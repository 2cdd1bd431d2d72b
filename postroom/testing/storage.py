"""Storage: documents in memory, with transactions that see a snapshot and conflict as MongoDB's."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pymongo.errors import OperationFailure

from postroom.server_codes import NO_SUCH_TRANSACTION
from postroom.testing.refusal import not_faked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Documents", "Place", "Storage", "Transaction", "failed"]

# Each document as BSON, by its id as BSON: nobody can change what is stored by keeping hold of it.
Documents = dict[bytes, bytes]

WRITE_CONFLICT = 112
# What has to be tried again as a whole.
TRANSIENT = "TransientTransactionError"


class Place(NamedTuple):
    """A collection of a database."""

    database: str
    collection: str


@dataclass(slots=True, kw_only=True, eq=False)
class Transaction:
    """One transaction, from its start to its end; None in `changes` is a document that is gone.

    `hears` is told each error of the server's in it, as its session is by PyMongo.
    """

    number: int
    snapshot: Mapping[Place, Documents]
    hears: Callable[[Mapping[str, Any]], None]
    has_failed: bool = False
    changes: dict[Place, dict[bytes, bytes | None]] = field(default_factory=dict)
    state: Literal["open", "committed", "rolled back"] = "open"

    def require_going_on(self) -> None:
        """Make sure that no error has ended it.

        Raises:
            OperationFailure: one has, and the transaction is undone.

        """
        if self.has_failed:
            sentence = f"Transaction with {{ txnNumber: {self.number} }} has been aborted."
            details = {"code": NO_SUCH_TRANSACTION, "errorLabels": [TRANSIENT]}
            raise OperationFailure(sentence, NO_SUCH_TRANSACTION, details)

    def seen(self, place: Place) -> Documents:
        """Return what it sees of a collection: the snapshot, and what it has changed itself."""
        seen: dict[bytes, bytes | None] = dict(self.snapshot.get(place, {}))
        seen.update(self.changes.get(place, {}))
        return {key: document for key, document in seen.items() if document is not None}


class Storage:
    """All databases of one client in memory. Thread-safe.

    A transaction that writes what another one has written since its snapshot meets a write
    conflict, as in MongoDB; a write without a transaction that would wait for one is refused.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._begun = 0
        self._open: list[Transaction] = []
        self._ended: list[Transaction] = []
        self._places: dict[Place, Documents] = {}

    def begin(self, hears: Callable[[Mapping[str, Any]], None]) -> Transaction:
        """Begin a transaction."""
        with self.lock:
            snapshot = {place: dict(documents) for place, documents in self._places.items()}
            self._begun += 1
            found = Transaction(number=self._begun, snapshot=snapshot, hears=hears)
            self._open.append(found)
            return found

    def end(self, transaction: Transaction, *, commit: bool) -> None:
        """Make what a transaction has changed there for all, or have it never been.

        Raises:
            OperationFailure: an error has ended it, so that it cannot be committed.

        """
        with self.lock:
            self._open.remove(transaction)
            self._ended.append(transaction)
            transaction.state = "rolled back"
            if commit:
                transaction.require_going_on()
                transaction.state = "committed"
                for place, changes in transaction.changes.items():
                    for key, document in changes.items():
                        self._put(place, key, document)

    def seen(self, place: Place, transaction: Transaction | None) -> Documents:
        """Return the documents of a collection as a transaction sees them, or all others."""
        with self.lock:
            if transaction is None:
                return dict(self._places.get(place, {}))
            return transaction.seen(place)

    def write(
        self, place: Place, key: bytes, document: bytes | None, transaction: Transaction | None
    ) -> None:
        """Write a document, or remove it.

        Raises:
            OperationFailure: another transaction has written it.
            NotFaked: the write would wait for another transaction.

        """
        with self.lock:
            is_held = any(
                key in other.changes.get(place, ())
                for other in self._open
                if other is not transaction
            )
            if transaction is None:
                if is_held:
                    raise not_faked(
                        f"a write to {place.collection} without the session, while a transaction "
                        "has written the same document",
                        "it would wait for the end of that transaction (is session=… forgotten?)",
                    )
                self._put(place, key, document)
                return
            now = self._places.get(place, {}).get(key)
            if is_held or now is not transaction.snapshot.get(place, {}).get(key):
                raise failed(_conflict(place), transaction)
            transaction.changes.setdefault(place, {})[key] = document

    def transactions(self) -> list[Transaction]:
        """Return those that have ended, in the order of their ends, then those that are open."""
        with self.lock:
            return [*self._ended, *self._open]

    def clear(self) -> None:
        """Forget all documents, and the transactions that have ended."""
        with self.lock:
            self._places.clear()
            self._ended.clear()

    def drop(self, database: str, collection: str | None = None) -> None:
        """Remove a collection, or all of a database."""
        with self.lock:
            for place in list(self._places):
                if place.database == database and collection in (None, place.collection):
                    del self._places[place]

    def collections(self, database: str) -> list[str]:
        """Name the collections of a database that have had documents."""
        with self.lock:
            return [place.collection for place in self._places if place.database == database]

    def _put(self, place: Place, key: bytes, document: bytes | None) -> None:
        documents = self._places.setdefault(place, {})
        if document is None:
            documents.pop(key, None)
        else:
            documents[key] = document


def failed(error: OperationFailure, transaction: Transaction | None) -> OperationFailure:
    """Return an error of the server's, which ends the transaction that it is met in."""
    if transaction is not None:
        transaction.has_failed = True
        transaction.hears({"ok": 0, **(error.details or {"code": error.code})})
    return error


def _conflict(place: Place) -> OperationFailure:
    sentence = f"Caused by :: Write conflict in {place.database}.{place.collection}"
    return OperationFailure(
        sentence, WRITE_CONFLICT, {"errorLabels": [TRANSIENT], "code": WRITE_CONFLICT}
    )
