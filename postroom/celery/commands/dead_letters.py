"""`celery -A tasks dead-letters …`: the events that were given up."""

from __future__ import annotations

import click

from postroom.celery.commands.group import Group

__all__ = ["dead_letters"]

COMMANDS = {
    "discard": "given_up.discard",
    "list": "given_up.list_",
    "redrive": "given_up.redrive",
}


@click.group("dead-letters", cls=Group, within=COMMANDS)
def dead_letters() -> None:
    """List the events that were given up, put them back, or discard them.

    Those of one topic (POSTROOM_TOPIC unless --topic says otherwise) and one subscription.
    """
