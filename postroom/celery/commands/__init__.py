"""Commands beside Celery's own: `celery -A tasks outbox …` and `celery -A tasks dead-letters …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from postroom.operations.wiring import Wiring
    from postroom.settings import Settings

__all__ = ["installation_of", "settings_of", "wiring_of"]


def installation_of(ctx: click.Context) -> Any:
    """Return what the application of `-A` was installed with."""
    found = getattr(ctx.obj.app, "postroom", None)
    if found is None:
        raise click.ClickException(
            "This application has no postroom: call postroom.celery.install(app) in it"
        )
    return found


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings that the application of `-A` was installed with."""
    settings: Settings = installation_of(ctx).settings
    return settings


def wiring_of(ctx: click.Context) -> Wiring:
    """Return how the application was installed; its modules with handlers are imported for it."""
    wiring: Wiring = installation_of(ctx).wiring
    ctx.obj.app.loader.import_default_modules()
    return wiring
