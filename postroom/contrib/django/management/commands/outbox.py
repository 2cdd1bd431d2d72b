"""`manage.py outbox …`, as `celery -A … outbox …`."""

from __future__ import annotations

from postroom.celery.commands.outbox import outbox
from postroom.contrib.django.mirroring import Mirror

__all__ = ["Command"]


class Command(Mirror):
    """The outbox."""

    help = "Look at the outbox, and repair what could not be relayed."
    group = outbox
