"""The how-to pages of web frameworks serve requests as they are written, on MongoDB."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from postroom import wire
from tests.pages import DOCS, ROOT, blocks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site

# What each page leaves to its reader, and a request that succeeds.
FLASK = """
import web
assert web.app.test_client().post("/orders/a/payment").status_code == 204
"""
ASYNCIO = """
import asyncio, orders
asyncio.run(orders.main(["a"]))
"""
FASTAPI = """
import web
from fastapi.testclient import TestClient
with TestClient(web.app) as client:
    assert client.post("/orders/a/payment").status_code == 204
"""
MOVING = """
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "tasks.sqlite3"}},
    INSTALLED_APPS=["django_celery_outbox", "orders"],
)
django.setup()
from django.core.management import call_command
from django.db import connection
from django_celery_outbox.models import CeleryOutbox
with connection.schema_editor() as schema:
    schema.create_model(CeleryOutbox)
for n, (name, options) in enumerate(
    [("orders.tasks.tell_paid", {}), ("other.task", {}), ("orders.tasks.tell_paid", {}),
     ("orders.tasks.tell_paid", {"eta": "2040-01-02T03:04:05+00:00"}),
     ("orders.tasks.tell_paid", {"eta": "2041-01-02T03:04:05"})]
):
    CeleryOutbox.objects.create(
        task_id=f"t-{n}", task_name=name, args=[n], kwargs={}, options=options
    )
call_command("move_tasks")
assert CeleryOutbox.objects.count() == 5
from orders.management.commands import move_tasks
move_tasks.publish(CeleryOutbox.objects.first())  # and was killed before it deleted the row
call_command("move_tasks", "--really")
call_command("move_tasks", "--really")
assert [task.task_name for task in CeleryOutbox.objects.all()] == ["other.task"]
"""
# As django-celery-outbox 0.4 has it, of what is read here.
TASKS = """
from django.db import models
class CeleryOutbox(models.Model):
    task_id = models.CharField(max_length=255, db_index=True)
    task_name = models.CharField(max_length=255, db_index=True)
    args = models.JSONField(default=list)
    kwargs = models.JSONField(default=dict)
    options = models.JSONField(default=dict)
    class Meta:
        db_table = "celery_outbox"
"""
DJANGO = """
import os
import django, django_mongodb_backend
from django.conf import settings
uri, name = os.environ["POSTROOM_MONGODB_URI"], os.environ["POSTROOM_MONGODB_DATABASE"]
database = {"ENGINE": "django_mongodb_backend", "HOST": uri, "NAME": name}
settings.configure(
    DATABASES={"default": database},
    DATABASE_ROUTERS=["django_mongodb_backend.routers.MongoRouter"],
    DEFAULT_AUTO_FIELD="django_mongodb_backend.fields.ObjectIdAutoField",
    INSTALLED_APPS=["orders"],
)
django.setup()
from orders import services
from orders.models import Order
from django_mongodb_backend.transaction import atomic
Order.objects.create(id="a")
services.pay("a")
try:
    with atomic():
        services.pay("b")
        Order.objects.create(id="b")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert not Order.objects.filter(id="b").exists()
import datetime
from orders.events import OrderPaid
from postroom.contrib.django import publish, within
with atomic():
    in_an_hour = datetime.timedelta(hours=1)
    publish(OrderPaid(order_id="c"), deliver_in=in_an_hour, schedule="reminder-c")
with atomic():
    assert within().cancel("reminder-c")
from config.celery import app
from postroom.inbox.handling.handlers import registry
app.loader.import_default_modules()
assert set(registry.handlers) == {"billing.invoice"}
"""
MODELS = """
from django.db import models
class Order(models.Model):
    id = models.CharField(primary_key=True, max_length=20, db_column="_id")
    paid = models.BooleanField(default=False)
    class Meta:
        db_table = "orders"
"""
EVENTS = """
from postroom import DomainEvent
class OrderPaid(DomainEvent, key="order_id"):
    order_id: str
"""


def wanted(folder: Path, page: str) -> None:
    """Write the page's blocks of code as the files that their first lines name."""
    found = [b for b in blocks(DOCS / "howto" / page) if b.mark.startswith("needs: ")]
    assert found
    for block in found:
        named = re.match(r"# ([\w/]+\.py)\n", block.text)
        assert named
        file = folder / named[1]
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(block.text)


def succeeds(site: Site, folder: Path, code: str) -> None:
    """Run code in a folder, with the site's settings."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**site.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("page", "request_of"),
    [
        ("flask.md", FLASK),
        ("fastapi.md", FASTAPI),
        ("django.md", DJANGO),
        ("asyncio.md", ASYNCIO),
    ],
    ids=["flask", "fastapi", "django", "asyncio"],
)
def test_a_request_writes_and_publishes(
    site: Site, tmp_path: Path, page: str, request_of: str
) -> None:
    """The order is paid and its event is stored; what fails leaves neither."""
    wanted(tmp_path, page)
    if page == "django.md":
        (tmp_path / "orders" / "__init__.py").touch()
        (tmp_path / "orders" / "models.py").write_text(MODELS)
        (tmp_path / "orders" / "events.py").write_text(EVENTS)
    succeeds(site, tmp_path, request_of)
    (order,) = site.database["orders"].find()
    assert (order["_id"], order["paid"]) == ("a", True)
    (row,) = site.database[wire.OUTBOX].find()
    assert row["data"] == {"name": "OrderPaid", "data": {"orderId": "a"}}


def test_tasks_of_django_celery_outbox_are_moved(site: Site, tmp_path: Path) -> None:
    """Each once and in order, what has an eta is due then; other tasks stay."""
    wanted(tmp_path, "moving.md")
    for package in ("orders", "orders/management", "orders/management/commands"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "orders" / "events.py").write_text(EVENTS)
    (tmp_path / "django_celery_outbox").mkdir()
    (tmp_path / "django_celery_outbox" / "__init__.py").touch()
    (tmp_path / "django_celery_outbox" / "models.py").write_text(TASKS)
    succeeds(site, tmp_path, MOVING)
    rows = list(site.database[wire.OUTBOX].find(sort=[("_id", 1)]))
    assert [(row["data"]["data"], row["headers"]) for row in rows] == [
        ({"orderId": "0"}, {"legacy-id": "t-0"}),
        ({"orderId": "2"}, {"legacy-id": "t-2"}),
    ]
    later = site.database[wire.SCHEDULED].find(sort=[("dueAt", 1)])
    assert [(row["data"]["data"], row["dueAt"].isoformat()) for row in later] == [
        ({"orderId": "3"}, "2040-01-02T03:04:05+00:00"),
        ({"orderId": "4"}, "2041-01-02T03:04:05+00:00"),
    ]
