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
FASTAPI = """
import web
from fastapi.testclient import TestClient
with TestClient(web.app) as client:
    assert client.post("/orders/a/payment").status_code == 204
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
    """Write the page's block of code as the file that its first line names."""
    (block,) = (b for b in blocks(DOCS / "howto" / page) if b.mark.startswith("needs: "))
    named = re.match(r"# ([\w/]+\.py)\n", block.text)
    assert named
    file = folder / named[1]
    file.parent.mkdir(exist_ok=True)
    file.write_text(block.text)


@pytest.mark.parametrize(
    ("page", "request_of"),
    [("flask.md", FLASK), ("fastapi.md", FASTAPI), ("django.md", DJANGO)],
    ids=["flask", "fastapi", "django"],
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
    done = subprocess.run(
        [sys.executable, "-c", request_of],
        cwd=tmp_path,
        env={**site.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (order,) = site.database["orders"].find()
    assert (order["_id"], order["paid"]) == ("a", True)
    (row,) = site.database[wire.OUTBOX].find()
    assert row["data"] == {"name": "OrderPaid", "data": {"orderId": "a"}}
