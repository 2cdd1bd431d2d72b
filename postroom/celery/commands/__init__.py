"""Commands beside Celery's own: `celery -A tasks outbox …` and `celery -A tasks dead-letters …`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

if TYPE_CHECKING:
    from postroom.settings import Settings

__all__ = ["cell", "json_line", "settings_of", "shown"]

LONGEST_SHOWN = 2000


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings that the application of `-A` was installed with."""
    installation = getattr(ctx.obj.app, "postroom", None)
    if installation is None:
        raise click.ClickException(
            "This application has no postroom: call postroom.celery.install(app) in it"
        )
    settings: Settings = installation.settings
    return settings


def shown(value: object) -> str:
    """Return a text that may be anybody's as a terminal can show it, on one line.

    What would move the cursor, change colours or the direction of writing stands as its escape.
    """
    text = str(value)
    if len(text) > LONGEST_SHOWN:
        text = f"{text[:LONGEST_SHOWN]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(value: object) -> Text:
    """Return the same for a table, whose texts may otherwise hold mark-up."""
    return Text(shown(value), overflow="fold")


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, in characters that every terminal just shows."""
    return json.dumps(value, default=str)
