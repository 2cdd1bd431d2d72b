"""Where requests go."""

from django.urls import path
from orders import views

urlpatterns = [
    path("orders/<order_id>/payment", views.pay),
    path("visits/<order_id>", views.visit),
]
