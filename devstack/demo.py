"""`make run`: the services, the four commands of the application, and a publisher beside them."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devstack.console import LogTail, Screen
from devstack.service import DevstackError, Service
from devstack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

__all__ = ["Demo"]

ROOT = Path(__file__).parents[1]
PATIENTS = 500
PASSWORD_VARIABLE = "POSTROOM_FLOWER_PASSWORD_FILE"  # noqa: S105 - where it is, not what it is


class Command(Service):
    """One of the application's commands, as its users type it."""

    def __init__(self, folder: Path, name: str, words: str, environment: dict[str, str]) -> None:
        self.name = name
        super().__init__(folder, port=0)
        self.log = folder / "logs" / f"{name}.log"
        self.words = words
        self._environment = environment

    def command(self) -> Sequence[str]:
        """Return the command, found beside the Python that runs."""
        program, *rest = self.words.split()
        return [str(Path(sys.executable).parent / program), *rest]

    def environment(self) -> dict[str, str]:
        """Return the environment that leads to the services."""
        return {**os.environ, **self._environment}

    @property
    def url(self) -> str:
        """The command itself."""
        return self.words

    def answers(self) -> bool:
        """Say whether it runs."""
        return self.running


class Demo:
    """Runs everything until it is told to stop, or a part of it ends by itself."""

    def __init__(
        self,
        folder: Path,
        *,
        real_pulsar: bool,
        pause_seconds: float,
        partitions: int = 1,
        relays: int = 1,
    ) -> None:
        self._folder = folder
        self._pause = pause_seconds
        self._partitions = partitions
        self._relays = [f"relay{n}" if n > 1 else "relay" for n in range(1, relays + 1)]
        self._screen = Screen()
        self._stack = Stack(folder, real_pulsar=real_pulsar)
        self._stopping = threading.Event()
        self._commands: list[Command] = []
        self._password = _password_file(folder)

    def run(self) -> int:
        """Run, and return the exit code: 0 after Ctrl-C or TERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            self._stack.start()
            self._start_commands()
            self._overview()
            self._publish()
        except DevstackError as error:
            self._screen.problem(str(error))
            return 1
        finally:
            self._stop()
        return 0

    def _start_commands(self) -> None:
        # The variables are the only difference to what a user types into four terminals.
        environment = {
            **self._stack.environment,
            "FLOWER_PORT": str(self._stack.ports["flower"]),
            "FLOWER_ADDRESS": "127.0.0.1",
            **({"POSTROOM_PARTITIONS": str(self._partitions)} if self._partitions > 1 else {}),
            **({PASSWORD_VARIABLE: str(self._password)} if self._password else {}),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")])),
        }
        for name, words in (
            ("consumer", "celery -A tasks worker -Q consumer --loglevel=INFO"),
            *((name, _relay(name)) for name in self._relays),
            ("worker", "celery -A tasks worker --loglevel=INFO"),
            ("flower", "celery -A tasks flower"),
        ):
            command = Command(self._folder, name, words, environment)
            self._commands.append(command)
            command.start()
        os.environ.update(environment)

    def _overview(self) -> None:
        logs = self._folder / "logs"
        rows = [(s.name, s.url.partition("?")[0], _shown(s.log)) for s in self._stack.services]
        rows += [(c.name, c.words, _shown(c.log)) for c in self._commands]
        flower = f"http://127.0.0.1:{self._stack.ports['flower']}"
        if self._password:
            flower += f"  user flower, password {self._password.read_text()}"
        rows = [(n, flower if n == "flower" else where, log) for n, where, log in rows]
        self._screen.overview(rows)
        self._tail = LogTail(logs / "consumer.log")

    def _publish(self) -> None:
        from tasks import app

        publisher = _Publisher(app)
        due = time.monotonic()
        while not self._stopping.is_set():
            self._check()
            if time.monotonic() >= due:
                due = time.monotonic() + self._pause
                publisher.publish()
            for verb, text in publisher.results():
                self._screen.line(verb, text, style="cyan" if verb != "failed" else "red")
            for medicine, patient in self._tail.consumed():
                self._screen.line("consumed", f"{medicine} for {patient}", style="green")
            self._stopping.wait(0.1)

    def _check(self) -> None:
        for part in (*self._stack.services, *self._commands):
            if not part.running:
                raise DevstackError(f"{part.name} has ended by itself: {part.last_words()}")

    def _stop(self) -> None:
        # A second Ctrl-C must not cut the order short.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self._screen.line("stopping", "workers first, then the services")
        by_name = {command.name: command for command in self._commands}
        for name in ("worker", *self._relays, "consumer", "flower"):
            if name in by_name:
                by_name[name].stop()
        self._stack.stop()
        self._screen.line("stopped", f"the data stay in {_shown(self._folder)}")


def _relay(name: str) -> str:
    # Workers on one machine have names of their own, or Flower takes them for one.
    words = "celery -A tasks worker -Q relay --loglevel=INFO"
    return words if name == "relay" else f"{words} -n {name}@%h"


class _Publisher:
    """Sends the tasks that assign and finish medicines, and collects their results."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._taken: list[tuple[str, str]] = []
        self._pending: list[tuple[Any, str, tuple[str, str]]] = []
        self._random = random.Random()  # noqa: S311 - sample data

    def publish(self) -> None:
        """Send one task."""
        if self._taken and self._random.random() < 0.4:
            medicine, patient = self._taken.pop(self._random.randrange(len(self._taken)))
            self._send("tasks.finish_medicine", "finished", medicine, patient)
            return
        medicine = f"medicine-{time.time_ns() // 1_000_000 % 10**9:09d}"
        patient = f"patient-{self._random.randrange(PATIENTS):03d}"
        self._send("tasks.assign_medicine", "assigned", medicine, patient)

    def results(self) -> list[tuple[str, str]]:
        """Return a verb and a text for each task that has ended since."""
        ended: list[tuple[str, str]] = []
        waiting = []
        for result, verb, what in self._pending:
            state = result.state
            text = f"{what[0]} {'to' if verb == 'assigned' else 'by'} {what[1]}"
            if state == "SUCCESS":
                ended.append((verb, text))
                if verb == "assigned":
                    # Not before: the pool may take two tasks of one moment in any order.
                    self._taken = [*self._taken, what][-100:]
            elif state == "FAILURE":
                ended.append(("failed", f"{text}: {result.result}"))
            else:
                waiting.append((result, verb, what))
        self._pending = waiting
        return ended

    def _send(self, task: str, verb: str, medicine: str, patient: str) -> None:
        with contextlib.suppress(self._app.connection_for_write().recoverable_connection_errors):
            sent = self._app.send_task(
                task, kwargs={"medicine_id": medicine, "patient_id": patient}, retry=False
            )
            self._pending.append((sent, verb, (medicine, patient)))


def _password_file(folder: Path) -> Path | None:
    """Make Flower's password, for this folder and for good, unless one is given."""
    if os.environ.keys() & {"POSTROOM_FLOWER_PASSWORD", PASSWORD_VARIABLE, "FLOWER_BASIC_AUTH"}:
        return None
    file = folder.resolve() / "flower-password"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(9))
    return file


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
