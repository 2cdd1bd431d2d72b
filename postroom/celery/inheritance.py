"""Inheritance: what a process that a handler starts must not have of the worker it comes from.

A forked process has copies of all sockets: a worker that is killed would seem alive to the broker
for as long as such a child lives, and its events would be handed to nobody. It also has copies of
all locks, as they were, and of no thread that could release them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING

from postroom.celery import adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["withhold_from_children"]

DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112 - no path that anyone writes to
# The Pulsar client opens its sockets whenever it has to, and so that a process inherits them which
# a handler starts without a fork of Python's own.
SWEEP_SECONDS = 1.0


@functools.cache
def withhold_from_children(in_child: Callable[[], None]) -> None:
    """From now on have every process forked off this one without its connections.

    `in_child` is called there first. A connection that was open at the fork, whoever opened it, is
    one that its other end has closed.
    """
    os.register_at_fork(after_in_child=functools.partial(_begin_anew, in_child))
    threading.Thread(target=_sweep, name="postroom-sockets", daemon=True).start()


def _begin_anew(in_child: Callable[[], None]) -> None:
    in_child()
    adapter.forget_channels()
    ours, other = socket.socketpair()
    other.close()
    for descriptor in _connections():
        # Not closed: the number would be given out again, and be closed by who owned it before.
        os.dup2(ours.fileno(), descriptor, inheritable=False)
    ours.close()


def _sweep() -> None:
    never = threading.Event()
    while not never.wait(SWEEP_SECONDS):
        for descriptor in _connections():
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)  # noqa: FBT003 - takes no name


def _connections() -> Iterator[int]:
    """Name the descriptors of this process that are TCP connections."""
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - numbers, thousands of times a day
        with contextlib.suppress(OSError):
            descriptor = int(name)
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode) and _is_tcp(descriptor):
                yield descriptor


def _is_tcp(descriptor: int) -> bool:
    looked_at = socket.socket(fileno=descriptor)
    try:
        looked_at.getpeername()
        return looked_at.family in (socket.AF_INET, socket.AF_INET6) and (
            looked_at.type == socket.SOCK_STREAM
        )
    finally:
        looked_at.detach()
