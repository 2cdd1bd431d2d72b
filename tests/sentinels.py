"""Sentinels: one that knows where Valkey is, for a test."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from devstack.service import accepts, free_port
from devstack.valkey import server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SENTINELS", "sentinel"]

# The password of Sentinels.
SENTINELS = "t3ll-me"


@contextlib.contextmanager
def sentinel(folder: Path, port: int) -> Iterator[int]:
    """Lend the port of a Sentinel with a password, which knows the master `m`."""
    own = free_port()
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"port {own}\nbind 127.0.0.1\ndir {folder}\nrequirepass {SENTINELS}\n"
        f"sentinel monitor m 127.0.0.1 {port} 1\n"
    )
    process = subprocess.Popen(
        [server(), str(conf), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: accepts(own), description="Sentinel listens")
        yield own
    finally:
        process.terminate()
        process.wait()
