"""Plainness: what a collection must not be that postroom keeps something in.

Who makes collections beforehand may give them what an application's own have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import errors as mongo

from postroom import wire
from postroom.server_codes import NAMESPACE_EXISTS
from postroom.wire import (
    ActionField,
    BegunField,
    FiredField,
    InboxField,
    OutboxField,
    RepertoireField,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pymongo.database import Database

__all__ = ["Deletion", "deletions", "make_plain", "oddities", "oddity"]

# By which rows expire: one that others have made of them is given our own time.
OWN_FIELDS: Mapping[str, str] = {
    wire.INBOX: InboxField.HANDLED_AT,
    wire.BEGUN: BegunField.BEGUN_AT,
    wire.REPERTOIRES: RepertoireField.SEEN_AT,
    wire.ACTIONS: ActionField.BEGAN_AT,
}
# What is set once a row is of no more use.
DONE_FIELDS = frozenset({OutboxField.SENT_AT, FiredField.AT})


class Deletion(NamedTuple):
    """A TTL index that is none of postroom's: of which collection, its name, by what, how soon."""

    collection: str
    name: str
    field: str
    seconds: int


def make_plain(database: Database[Any], name: str) -> bool:
    """Make a collection, and say whether nobody else was first, who makes a plain one as well.

    Raises:
        pymongo.errors.PyMongoError: it cannot be made.

    """
    try:
        database.create_collection(name, check_exists=False)
    except mongo.OperationFailure as error:
        if error.code != NAMESPACE_EXISTS:
            raise
        return False
    return True


def oddity(collection: Mapping[str, Any]) -> str | None:
    """Say what a collection is, as listCollections shows it, that it must not be; None if plain.

    Views and time series have no change stream and take no updates. Capped ones have no snapshots,
    take no writes in transactions, and forget the oldest. By a collation other than the simple one
    a name is another's too: two outbox partitions, or two events that the inbox takes for one.
    """
    options = collection.get("options", {})
    if collection.get("type") in {"view", "timeseries"}:
        return "a view" if collection["type"] == "view" else "a time series"
    if options.get("capped"):
        return "capped"
    return "a collection with a collation" if options.get("collation") else None


def oddities(database: Database[Any], names: Iterable[str]) -> dict[str, str]:
    """Return which of some collections are not plain, and what they are.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer, or refuses to list them.

    """
    found = database.list_collections(filter={"name": {"$in": list(names)}})
    return {each["name"]: kind for each in found if (kind := oddity(each)) is not None}


def deletions(database: Database[Any], names: Iterable[str]) -> list[Deletion]:
    """Return the TTL indexes of some collections that postroom has not made, and that delete.

    Not those of what is done with by a field of its own.

    Raises:
        pymongo.errors.PyMongoError: MongoDB does not answer, or refuses to list them.

    """
    found = []
    # Views have no indexes.
    tables = {"name": {"$in": list(names)}, "type": "collection"}
    for name in sorted(each["name"] for each in database.list_collections(filter=tables)):
        for index, options in database[name].index_information().items():
            if "expireAfterSeconds" not in options:
                continue
            ((field, _),) = options["key"]
            partial = options.get("partialFilterExpression", {})
            if not DONE_FIELDS & {field, *partial} and (partial or OWN_FIELDS.get(name) != field):
                seconds = int(options["expireAfterSeconds"])
                found.append(Deletion(name, index, field, seconds))
    return found
