"""The aid-kit's domain events."""

from __future__ import annotations

from postroom import DomainEvent

__all__ = ["MedicineAssigned", "MedicineFinished"]


class MedicineAssigned(DomainEvent):
    """A medicine was assigned to a patient."""

    medicine_id: str
    patient_id: str


class MedicineFinished(DomainEvent):
    """A patient has finished a medicine."""

    medicine_id: str
    patient_id: str
