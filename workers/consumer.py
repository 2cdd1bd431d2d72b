"""What the aid-kit does with its events: it keeps a chart for each patient."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from postroom import Event, handles
from tasks.celery import app
from tasks.events import MedicineAssigned, MedicineFinished

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

__all__ = ["keep_chart", "say"]

logger = logging.getLogger(__name__)

STATUS = {MedicineAssigned.event_name: "assigned", MedicineFinished.event_name: "finished"}


def say(event: Event[MedicineAssigned] | Event[MedicineFinished]) -> None:
    """Log an event that has had its effect: the handler itself may run again before it commits."""
    data = event.data
    logger.info("Consumed event for medicine %s and patient %s", data.medicine_id, data.patient_id)


# All that it does it writes with the session, so that several events may share a transaction.
@handles(MedicineAssigned, MedicineFinished, name="workers.keep_chart", group=16, after_commit=say)
def keep_chart(
    event: Event[MedicineAssigned] | Event[MedicineFinished], session: ClientSession
) -> None:
    """Note an assigned or finished medicine in the patient's chart."""
    charts = session.client[app.postroom.settings.mongodb_database]["patientMedicines"]
    data = event.data
    charts.update_one(
        {"_id": data.patient_id},
        [
            {"$set": {"medicines": _with_status(data.medicine_id, STATUS[event.name])}},
            {"$set": {"history": _appended("$history", _entry(event))}},
        ],
        upsert=True,
        session=session,
    )


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
