"""The database that the page reads, opened when it is first asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from postroom.store import clients

if TYPE_CHECKING:
    from pymongo.database import Database

    from postroom.settings import Settings

__all__ = ["LateDatabase"]


class LateDatabase:
    """Opens the settings' database once; get() may block, so Flower's loop never calls it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = threading.Lock()
        self._opened: Database[Any] | None = None

    def get(self) -> Database[Any]:
        """Return the database."""
        with self._opening:
            if self._opened is None:
                client = clients.for_command_line(self._settings.mongodb_uri)
                self._opened = client[self._settings.mongodb_database]
            return self._opened
