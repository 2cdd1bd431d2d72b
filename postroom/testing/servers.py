"""Servers: MongoDB, a broker and Valkey, started for a test run where none is configured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo import errors as mongo

from postroom.errors import ConfigurationError
from postroom.testing import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["serving"]

LEASH = Path(__file__).with_name("leash.py")
# Not among those that the system gives to outgoing connections.
PORTS = range(15_000, 30_000)
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
PAUSE_SECONDS = 0.02
LINES_SHOWN = 8
# Its metrics listen on port 8080 of every interface otherwise.
LITE_CONFIG = "[metrics]\nenabled = false\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How a server is started, where it is found then, and when it can be used."""

    variable: str
    url: str
    words: Sequence[str]
    is_ready: Callable[[], bool]


@contextlib.contextmanager
def serving(folder: Path, given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start what `given` variables do not lead to; yield the variables that lead to all of it.

    Each server dies with this process, and listens on this machine alone.

    Raises:
        ConfigurationError: one is not installed, or did not start; the sentence says which.

    """
    plans = [
        plan(folder, _free_port())
        for variable, plan in PLANS.items()
        if not given.get(variable) and not given.get(f"{variable}_FILE")
    ]
    with contextlib.ExitStack() as running:
        started = [running.enter_context(_running(plan, folder)) for plan in plans]
        for plan, process in zip(plans, started, strict=True):
            _await(plan, process, folder)
        yield {plan.variable: plan.url for plan in plans}


def _mongodb(folder: Path, port: int) -> _Plan:
    data = folder / "mongodb"
    data.mkdir(parents=True, exist_ok=True)
    return _Plan(
        variable="POSTROOM_MONGODB_URI",
        url=f"mongodb://127.0.0.1:{port}/?replicaSet=rs0&directConnection=true",
        words=[
            *(programs.mongod(), "--replSet", "rs0", "--bind_ip", "127.0.0.1"),
            *("--port", str(port), "--dbpath", str(data), "--wiredTigerCacheSizeGB", "0.25"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ],
        is_ready=lambda: _takes_writes(port),
    )


def _broker(folder: Path, port: int) -> _Plan:
    data = folder / "pulsar-lite"
    data.mkdir(parents=True, exist_ok=True)
    config = data / "pulsar-lite.toml"
    config.write_text(LITE_CONFIG)
    return _Plan(
        variable="POSTROOM_PULSAR_URL",
        url=f"pulsar://127.0.0.1:{port}",
        words=[
            *(programs.pulsar_lite(), "--config", str(config), "--addr", f"127.0.0.1:{port}"),
            *("--db-path", str(data / "data"), "--log-level", "warn"),
        ],
        is_ready=lambda: _accepts(port),
    )


def _redis(folder: Path, port: int) -> _Plan:
    data = folder / "valkey"
    data.mkdir(parents=True, exist_ok=True)
    words = [programs.valkey(), "--port", str(port), "--bind", "127.0.0.1"]
    return _Plan(
        variable="POSTROOM_REDIS_URL",
        url=f"redis://127.0.0.1:{port}/0",
        words=[*words, "--dir", str(data), "--appendonly", "no", "--save", ""],
        is_ready=lambda: _accepts(port),
    )


PLANS: Mapping[str, Callable[[Path, int], _Plan]] = {
    "POSTROOM_MONGODB_URI": _mongodb,
    "POSTROOM_PULSAR_URL": _broker,
    "POSTROOM_REDIS_URL": _redis,
}


@contextlib.contextmanager
def _running(plan: _Plan, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with _log(plan, folder).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(LEASH), str(os.getpid()), *plan.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(plan: _Plan, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while not plan.is_ready():
        if process.poll() is not None or time.monotonic() > end:
            lines = _log(plan, folder).read_text(errors="replace").splitlines()[-LINES_SHOWN:]
            raise ConfigurationError(
                f"{Path(plan.words[0]).name} did not start within {READY_SECONDS:.0f} s (set "
                f"{plan.variable} to one that runs): " + "\n".join(line[:300] for line in lines)
            )
        time.sleep(PAUSE_SECONDS)


def _log(plan: _Plan, folder: Path) -> Path:
    return folder / f"{plan.variable}.log"


def _takes_writes(port: int) -> bool:
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    with MongoClient[Any](uri, serverSelectionTimeoutMS=500) as client:
        try:
            if client.admin.command("hello").get("isWritablePrimary"):
                return True
            # What a test has written need not outlive a power cut.
            set_up = {
                "_id": "rs0",
                "writeConcernMajorityJournalDefault": False,
                "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}],
            }
            client.admin.command("replSetInitiate", set_up)
        except mongo.PyMongoError:
            pass
    return False


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    for port in SystemRandom().sample(PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("No port is free on 127.0.0.1")
