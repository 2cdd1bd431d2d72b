"""A relay as a process of its own that stands still in the middle of a chunk, to be killed there.

Usage: python -m tests.stalling FOLDER, with the site's environment. A row whose data names a file
in `stall` waits, in the routing's key function, until the folder has that file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom.relay.relay import Relay
from postroom.routing import Routing
from postroom.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["stalling"]


def stalling(folder: Path) -> Callable[[str, Mapping[str, Any]], str | None]:
    """Return a key function that stalls where a row says so."""

    def key(_: str, data: Mapping[str, Any]) -> str | None:
        name = data.get("stall")
        while name and not (folder / name).exists():
            (folder / f"{name}.met").touch()
            time.sleep(0.01)
        found = data.get("key")
        return found if isinstance(found, str) else None

    return key


if __name__ == "__main__":
    found = Settings()
    Relay(found, Routing(default=found.topic, topics={}, key=stalling(Path(sys.argv[1])))).run()
