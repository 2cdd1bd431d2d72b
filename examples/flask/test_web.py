"""Requests without any server, and on the real ones."""

import pytest
import web
from events import OrderPaid

from postroom.testing import assert_published


@pytest.fixture(autouse=True)
def each_test_has_its_database():
    """Forget the last test's."""
    web.database.cache_clear()
    web.outbox.cache_clear()


def test_in_memory(outbox_recorder, monkeypatch):
    """The client is the recorder's; all else is as in production."""
    monkeypatch.setattr(web, "MongoClient", lambda *_, **__: outbox_recorder.client)
    answer = web.app.test_client().post("/orders/7/payment", headers={"X-Request-ID": "r-1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (204, "r-1")
    assert assert_published(OrderPaid, order_id="7").headers["request-id"] == "r-1"


def test_on_mongodb(outbox_site):
    """The same request, and its event on the topic."""
    assert web.app.test_client().post("/orders/7/payment").status_code == 204
    assert outbox_site.drain().assert_published(OrderPaid, order_id="7")
    assert outbox_site.database.orders.find_one() == {"_id": "7", "paid": True}
    web.database().client.close()
