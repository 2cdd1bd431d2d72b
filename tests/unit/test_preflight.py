"""Preflight: findings are values, and start-up obeys the list."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from postroom import Settings, errors, findings, preflight, rights
from postroom.abilities import Abilities
from postroom.findings import Finding, Grade
from postroom.operations.examining import pulsar, workers
from postroom.topics import Topic


def test_what_is_well_is_not_a_word_worth(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are said with their remedy, the rest is for whoever asks."""
    caplog.set_level(logging.INFO)
    findings.obey(
        [
            Finding(what="a", found="Good"),
            Finding(what="b", found="The cellar is damp", grade=Grade.WARN, remedy="Open a window"),
        ]
    )
    assert [record.getMessage() for record in caplog.records] == [
        "The cellar is damp. Open a window"
    ]


def test_what_no_wait_can_mend_is_refused_before_what_may_pass() -> None:
    """A lasting failure ends the start; another one is tried again."""
    passing = Finding(what="a", found="MongoDB is no replica set", grade=Grade.FAIL)
    lasting = Finding(what="b", found="The topic is partitioned", grade=Grade.FAIL, lasting=True)
    with pytest.raises(errors.ServiceUnavailable, match="no replica set"):
        findings.obey([passing])
    with pytest.raises(errors.ConfigurationError, match="partitioned"):
        findings.obey([passing, lasting])


def test_whatever_is_less_than_well_names_a_remedy() -> None:
    """No finding in the whole package warns or fails without saying what to do."""
    made = [
        (path.name, node.lineno, {each.arg for each in node.keywords})
        for path in Path(findings.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
    ]
    assert len(made) > 30
    assert [each for each in made if "grade" in each[2] and "remedy" not in each[2]] == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Abilities(fencing=False, deduplication=True), "lacks fencing"),
        (Abilities(fencing=True, deduplication=False), "lacks deduplication"),
        (
            Abilities(fencing=True, deduplication=True, unknown=("persistent://a/b",)),
            "make persistent://a/b/postroom-probe",
        ),
    ],
)
def test_a_broker_that_lacks_something_is_weaker_or_refused(found: Abilities, words: str) -> None:
    """By what POSTROOM_DELIVERY demands."""
    (weaker,) = preflight.delivery(found, demanded=False, has_shared=True, where="pulsar://p")
    assert weaker.grade is Grade.WARN
    assert words in weaker.sentence
    refused, shared = preflight.delivery(found, demanded=True, has_shared=True, where="pulsar://p")
    assert (refused.grade, refused.lasting) == (Grade.FAIL, True)
    assert (shared.grade, shared.lasting) == (Grade.FAIL, True)


@pytest.mark.parametrize(
    ("hello", "grade"), [({"setName": "rs0"}, Grade.OK), ({"msg": "isdbgrid"}, Grade.WARN)]
)
def test_a_sharded_cluster_is_told_of(hello: dict[str, str], grade: Grade) -> None:
    """Its change streams wait for idle shards; a command mends that."""
    _, found = preflight.mongodb(_client({"maxWireVersion": 17, **hello}))
    assert found.grade is grade
    assert ("periodicNoopIntervalSecs" in found.remedy) == (grade is Grade.WARN)


ON_OUTBOX = {"db": "d", "collection": "__outboxMessages"}


