"""Examining the settings: what contradicts itself, and how connections are secured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.findings import Finding, Grade
from postroom.operations.examining import connections
from postroom.settings import misspelt
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.settings import Settings

__all__ = ["examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What two settings must not say together; `found` names them by their fields."""

    what: str
    is_broken: Callable[[Settings], bool]
    found: str
    remedy: str
    grade: Grade = Grade.WARN


RULES = (
    _Rule(
        what="mutex topic",
        is_broken=lambda s: canonical(s.topic) == canonical(s.mutex_topic),
        grade=Grade.FAIL,
        found="POSTROOM_TOPIC and POSTROOM_MUTEX_TOPIC are both {topic}",
        remedy="Give the mutex a topic of its own",
    ),
    _Rule(
        what="dead-letter topic",
        is_broken=lambda s: (
            s.dead_letter_topic is not None
            and canonical(s.dead_letter_topic) in {canonical(s.topic), canonical(s.mutex_topic)}
        ),
        grade=Grade.FAIL,
        found="POSTROOM_DEAD_LETTER_TOPIC is {dead_letter_topic}, which is the topic of events or "
        "of the mutex",
        remedy="Give dead letters a topic of their own",
    ),
    _Rule(
        what="retention",
        is_broken=lambda s: 0 < s.retention_days < s.history_margin_hours / 12,
        found="POSTROOM_RETENTION_DAYS is {retention_days:g} days, less than twice "
        "POSTROOM_HISTORY_MARGIN_HOURS ({history_margin_hours:g}): rows may be pruned before a "
        "scan after lost history comes to them",
        remedy="Raise POSTROOM_RETENTION_DAYS",
    ),
    _Rule(
        what="retention",
        is_broken=lambda s: s.retention_days == 0,
        found="POSTROOM_RETENTION_DAYS is 0: rows that were relayed are never pruned, and the "
        "outbox grows for ever",
        remedy="Set POSTROOM_RETENTION_DAYS, or prune by `celery -A … outbox prune --days`",
    ),
    _Rule(
        what="inbox",
        is_broken=lambda s: s.retention_days > s.inbox_days,
        found="POSTROOM_INBOX_DAYS ({inbox_days:g}) is less than POSTROOM_RETENTION_DAYS "
        "({retention_days:g}): what is replayed or redriven later is handled again",
        remedy="Raise POSTROOM_INBOX_DAYS",
    ),
    _Rule(
        what="backoff",
        is_broken=lambda s: s.backoff_seconds > s.backoff_max_seconds,
        found="POSTROOM_BACKOFF_SECONDS ({backoff_seconds:g}) is more than "
        "POSTROOM_BACKOFF_MAX_SECONDS ({backoff_max_seconds:g}): every wait is the longest",
        remedy="Lower the first, or raise the second",
    ),
    _Rule(
        what="prefetch",
        is_broken=lambda s: s.prefetch < s.concurrency,
        found="POSTROOM_PREFETCH ({prefetch}) is less than POSTROOM_CONCURRENCY ({concurrency}): "
        "some handlers' threads never have work",
        remedy="Raise POSTROOM_PREFETCH",
    ),
    _Rule(
        what="checkpoints",
        is_broken=lambda s: s.checkpoint_seconds > s.idle_checkpoint_seconds,
        found="POSTROOM_CHECKPOINT_SECONDS ({checkpoint_seconds:g}) is more than "
        "POSTROOM_IDLE_CHECKPOINT_SECONDS ({idle_checkpoint_seconds:g})",
        remedy="Lower the first: what was sent since the last checkpoint is read at a take-over",
    ),
    _Rule(
        what="batches of keys",
        is_broken=lambda s: s.batch_keyed,
        found="POSTROOM_BATCH_KEYED is on: only one consumer at a time keeps the order of a key",
        remedy="Leave it off where a Key_Shared subscription has several consumers; Failover ones "
        "(POSTROOM_SUBSCRIPTION_TYPE) do not need it",
    ),
    _Rule(
        what="payloads",
        is_broken=lambda s: s.show_payloads,
        found="POSTROOM_SHOW_PAYLOADS is on: events' data are shown in Flower and by commands",
        remedy="Leave it off where they are private",
    ),
)


def examine(settings: Settings) -> list[Finding]:
    """Look at the settings of this process."""
    fields = dict(settings)
    contradictions = [
        Finding(
            what=rule.what,
            found=rule.found.format(**fields),
            grade=rule.grade,
            remedy=rule.remedy,
            lasting=rule.grade is Grade.FAIL,
        )
        for rule in RULES
        if rule.is_broken(settings)
    ]
    contradictions += [
        Finding(what="settings", found=sentence, grade=Grade.WARN, remedy="Spell it so")
        for sentence in misspelt()
    ]
    none = Finding(what="settings", found="None of the settings contradict each other")
    return [*(contradictions or [none]), *connections.examine(settings)]
