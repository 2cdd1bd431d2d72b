"""The aid-kit's domain events; those of one patient keep their order."""

from __future__ import annotations

from postroom import DomainEvent

__all__ = ["MedicineAssigned", "MedicineFinished"]


class MedicineAssigned(DomainEvent, key="patient_id"):
    """A medicine was assigned to a patient."""

    medicine_id: str
    patient_id: str


class MedicineFinished(DomainEvent, key="patient_id"):
    """A patient has finished a medicine."""

    medicine_id: str
    patient_id: str
