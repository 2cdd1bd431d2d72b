"""A batch: rows in the order in which they are to be sent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from postroom.store.checkpoints import Point
    from postroom.store.codec import Row

__all__ = ["BATCH_ROWS", "SLICE_ROWS", "Batch", "joined"]

# Larger replies cost less a row; the server ends one at 16 MiB anyway.
BATCH_ROWS = 2000
# A slice's rows, letters and messages stay in the processor's cache from decoding to sending, which
# is more than twice as fast as taking all rows of a reply through one step after the other.
SLICE_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows in order, and the point from which a term can go on behind them, if there is one.

    A batch is what one reply of the server held. `slices` are decoded one after the other, when
    they are asked for, and once; `size` is that of the reply in bytes, and `committed_at` when
    its first row was committed, where it was one of the stream's and MongoDB tells. `ends_with` is
    a sentence: the term ends with it once this batch, its last one, is stored and checkpointed.
    """

    slices: Iterable[Sequence[Row]] = ()
    point: Point | None
    ends_with: str = ""
    size: int = 0
    committed_at: datetime | None = None


def joined(batches: Sequence[Batch]) -> Batch:
    """Return as one what follows each other; only the last one may end the term."""
    if len(batches) == 1:
        return batches[0]
    last = batches[-1]
    told = (each.committed_at for each in batches if each.committed_at is not None)
    return Batch(
        slices=itertools.chain.from_iterable(each.slices for each in batches),
        point=last.point,
        ends_with=last.ends_with,
        size=sum(each.size for each in batches),
        committed_at=next(told, None),
    )
