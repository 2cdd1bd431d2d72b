"""Actions: every act that sends, changes or destroys is noted in the action log."""

from __future__ import annotations

import contextlib
import getpass
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import errors as mongo

from postroom import errors
from postroom.store.action_log import Action, ActionLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from postroom.operations.filters import Filter

__all__ = ["Actor", "Noted", "latest", "noted", "operator"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, and by which program: `command line`, `Flower`."""

    who: str
    by: str


@dataclass(slots=True, kw_only=True)
class Noted:
    """What an act has to say of itself at its end; its own thread writes it."""

    count: int = 0
    result: str = "done"


def operator() -> Actor:
    """Return who runs this command: the user of the operating system, and the machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody without a name"
    return Actor(who=f"{user}@{socket.gethostname()}", by="command line")


@contextlib.contextmanager
def noted(
    database: Database[Any], actor: Actor, what: str, *, target: str, where: Filter | None = None
) -> Iterator[Noted]:
    """Note an act in the action log: before it begins, and what came of it.

    What cannot be noted is not done. An end that cannot be noted is logged; the log then says that
    the act is under way, or ended without a word.

    Raises:
        pymongo.errors.PyMongoError: the action log cannot be written; nothing was done.

    """
    log, told = ActionLog(database), Noted()
    described = where.described() if where is not None else {}
    action = Action(what=what, who=actor.who, by=actor.by, target=target, where=described)
    action_id = log.begin(action)
    try:
        yield told
    except (KeyboardInterrupt, GeneratorExit):
        told.result = "interrupted"
        raise
    except errors.PostroomError as error:
        told.result = f"failed: {error}"
        raise
    except BaseException as error:
        # The drivers' own words quote whatever was sent.
        told.result = f"failed: {type(error).__name__}"
        raise
    finally:
        try:
            log.end(action_id, count=told.count, result=told.result)
        except mongo.PyMongoError as error:
            logger.warning(
                "The end of %s could not be noted in the action log (%s)",
                what,
                type(error).__name__,
            )


def latest(database: Database[Any], *, skip: int = 0, limit: int = 100) -> list[Action]:
    """Return the latest acts, newest first."""
    return ActionLog(database).latest(skip=skip, limit=limit)
