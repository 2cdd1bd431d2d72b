"""Fleet: the workers of one kind, which are killed, stopped, frozen and deployed anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Fleet"]

STOP_SECONDS = 60


class Fleet:
    """Some workers of an application, each with a log of its own.

    `deaths` are the workers that ended by themselves, but for those with a code in `expected`.
    """

    def __init__(
        self, application: str, queue: str, environment: Mapping[str, str], logs: Path
    ) -> None:
        self.environment = dict(environment)
        self.deaths: list[str] = []
        self.expected: set[int] = set()
        self._application, self._queue, self._logs = application, queue, logs
        self._spawned = 0
        self._workers: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __len__(self) -> int:
        return len(self._workers)

    def start(self, count: int) -> None:
        """Start workers until there are so many."""
        while len(self._workers) < count:
            self._workers.append(self._spawn())

    def leave(self, n: int, number: signal.Signals) -> None:
        """End a worker by a signal, and start none in its place."""
        self._end(n, number)
        del self._workers[n]

    def end(self, n: int, number: signal.Signals) -> None:
        """End a worker by a signal, and start another one in its place."""
        self._end(n, number)
        self._workers[n] = self._spawn()

    def end_all(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End all workers, so that none is left."""
        for n in range(len(self._workers)):
            self._end(n, number)
        self._workers.clear()

    def send(self, n: int, number: signal.Signals) -> None:
        """Send a worker a signal that it survives."""
        if self._workers[n][0].poll() is None:
            os.killpg(self._workers[n][0].pid, number)

    def look_after(self) -> None:
        """Note which workers have ended by themselves, and start others in their place."""
        for n, (worker, log) in enumerate(self._workers):
            if worker.poll() is not None:
                self._note(worker, log)
                self._workers[n] = self._spawn()

    def _end(self, n: int, number: signal.Signals) -> None:
        worker, log = self._workers[n]
        if worker.poll() is not None:
            self._note(worker, log)
            return
        os.killpg(worker.pid, signal.SIGCONT)
        # What stops in order is told once; Celery takes a second word for haste.
        os.kill(worker.pid, number) if number is signal.SIGTERM else os.killpg(worker.pid, number)
        try:
            worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.deaths.append(f"{log} did not stop in {STOP_SECONDS} s")
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def _note(self, worker: subprocess.Popen[bytes], log: Path) -> None:
        if worker.returncode not in self.expected:
            words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said = words[-1].strip()[:200] if words else "nothing"
            self.deaths.append(f"{log} with code {worker.returncode}, its last words: {said}")

    def _spawn(self) -> tuple[subprocess.Popen[bytes], Path]:
        self._spawned += 1
        name = f"{self._queue}{self._spawned}"
        path = self._logs / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", self._application, "worker"]
        with path.open("wb") as log:
            worker = subprocess.Popen(
                [*command, "-Q", self._queue, "-n", f"{name}@%h", "--loglevel=INFO"],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return worker, path
