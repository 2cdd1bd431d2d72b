"""The write side's figure: what publish() costs."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.relaying import rows
from benchmarks.report import Figure
from postroom import DomainEvent, Outbox

if TYPE_CHECKING:
    from tests.site import Site


class MedicineAssigned(DomainEvent):
    """The event of the figure."""

    medicine_id: str
    patient_id: str


def publish(site: Site, count: int) -> list[Figure]:
    """Time transactions through the outbox and with a raw insert_one, in turn."""
    outbox = Outbox(site.database)
    things = site.database["things"]
    things.insert_one({})
    site.outbox.insert_one({})
    times: dict[bool, list[float]] = {True: [], False: []}
    with site.mongodb.start_session() as session:
        for number in range(2 * count):
            ours = bool(number % 2)
            began = time.perf_counter()
            with session.start_transaction():
                things.insert_one({"n": number}, session=session)
                if ours:
                    event = MedicineAssigned(medicine_id="m", patient_id=str(number))
                    outbox.publish(event, session)
                else:
                    site.outbox.insert_one(_raw(number), session=session)
            times[ours].append(time.perf_counter() - began)
    ours_ms, raw_ms = (statistics.median(times[kind]) * 1000 for kind in (True, False))
    return [
        Figure(
            what="publish() in a transaction / a raw insert_one",
            value=ours_ms / raw_ms,
            unit="x",
            bar=1.15,
            detail=f"{ours_ms:.2f} against {raw_ms:.2f} ms, medians of {count:,}",
        )
    ]


def _raw(number: int) -> dict[str, Any]:
    (row,) = rows(1, number)
    return row
