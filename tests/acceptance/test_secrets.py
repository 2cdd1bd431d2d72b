"""Secrets: a password is in no line that a command prints, be its address right or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devstack.service import free_port
from devstack.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.site import Site

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
