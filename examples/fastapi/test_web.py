"""Real requests, on MongoDB and a broker: pytest starts them from postroom[testing]."""

import handlers
import pytest
import web
from events import OrderPaid
from fastapi.testclient import TestClient

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def client(outbox_site):
    """Serve requests, with one order in the database."""
    outbox_site.database.orders.insert_one({"_id": "7"})
    with TestClient(web.app) as found:
        yield found


def test_a_paid_order_gets_an_invoice(client, outbox_site):
    """The request's id and trace travel with the event to the handler."""
    headers = {"X-Request-ID": "r-1", "traceparent": TRACE}
    answer = client.post("/orders/7/payment", headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (204, "r-1")
    done = outbox_site.drain()
    event = done.assert_published(OrderPaid, order_id="7")
    assert event.headers["traceparent"] == TRACE
    assert len(done.handled_by(handlers.invoice)) == 1
    assert outbox_site.database.invoices.find_one()["asked_by"] == "r-1"


def test_what_is_refused_publishes_nothing(client, outbox_site):
    """An HTTPException undoes the transaction."""
    assert client.post("/orders/8/payment").status_code == 409
    assert outbox_site.waiting() == 0


def test_an_answer_is_true(outbox_site, monkeypatch):
    """A commit that fails is an error of the request, not something that follows its answer."""
    outbox_site.database.orders.insert_one({"_id": "7"})

    async def fails(session):
        await session.abort_transaction()
        raise ConnectionError

    with TestClient(web.app, raise_server_exceptions=False) as client:
        monkeypatch.setattr(
            "pymongo.asynchronous.client_session.AsyncClientSession.commit_transaction", fails
        )
        assert client.post("/orders/7/payment").status_code == 500
    assert outbox_site.waiting() == 0
