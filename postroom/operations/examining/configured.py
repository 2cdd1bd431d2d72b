"""Examining the settings: what contradicts itself, and what is sent in clear."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo.uri_parser import parse_uri

from postroom.findings import Finding, Grade
from postroom.mongodb_options import for_pymongo
from postroom.secured import has_tls
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.settings import Settings

__all__ = ["examine"]

HERE = {"localhost", "127.0.0.1", "::1"}


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
    none = Finding(what="settings", found="None of the settings contradict each other")
    return [*(contradictions or [none]), *_encrypted(settings)]


def _encrypted(s: Settings) -> Iterator[Finding]:
    pulsar = urllib.parse.urlsplit(s.pulsar_url.partition(",")[0])
    yield _clear("POSTROOM_PULSAR_URL", pulsar.hostname, encrypted=has_tls(s.pulsar_url))
    redis = urllib.parse.urlsplit(s.redis_url.partition(";")[0].partition(",")[0])
    encrypted = redis.scheme in {"rediss", "sentinels"} or redis.scheme.startswith("unix")
    yield _clear("POSTROOM_REDIS_URL", redis.hostname, encrypted=encrypted)
    if s.mongodb_uri.startswith("mongodb+srv://"):
        # The driver turns TLS on there unless the URI says otherwise.
        off = any(each in s.mongodb_uri.lower() for each in ("tls=false", "ssl=false"))
        yield _clear("POSTROOM_MONGODB_URI", None, encrypted=not off)
        return
    parsed = parse_uri(for_pymongo(s.mongodb_uri), warn=True)
    hosts = {host for host, _ in parsed["nodelist"]}
    host = next((each for each in sorted(hosts) if each not in HERE), "localhost")
    yield _clear("POSTROOM_MONGODB_URI", host, encrypted=bool(parsed["options"].get("tls")))


def _clear(setting: str, host: str | None, *, encrypted: bool) -> Finding:
    what = f"TLS of {setting}"
    if encrypted:
        return Finding(what=what, found=f"{setting} is encrypted")
    if host in HERE:
        return Finding(what=what, found=f"{setting} leads to this machine, in clear")
    return Finding(
        what=what,
        found=f"{setting} leads to another machine, in clear",
        grade=Grade.WARN,
        remedy="Encrypt it: docs/security.md says how",
    )
