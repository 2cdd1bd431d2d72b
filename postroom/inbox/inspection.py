"""The inspection: what a consumer looks at before it connects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import findings, preflight, rights, wire
from postroom.findings import Grade

if TYPE_CHECKING:
    from pymongo.database import Database

__all__ = ["Inspection"]


KEEPS = (wire.INBOX, wire.BEGUN, wire.REPERTOIRES)


class Inspection:
    """Looks at MongoDB, on behalf of one consumer; used by its thread alone.

    At its rights once, and then no more: one that is taken away later shows by what MongoDB says.
    """

    def __init__(self, database: Database[Any]) -> None:
        self._database = database
        self._has_rights = False

    def before_connecting(self) -> None:
        """Look at MongoDB and, the first time, at what its user may do there.

        Raises:
            ServiceUnavailable: it is older than 5.0, has no primary, is no replica set, or a right
                is lacking without which a consumer cannot work.
            pymongo.errors.PyMongoError: it does not answer.

        """
        client = self._database.client
        # How a cluster is sharded concerns those who read its change stream.
        seen = preflight.mongodb(client)
        kept = preflight.collections(self._database, KEEPS)
        findings.obey(each for each in [*seen, *kept] if each.grade is Grade.FAIL)
        if not self._has_rights:
            findings.obey(preflight.deletions(self._database, KEEPS))
            lacking = rights.in_mongodb(client, self._database.name, "consumer")
            findings.obey(lacking, action="rights")
            self._has_rights = True
