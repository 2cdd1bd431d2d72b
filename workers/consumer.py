"""What the aid-kit does with its events: it keeps a chart for each patient."""

from __future__ import annotations

import logging
from typing import Any

from pymongo import UpdateOne

from postroom import Event, Write, handles
from tasks.events import MedicineAssigned, MedicineFinished

__all__ = ["CHARTS", "keep_chart", "noted", "say"]

logger = logging.getLogger(__name__)

CHARTS = "patientMedicines"
STATUS = {MedicineAssigned.event_name: "assigned", MedicineFinished.event_name: "finished"}


def say(event: Event[MedicineAssigned] | Event[MedicineFinished]) -> None:
    """Log an event that has had its effect: the handler itself may run again before it commits."""
    data = event.data
    logger.info("Consumed event for medicine %s and patient %s", data.medicine_id, data.patient_id)


# It writes nothing itself: the writes of events that share a transaction are sent as one.
@handles(MedicineAssigned, MedicineFinished, name="workers.keep_chart", group=16, after_commit=say)
def keep_chart(event: Event[MedicineAssigned] | Event[MedicineFinished]) -> Write:
    """Note an assigned or finished medicine in the patient's chart."""
    chart = {"_id": event.data.patient_id}
    return Write(CHARTS, UpdateOne(chart, noted(event), upsert=True))


def noted(event: Event[MedicineAssigned] | Event[MedicineFinished]) -> list[dict[str, Any]]:
    """Return the update by which a chart tells of an event."""
    medicines = _with_status(event.data.medicine_id, STATUS[event.name])
    return [
        {"$set": {"medicines": medicines}},
        {"$set": {"history": _appended("$history", _entry(event))}},
    ]


def _entry(event: Event[Any]) -> dict[str, Any]:
    return {
        "eventId": event.id,
        "name": event.name,
        "medicineId": event.data.medicine_id,
        "at": event.occurred_at,
    }


def _with_status(medicine_id: str, status: str) -> dict[str, Any]:
    known = {"$ifNull": ["$medicines", []]}
    # Ids are given as literals: one that begins with a dollar would be read as a field's name.
    others = {
        "$filter": {
            "input": known,
            "cond": {"$ne": ["$$this.medicineId", {"$literal": medicine_id}]},
        }
    }
    return _appended(others, {"medicineId": medicine_id, "status": status})


def _appended(array: Any, item: dict[str, Any]) -> dict[str, Any]:
    return {"$concatArrays": [{"$ifNull": [array, []]}, [{"$literal": item}]]}
