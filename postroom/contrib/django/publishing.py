"""Publishing: events in the transaction of Django's models, or in one of PyMongo's."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.db import connections
from pydantic import ValidationError
from pymongo import MongoClient

from postroom import errors
from postroom.outbox import Outbox
from postroom.settings import Settings, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta

    from postroom.outbox import Transaction
    from postroom.store.row_writer import Publishable

__all__ = ["BACKEND", "names_of_mongodb", "outbox", "publish", "settings", "within"]

BACKEND = "django_mongodb_backend"


def settings() -> Settings:
    """Return the settings: the environment's, and above them those of POSTROOM in settings.py.

    `POSTROOM = {"MONGODB_URI": …, "TOPIC": …}`, by the names of the variables without their prefix.
    Where neither says a database it is that of django-mongodb-backend, if there is one alone:
    publish() writes there.

    Raises:
        ConfigurationError: one cannot be used, or is none; the message names it.

    """
    given = {k.lower(): v for k, v in getattr(django_settings, "POSTROOM", {}).items()}
    given.pop("celery_app", None)
    if unknown := sorted(set(given) - set(Settings.model_fields)):
        raise errors.ConfigurationError(
            f"POSTROOM in settings.py has {', '.join(unknown).upper()}, which is no setting: "
            "docs/settings.md has them all"
        )
    try:
        found = Settings(**given)
        if "mongodb_database" not in found.model_fields_set and len(own := names_of_mongodb()) == 1:
            found = Settings(**given, mongodb_database=own.pop())
    except ValidationError as error:
        raise errors.ConfigurationError(sentence(error)) from None
    return found


def names_of_mongodb() -> set[str]:
    """Name the databases that django-mongodb-backend has, as MongoDB calls them."""
    databases = getattr(django_settings, "DATABASES", {}).values()
    return {str(each.get("NAME")) for each in databases if each.get("ENGINE") == BACKEND}


def outbox(using: str = "default") -> Outbox:
    """Return the outbox of a database of Django's, or of POSTROOM_MONGODB_DATABASE.

    The latter where `using` names one that is not django-mongodb-backend's: its client is made once
    a process. One outbox a process; thread-safe.
    """
    if _is_mongodb(using):
        return Outbox(connections[using].database)
    return _own(os.getpid())


def publish(
    events: Publishable | Iterable[Publishable],
    *,
    using: str = "default",
    headers: Mapping[str, str] | None = None,
    deliver_at: datetime | None = None,
    deliver_in: timedelta | None = None,
    schedule: str | None = None,
    replace: bool = False,
) -> list[str]:
    """Store events in the transaction that django-mongodb-backend's atomic() has open.

    They are there if the models' changes are: transaction.on_commit() is not needed. See
    Transaction.publish() for what is due later.

    Raises:
        OutboxError: there is no such transaction, so that data and event would not be one.
        InvalidEvent: an event is not one, or too large; nothing was written.
        AlreadyScheduled: an event waits under the name, and is not to be replaced.

    """
    return within(using).publish(
        events,
        headers=headers,
        deliver_at=deliver_at,
        deliver_in=deliver_in,
        schedule=schedule,
        replace=replace,
    )


def within(using: str = "default") -> Transaction:
    """Return the transaction that django-mongodb-backend's atomic() has open, to publish in it.

    And to cancel() and reschedule() what is due later. Its end is that of atomic().

    Raises:
        OutboxError: there is no such transaction.

    """
    if not _is_mongodb(using):
        raise errors.OutboxError(
            f"The database {using!r} is not django-mongodb-backend's, and its transactions are not "
            "MongoDB's: write by PyMongo, within outbox().scope(); nothing was written"
        )
    connection: Any = connections[using]
    session = connection.session
    if session is None or not session.in_transaction:
        raise errors.OutboxError(
            "publish() was called outside of django_mongodb_backend.transaction.atomic(), so that "
            "data and event would not be one (django.db.transaction.atomic() is another one, and "
            "has no transaction here); nothing was written"
        )
    return outbox(using).within(session)


def _is_mongodb(using: str) -> bool:
    return bool(connections[using].settings_dict["ENGINE"] == BACKEND)


@functools.lru_cache(maxsize=1)
def _own(_pid: int) -> Outbox:
    # By process: a client that was made before a fork is of no use behind it.
    found = settings()
    return Outbox(MongoClient[Any](found.mongodb_uri)[found.mongodb_database])
