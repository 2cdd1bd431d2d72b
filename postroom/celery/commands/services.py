"""Services: MongoDB and Pulsar lent to a command, and their errors turned into sentences."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import click
import pymongo
from pymongo import errors as mongo

from postroom import broker, errors, refusals, sentences
from postroom.access import mongodb as mongodb_access
from postroom.access import pulsar as pulsar_access
from postroom.celery.commands.terminal import shown
from postroom.store import clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from postroom.settings import Settings

__all__ = ["database_of", "sentence_of", "told"]

# What workers do next, and a command does not.
AGAIN = re.compile(r"\.? (?:It|That) is (?:tried|looked at) again$")
BUSY = "Somebody else is listing or redriving these dead letters; try again later"


@contextlib.contextmanager
def database_of(
    settings: Settings, *, seconds: float | None = None, done: str = ""
) -> Iterator[Database[Any]]:
    """Lend the database, for some seconds in all if they are given; `done` as for told().

    Raises:
        ClickException: a service has failed within the block; the message says which and why.

    """
    with (
        told(settings, done=done),
        clients.for_command_line(settings.mongodb_uri) as mongodb,
        contextlib.nullcontext() if seconds is None else pymongo.timeout(seconds),
    ):
        yield mongodb[settings.mongodb_database]


@contextlib.contextmanager
def told(settings: Settings, *, done: str = "") -> Iterator[None]:
    """Turn the errors of services, and of what was asked for, into a sentence and exit code 1.

    `done` says what becomes of what was done before one.
    """
    try:
        yield
    except (errors.ConfigurationError, errors.InvalidEvent, errors.CheckpointRefused) as error:
        raise click.ClickException(shown(error)) from error
    except Exception as error:
        if not sentences.is_named(error):
            raise
        sentence = sentence_of(error, settings)
        raise click.ClickException(f"{sentence}; {done}" if done else sentence) from error


def sentence_of(error: BaseException, settings: Settings) -> str:
    """Say what failed, and why, as far as that is known."""
    if isinstance(error, errors.PostroomError):
        return shown(AGAIN.sub("", str(error)))
    if isinstance(error, mongo.PyMongoError):
        where = broker.masked(settings.mongodb_uri)
        return shown(
            f"MongoDB at {where} failed ({mongodb_access.why(error, settings.mongodb_uri)})"
        )
    if type(error).__name__ == "ConsumerBusy":
        return BUSY
    why = shown(refusals.why(error, pulsar_access.of(settings)))
    return f"Pulsar at {broker.masked(settings.pulsar_url)} failed ({why})"
