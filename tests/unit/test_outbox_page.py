"""What the Outbox page says: rates of an hour, the sentence of a partition, and looks that fail."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from postroom.celery.outbox_page.desk import Desk
from postroom.celery.outbox_page.fleet import Fleet, Member
from postroom.celery.outbox_page.history import MOST_PARTITIONS, History
from postroom.celery.outbox_page.partitions import Row, rows
from postroom.celery.poller import Poller
from postroom.operations.wiring import Wiring
from postroom.relay.watching.view import PartitionView
from postroom.routing import Routing
from postroom.settings import Settings
from tests.waiting import wait_until

VIEW = PartitionView(
    partition="p", ever_relayed=True, waiting=0, waiting_at_least=False, lag_seconds=0,
    quarantined_now=0, owner="one",
)  # fmt: skip


def view(**changes: Any) -> PartitionView:
    """Return a partition that is well, but for some changes."""
    return dataclasses.replace(VIEW, **changes)


def relay(owner: str, state: str, reason: str = "") -> Member:
    """Return what a worker tells of its relay."""
    told = {"partition": "p", "owner": owner, "state": state, "reason": reason, "lag_seconds": 7}
    return Member(worker=f"{owner}@host", told=told)


def row(seen: PartitionView, *relays: Member) -> Row:
    """Return the partition as it is shown."""
    (found,) = rows([seen], Fleet(relays=relays, consumers=()), History())
    return found


def test_rates_are_positions_over_time() -> None:
    """Ten events a second for an hour, then nothing; before the first look nothing is known."""
    history = History()
    for second in range(0, 1800, 5):
        history.note([view(position=second * 10, waiting=second)], now=10_000 + second)
    history.note([view(position=17_950, waiting=3)], now=11_860)
    found = history.of("p", now=11_860)
    known = [rate for rate in found.rates if rate is not None]
    assert found.rates[:28] == [None] * 28
    assert known[5] == pytest.approx(10)
    assert found.rate_now == 0
    assert found.backlogs[-1] == 3
    assert max(b for b in found.backlogs if b is not None) == 1795
    assert history.of("another").rate_now is None


def test_a_position_that_goes_back_is_no_rate_below_nothing() -> None:
    """As after a restore."""
    history = History()
    for at, position in ((0, 500), (5, 20), (10, 30)):
        history.note([view(position=position)], now=at)
    assert history.of("p", now=10).rate_now == 0


def test_what_is_kept_is_bounded() -> None:
    """So many partitions, and none that was gone for an hour."""
    history = History()
    history.note([view(partition=str(n)) for n in range(MOST_PARTITIONS + 50)], now=0)
    history.note([view(partition="new")], now=3700)
    assert history.of("0", now=3700).backlogs == [None] * 60
    assert list(history._samples) == ["new"]


def test_who_relays_and_who_stands_by() -> None:
    """The one in office whose name the checkpoint has; the others stand by."""
    found = row(
        view(waiting=3), relay("two", "standby", "Another relay holds it"), relay("one", "relaying")
    )
    assert (found.state, found.well, found.lag_seconds) == ("relaying", True, 7)
    assert found.leader is not None
    assert found.leader.worker == "one@host"
    assert [each.owner for each in found.standbys] == ["two"]
    assert "3 committed events wait" in found.sentence


@pytest.mark.parametrize(
    ("seen", "relays", "state", "words"),
    [
        (view(), [relay("one", "waiting", "Pulsar at x is away; next try in 5 s")], "waiting",
         "Pulsar at x is away; next try in 5 s"),
        (view(waiting=1), [relay("two", "standby", "Another relay holds the mutex")],
         "not answering",
         "does not answer; 1 committed event waits. Those who stand by say: Another relay holds"),
        (view(), [relay("one", "standby", "MongoDB is away")], "not answering",
         "Nobody relays now; one, which took office last, stands by; nothing waits. Those who"),
        (view(quarantined_now=1000, quarantined_more=True), [relay("one", "relaying")], "relaying",
         "It is relaying; nothing waits; at least 1,000 are in quarantine."),
        (view(waiting=5, waiting_at_least=True), [], "no relay",
         "at least 5 committed events wait. Start one: celery -A … worker -Q relay.p"),
        (view(waiting=0, waiting_at_least=True), [], "no relay", "what waits is not known. Start"),
        (view(ever_relayed=False, owner=None, waiting=2), [], "no relay",
         "No relay was ever started"),
        (view(waiting=None, scanning=True), [relay("one", "relaying")], "relaying",
         "scans the collection"),
        (view(closed=True, owner="gone"), [], "closed", "wants no relay. Its rows stay until"),
        (view(following=True, waiting=3), [], "begins later", "3 committed events wait."),
        (view(closed=True, quarantined_now=2), [], "closed", "--partition p; 2 are in quarantine"),
        (view(partition="a'b;c", ever_relayed=False), [], "no relay", """-Q relay.'a'"'"'b;c'"""),
    ],
)  # fmt: skip
def test_the_sentence_says_what_it_waits_for(
    seen: PartitionView, relays: list[Member], state: str, words: str
) -> None:
    """In the relay's own words where it has some."""
    found = row(seen, *relays)
    assert found.state == state
    assert words in found.sentence


