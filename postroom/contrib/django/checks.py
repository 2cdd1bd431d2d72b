"""Checks: whether relays look for events where publish() writes them, by `manage.py check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.checks import Warning as Warned
from django.core.checks import register
from pymongo import errors as mongo
from pymongo.uri_parser import parse_uri

from postroom.contrib.django import publishing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["look"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@register("postroom")
def look(**_: Any) -> list[Any]:
    """Return what is wrong between DATABASES and POSTROOM; it opens nothing."""
    return [*_other_database(), *_other_hosts()]


def _other_database() -> Iterator[Any]:
    names, read = publishing.names_of_mongodb(), publishing.settings().mongodb_database
    if names and read not in names:
        yield Warned(
            f"publish() writes events into {', '.join(sorted(names))}, as DATABASES has it, and "
            f"relays with these settings read {read}: events wait there unsent",
            hint="Leave MONGODB_DATABASE out of POSTROOM and the environment, or set it alike.",
            id="postroom.W001",
        )


def _other_hosts() -> Iterator[Any]:
    read = _hosts(str(publishing.settings().mongodb_uri))
    databases = [
        each for each in django_settings.DATABASES.values() if each["ENGINE"] == publishing.BACKEND
    ]
    written = [hosts for each in databases if (hosts := _hosts(_address(each)))]
    if read and written and not any(read & hosts for hosts in written):
        yield Warned(
            "DATABASES and POSTROOM_MONGODB_URI name other hosts: where these are not one MongoDB, "
            "events wait unsent",
            hint="Set MONGODB_URI in POSTROOM, or POSTROOM_MONGODB_URI, to MongoDB's address.",
            id="postroom.W002",
        )


def _address(database: Mapping[str, Any]) -> str:
    host, port = database.get("HOST") or "localhost", database.get("PORT") or 27017
    return host if "://" in host else f"mongodb://{host}:{port}"


def _hosts(uri: str) -> frozenset[tuple[str, int]]:
    # Of mongodb+srv:// the name server alone knows them.
    if not uri.startswith("mongodb://"):
        return frozenset()
    try:
        nodes = parse_uri(uri)["nodelist"]
    except (mongo.PyMongoError, ValueError):  # whoever connects says what is wrong with it
        return frozenset()
    return frozenset(("" if host in LOOPBACK else host, port) for host, port in nodes)
