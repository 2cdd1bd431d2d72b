"""Collections in memory: the calls of PyMongo's that an application makes beside its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from pymongo import results
from pymongo.errors import BulkWriteError, DuplicateKeyError

from postroom.pymongo_adapter import add_to
from postroom.server_codes import DUPLICATE_KEY
from postroom.testing.bulk import Bulk
from postroom.testing.cursors import Cursor
from postroom.testing.queries import MISSING, value_at
from postroom.testing.refusal import not_faked
from postroom.testing.sessions import transaction_of
from postroom.testing.shelf import WHOLE, Shelf
from postroom.testing.updates import require_update

if TYPE_CHECKING:
    from postroom.testing.storage import Transaction

__all__ = ["Collection"]


# What changes no answer of the storage in memory, beyond an error.
HARMLESS = frozenset(
    {
        *("allow_disk_use", "batch_size", "bypass_document_validation", "comment", "hint"),
        *("maxTimeMS", "max_time_ms", "no_cursor_timeout"),
    }
)


def _require_harmless(options: Mapping[str, Any]) -> None:
    if unknown := sorted(each for each in options if each not in HARMLESS and options[each]):
        raise not_faked(f"the option {', '.join(unknown)}")


class _Reading:
    """What only looks."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._shelf.place.collection

    def with_options(self, **_options: Any) -> Self:
        """Return it: concerns and preferences mean nothing here."""
        return self

    def create_index(self, keys: Any, *, unique: bool = False, **_options: Any) -> str:
        """Do nothing: an index that is not unique changes no result."""
        if unique:
            raise not_faked(f"a unique index on {self.name}")
        return str(keys)

    def find(
        self,
        query: Mapping[str, Any] | None = None,
        projection: Any = None,
        *,
        session: Any = None,
        sort: Any = None,
        limit: int = 0,
        skip: int = 0,
        **options: Any,
    ) -> Cursor:
        """Return the documents that fit, as they are now."""
        _require_harmless(options)
        found = self._shelf.found(query, transaction_of(session))
        cursor = Cursor([each for _, each in found], self._shelf.codec, projection)
        return cursor.sort(sort or []).skip(skip).limit(limit)

    def find_one(self, query: Any = None, *args: Any, **options: Any) -> Any:
        """Return the first document that fits, by a filter or an _id, or None."""
        asked = query if isinstance(query, Mapping) or query is None else {"_id": query}
        return next(self.find(asked, *args, **options).limit(1), None)

    def count_documents(
        self, query: Mapping[str, Any], *, session: Any = None, **options: Any
    ) -> int:
        """Count the documents that fit."""
        _require_harmless(options)
        return len(self._shelf.found(query, transaction_of(session)))

    def estimated_document_count(self, **_options: Any) -> int:
        """Count all."""
        return self.count_documents({})

    def distinct(
        self, key: str, query: Any = None, *, session: Any = None, **options: Any
    ) -> list[Any]:
        """Return the values of a field."""
        _require_harmless(options)
        found: list[Any] = []
        for _, each in self._shelf.found(query, transaction_of(session)):
            value = value_at(each, key)
            several = value if isinstance(value, list) else [value]
            found += [one for one in several if one is not MISSING and one not in found]
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise not_faked(f"{name}() of a collection")