def test_without_an_answer_nobody_is_said_to_be_away() -> None:
    """A Redis that is away tells nothing of relays."""
    (found,) = rows([view(waiting=4)], None, History())
    assert found.state == "unknown"
    assert "by the database 4 committed events wait" in found.sentence


def test_a_stranger_worker_tells_what_it_likes() -> None:
    """Of an older or newer version, or none of ours."""
    found = row(view(), Member(worker="w", told={"partition": "p", "state": 7, "lag_seconds": "x"}))
    assert found.lag_seconds == 0


def test_a_look_that_fails_is_told_and_tried_again() -> None:
    """With what was seen before; the next look that succeeds takes the sentence away."""
    answers: list[Any] = [1, OSError("away"), 2]

    def look() -> int:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return int(found)

    poller = Poller("It", look, why=lambda error: f"failed: {error}", every=0.01)
    wait_until(
        lambda: poller.seen().trouble == "failed: away" or not answers[1:], description="it failed"
    )
    wait_until(lambda: poller.seen().value == 2, description="it succeeds again")
    assert poller.seen().trouble == ""


def test_a_look_that_hangs_holds_nobody() -> None:
    """It is said for how long nothing was answered, and asking returns at once."""
    ended = threading.Event()
    poller = Poller("Redis", ended.wait, why=str, every=0.01, patience=0.05)
    wait_until(
        lambda: "Redis has not answered for" in poller.seen().trouble, description="it hangs"
    )
    assert threading.active_count() < 50
    ended.set()
    wait_until(lambda: poller.seen().value is True, description="it answers")


@pytest.mark.parametrize(
    ("operators", "who", "read_only", "words"),
    [
        (None, "flower", False, ""),
        (None, "flower", True, "--read_only"),
        ("ann, bob", "bob", False, ""),
        ("ann, bob", "bob", True, "--read_only"),
        ("ann,bob", "eve", False, "POSTROOM_FLOWER_OPERATORS"),
        ("", "", False, ""),
        ("ann", "", False, "POSTROOM_FLOWER_OPERATORS"),
    ],
)
def test_who_may_act(operators: str | None, who: str, words: str, *, read_only: bool) -> None:
    """All who are let in, unless some are named; nobody where Flower is only read."""
    settings = Settings.model_validate({"flower_operators": operators})
    routing = Routing(default="public/default/t", topics={}, key=None)
    desk = Desk.__new__(Desk)
    desk.wiring = Wiring(settings=settings, routing=routing, consume={})
    found = desk.refusal(who, read_only=read_only)
    assert (words in found) if words else found == ""
