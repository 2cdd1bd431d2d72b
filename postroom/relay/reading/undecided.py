"""Undecided: the rows of a scan but for those on which people are to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.store.codec import id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from postroom.store.codec import Row
    from postroom.store.settled import Settled

    Slices = Iterable[Sequence[Row]]

__all__ = ["undecided"]


def undecided(slices: Slices, settled: Settled) -> Slices:
    """Leave out what is in quarantine, or was discarded: later rows are on the topics by now."""
    return _left_over(slices, settled) if settled.any() else slices


def _left_over(slices: Slices, settled: Settled) -> Iterator[Sequence[Row]]:
    for rows in slices:
        ids = [row_id for row in rows if (row_id := id_of(row)) is not None]
        # By what they look like: ids of other programs may be of any kind, unhashable ones too.
        left_out = set(map(repr, settled.among(ids)))
        yield [row for row in rows if repr(id_of(row)) not in left_out] if left_out else rows
