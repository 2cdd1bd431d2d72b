"""The judge sees what is wrong: a driver that cannot fail proves nothing."""

from __future__ import annotations

import random
import zlib

import pytest

from postroom import partitioning
from postroom.partitioning import Partitioning
from tests.chaos.accounts import Accounts, Committed
from tests.chaos.judge import judge
from tests.chaos.layout import Layout, murmur3_32
from tests.chaos.scenario import Scenario, chosen
from tests.chaos.writers import fate_of, row

TRUTH = [Committed(i, "Alpha", "good") for i in "abcd"]


@pytest.mark.parametrize(
    ("topics", "wrong"),
    [
        ({"t": "abcd"}, None),
        ({"t": "acd", "u": "b"}, None),
        ({"t": "abd"}, "lost"),
        ({"t": "abbcd"}, "duplicated"),
        ({"t": "abcd", "u": "b"}, "duplicated"),
        ({"t": "acbd"}, "out_of_order"),
        ({"t": "abxcd"}, "strangers"),
    ],
)
def test_each_fault_of_the_topic_is_counted(topics: dict[str, str], wrong: str | None) -> None:
    """Once, under its own name; another topic's order is another's."""
    verdict = judge(TRUTH, topics, [])
    assert verdict.clean is (wrong is None)
    if wrong is not None:
        assert getattr(verdict, wrong) == 1


def test_of_a_divided_outbox_each_key_has_its_topic_partition() -> None:
    """A wrong hash, or a relay on another's topic partition, is seen; order is a partition's."""
    layout = Layout(count=2)
    keys = {i: next(k for k in map(str, range(9)) if murmur3_32(k) % 2 == i) for i in (0, 1)}
    truth = [
        Committed(event, "Alpha", "good", keys[i], layout.names[i])
        for event, i in (("a", 0), ("b", 1), ("c", 0), ("d", 1))
    ]
    right = {"t-partition-0": "ac", "t-partition-1": "bd"}
    assert judge(truth, right, [], layouts=[layout]).clean
    elsewhere = {"t-partition-0": "acd", "t-partition-1": "b"}
    assert judge(truth, elsewhere, [], layouts=[layout]).misplaced == 1
    swapped = {"t-partition-0": "ca", "t-partition-1": "bd"}
    assert judge(truth, swapped, [], layouts=[layout]).out_of_order == 1
    # As a writer with a wrong hash would have it: the row itself says so.
    hashed = [*truth, Committed("e", "Alpha", "good", keys[0], layout.names[1])]
    wrong = {"t-partition-0": "ac", "t-partition-1": "bde"}
    assert judge(hashed, wrong, [], layouts=[layout]).misplaced == 1


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_writer_that_hashes_otherwise_is_seen(
    monkeypatch: pytest.MonkeyPatch, *, is_wrong: bool
) -> None:
    """Rows of the driver's own writers, each on the topic partition that its row leads to."""
    if is_wrong:
        monkeypatch.setattr(partitioning, "murmur3_32", lambda key: zlib.crc32(key.encode()))
    dice, layouts = random.Random(1), [Layout(count=4), Layout(count=4).doubled()]
    rows = [row(dice, plain=True, layout=each) for each in layouts for _ in range(100)]
    truth = [
        Committed(str(each["_id"]), *fate_of(each), each.get("key"), each["partitionKey"])
        for each in rows
    ]
    topics: dict[str, list[str]] = {}
    for each in truth:
        topics.setdefault(f"t-partition-{each.partition.rpartition('-')[2]}", []).append(each.id)
    verdict = judge(truth, topics, [], layouts=layouts)
    assert (verdict.misplaced > 50) is is_wrong
    assert verdict.clean is not is_wrong
    # A generation that nobody knows of is not believed either.
    assert judge(truth, topics, [], layouts=layouts[1:]).misplaced >= 100


@pytest.mark.parametrize(
    ("key", "hashed"),
    [("", 0), ("a", 0x3C2569B2), ("abcd", 0x43ED676A), ("hello", 0x248BFA47), ("ключ", None)],
)
def test_the_judges_hash_is_the_one_that_is_used(key: str, hashed: int | None) -> None:
    """Published values, and what the writers' own library says."""
    assert murmur3_32(key) == Partitioning(count=2).of_key(key) % 2 + murmur3_32(key) // 2 * 2
    if hashed is not None:
        assert murmur3_32(key) == hashed & 0x7FFFFFFF


def test_what_is_set_aside_is_judged_by_its_fate() -> None:
    """Poison has to be, what is good must not, and what is large may, unless it was sent too."""
    poison, large = Committed("p", "Alpha", "poison"), Committed("l", "Alpha", "large")
    truth = [*TRUTH, poison, large]
    assert judge(truth, {"t": "abcdl"}, ["p"]).clean
    assert judge(truth, {"t": "abcd"}, ["p", "l"]).clean
    assert judge(truth, {"t": "abcdl"}, ["p", "l"]).duplicated == 1
    assert judge(truth, {"t": "abcdpl"}, ["p"]).poison_sent == 1
    assert judge(truth, {"t": "abcdl"}, []).lost == 1
    assert judge(truth, {"t": "bcdl"}, ["p", "a"]).good_set_aside == 1


def test_what_is_written_during_a_scan_has_no_order() -> None:
    """What was there before has one, and what came later; a scan's is that of ids."""
    assert judge(TRUTH, {"t": "acbd"}, [], first=1, later=3).clean
    assert judge(TRUTH, {"t": "bacd"}, [], first=2, later=3).out_of_order == 1
    truth = [Committed(i, "Alpha", "good") for i in "badc"]
    assert judge(truth, {"t": "abdc"}, [], by_id=True).clean
    assert judge(truth, {"t": "dbac"}, [], by_id=True).out_of_order == 1


def test_what_is_delayed_or_told_to_be_late_has_no_order() -> None:
    """A deploy routes an event to a topic that has later ones; a delay has a time of its own."""
    assert judge(TRUTH, {"t": "acbd"}, [], late=["b"]).clean
    assert judge(TRUTH, {"t": "acbd"}, [], late=["d"]).out_of_order == 1
    delayed = [TRUTH[0], Committed("x", "Alpha", "delayed"), *TRUTH[1:]]
    assert judge(delayed, {"t": "abcdx"}, []).clean
    assert judge(delayed, {"t": "abcd"}, ["x"]).clean
    assert judge(delayed, {"t": "abcdx"}, ["x"]).duplicated == 1


def test_accounts_tell_what_is_under_way_whatever_comes_first() -> None:
    """An event may be seen on the topic before the change stream tells of it."""
    found = Accounts(lambda: 2)
    found.arrived(["b"])
    for event in TRUTH[:3]:
        found.committed(event)
    assert found.missing(found.mark()) == {"good Alpha": 1}
    found.arrived(["a"])
    assert not found.missing(found.mark())
    assert found.missing(3) == {"good Alpha": 1}


def test_a_scenario_is_drawn_from_its_seed_but_for_what_is_chosen() -> None:
    """The same seed draws the same cluster; what is misspelt is refused."""
    assert Scenario.drawn(7) == Scenario.drawn(7)
    fields = chosen({"members": "3", "oplog_mb": "none", "deploys": "yes"})
    assert Scenario.drawn(7, **fields).members == 3
    with pytest.raises(ValueError, match="no member"):
        chosen({"member": "3"})


def test_a_cluster_that_is_chosen_gets_no_policies_that_it_cannot_have() -> None:
    """The seed draws them by how many brokers it drew itself."""
    assert Scenario.drawn(9104).topic_policies
    assert not Scenario.drawn(9104, brokers=2).topic_policies
