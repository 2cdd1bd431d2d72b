"""The events of orders."""

from postroom import DomainEvent


class OrderPaid(DomainEvent, key="order_id"):
    """An order was paid."""

    order_id: str
