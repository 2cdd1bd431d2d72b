"""Commands of an operator, run in the tests' own process.

A process of Celery takes seconds of the processor to come as far as the command. That the real
program does the same is shown in tests/acceptance/test_command_lines.py, and what it prints by
test_outbox_commands.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
from celery import Celery
from click.testing import CliRunner

from postroom.celery import install
from postroom.celery.commands.dead_letters import dead_letters
from postroom.celery.commands.outbox import outbox

if TYPE_CHECKING:
    from click.testing import Result

    from tests.site import Site

__all__ = ["TOP", "printed", "run"]

TOP = click.Group("celery", commands=[outbox, dead_letters])


def run(
    site: Site,
    *words: str,
    text: str = "",
    code: int | None = 0,
    key: str | None = None,
    **variables: str,
) -> Result:
    """Run a command in this process; it ends with this code, and without a traceback.

    A setting goes by its variable; an application is made anew for each, as by each command.
    """
    changes = {
        name.removeprefix("POSTROOM_").lower(): value
        for name, value in variables.items()
        if name.startswith("POSTROOM_")
    }
    settings = site.settings(**changes)
    with Celery("tasks", broker=settings.redis_url, set_as_current=False) as app:
        app.conf.broker_connection_retry = False
        install(app, settings, key=key)
        done = CliRunner().invoke(
            TOP,
            list(words),
            obj=SimpleNamespace(app=app),
            input=text,
            env={"COLUMNS": variables.get("COLUMNS", "200")},
        )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert code in (None, done.exit_code), (done.exit_code, done.stdout, done.stderr)
    return done


def printed(site: Site, words: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    return run(site, *words.split()).stdout
