"""What the consumer does: imported by the Celery application (`include=["handlers"]`)."""

from events import OrderPaid

from postroom import Event, Settings, handles


@handles(OrderPaid, name="fastapi.invoice")
def invoice(event: Event[OrderPaid], session) -> None:
    """Write an invoice, once for each event."""
    database = session.client[Settings().mongodb_database]
    document = {"order": event.data.order_id, "asked_by": event.headers["request-id"]}
    database.invoices.insert_one(document, session=session)
