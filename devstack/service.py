"""Service: a server process with a folder, a port and a log, that can be killed and frozen."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DevstackError", "Service", "accepts", "free_port"]

# The package's own, also where it is installed and not here.
_PACKAGE = importlib.util.find_spec("postroom")
assert _PACKAGE is not None and _PACKAGE.origin is not None  # noqa: S101, PT018
LEASH = Path(_PACKAGE.origin).with_name("testing") / "leash.py"
LOG_LINES_SHOWN = 8
SERVER_PORTS = (15_000, 30_000)
# Debian's and Ubuntu's names of the packages with libraries that the servers are linked to.
PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libcrypto.so.3": "libssl3",
    "libssl.so.3": "libssl3",
    "libcrypto.so.1.1": "libssl1.1",
    "liblzma.so.5": "liblzma5",
    "libresolv.so.2": "libc6",
    "libstdc++.so.6": "libstdc++6",
}


class DevstackError(Exception):
    """A service could not be started; the sentence says why and what to do."""


def free_port(wanted: int | None = None) -> int:
    """Return `wanted` if nothing listens there, otherwise a port that is free now.

    Never one that the system gives to outgoing connections: a server that is killed and started
    again would at times find its port taken by one.
    """
    others = SystemRandom().sample(range(*SERVER_PORTS), 50)
    for port in (wanted, *others):
        if port is None:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DevstackError("No port is free on 127.0.0.1")


class Service(ABC):
    """One server, started from a folder of its own, which it may find again with its data.

    The process dies with the one that started it, in a session of its own: Ctrl-C in the terminal
    does not reach it.
    """

    name: str
    ready_seconds = 60.0

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder = folder / self.name
        self.log = folder / "logs" / f"{self.name}.log"
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Say whether the server is ready to be used, making it so where that takes a command."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the server is found."""

    def start(self) -> None:
        """Start the server; wait_ready() says when it can be used."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(LEASH), str(os.getpid()), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self.environment(),
            )

    def environment(self) -> dict[str, str]:
        """Return the environment of the server."""
        return dict(os.environ)

    def wait_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            DevstackError: it ended or did not answer in time; the sentence has its last words.

        """
        end = time.monotonic() + self.ready_seconds
        while not self.answers():
            if self._process is not None and self._process.poll() is not None:
                raise DevstackError(
                    f"{self.name} ended with code {self._process.returncode}: {self.last_words()}"
                )
            if time.monotonic() > end:
                raise DevstackError(
                    f"{self.name} did not answer on port {self.port} in {self.ready_seconds:.0f} s:"
                    f" {self.last_words()}"
                )
            time.sleep(0.05)

    def stop(self, seconds: float = 15.0) -> None:
        """End the server in order, or by force after a time."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End the server as a power cut would."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the server's clock, until thaw()."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    @property
    def pid(self) -> int | None:
        """The process, if one was started."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def last_words(self) -> str:
        """Return why it ended, as far as its log tells."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            for line in lines:
                if "error while loading shared libraries" in line:
                    return _missing_library(line)
            return f"see {self.log}\n" + "\n".join(line[:300] for line in lines)
        return f"there is no log at {self.log}"


def _missing_library(line: str) -> str:
    library = line.partition("libraries: ")[2].partition(":")[0]
    package = PACKAGES.get(library)
    remedy = f"install the package {package} (`apt-get install {package}` on Debian and Ubuntu)"
    return f"it needs {library}, which this system lacks; " + (
        remedy if package else "install the package that has it"
    )


def accepts(port: int) -> bool:
    """Say whether something listens on a local port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
