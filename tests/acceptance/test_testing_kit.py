"""A user's own test suite with the kit: a hundred tests, in parallel, from nothing but wheels."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from tests import pages

if TYPE_CHECKING:
    from pathlib import Path

# The bar is 20 seconds on a quiet machine of two cores; processor time is the same on a busy one.
MOST_PROCESSOR_SECONDS = 30.0

SUITE = """
import pytest
from pymongo import MongoClient
from postroom import DomainEvent, Event, Outbox, Settings, handles
from postroom.testing import assert_nothing_published, assert_published


class OrderPaid(DomainEvent, name="SuiteOrderPaid", key="order_id"):
    order_id: str


def pay(database, order_id, fails=False):
    with Outbox(database).scope() as tx:
        database.orders.update_one(
            {"_id": order_id}, {"$set": {"paid": True}}, upsert=True, session=tx.session
        )
        tx.publish(OrderPaid(order_id=order_id))
        if fails:
            raise ValueError


@handles(OrderPaid, name="suite.invoice")
def invoice(event: Event[OrderPaid], session) -> None:
    invoices = session.client[Settings().mongodb_database]["invoices"]
    invoices.insert_one({"order": event.data.order_id}, session=session)


@pytest.mark.parametrize("n", range(30))
def test_paid(outbox_recorder, n):
    pay(outbox_recorder.database, str(n))
    assert_published(OrderPaid, order_id=str(n))


@pytest.mark.parametrize("n", range(30))
def test_failed(outbox_recorder, n):
    with pytest.raises(ValueError):
        pay(outbox_recorder.database, str(n), fails=True)
    assert_nothing_published()


@pytest.mark.parametrize("n", range(30))
def test_invoiced(outbox_site, n):
    pay(outbox_site.database, str(n))
    done = outbox_site.drain()
    assert [each.data["orderId"] for each in done.handled_by(invoice)] == [str(n)]
    assert outbox_site.database.invoices.count_documents({}) == 1


@pytest.mark.parametrize("n", range(9))
def test_contract(outbox_site, n):
    outbox_site.assert_contract(invoice, OrderPaid(order_id=str(n)))


def test_services_are_there(outbox_services, outbox_site):
    assert set(outbox_services) >= {
        "POSTROOM_MONGODB_URI", "POSTROOM_PULSAR_URL", "POSTROOM_REDIS_URL"
    }
    assert MongoClient(Settings().mongodb_uri).admin.command("ping")["ok"]
"""


def test_a_hundred_tests_of_a_user(tmp_path: Path) -> None:
    """The fixtures come by themselves, start the servers and are isolated from each other."""
    (tmp_path / "test_suite.py").write_text(textwrap.dedent(SUITE))
    assert pages.written(tmp_path, pages.DOCS / "howto" / "testing.md", "pytest")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("POSTROOM_", "PYTEST_"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--basetemp", str(tmp_path / "t")],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "102 passed" in done.stdout, done.stdout + done.stderr
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < MOST_PROCESSOR_SECONDS, done.stdout
