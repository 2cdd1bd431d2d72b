"""The storage in memory and MongoDB: what both are asked, both answer the same."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pymongo
import pytest
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.testing import OutboxRecorder
    from tests.site import Site

START: list[dict[str, Any]] = [
    {"_id": 1, "n": 1, "inner": {"deep": 1}, "flag": True},
    {"_id": 2, "n": 2.5, "tags": ["a", "b"], "none": None},
    {"_id": {"a": 1, "b": 2}, "n": "text", "tags": []},
]
FILTERS: list[dict[str, Any]] = [
    {"n": 1.0},
    {"n": {"$gt": 1}},
    {"n": {"$gte": "a"}},
    {"n": {"$in": [1, "text"]}},
    {"n": {"$ne": 1}},
    {"tags": "b"},
    {"tags": ["a", "b"]},
    {"tags": {"$nin": ["a"]}},
    {"none": None},
    {"none": {"$exists": True}},
    {"inner": {"deep": 1}},
    {"inner.deep": {"$lt": 5}},
    {"_id": {"a": 1, "b": 2}},
    {"_id": {"b": 2, "a": 1}},
    {"flag": 1},
    {"$or": [{"n": 1}, {"flag": {"$exists": False}, "tags": {"$ne": "a"}}]},
    {"$nor": [{"n": 1}, {"tags": "a"}]},
    {"n": {"$not": {"$gt": 1}}},
]
UPDATES: list[dict[str, Any]] = [
    {"$set": {"inner.more.still": 1}},
    {"$unset": {"inner.deep": "", "nothing": ""}},
    {"$inc": {"count": 2}},
    {"$push": {"tags": "c"}},
    {"$push": {"tags": {"$each": [1, 2]}}},
    {"$addToSet": {"tags": {"$each": ["a", "z"]}}},
    {"$pull": {"tags": "a"}},
    {"$min": {"count": 3}},
    {"$max": {"_one": 3}},
    {"$set": {"n": 1}, "$setOnInsert": {"x": 1}},
]


def asked(database: Any) -> list[Any]:
    """Return what a database answers to all that is asked."""
    answers: list[Any] = []
    things = database["things"]
    things.insert_many([dict(each) for each in START])
    answers += [list(things.find(each)) for each in FILTERS]
    answers += [things.count_documents(FILTERS[0]), things.distinct("tags")]
    answers += [
        list(things.find({"n": {"$ne": "text"}}, projection).sort("n", -1))
        for projection in ({"n": 1}, ["tags"])
    ]
    answers.append(
        list(things.find({"n": {"$lt": 9}}, {"_id": 0, "n": 0}).sort([("n", 1)]).skip(1).limit(1))
    )
    for update in UPDATES:
        done = things.update_many({"_id": {"$ne": 99}}, update)
        answers += [done.matched_count, done.modified_count, list(things.find())]
    for call in CALLS:
        try:
            answers.append(call(things))
        except pymongo.errors.PyMongoError as error:
            answers.append(type(error))
    answers += [in_transaction(database, *calls) for calls in product(FAULTS, THEN)]
    return [*answers, list(things.find())]


def in_transaction(database: Any, *calls: Callable[[Any, Any], Any]) -> list[Any]:
    """Return what calls in one transaction come to, each error caught, and its commit."""
    answers: list[Any] = []
    with database.client.start_session() as session:
        session.start_transaction()
        for call in (*calls, COMMIT):
            try:
                answers.append(call(database["things"], session))
            except pymongo.errors.PyMongoError as error:
                labels = ["TransientTransactionError", "UnknownTransactionCommitResult"]
                answers.append((type(error), [error.has_error_label(each) for each in labels]))
    return answers


COMMIT: Callable[[Any, Any], Any] = lambda _things, session: session.commit_transaction()  # noqa: E731
FAULTS: list[Callable[[Any, Any], Any]] = [
    lambda things, session: things.insert_one({"_id": 1}, session=session),
    lambda things, session: things.insert_many([{"_id": 55}, {"_id": 1}], session=session),
    lambda things, session: things.bulk_write(
        [DeleteOne({"_id": 2}), InsertOne({"_id": 1})], session=session
    ),
    lambda things, session: (
        things.update_one({"_id": 1}, {"$inc": {"more": 3}}, session=session).modified_count
    ),
]
THEN: list[Callable[[Any, Any], Any]] = [
    lambda things, session: things.find_one({"_id": 1}, session=session),
    lambda things, session: things.insert_one({"_id": "then"}, session=session).inserted_id,
    lambda things, session: things.delete_many({"_id": "then"}, session=session).deleted_count,
    lambda _things, session: session.in_transaction,
]


EVERY_KIND: list[Any] = [
    UpdateOne({"_id": 80}, {"$inc": {"bulk": 1}}, upsert=True),
    UpdateMany({"bulk": 1}, {"$set": {"more": True}}),
    ReplaceOne({"_id": 80}, {"bulk": 2}),
    ReplaceOne({"_id": 81}, {"bulk": 2}, upsert=True),
    DeleteOne({"_id": 81}),
    DeleteMany({"bulk": 3}),
]
CALLS: list[Callable[[Any], Any]] = [
    lambda things: things.insert_one({"_id": 1}),
    lambda things: (
        things.update_one({"_id": 7, "a.b": 1}, {"$inc": {"c": 1}}, upsert=True).upserted_id
    ),
    lambda things: things.replace_one({"_id": 7}, {"z": 1}).modified_count,
    lambda things: things.replace_one({"_id": 8}, {"z": 1}, upsert=True).upserted_id,
    lambda things: things.find_one_and_update({"_id": 7}, {"$set": {"z": 2}}),
    lambda things: things.find_one_and_update({"_id": 7}, {"$set": {"z": 3}}, return_document=True),
    lambda things: things.find_one_and_update({"_id": 70}, {"$set": {"z": 3}}),
    lambda things: things.find_one_and_delete({"_id": 8}),
    lambda things: things.delete_one({"z": 3}).deleted_count,
    lambda things: things.delete_many({"none": 5}).deleted_count,
    lambda things: things.bulk_write(EVERY_KIND).bulk_api_result["upserted"],
    lambda things: things.bulk_write(EVERY_KIND).matched_count,
    lambda things: things.bulk_write([InsertOne({"_id": 90}), *EVERY_KIND]).inserted_count,
    lambda things: things.bulk_write([DeleteMany({"_id": 90}), InsertOne({"_id": 1})]),
]


@pytest.fixture
def real(lite_site: Site) -> Any:
    """Return a database of MongoDB."""
    return lite_site.mongodb.get_database(lite_site.name)


def test_both_answer_the_same(real: Any, outbox_recorder: OutboxRecorder) -> None:
    """Filters, updates, upserts and errors, also in transactions, which these end."""
    ours, theirs = asked(outbox_recorder.database), asked(real)
    for mine, true in zip(ours, theirs, strict=True):
        assert mine == true
