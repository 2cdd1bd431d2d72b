"""`celery -A tasks outbox …`: how far each partition is relayed, what is wrong, and its repair."""

from __future__ import annotations

import click

from postroom.celery.commands.diagnosis import doctor, setup
from postroom.celery.commands.forget import forget
from postroom.celery.commands.group import Group
from postroom.celery.commands.importing import import_
from postroom.celery.commands.metrics import metrics
from postroom.celery.commands.partitions import partitions
from postroom.celery.commands.quarantine import quarantine
from postroom.celery.commands.replay import replay
from postroom.celery.commands.scheduled import scheduled
from postroom.celery.commands.schema import schema
from postroom.celery.commands.show import show
from postroom.celery.commands.status import status
from postroom.celery.commands.steering import actions, pause, prune, resume
from postroom.celery.commands.tail import tail

__all__ = ["outbox"]


@click.group("outbox", cls=Group)
def outbox() -> None:
    """Look at the outbox, and repair what could not be relayed."""


for _command in (
    actions,
    doctor,
    forget,
    import_,
    metrics,
    partitions,
    pause,
    prune,
    quarantine,
    replay,
    resume,
    scheduled,
    schema,
    setup,
    show,
    status,
    tail,
):
    outbox.add_command(_command)
