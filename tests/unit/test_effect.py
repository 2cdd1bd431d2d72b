"""What the test kit's contract counts of a write that servers of the tests do not know."""

from __future__ import annotations

from postroom.testing.effect import difference, written


def test_a_bulk_write_of_several_collections_counts_by_kind() -> None:
    """By the reply of MongoDB 8's bulkWrite; an upsert is an update that found nothing."""
    counts = {"nInserted": 3, "nMatched": 2, "nModified": 1, "nUpserted": 1, "nDeleted": 4}
    reply = {"ok": 1.0, "nErrors": 0, **counts}
    first = written("bulkWrite", "shop.a, shop.b", reply)
    again = written("bulkWrite", "shop.a, shop.b", {**reply, "nModified": 2, "nDeleted": 5})
    assert difference(first, first) == ""
    found = difference(first, again)
    assert found == "documents removed in shop.a, shop.b: 5 when retried, 4 at first"
    upserted = written("bulkWrite", "shop.a, shop.b", {**reply, "nMatched": 3, "nUpserted": 0})
    assert difference(first, upserted) == ""
