"""Children: processes in every way that Python has of starting one, as handlers start them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu.transport.redis import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LEAVING", "WORKING", "locks_of_others"]

PATIENCE_SECONDS = 20.0
TOUCH = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"


def touch(path: str) -> None:
    """Do the child's work."""
    Path(path).touch()


def sleep() -> None:
    """Outlive the worker."""
    time.sleep(90)
    os._exit(0)


def _process(method: str, path: str) -> bool:
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=touch, args=(path,))
    process.start()
    return _ends(lambda: not process.is_alive(), process.kill)


def _pool(method: str, path: str) -> bool:
    context: Any = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        done = pool.submit(touch, path)

        def kill() -> None:
            for child in pool._processes.values():
                child.kill()

        return _ends(done.done, kill)


def _bare_fork(path: str) -> bool:
    child = os.fork()
    if not child:
        try:
            touch(path)
        finally:
            os._exit(0)
    return _ends(
        lambda: os.waitpid(child, os.WNOHANG)[0] == child, lambda: os.kill(child, signal.SIGKILL)
    )


def _subprocess(path: str, **options: Any) -> bool:
    process = subprocess.Popen([sys.executable, "-Sc", TOUCH, path], **options)
    return _ends(lambda: process.poll() is not None, process.kill)


def _ends(has_ended: Callable[[], bool], kill: Callable[[], object]) -> bool:
    """Wait until a child has ended, and kill it where it hangs.

    One look is not enough: each `Process.start()` reaps all children of its process, and a thread
    that asks for its own in that instant is told that it lives. Of 2,000 children of 8 plain
    threads 13 seemed alive behind their `join`, and none a twentieth of a second later.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not has_ended():
        if time.monotonic() > end:
            kill()
            return False
        threading.Event().wait(0.01)
    return True


# Each is given the path of a file to make, and says whether its child has ended by itself.
WORKING: dict[str, Callable[[str], bool]] = {
    "fork": functools.partial(_process, "fork"),
    "spawn": functools.partial(_process, "spawn"),
    "forkserver": functools.partial(_process, "forkserver"),
    "pool of forks": functools.partial(_pool, "fork"),
    "bare fork": _bare_fork,
    "subprocess": _subprocess,
    "subprocess with a hook": functools.partial(_subprocess, preexec_fn=os.getpid),
}

# Each leaves a child that outlives the worker.
LEAVING: dict[str, Callable[[], object]] = {
    "fork": lambda: multiprocessing.get_context("fork").Process(target=sleep).start(),
    "spawn": lambda: multiprocessing.get_context("spawn").Process(target=sleep).start(),
    "forkserver": lambda: multiprocessing.get_context("forkserver").Process(target=sleep).start(),
    "bare fork": lambda: None if os.fork() else sleep(),
    "system": lambda: os.system("sleep 90 &"),  # noqa: S605 - ours
    "inheriting": lambda: subprocess.Popen(["sleep", "90"], close_fds=False),
}


@contextlib.contextmanager
def locks_of_others() -> Iterator[None]:
    """Have another thread hold the locks of the worker's connections to Redis meanwhile.

    By chance one of them is held at one fork of a thousand.
    """
    channels = [
        each
        for each in list(multiprocessing.util._afterfork_registry.values())  # type: ignore[attr-defined]
        if isinstance(each, Channel)
    ]
    pools = [pool for each in channels for pool in (each._pool, each._async_pool) if pool]
    assert pools, "a worker has connections to Redis"
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as all_of_them:
            for pool in pools:
                all_of_them.enter_context(pool._lock)
            held.set()
            enough.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        yield
    finally:
        enough.set()
        holder.join()
