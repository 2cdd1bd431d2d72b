"""Requests that write and publish in one transaction."""

from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt

from orders.events import OrderPaid
from postroom.contrib.django import outbox, publish


@csrf_exempt
def pay(_request, order_id):
    """Pay an order: a model and its event, in the transaction of django-mongodb-backend."""
    from django_mongodb_backend.transaction import atomic

    from orders.models import Order

    with atomic():
        Order.objects.update_or_create(number=order_id, defaults={"paid": True})
        publish(OrderPaid(order_id=order_id))
        if order_id == "bad":
            return HttpResponse(status=1 / 0)
    return HttpResponse(status=204)


@csrf_exempt
def visit(_request, order_id):
    """Count a visit by PyMongo, whatever database the models have."""
    with outbox().scope() as tx:
        visits = tx.session.client[outbox_database()].visits
        query, more = {"_id": order_id}, {"$inc": {"count": 1}}
        visits.update_one(query, more, upsert=True, session=tx.session)
        tx.publish({"name": "OrderSeen", "data": {"orderId": order_id}})
    return HttpResponse(status=204)


def outbox_database():
    """Name the database of the outbox."""
    from postroom.contrib.django import settings

    return settings().mongodb_database