class Collection(_Reading):
    """A collection in memory. What is not here is refused by a sentence."""

    def insert_one(
        self, document: Any, *, session: Any = None, **_options: Any
    ) -> results.InsertOneResult:
        """Insert a document, which gets an _id where it has none."""
        row_id = self._shelf.insert(document, transaction_of(session))
        return results.InsertOneResult(row_id, acknowledged=True)

    def insert_many(
        self,
        documents: Iterable[Any],
        *,
        ordered: bool = True,
        session: Any = None,
        **_options: Any,
    ) -> results.InsertManyResult:
        """Insert documents in order, up to the first that cannot be."""
        if not ordered:
            raise not_faked("insert_many() with ordered=False")
        found: list[Any] = []
        for index, document in enumerate(documents):
            try:
                found.append(self._shelf.insert(document, transaction_of(session)))
            except DuplicateKeyError as error:
                fault = {"index": index, "code": DUPLICATE_KEY, "errmsg": str(error)}
                raise BulkWriteError({"writeErrors": [fault], "nInserted": len(found)}) from error
        return results.InsertManyResult(found, acknowledged=True)

    def update_one(self, query: Any, update: Any, **options: Any) -> results.UpdateResult:
        """Change the first document that fits, or insert one with `upsert`."""
        require_update(update)
        return self._update(query, update, most=1, **options)

    def update_many(self, query: Any, update: Any, **options: Any) -> results.UpdateResult:
        """Change all documents that fit, or insert one with `upsert`."""
        require_update(update)
        return self._update(query, update, most=None, **options)

    def replace_one(self, query: Any, replacement: Any, **options: Any) -> results.UpdateResult:
        """Replace the first document that fits, or insert it with `upsert`."""
        return self._update(query, {WHOLE: replacement}, most=1, **options)

    def delete_one(
        self, query: Any, *, session: Any = None, **options: Any
    ) -> results.DeleteResult:
        """Remove the first document that fits."""
        _require_harmless(options)
        return self._delete(query, transaction_of(session), most=1)

    def delete_many(
        self, query: Any, *, session: Any = None, **options: Any
    ) -> results.DeleteResult:
        """Remove all documents that fit."""
        _require_harmless(options)
        return self._delete(query, transaction_of(session), most=None)

    def find_one_and_update(
        self,
        query: Any,
        update: Any,
        *,
        return_document: bool = False,
        session: Any = None,
        **options: Any,
    ) -> Any:
        """Change the first document that fits; return it as it was, or as it is then."""
        before = self.find_one(query, session=session)
        asked = query if before is None else {"_id": before["_id"]}
        done = self.update_one(asked, update, session=session, **options)
        row_id = done.upserted_id if before is None else before["_id"]
        if not return_document or row_id is None:
            return before
        return self.find_one({"_id": row_id}, session=session)

    def find_one_and_delete(self, query: Any, *, session: Any = None, **options: Any) -> Any:
        """Remove the first document that fits, and return it."""
        _require_harmless(options)
        before = self.find_one(query, session=session)
        if before is not None:
            self.delete_one({"_id": before["_id"]}, session=session)
        return before

    def bulk_write(
        self, requests: Any, *, ordered: bool = True, session: Any = None, **options: Any
    ) -> results.BulkWriteResult:
        """Do operations in their order, up to the first that cannot be done."""
        _require_harmless(options)
        if not ordered:
            raise not_faked("bulk_write() with ordered=False")
        bulk = Bulk(self, session)
        for each in requests:
            add_to(bulk, each)
        return bulk.execute()

    def _delete(
        self, query: Any, transaction: Transaction | None, *, most: int | None
    ) -> results.DeleteResult:
        with self._shelf.storage.lock:
            found = self._shelf.found(query, transaction)[:most]
            for key, _ in found:
                self._shelf.change(key, None, transaction)
        return results.DeleteResult({"n": len(found)}, acknowledged=True)

    def _update(
        self,
        query: Any,
        update: Mapping[str, Any],
        *,
        most: int | None,
        upsert: bool = False,
        session: Any = None,
        **options: Any,
    ) -> results.UpdateResult:
        _require_harmless(options)
        transaction = transaction_of(session)
        with self._shelf.storage.lock:
            found = self._shelf.found(query, transaction)[:most]
            changed = self._shelf.update(found, update, transaction)
            reply: dict[str, Any] = {"n": len(found), "nModified": changed}
            if upsert and not found:
                upserted = self._shelf.upsert(query, update, transaction)
                reply = {"n": 1, "nModified": 0, "upserted": upserted}
        return results.UpdateResult(reply, acknowledged=True)
