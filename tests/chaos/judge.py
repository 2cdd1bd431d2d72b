"""The relays' judge: what the topics hold is compared with what was committed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.chaos.accounts import Committed

__all__ = ["Verdict", "judge"]

UNDIVIDED = (Layout(),)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the events; all but `written` and `poison` have to be nothing.

    Lost and duplicated are counted over all topics together, since a deploy may route an event
    from one to the other; the order is that of each topic. What may be large counts as lost where
    it is neither on a topic nor set aside, and as duplicated where it is both.
    """

    written: int
    poison: int
    lost: int
    duplicated: int
    out_of_order: int
    strangers: int
    poison_sent: int
    good_set_aside: int
    misplaced: int
    examples: Sequence[str] = ()

    @property
    def clean(self) -> bool:
        """Whether every event is on a topic once, in commit order, and all poison set aside."""
        return not any(
            (
                self.lost,
                self.duplicated,
                self.out_of_order,
                self.strangers,
                self.poison_sent,
                self.good_set_aside,
                self.misplaced,
            )
        )

    def __str__(self) -> str:
        told = "".join(f"\n  {example}" for example in self.examples)
        return (
            f"{self.written} events, {self.poison} of them poison: {self.lost} lost, "
            f"{self.duplicated} duplicated, {self.out_of_order} out of order, {self.strangers} "
            f"that were never committed, {self.poison_sent} poison sent, {self.good_set_aside} "
            f"good set aside, {self.misplaced} on another topic partition than their key's{told}"
        )


def judge(
    truth: Sequence[Committed],
    topics: Mapping[str, Sequence[str]],
    set_aside: Sequence[str],
    *,
    first: int = 0,
    later: int = 0,
    by_id: bool = False,
    late: Collection[str] = (),
    layouts: Sequence[Layout] = UNDIVIDED,
) -> Verdict:
    """Compare the events in commit order with the ids on the topics.

    The first `first` events and those from `later` on have to be in commit order among themselves;
    those in between, written while the collection was scanned, have none. With `by_id` the order
    of ids will do as well, which is that of a scan. What is known to be `late`, since a deploy has
    routed it to a topic with later events, has no order. Of an outbox that is divided, the `topics`
    are topic partitions, and each event is to be on that of its key and of its outbox partition, by
    the one of `layouts` that has this one.
    """
    fates = {event.id: event.fate for event in truth}
    sent = list(itertools.chain(*topics.values()))
    arrived, aside = set(sent), set(set_aside)
    lost = [i for i, fate in fates.items() if i not in aside and i not in arrived]
    both = [i for i in arrived & aside if fates.get(i) in {"large", "delayed"}]
    # What is delivered at a time of its own has no order either.
    ordered = {event.id for event in truth if event.fate != "delayed"} - set(late)
    swapped = [
        f"{topic}: {a} before {b}"
        for topic, ids in topics.items()
        for a, b in _swapped(truth, [i for i in ids if i in ordered], first, later, by_id=by_id)
    ]
    poison_sent = [i for i in arrived if fates.get(i) == "poison"]
    good_set_aside = [i for i in aside if fates.get(i) == "good"]
    events = {event.id: event for event in truth}
    misplaced = [
        f"{i} on {topic}"
        for topic, ids in topics.items()
        for i in ids
        if i in events and _is_misplaced(events[i], topic, layouts)
    ]
    examples = {
        "lost": lost,
        "on topics twice": _twice(sent),
        "sent and set aside": both,
        "out of order on": swapped,
        "poison sent": poison_sent,
        "good set aside": good_set_aside,
        "misplaced": misplaced,
    }
    return Verdict(
        written=len(truth),
        poison=sum(fate == "poison" for fate in fates.values()),
        lost=len(lost),
        duplicated=len(sent) - len(arrived) + len(both),
        out_of_order=len(swapped),
        strangers=len((arrived | aside) - fates.keys()),
        poison_sent=len(poison_sent),
        good_set_aside=len(good_set_aside),
        misplaced=len(misplaced),
        examples=[f"{what}: {one}" for what, found in examples.items() for one in found[:3]],
    )


def _is_misplaced(event: Committed, topic: str, layouts: Sequence[Layout]) -> bool:
    its = next((layout for layout in layouts if event.partition in layout.names), None)
    return its is None or its.is_misplaced(event, topic)


def _twice(sent: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [i for i in sent if i in seen or seen.add(i)]  # type: ignore[func-returns-value]


def _swapped(
    truth: Sequence[Committed], ids: Sequence[str], first: int, later: int, *, by_id: bool
) -> list[tuple[str, str]]:
    """Return the neighbours on a topic that are in the wrong order, but for repeats."""
    places = {event.id: n for n, event in enumerate(truth)}
    found = list(dict.fromkeys(ids))
    parts = (
        [i for i in found if places[i] < first],
        [i for i in found if places[i] >= max(first, later)],
    )
    return [
        (a, b)
        for part in parts
        for a, b in itertools.pairwise(part)
        if places[b] < places[a] and not (by_id and a < b)
    ]
