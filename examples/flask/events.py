"""The events that both the web processes and the consumer know."""

from postroom import DomainEvent


class OrderPaid(DomainEvent, key="order_id"):
    """An order was paid."""

    order_id: str
