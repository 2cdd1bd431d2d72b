"""The tasks: each writes the assignment and its event in one transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo.errors import ConnectionFailure

from tasks.celery import app
from tasks.database import medicines, outbox
from tasks.events import MedicineAssigned, MedicineFinished

if TYPE_CHECKING:
    from postroom import Transaction

__all__ = ["NotAssigned", "assign_medicine", "finish_medicine"]

# Acknowledged after the work, and tried again while MongoDB is away: both tasks do nothing when
# they are run a second time.
RELIABLE: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "autoretry_for": (ConnectionFailure,),
    "max_retries": None,
    "retry_backoff": 1,
    "retry_backoff_max": 60,
}


class NotAssigned(Exception):
    """The medicine was never assigned to the patient, so that it cannot be finished."""


@app.task(name="tasks.assign_medicine", **RELIABLE)
def assign_medicine(*, medicine_id: str, patient_id: str) -> str:
    """Assign a medicine to a patient, once."""
    event = MedicineAssigned(medicine_id=medicine_id, patient_id=patient_id)
    row = {
        "medicineId": medicine_id,
        "patientId": patient_id,
        "status": "assigned",
        "assignedAt": datetime.now(UTC),
    }

    def assign(tx: Transaction) -> str:
        found = medicines().update_one(
            {"_id": _id(medicine_id, patient_id)},
            {"$setOnInsert": row},
            upsert=True,
            session=tx.session,
        )
        if found.upserted_id is None:
            return "was assigned before"
        tx.publish(event)
        return "assigned"

    return outbox().transact(assign)


@app.task(name="tasks.finish_medicine", **RELIABLE)
def finish_medicine(*, medicine_id: str, patient_id: str) -> str:
    """Finish a medicine that was assigned to a patient, once.

    Raises:
        NotAssigned: it never was; nothing is written or published.

    """
    event = MedicineFinished(medicine_id=medicine_id, patient_id=patient_id)

    def finish(tx: Transaction) -> str:
        before = medicines().find_one_and_update(
            {"_id": _id(medicine_id, patient_id)},
            [
                {
                    "$set": {
                        "status": "finished",
                        "finishedAt": {"$ifNull": ["$finishedAt", "$$NOW"]},
                    }
                }
            ],
            session=tx.session,
        )
        if before is None:
            raise NotAssigned(
                f"Medicine {medicine_id} was never assigned to patient {patient_id}; nothing was "
                "written"
            )
        if before["status"] == "finished":
            return "was finished before"
        tx.publish(event)
        return "finished"

    return outbox().transact(finish)


def _id(medicine_id: str, patient_id: str) -> dict[str, str]:
    return {"patientId": patient_id, "medicineId": medicine_id}