@pytest.mark.parametrize(
    ("resource", "actions", "grades"),
    [
        (ON_OUTBOX, ["insert"], [Grade.OK]),
        ({"db": "d", "collection": ""}, ["insert", "find"], [Grade.OK]),
        ({"db": "", "collection": ""}, ["insert"], [Grade.OK]),
        ({"anyResource": True}, ["insert"], [Grade.OK]),
        (ON_OUTBOX, ["find"], [Grade.FAIL]),
        ({"db": "other", "collection": ""}, ["insert"], [Grade.FAIL]),
        ({"db": "d", "collection": "__inboxMessages"}, ["insert"], [Grade.FAIL]),
        ({"cluster": True}, ["insert"], [Grade.FAIL]),
    ],
)
def test_a_right_is_found_wherever_it_was_granted(
    resource: dict[str, Any], actions: list[str], grades: list[Grade]
) -> None:
    """On the collection, its database, all of them; what is lacking is named with a command."""
    said = {
        "authenticatedUsers": [{"user": "anna", "db": "admin"}],
        "authenticatedUserPrivileges": [{"resource": resource, "actions": actions}],
    }
    found = rights.in_mongodb(_client({"authInfo": said}), "d", "writer")
    assert [each.grade for each in found] == grades
    if grades == [Grade.FAIL]:
        assert "'anna' of POSTROOM_MONGODB_URI may not insert on d.__outbox" in found[0].found
        assert "actions: ['insert']" in found[0].remedy


def test_an_operator_is_told_what_would_be_refused() -> None:
    """Each right that docs/security.md names, as a warning with the command that grants it."""
    said = {
        "authenticatedUsers": [{"user": "anna", "db": "admin"}],
        "authenticatedUserPrivileges": [
            {"resource": {"db": "d", "collection": ""}, "actions": ["find", "insert", "update"]}
        ],
    }
    found = rights.in_mongodb(_client({"authInfo": said}), "d", "operator")
    assert {each.grade for each in found} == {Grade.WARN}
    texts = " ".join(each.sentence for each in found)
    for words in (
        "may not changeStream, remove on d.__outboxMessages",
        "may not remove on d.__outboxQuarantine",
        "may not createIndex on d.__outboxActions",
        "db.grantPrivilegesToRole(",
    ):
        assert words in texts
    assert "may not remove on d.__inboxMessages" in texts
    assert "__inboxBegun" not in texts


def test_what_workers_wait_for_is_found() -> None:
    """A relay without a right, a topic that is shut, a subscription that cannot be read."""
    well = {"state": "relaying", "reason": "", "topics_shut": {}}
    waits = {"state": "waiting", "reason": "It may not find on d.__outboxMessages"}
    shut = {**well, "topics_shut": {"t": "The topic t is full"}}
    standby = {"state": "standby", "reason": "another one holds the mutex"}
    reads = {"state": "consuming", "reason": "", "troubles": ["The topic u is not read"]}
    assert workers.troubles({"postroom-relay": [well, standby]}) == []
    assert workers.troubles({"pool": {}, "postroom-relay": None}) == []
    answer = {"postroom-relay": [waits, shut, shut], "postroom-consumer": [reads]}
    told = workers.troubles(answer)
    assert told == [waits["reason"], "The topic t is full", "The topic u is not read"]
    settings = Settings()
    found = workers.examine(
        settings,
        workers.Inspected(
            settings={"w": workers.told(settings)},
            waiting={"w": told},
            relays={"w": workers.Relays()},
        ),
    )
    assert [each.grade for each in found] == [Grade.OK, *[Grade.WARN] * 4]
    assert found[1].found == f"It waits: {waits['reason']}"
    assert found[1].remedy == "celery -A … inspect stats -d w"


@pytest.mark.parametrize(
    ("relays", "grade", "words", "remedy"),
    [
        ({"a": ["default"], "b": ["default"]}, Grade.OK, "another one beside it", ""),
        ({"a": ["default"], "b": []}, Grade.WARN, "partition default one relay alone", "relay"),
        ({"a": ["p"], "b": ["default"], "c": ["default"]}, Grade.WARN, "partition p", "relay.p"),
        ({"a": ["p", "q"]}, Grade.WARN, "partition p, q one relay alone", "relay"),
        ({"a": ["default", "default"]}, Grade.WARN, "one relay alone", "relay"),
        ({"a": []}, Grade.WARN, "No relay has answered", "relay"),
    ],
)
def test_a_relay_that_nobody_stands_by_for_is_found(
    relays: dict[str, list[str]], grade: Grade, words: str, remedy: str
) -> None:
    """By outbox partition, among the workers that have answered."""
    settings = Settings()
    told = {name: workers.told(settings) for name in relays}
    stats = {
        name: workers.relays({"postroom-relay": [{"partition": each} for each in theirs]})
        for name, theirs in relays.items()
    }
    answers = workers.Inspected(settings=told, waiting={}, relays=stats)
    found = workers.examine(settings, answers)[-1]
    assert (found.what, found.grade) == ("standby relays", grade)
    assert words in found.found
    assert found.remedy == (f"celery -A … worker -Q {remedy}" if remedy else "")


