"""Naming: relay and consumer workers get node names of their own."""

from __future__ import annotations

import os
from typing import Any

from celery.utils.nodenames import default_nodename, nodename, nodesplit

__all__ = ["name_after"]


def name_after(worker: Any, queue: str) -> None:
    """Call a worker `<queue>-<process>@<host>` unless its user has named it with -n.

    Every worker started without -n on one machine would be celery@<host>, and Flower and `inspect`
    would take them for one.
    """
    if worker.hostname != default_nodename(None):
        return
    worker.hostname = nodename(f"{queue}-{os.getpid()}", nodesplit(worker.hostname)[1])
