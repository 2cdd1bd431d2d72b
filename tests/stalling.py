"""A relay as a process of its own that stands still in the middle of a chunk, to be killed there.

Usage: python -m tests.stalling FOLDER [KEY], with the site's environment. A row whose data names a
file in `stall` waits, in the routing's topics function, until the folder has that file. It goes to
the `topic` that its data names, or to the default one.
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
    """Return a topics function that stalls where a row says so, and names the row's topic."""

    def topic(_: str, data: Mapping[str, Any]) -> str | None:
        name = data.get("stall")
        while name and not (folder / name).exists():
            (folder / f"{name}.met").touch()
            time.sleep(0.01)
        return data.get("topic")

    return topic


if __name__ == "__main__":
    found = Settings()
    folder, *key = sys.argv[1:]
    routing = Routing(
        default=found.topic, topics=stalling(Path(folder)), key=key[0] if key else None
    )
    Relay(found, routing).run()
