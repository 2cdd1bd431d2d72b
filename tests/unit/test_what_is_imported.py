"""What a program imports: no more than it needs, for each module is memory in every process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.site import ROOT

# What Celery imports of ours in every process, whatever it was started for.
CELERYS = """
import sys
from importlib.metadata import entry_points
for each in entry_points(group="celery.commands"):
    if each.value.startswith("postroom."):
        each.load()
import tasks.celery, tasks.medicines, workers.consumer
"""
WRITER = "import sys, postroom"
WORKER = CELERYS
RELAY = f"{CELERYS}\nimport postroom.relay.relay"
SHARING_RELAY = f"{CELERYS}\nimport postroom.relay.sharing.crew"
CONSUMER = f"{CELERYS}\nimport postroom.celery.runner, postroom.inbox.consumer"

# Drawn, asked for by a switch, or for tests; none of it runs in a worker that has no such switch.
# (OpenTelemetry's SDK and parts of Django are imported by redis and Celery, where they are.)
SWITCHED = ("rich", "sqlite3", "prometheus_client", "cryptography.hazmat", "msgspec")
HEAVY = (*SWITCHED, "flower", "tornado", "pytest", "postroom.testing", "postroom.contrib")
# What operators do; but for how an installation is told, and what a worker tells the doctor.
OPERATORS = ("postroom.operations.", "postroom.celery.outbox_page", "postroom.celery.poller")
TOLD = ("postroom.operations.wiring", "postroom.operations.examining")
RELAYING = (
    "reading",
    "saving",
    "sending",
    "sharing",
    "watching",
    "relay",
    "term",
    "office",
    "mover",
)
CONSUMING = ("scheduling", "parking", "consumer", "connection", "dispatcher", "handling.applying")
RELAYS = tuple(f"postroom.relay.{each}" for each in (*RELAYING, "facts"))
CONSUMERS = tuple(f"postroom.inbox.{each}" for each in (*CONSUMING, "facts"))


@pytest.mark.parametrize(
    ("program", "needless"),
    [
        (WRITER, (*RELAYS, *CONSUMERS, "postroom.broker", "pulsar", "celery", "click", "redis")),
        (WORKER, (*RELAYS, *CONSUMERS)),
        (RELAY, (*CONSUMERS, "postroom.relay.sharing")),
        (SHARING_RELAY, CONSUMERS),
        (CONSUMER, RELAYS),
    ],
    ids=["writer", "worker", "relay", "sharing relay", "consumer"],
)
def test_a_program_imports_what_it_needs(program: str, needless: tuple[str, ...]) -> None:
    """A relay nothing of consumers, nor the other way round; no one what only operators run."""
    command = [sys.executable, "-c", f"{program}\nprint(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "postroom" in loaded

    def within(rooms: tuple[str, ...]) -> set[str]:
        return {name for name in loaded if any(f"{name}.".startswith(f"{room}.") for room in rooms)}

    operators = {name for name in loaded if name.startswith(OPERATORS)} - within(TOLD)
    assert within((*needless, *HEAVY)) | operators == set()
