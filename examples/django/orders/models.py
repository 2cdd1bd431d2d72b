"""The models of orders."""

from django.db import models


class Order(models.Model):
    """An order."""

    number = models.CharField(max_length=20, unique=True)
    paid = models.BooleanField(default=False)
