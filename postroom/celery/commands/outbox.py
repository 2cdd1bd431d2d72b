"""`celery -A tasks outbox …`: how far each partition is relayed, what is wrong, and its repair."""

from __future__ import annotations

import click

from postroom.celery.commands.group import Group

__all__ = ["outbox"]

COMMANDS = {
    "actions": "steering.actions",
    "doctor": "diagnosis.doctor",
    "forget": "forget.forget",
    "import": "importing.import_",
    "metrics": "metrics.metrics",
    "partitions": "partitions.partitions",
    "pause": "steering.pause",
    "prune": "steering.prune",
    "quarantine": "quarantine.quarantine",
    "replay": "replay.replay",
    "resume": "steering.resume",
    "scheduled": "scheduled.scheduled",
    "schema": "schema.schema",
    "setup": "diagnosis.setup",
    "show": "show.show",
    "status": "status.status",
    "tail": "tail.tail",
}


@click.group("outbox", cls=Group, within=COMMANDS)
def outbox() -> None:
    """Look at the outbox, and repair what could not be relayed."""
