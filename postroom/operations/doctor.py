"""The doctor: looks at everything that postroom rests on, and says how well it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.findings import Finding, Grade
from postroom.operations import setup
from postroom.operations.examining import configured, mongodb, pulsar, topics, workers
from postroom.store import clients

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.operations.actions import Actor
    from postroom.operations.setup import SetupStep
    from postroom.operations.wiring import Wiring

__all__ = ["examine", "exit_code", "fix"]

REMEDIES = {
    service: f"{command} says whether it is well: start it, or put right what the sentence names"
    for service, command in {
        "MongoDB": 'mongosh "$POSTROOM_MONGODB_URI" --eval "rs.status()"',
        "Pulsar": "pulsar-admin brokers healthcheck",
    }.items()
}


def examine(
    wiring: Wiring,
    *,
    answers: workers.Inspected | None = None,
    broker: Callable[[], list[Finding]] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> list[Finding]:
    """Look at the settings, MongoDB, Pulsar and the workers, and return what was found, by these.

    `answers` are the running workers', None where they were not asked. `broker` looks at the
    broker of Celery, through which they were asked. `told` hears what is looked at next. Whatever
    does not answer is a finding; it takes half a minute at most.
    """
    told("settings")
    found = configured.examine(wiring.settings)
    told("MongoDB")
    found += _answered("MongoDB", lambda: _mongodb(wiring), wiring)
    told("Pulsar")
    found += _answered("Pulsar", lambda: pulsar.examine(wiring), wiring)
    if Grade.FAIL not in {finding.grade for finding in found}:
        found += _answered("Pulsar", lambda: _topics(wiring), wiring)
    if broker is not None:
        told("Redis")
        found += broker()
    if answers is not None:
        found += workers.examine(wiring.settings, answers)
    return found


def fix(wiring: Wiring, *, actor: Actor) -> list[SetupStep]:
    """Do what is safe: make collections, indexes, topics and subscriptions that are missing.

    Deduplication is turned on too: it never loses anything. What only an operator can decide
    (retention, pauses, quarantine, dead letters, settings) stays as it is.

    Raises:
        PostroomError, PyMongoError, PulsarException: a service does not answer.

    """
    with clients.for_command_line(wiring.settings.mongodb_uri) as client:
        database = client[wiring.settings.mongodb_database]
        return setup.setup(database, wiring, actor=actor)


def exit_code(found: list[Finding]) -> int:
    """Return 0 where all is well, 1 where something is to be looked at, 2 where something fails."""
    grades = {finding.grade for finding in found}
    return 2 if Grade.FAIL in grades else int(Grade.WARN in grades)


def _mongodb(wiring: Wiring) -> list[Finding]:
    with clients.for_command_line(wiring.settings.mongodb_uri) as client:
        return mongodb.examine(client[wiring.settings.mongodb_database], wiring)


def _topics(wiring: Wiring) -> list[Finding]:
    with clients.for_command_line(wiring.settings.mongodb_uri) as client:
        return list(topics.examine(client[wiring.settings.mongodb_database], wiring))


def _answered(what: str, look: Callable[[], list[Finding]], wiring: Wiring) -> list[Finding]:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - whatever it is: that is what was found
        sentence: Any = wiring.sentences.of(error)
        return [Finding(what=what, found=str(sentence), grade=Grade.FAIL, remedy=REMEDIES[what])]
