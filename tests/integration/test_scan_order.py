"""The scan's order is the server's own, whatever kinds of ids there are."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument

from postroom.store.codec import RAW, READING, id_in
from postroom.store.order import Bound

if TYPE_CHECKING:
    from tests.site import Site

IDS = [
    *(MinKey(), MaxKey(), None, True, False, float("nan"), float("inf"), -1, 0, 2.5, 2**53 + 1),
    *(Int64(2**62), float(2**53 + 2), Decimal128("2.4"), Decimal128("-7E+20"), Decimal128("0.10")),
    *("", "a", "B", "aa", "é", "\U0001f600", "\uffee", "z"),
    *({}, {"a": 1}, {"a": 2}, {"b": 0}, {"a": "x"}, {"a": 1, "b": 1}, {"a": {"c": None}}),
    *(b"", b"ab", b"b", b"abc", Binary(b"ab", 5), UUID(int=7), Binary(b"0" * 16, 0)),
    *(ObjectId("0" * 24), ObjectId("f" * 24), ObjectId()),
    *(datetime(1969, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
    *(Timestamp(1, 5), Timestamp(2, 0)),
]


def test_ids_of_every_kind_stand_in_the_servers_order(lite_site: Site) -> None:
    """As the index on _id has them, but ObjectIds behind all others."""
    rows = lite_site.database["rows"].with_options(codec_options=READING)
    rows.insert_many([{"_id": each} for each in random.sample(IDS, len(IDS))])
    raw = lite_site.database["rows"].with_options(codec_options=RAW)
    for read in (
        [row["_id"] for row in rows.find().sort("_id", 1)],
        [
            id_in(bytes(row.raw))
            for row in raw.find().sort("_id", 1)
            if isinstance(row, RawBSONDocument)
        ],
    ):
        others = [each for each in read if not isinstance(each, ObjectId)]
        expected = [*others, *(each for each in read if isinstance(each, ObjectId))]
        assert len(expected) == len(IDS)
        for (a, one), (b, other) in itertools.product(enumerate(expected), repeat=2):
            assert Bound(one).covers(other) is (b <= a), (one, other)
