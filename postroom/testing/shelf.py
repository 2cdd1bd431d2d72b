"""Shelf: the documents of one collection in memory, found and changed within a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError

from postroom.server_codes import DUPLICATE_KEY
from postroom.testing.queries import equalities, fits, require_known
from postroom.testing.storage import failed
from postroom.testing.updates import updated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bson import CodecOptions

    from postroom.testing.storage import Place, Storage, Transaction

__all__ = ["WHOLE", "Found", "Shelf"]

Found = tuple[bytes, dict[str, Any]]
# How a replacement is written as an update.
WHOLE = ""


class Shelf:
    """One collection of a storage; each call is a whole. Safe from any thread."""

    def __init__(self, storage: Storage, place: Place, codec: CodecOptions[Any]) -> None:
        self.storage = storage
        self.place = place
        self.codec = codec

    def insert(self, document: Any, transaction: Transaction | None) -> Any:
        """Insert a document and return its _id, which it gets where it has none.

        Raises:
            DuplicateKeyError: there is one of this _id.

        """
        is_raw = isinstance(document, RawBSONDocument)
        if not is_raw and "_id" not in document:
            document["_id"] = ObjectId()
        encoded = self._encoded(document)
        row_id = bson.decode(encoded)["_id"]
        with self.storage.lock:
            key = bson.encode({"": row_id})
            if key in self.storage.seen(self.place, transaction):
                raise failed(_duplicate(self.place), transaction)
            self.storage.write(self.place, key, encoded, transaction)
        return row_id if is_raw else document["_id"]

    def found(
        self, query: Mapping[str, Any] | None, transaction: Transaction | None
    ) -> list[Found]:
        """Return what fits a filter.

        Raises:
            NotFaked: the filter has an operator that is not known here.

        """
        # As BSON has it: dates in milliseconds without a zone, on both sides.
        asked = bson.decode(self._encoded(query or {}))
        require_known(asked)
        documents = self.storage.seen(self.place, transaction)
        decoded = ((key, bson.decode(each)) for key, each in documents.items())
        return [(key, each) for key, each in decoded if fits(each, asked)]

    def change(
        self, key: bytes, document: Mapping[str, Any] | None, transaction: Transaction | None
    ) -> None:
        """Put a document in the place of another, or remove it."""
        encoded = None if document is None else self._encoded(document)
        self.storage.write(self.place, key, encoded, transaction)

    def update(
        self, found: list[Found], update: Mapping[str, Any], transaction: Transaction | None
    ) -> int:
        """Apply an update to what was found, and return how many it has changed."""
        changed = 0
        for key, before in found:
            after = _after(before, self._plain(update))
            if self._plain(after) != before:
                self.change(key, after, transaction)
                changed += 1
        return changed

    def upsert(
        self, query: Mapping[str, Any], update: Mapping[str, Any], transaction: Transaction | None
    ) -> Any:
        """Insert what an update makes where its filter has found nothing; return the _id."""
        start = updated({}, {"$set": equalities(self._plain(query))})
        made = _after(start, self._plain(update), inserting=True)
        return self.insert(made, transaction)

    def _plain(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return bson.decode(self._encoded(document))

    def _encoded(self, document: Any) -> bytes:
        if isinstance(document, RawBSONDocument):
            return bytes(document.raw)
        return bson.encode(document, codec_options=self.codec)


def _duplicate(place: Place) -> DuplicateKeyError:
    return DuplicateKeyError(
        f"E11000 duplicate key error collection: {place.database}.{place.collection} index: _id_",
        DUPLICATE_KEY,
    )


def _after(
    document: Mapping[str, Any], update: Mapping[str, Any], *, inserting: bool = False
) -> dict[str, Any]:
    if WHOLE in update:
        own = {"_id": document["_id"]} if "_id" in document else {}
        return {**own, **update[WHOLE]}
    copied: dict[str, Any] = bson.decode(bson.encode(document))
    return updated(copied, update, inserting=inserting)