@pytest.mark.parametrize(
    ("shares", "unserved", "standby"),
    [
        ({"a": ("01", "23"), "b": ("23", "01")}, "", "another one beside it"),
        # Each may have one, and has it: two are nobody's, and of the others nobody takes over.
        ({"a": ("0", ""), "b": ("1", "")}, "p-2, p-3", "p-0, p-1 one relay alone"),
        # One is pinned to 0, one to 1, and both are there for nothing else.
        ({"a": ("0", ""), "b": ("1", ""), "c": ("23", "01")}, "", "p-2, p-3 one relay alone"),
        ({"a": ("012", "3"), "b": ("", "0123")}, "p-3", "another one beside it"),
        ({"a": ("0123", "")}, "", "p-0, p-1, p-2 and 1 more one relay alone"),
        ({"a": ("", "0123"), "b": ("", "0123")}, "p-0, p-1, p-2 and 1 more", None),
    ],
)
def test_an_outbox_partition_that_nobody_serves_is_found(
    shares: dict[str, tuple[str, str]], unserved: str, standby: str | None
) -> None:
    """Each worker that shares has a relay for all, and would take over only some of them."""
    settings = Settings()
    names = [f"p-{number}" for number in range(4)]
    relays = {
        worker: workers.relays(
            {
                "postroom-relay": [{"partition": name} for name in names],
                "postroom-share": {
                    "serves": [f"p-{number}" for number in serves],
                    "would_take": [f"p-{number}" for number in would_take],
                },
            }
        )
        for worker, (serves, would_take) in shares.items()
    }
    told = {name: workers.told(settings) for name in shares}
    answers = workers.Inspected(settings=told, waiting={}, relays=relays)
    _, *found = workers.examine(settings, answers)
    if unserved:
        first = found.pop(0)
        assert (first.what, first.grade) == ("outbox partitions", Grade.WARN)
        assert f"serves {unserved} just now" in first.found
    assert [standby in each.found for each in found if standby] == ([True] if standby else [])
    assert len(found) == (standby is not None)
    assert all(each.remedy in {"", "celery -A … worker -Q relay"} for each in found)


def test_a_server_that_asks_nobody_allows_everything() -> None:
    """There is no user whose rights could be looked at."""
    (found,) = rights.in_mongodb(_client({"authInfo": {"authenticatedUsers": []}}), "d", "relay")
    assert found.grade is Grade.OK


def _client(reply: dict[str, Any]) -> Any:
    return SimpleNamespace(admin=SimpleNamespace(command=lambda *_, **__: reply))


def test_a_relays_own_cursor_is_no_strangers_subscription() -> None:
    """Where no relay serves an outbox partition its cursor waits, and must not be taken away."""
    waits = {"msgBacklog": 3, "consumers": [], "isDurable": True}
    told = {"subscriptions": {"postroom-relay-default.2-2": waits, "theirs": waits, "ours": waits}}
    admin: Any = SimpleNamespace(statistics=lambda _: told)
    wiring: Any = SimpleNamespace(consume={"ours": ["persistent://a/b/c"]})
    topic = Topic("persistent://a/b/c")
    (found,) = pulsar._strangers(admin, wiring, topic)
    assert found.what == "subscription theirs on persistent://a/b/c"
