"""Commands beside Celery's own: `celery -A tasks outbox …` and `celery -A tasks dead-letters …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from postroom.settings import Settings

__all__ = ["settings_of"]


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings that the application of `-A` was installed with."""
    installation = getattr(ctx.obj.app, "postroom", None)
    if installation is None:
        raise click.ClickException(
            "This application has no postroom: call postroom.celery.install(app) in it"
        )
    settings: Settings = installation.settings
    return settings
