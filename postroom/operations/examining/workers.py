"""Examining the running workers: settings in which they differ, as each of them tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom import broker
from postroom.findings import Finding, Grade
from postroom.secured import SECRETS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from postroom.settings import Settings

__all__ = ["Inspected", "Relays", "examine", "relays", "told", "troubles"]

HERE = "this process"
# By what a worker tells, the states in which it waits for nothing that is amiss.
WELL = {
    "postroom-relay": {"standby", "opening", "relaying", "paused", "stopping", "stopped"},
    "postroom-consumer": {"connecting", "consuming", "draining", "stopped"},
}
# What workers of one application differ in by design.
OWN = {
    "concurrency",
    "metrics_port",
    "partition",
    "prefetch",
    "subscription",
    "topic",
    "mutex_topic",
}
ADDRESSES = ("_uri", "_url")
FILES = ("_file", "_directory")


def told(settings: Settings) -> dict[str, str]:
    """Return the settings as a worker tells them: of an address its hosts, of a secret nothing."""
    found = {}
    for name, value in settings:
        if name.endswith(FILES) or (name in SECRETS and not name.endswith(ADDRESSES)):
            continue
        found[name] = broker.masked(value) if name.endswith(ADDRESSES) and value else str(value)
    return found


def troubles(stats: Mapping[str, Any]) -> list[str]:
    """Return what a worker's relays and consumers say in `inspect stats` that they wait for."""
    found = []
    for kind, well in WELL.items():
        for snapshot in stats.get(kind) or ():
            if snapshot.get("state") not in well and snapshot.get("reason"):
                found.append(str(snapshot["reason"]))
            found += map(str, snapshot.get("troubles") or ())
            found += map(str, (snapshot.get("topics_shut") or {}).values())
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relays:
    """The outbox partitions of which a worker has relays, as far as it `serves` them or stands by.

    One that shares them with others has a relay for each, and `leaves` those that it would not take
    over either: it is pinned to others, or serves as many as it may.
    """

    serves: Sequence[str] = ()
    stands_by: Sequence[str] = ()
    leaves: Sequence[str] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """All of them."""
        return *self.serves, *self.stands_by, *self.leaves


def relays(stats: Mapping[str, Any]) -> Relays:
    """Return what a worker tells of its relays in `inspect stats`.

    One that shares nothing has been given all that it has a relay for; who of them is in office is
    for the mutex to say.
    """
    told_ = stats.get("postroom-relay") or ()
    names = [str(each["partition"]) for each in told_ if "partition" in each]
    share = stats.get("postroom-share") or {}
    if "serves" not in share:
        return Relays(serves=names)
    serves = [name for name in names if name in share["serves"]]
    stands_by = [name for name in names if name in share.get("would_take", names)]
    return Relays(
        serves=serves,
        stands_by=[name for name in stands_by if name not in serves],
        leaves=[name for name in names if name not in serves and name not in stands_by],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What the running workers told in `inspect stats`, by worker.

    Their `settings`, see told(); what each of them is `waiting` for, a right that it lacks for one,
    see troubles(); and the outbox partitions that it `relays`, or stands by for.
    """

    settings: Mapping[str, Mapping[str, str]]
    waiting: Mapping[str, Sequence[str]]
    relays: Mapping[str, Relays]


def examine(settings: Settings, answers: Inspected) -> list[Finding]:
    """Compare the workers with each other and with this process; say what waits, or is alone."""
    found = [*_compared(settings, answers.settings), *_waiting(answers.waiting)]
    if answers.settings:
        found += [*_unserved(answers.relays.values()), *_standbys(answers.relays.values())]
    return found


def _unserved(by_worker: Collection[Relays]) -> Iterator[Finding]:
    known = {name for each in by_worker for name in each.known}
    found = sorted(known.difference(*(each.serves for each in by_worker)))
    if found:
        yield Finding(
            what="outbox partitions",
            found=f"No relay that has answered serves {_some(found)} just now: what is committed "
            "there waits",
            grade=Grade.WARN,
            remedy="celery -A … worker -Q relay: one more, or with a larger POSTROOM_RELAY_SHARE, "
            "or pinned to no number",
        )


def _standbys(by_worker: Collection[Relays]) -> Iterator[Finding]:
    what, remedy = "standby relays", "celery -A … worker -Q {}"
    workers = Counter(name for each in by_worker for name in {*each.serves, *each.stands_by})
    served = {name for each in by_worker for name in each.serves}
    alone = sorted(name for name in served if workers[name] == 1)
    if not any(each.known for each in by_worker):
        yield Finding(
            what=what,
            found="No relay has answered: what is written now waits",
            grade=Grade.WARN,
            remedy=remedy.format("relay"),
        )
    elif alone:
        shares = any(each.stands_by or each.leaves for each in by_worker)
        is_default = shares or len(alone) > 1 or alone[0] == "default"
        yield Finding(
            what=what,
            found=f"Of outbox partition {_some(alone)} one relay alone has answered: nobody takes "
            "over from it",
            grade=Grade.WARN,
            remedy=remedy.format("relay" if is_default else f"relay.{alone[0]}"),
        )
    elif served:
        yield Finding(what=what, found="Each relay that has answered has another one beside it")


def _waiting(waiting: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    for worker, sentences in sorted(waiting.items()):
        for sentence in sentences:
            yield Finding(
                what=f"worker {worker}",
                found=f"It waits: {sentence}",
                grade=Grade.WARN,
                remedy=f"celery -A … inspect stats -d {worker}",
            )


def _compared(settings: Settings, workers: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    if not workers:
        return [
            Finding(
                what="workers",
                found="No running worker has answered",
                grade=Grade.WARN,
                remedy="celery -A … inspect ping",
            )
        ]
    differing = list(_differing({**workers, HERE: told(settings)}))
    if differing:
        return differing
    count = f"{len(workers)} workers" if len(workers) > 1 else "The one worker"
    return [Finding(what="workers", found=f"{count} and {HERE} agree in their settings")]


def _differing(workers: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    names = sorted({name for told_ in workers.values() for name in told_} - OWN)
    for name in names:
        by_value: dict[str, list[str]] = {}
        for worker, told_ in sorted(workers.items()):
            if name in told_:
                by_value.setdefault(told_[name], []).append(worker)
        if len(by_value) > 1:
            shown = "; ".join(f"{value} in {_some(of)}" for value, of in by_value.items())
            yield Finding(
                what=f"setting POSTROOM_{name.upper()}",
                found=f"It differs: {shown}",
                grade=Grade.WARN,
                remedy="Set it alike, and start again those that differ",
            )


def _some(workers: list[str]) -> str:
    more = f" and {len(workers) - 3} more" if len(workers) > 3 else ""
    return ", ".join(workers[:3]) + more
