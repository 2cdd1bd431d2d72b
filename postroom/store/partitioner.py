"""Partitioner: which outbox partition a row goes to, as far as it is known what there is."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from postroom import errors, names
from postroom.partitioning import MOST_PARTITIONS, Partitioning, murmur3_32
from postroom.private_text import quoted
from postroom.store.partitionings import to_write

if TYPE_CHECKING:
    from bson import ObjectId

    from postroom.partitioning import OutboxPartition
    from postroom.store.partitioning_record import Commands

__all__ = ["Partitioner", "slot_of"]

# Writers are made for a request or a task at times, clients are not. By the client's id: to PyMongo
# two clients of the same servers are equal, whoever their users are.
_known: dict[int, dict[tuple[str, str, int], Partitioner]] = {}


class Partitioner:
    """Places the rows of all writers of one client into an outbox. Thread-safe.

    What is there is asked once, by learn(), and again when MongoDB has refused rows; one outbox
    partition is taken for granted until then, so that writers of one need no right to ask.
    """

    def __init__(self, base: str, count: int) -> None:
        self._base = base
        self._count = count
        # Whether the indexes of the plan were looked at; asked again for no harm.
        self.has_plan = False
        self._partitioning = Partitioning(base=base) if count == 1 else None
        # Rows may be placed by it all the same, by another thread that has asked before: into what
        # MongoDB refuses, and nowhere else.
        self._is_closed = False

    @classmethod
    def of_client(cls, client: Any, database: str, *, base: str, count: int) -> Partitioner:
        """Return the one that all writers of a client share.

        Raises:
            ConfigurationError: `base` is no name for which a relay can be started, or there cannot
                be so many outbox partitions.

        """
        _require_name(base)
        if type(count) is not int or not 1 <= count <= MOST_PARTITIONS:
            raise errors.ConfigurationError(
                f"An outbox has 1 to {MOST_PARTITIONS} outbox partitions, not {quoted(count)}"
            )
        return _known_to(client).setdefault((database, base, count), cls(base, count))

    @property
    def base(self) -> str:
        """The name that the outbox partitions share, whatever their number."""
        return self._base

    @property
    def known(self) -> Partitioning | None:
        """What rows are placed by, None where that is to be learnt first."""
        return None if self._is_closed else self._partitioning

    @property
    def only(self) -> OutboxPartition | None:
        """The outbox partition that all rows go to, None where there are several."""
        there = self._partitioning
        return None if there is None or there.is_divided else there.names[0]

    def of(self, key: str | None, row_id: ObjectId) -> OutboxPartition:
        """Return the outbox partition of a row by its key; those without one are spread."""
        there = self._partitioning or Partitioning(base=self._base, count=self._count)
        return there.names[slot_of(key, row_id) % there.count]

    def learn(self) -> Commands[None]:
        """Find out what there is.

        Raises:
            OtherPartitioning: the outbox is divided otherwise, or is being changed.

        """
        self._partitioning = yield from to_write(self._base, self._count)
        self._is_closed = False

    def refused(self, placed_by: Partitioning | None) -> Commands[None]:
        """Find out what there is, after MongoDB has refused rows; return where nothing is new.

        Nothing is, where they were `placed_by` what there is now. Another writer may have found out
        meanwhile.

        Raises:
            OtherPartitioning: the outbox is divided otherwise, or is being changed.
            PartitioningChanged: it was changed meanwhile, and back; what is published again fits.

        """
        if self.known in {None, placed_by}:
            self._is_closed = self._count > 1
            yield from self.learn()
        if self.known != placed_by:
            raise errors.PartitioningChanged


def _known_to(client: Any) -> dict[tuple[str, str, int], Partitioner]:
    if id(client) not in _known:
        # Two threads may come here at once: what is gone already is let go of without a word.
        weakref.finalize(client, _known.pop, id(client), None).atexit = False
    return _known.setdefault(id(client), {})


def slot_of(key: str | None, row_id: ObjectId) -> int:
    """Return the number that places a row: modulo how many there are, its outbox partition."""
    return int.from_bytes(row_id.binary[-3:]) if key is None else murmur3_32(key)


def _require_name(given: object) -> None:
    try:
        if isinstance(given, str):
            names.checked(given)
            return
        why = "its name is a string"
    except ValueError as error:
        why = str(error)
    raise errors.ConfigurationError(
        f"No relay could be started for the outbox partition {quoted(given)}: {why}"
    )
