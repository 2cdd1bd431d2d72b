"""The aid-kit's tasks and handler, by the test kit that its readers have: no process is started."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

import pytest

from tasks import database
from tasks.celery import app
from tasks.events import MedicineAssigned, MedicineFinished
from tasks.medicines import NotAssigned, assign_medicine, finish_medicine
from tests.own_handlers import own_handlers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.testing import OutboxSite

ASPIRIN = {"medicine_id": "aspirin", "patient_id": "anna"}


@pytest.fixture
def keep_chart(outbox_site: OutboxSite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the handler, registered for this test, where all of the aid-kit leads to its site."""
    installed = dataclasses.replace(app.postroom, settings=outbox_site.settings)
    monkeypatch.setattr(app, "postroom", installed)
    _forget_clients()
    with own_handlers():
        consumer = importlib.reload(importlib.import_module("workers.consumer"))
        yield consumer.keep_chart
    database._client().close()
    _forget_clients()


def _forget_clients() -> None:
    database._client.cache_clear()
    database.outbox.cache_clear()


def test_what_the_tasks_do_is_in_the_chart(outbox_site: OutboxSite, keep_chart: Any) -> None:
    """Once, in order, however often they are called."""
    assert assign_medicine(**ASPIRIN) == "assigned"
    assert assign_medicine(**ASPIRIN) == "was assigned before"
    assert finish_medicine(**ASPIRIN) == "finished"
    with pytest.raises(NotAssigned):
        finish_medicine(medicine_id="ibuprofen", patient_id="anna")
    done = outbox_site.drain()
    names = [each.name for each in done.handled_by(keep_chart)]
    assert names == ["MedicineAssigned", "MedicineFinished"]
    chart = outbox_site.database["patientMedicines"].find_one({"_id": "anna"}) or {}
    assert chart["medicines"] == [{"medicineId": "aspirin", "status": "finished"}]
    assert [each["name"] for each in chart["history"]] == names


@pytest.mark.parametrize("event", [MedicineAssigned, MedicineFinished])
def test_the_chart_is_kept_once(outbox_site: OutboxSite, keep_chart: Any, event: Any) -> None:
    """Whatever happens to the worker."""
    outbox_site.assert_contract(keep_chart, event(**ASPIRIN))
    chart = outbox_site.database["patientMedicines"].find_one({"_id": "anna"}) or {}
    assert len(chart["history"]) == 1
