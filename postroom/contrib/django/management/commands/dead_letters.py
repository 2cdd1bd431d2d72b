"""`manage.py dead_letters …`, as `celery -A … dead-letters …`."""

from __future__ import annotations

from postroom.celery.commands.dead_letters import dead_letters
from postroom.contrib.django.mirroring import Mirror

__all__ = ["Command"]


class Command(Mirror):
    """Dead letters."""

    help = "Look at dead letters, and put them back."
    group = dead_letters
