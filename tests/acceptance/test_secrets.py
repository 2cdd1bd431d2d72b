"""Secrets: a password is in no line that a command prints, and in no process list."""

from __future__ import annotations

import base64
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from devstack.service import free_port
from devstack.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.site import Site, Worker

COMMANDS = [
    "celery -A tasks worker -Q relay",
    "celery -A tasks worker",
    "celery -A tasks flower",
    "celery -A tasks report",
    "celery -A tasks outbox status",
]
SECRET = "Zq7wXk9vTb"  # noqa: S105 - it is the test's own
WINDOWS = [SECRET[i : i + 4] for i in range(len(SECRET) - 3)]


def shows_secret(text: str) -> list[str]:
    """Return what is shown of the secret."""
    return [window for window in WINDOWS if window in text]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTROOM_MONGODB_URI", f"mongodb://usr:Zq/{SECRET}@127.0.0.1/"),
        ("POSTROOM_MONGODB_URI", f"mongodb://usr:12@{SECRET}@127.0.0.1/"),
        ("POSTROOM_REDIS_URL", f"redis:/:{SECRET}@127.0.0.1"),
        ("POSTROOM_PULSAR_URL", f"pulsar://usr:{SECRET}@127.0.0.1:6650"),
    ],
)
def test_a_wrong_address_ends_every_command_in_one_sentence(
    lite_site: Site, variable: str, value: str
) -> None:
    """It names the variable, shows nothing of the value, and nothing is tried again."""
    workers = [lite_site.start(command, **{variable: value}) for command in COMMANDS]
    for worker in workers:
        assert worker.exit_code() != 0
        said = worker.text().strip()
        assert said.startswith(f"{variable} is no address of the form ")
        assert "\n" not in said
        assert shows_secret(said) == []


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """Lend a Valkey that asks for a password with characters that have to be encoded."""
    server = Locked(tmp_path, port=free_port())
    server.start()
    server.wait_ready()
    yield server
    server.stop()


class Locked(Valkey):
    """A Valkey with a password."""

    def command(self) -> Sequence[str]:
        """Ask for the password."""
        return [*super().command(), "--requirepass", f"p@/:{SECRET}"]

    def answers(self) -> bool:
        """Say whether it listens; it refuses to answer a ping."""
        return "Ready to accept connections" in self.log.read_text(errors="replace")


def test_a_right_address_shows_its_hosts_and_nothing_else(lite_site: Site, valkey: Valkey) -> None:
    """Log, banner, report, conf and stats of a worker whose addresses have a password."""
    mongodb = lite_site.environment["POSTROOM_MONGODB_URI"]
    variables = {
        "POSTROOM_REDIS_URL": f"redis://default:p%40%2F%3A{SECRET}@127.0.0.1:{valkey.port}/0",
        "POSTROOM_MONGODB_URI": mongodb.replace("://", f"://usr:{SECRET}@"),
    }
    for queue in ("relay", "consumer"):
        worker = lite_site.start(f"celery -A tasks worker -Q {queue} -l DEBUG", **variables)
        worker.wait_for("ready.")
        worker.wait_for("MongoDB at 127.0.0.1:")
        for command in ("report", "inspect conf", "inspect stats", "inspect report"):
            asked = lite_site.start(f"celery -A tasks {command}", **variables)
            assert asked.exit_code() == 0, asked.text()
            assert shows_secret(asked.text()) == [], asked.words
        assert worker.stop() == 0
        assert shows_secret(worker.text()) == []


def process_list(worker: Worker) -> str:
    """Return the command lines and names of a command's processes, as every user can read them."""
    shown = []
    for process in [psutil.Process(worker.process.pid), *_children(worker)]:
        for file in ("cmdline", "comm"):
            with contextlib.suppress(OSError):  # it has ended
                shown.append(Path(f"/proc/{process.pid}/{file}").read_text(errors="replace"))
    return "\n".join(shown)


def _children(worker: Worker) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(worker.process.pid).children(recursive=True)
    return []


@pytest.fixture
def secrets(lite_site: Site, valkey: Valkey, tmp_path: Path) -> dict[str, str]:
    """Return variables that all hold the secret, or lead to a file that does."""
    for name in ("token", "password", "key"):
        (tmp_path / name).write_text(f"{SECRET}\n")
    ring = base64.b64encode(SECRET.encode().ljust(32, b"x")).decode()
    (tmp_path / "key").write_text(f"k:{ring}")
    mongodb = lite_site.environment["POSTROOM_MONGODB_URI"]
    return {
        "POSTROOM_REDIS_URL": f"redis://default:p%40%2F%3A{SECRET}@127.0.0.1:{valkey.port}/0",
        "POSTROOM_MONGODB_URI": mongodb.replace("://", f"://usr:{SECRET}@"),
        "POSTROOM_PULSAR_TOKEN_FILE": str(tmp_path / "token"),
        "POSTROOM_FLOWER_PASSWORD_FILE": str(tmp_path / "password"),
        "POSTROOM_ENCRYPTION_KEYS_FILE": str(tmp_path / "key"),
    }


PROGRAMS = {
    "worker -Q relay --loglevel=INFO": "MongoDB at 127.0.0.1:",
    "worker -Q consumer --loglevel=INFO": "MongoDB at 127.0.0.1:",
    "worker -c 2 --loglevel=INFO": "ready.",
    "flower": "Visit me at",
}
ASKED = ("report", "inspect conf", "outbox status", "outbox doctor", "dead-letters list")


def test_no_secret_is_in_the_process_list(lite_site: Site, secrets: dict[str, str]) -> None:
    """Of each program that is started, and of all that it starts, from its first moment on."""
    port = str(free_port())
    programs = {
        lite_site.start(f"celery -A tasks {words}", FLOWER_PORT=port, **secrets): said
        for words, said in PROGRAMS.items()
    }
    seen = ""
    for worker, said in programs.items():
        worker.wait_for(said)
        seen += process_list(worker)
    for words in ASKED:
        asked = lite_site.start(f"celery -A tasks {words}", **secrets)
        while asked.process.poll() is None:
            seen += process_list(asked)
            time.sleep(0.02)
        assert shows_secret(asked.text()) == [], words
    for worker in programs:
        seen += process_list(worker)
        assert shows_secret(worker.text()) == [], worker.words
    assert shows_secret(seen) == []
    # The look itself sees what it should: these very commands.
    assert all(words.split()[-1] in seen for words in (*PROGRAMS, *ASKED))
