"""What is made of facts: metrics, pulses, probes, and the sentences of the watchdog."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from postroom import ConfigurationError, Settings
from postroom.inbox import facts as inbox_facts
from postroom.inbox.connection import Connection
from postroom.inbox.dispatcher import _longest as longest
from postroom.inbox.handling.call import Stage
from postroom.inbox.topic_view import DEAD, EVENTS, Subscription, TopicRow
from postroom.observation import Observer
from postroom.relay import facts as relay_facts
from postroom.relay.interlude import Interlude
from postroom.relay.standing import Standing
from postroom.relay.state import State
from postroom.relay.watching.view import PartitionView
from postroom.store.values import OutboxPartition
from postroom.telemetry import partitions, pulse
from postroom.telemetry.counting import Counting
from postroom.telemetry.endpoint import Endpoint
from postroom.telemetry.exposition import of_topics, registry_of_all
from postroom.telemetry.health import Health
from postroom.telemetry.telemetry import Telemetry
from postroom.telemetry.watchdog import Watchdog
from postroom.topics import Topic
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.observation import Fact

HANG_SECONDS = 0.1


def test_of_a_change_of_the_number_the_metrics_show_what_waits_and_miss_no_relay() -> None:
    """What is closed is told no more; what follows is to have no relay yet."""
    common: Any = {"waiting_at_least": False, "lag_seconds": 7, "quarantined_now": 0}
    seen = partitions._Seen(
        partitions=[
            PartitionView(partition="old", ever_relayed=True, closed=True, waiting=0, **common),
            PartitionView(partition="p", ever_relayed=True, waiting=1, **common),
            PartitionView(
                partition="next", ever_relayed=False, following=True, waiting=5, **common
            ),
        ],
        oplog_seconds=None,
        scheduled=(),
        members_away=0,
        at=time.monotonic(),
    )
    told = {
        each.name: {sample.labels["partition"]: sample.value for sample in each.samples}
        for each in partitions._families(seen)
        if each.name.startswith("postroom_relay_")
        and each.name != "postroom_relay_oplog_window_seconds"
    }
    assert told["postroom_relay_backlog_events"] == {"p": 1, "next": 5}
    assert told["postroom_relay_oldest_unsent_seconds"].keys() == {"p", "next"}
    assert told["postroom_relay_ever_relayed"] == {"p": 1}


def turned(**seconds: float) -> Fact:
    """Return the fact that the relay's loop goes round, and what it waits for."""
    waits = {"reading_seconds": 0.0, "sending_seconds": 0.0, "saving_seconds": 0.0, **seconds}
    return relay_facts.LoopTurned(partition="p", **waits)


def entered(state: State, reason: str = "") -> Fact:
    """Return the fact that a relay is in a state."""
    return relay_facts.StateEntered(partition="p", state=state, reason=reason, at=datetime.now(UTC))


def stored(**values: Any) -> Fact:
    """Return the fact that a chunk is stored."""
    given = {"events": 0, "payload_bytes": 0, "skipped": 0, "position": 1, **values}
    return relay_facts.ChunkStored(partition="p", cluster_time=None, seconds=0.1, **given)


def test_every_metric_has_a_name_a_unit_and_no_id() -> None:
    """Names, help and labels are what Prometheus wants, and no label can take many values."""
    allowed = {*("partition", "subscription", "handler", "outcome", "state", "end")}
    allowed |= {"name", "what", "version"}
    registry = registry_of_all(Settings(mongodb_uri="mongodb://127.0.0.1:1/"))
    for collector in registry._collector_to_names:
        for family in collector.describe():  # type: ignore[attr-defined]  # all of ours have it
            assert family.name.startswith("postroom_"), family.name
            assert family.documentation
            for sample in family.samples:
                assert sample.labels.keys() <= allowed


def test_a_relays_facts_are_counted() -> None:
    """Events, bytes, what was skipped and set aside, how long it took, how terms ended."""
    registry = CollectorRegistry()
    counting = Counting(registry)
    counting.begin_relay("p")
    value = registry.get_sample_value
    assert value("postroom_relay_events_published_total", {"partition": "p"}) == 0
    for fact in (
        stored(
            events=3,
            payload_bytes=90,
            skipped=2,
            occurred_at=datetime.now(UTC) - timedelta(seconds=2),
        ),
        stored(),
        relay_facts.RowsQuarantined(partition="p", rows=2, reason="secret"),
        relay_facts.CheckpointWritten(partition="p", position=3, cluster_time=None, seconds=0.2),
        relay_facts.TermFailed(partition="p", reason="secret", error="Fenced", transient=True),
        entered(State.STOPPED),
    ):
        counting.hear_relay(fact)
    own = {"partition": "p"}
    assert value("postroom_relay_events_published_total", own) == 3
    assert value("postroom_relay_published_bytes_total", own) == 90
    assert value("postroom_relay_events_skipped_total", own) == 2
    assert value("postroom_relay_events_quarantined_total", own) == 2
    assert value("postroom_relay_commit_to_stored_seconds_count", own) == 1
    assert value("postroom_relay_commit_to_stored_seconds_sum", own) == pytest.approx(2, abs=0.5)
    assert value("postroom_relay_terms_total", {**own, "end": "Fenced"}) == 1
    assert value("postroom_relay_terms_total", {**own, "end": "stop"}) == 1
    assert b"secret" not in generate_latest(registry)


def test_a_consumers_facts_are_counted() -> None:
    """By subscription, handler and outcome."""
    registry = CollectorRegistry()
    counting = Counting(registry)
    of = {"subscription": "s", "handler": "h"}
    for fact in (
        inbox_facts.Handled(
            **of, handled=2, repeated=1, attempt=1, seconds=0.2, occurred_at=datetime.now(UTC)
        ),
        inbox_facts.Retried(**of, events=1, attempt=1, after_seconds=1, counts=True, seconds=0.1),
        inbox_facts.GivenUp(**of, events=1, attempt=5, seconds=0.1),
        inbox_facts.TimedOut(**of, stage="HANDLER", limit_seconds=1),
        inbox_facts.Parked(**of),
        inbox_facts.Load(subscription="s", held=7, held_bytes=70, running=2, waiting_to_retry=1),
    ):
        counting.hear_consumer(fact)

    def events(outcome: str) -> float | None:
        return registry.get_sample_value(
            "postroom_consumer_events_total", {**of, "outcome": outcome}
        )

    outcomes = ("handled", "repeated", "retried", "given_up", "timed_out")
    assert [events(each) for each in outcomes] == [2, 1, 1, 1, 1]
    value = registry.get_sample_value
    assert value("postroom_consumer_handler_duration_seconds_count", of) == 3
    assert value("postroom_consumer_dead_letters_total", of) == 1
    assert value("postroom_consumer_held_events", {"subscription": "s"}) == 7


def test_subscriptions_are_told_where_no_consumer_lives() -> None:
    """The application's own, and its dead letters; nothing but that where nobody tells."""

    def subscribed(name: str, *, ours: bool, backlog: int, oldest: int | None) -> Subscription:
        return Subscription(
            name=name,
            ours=ours,
            type="Key_Shared",
            consumers=["c"] if name == "read" else [],
            backlog=backlog,
            oldest_seconds=oldest,
        )

    alone = subscribed("alone", ours=True, backlog=7, oldest=40)
    read = subscribed("read", ours=True, backlog=0, oldest=None)
    strange = subscribed("strange", ours=False, backlog=9, oldest=9)
    letters = subscribed("dead-letters", ours=True, backlog=3, oldest=2)
    rows: list[TopicRow] | None = [
        TopicRow(topic=Topic("t"), role=EVENTS, exists=True, subscriptions=[alone, read, strange]),
        TopicRow(topic=Topic("t-DLQ"), role=DEAD, exists=True, subscriptions=[letters]),
        TopicRow(topic=Topic("none"), role=EVENTS, exists=False),
    ]
    registry = CollectorRegistry()
    of_topics(lambda: rows, registry=registry)
    value = registry.get_sample_value

    def told(name: str, subscription: str) -> float | None:
        of = {"topic": "t", "subscription": subscription}
        return value(f"postroom_subscription_{name}", of)

    names = ("consumers", "backlog_entries", "oldest_seconds")
    assert [told(name, "alone") for name in names] == [0, 7, 40]
    assert [told(name, "read") for name in names] == [1, 0, 0]
    assert [told(name, "strange") for name in names] == [None, None, None]
    assert value("postroom_dead_letters_waiting", {"topic": "t-DLQ"}) == 3
    assert value("postroom_pulsar_admin_readable") == 1
    rows = None
    assert value("postroom_pulsar_admin_readable") == 0
    assert told("consumers", "alone") is None


@pytest.mark.parametrize("operation", ["reading", "sending", "saving"])
def test_what_hangs_is_said_by_name_and_does_not_end_the_worker(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, not each second; its end too; a relay whose thread goes on is alive."""
    caplog.set_level(logging.INFO)
    health = Health()
    found, hear = pulse.of_relay("p", hang_seconds=HANG_SECONDS)
    health.follow(found)
    watchdog = Watchdog(health)
    hear(entered(State.RELAYING))
    hear(turned(**{f"{operation}_seconds": 5.0}))
    watchdog.look()
    watchdog.look()
    (hang,) = health.hangs()
    assert hang.seconds >= 5
    assert (hang.thread, hang.who) == (False, "the relay of outbox partition 'p'")
    assert health.liveness().well
    assert any(hang.sentence in line for line in health.liveness().lines)
    hear(turned())
    watchdog.look()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith(f"It hangs: {hang.sentence}")
    assert said[1].startswith("No longer: ")
    assert health.hangs() == []


@pytest.mark.parametrize("stage", [Stage.HANDLER, Stage.COMMIT])
def test_a_handler_and_its_commit_that_hang_are_told_apart(stage: Stage) -> None:
    """By handler and subscription; when the one is over and the other begins, it says that."""
    found, hear = pulse.of_consumer("billing", hang_seconds=HANG_SECONDS)

    def runs(stage: Stage) -> None:
        call = SimpleNamespace(seconds=5.0, stage=stage)
        job = SimpleNamespace(handler=SimpleNamespace(name="shop.bill"), call=call)
        told = {"held": 1, "held_bytes": 1, "running": 1, "waiting_to_retry": 0, **longest([job])}  # type: ignore[list-item]
        hear(inbox_facts.Load(subscription="billing", **told))

    hear(inbox_facts.StateEntered(subscription="billing", state="consuming"))
    runs(Stage.COMMIT if stage is Stage.HANDLER else Stage.HANDLER)
    runs(stage)
    (hang,) = found.hangs()
    assert (hang.what, hang.thread) == (stage.name.lower(), False)
    assert hang.sentence == (
        f"shop.bill {stage.value}, called by the consumer of subscription 'billing', hangs"
    )
    assert found.not_alive is None


@pytest.mark.parametrize("state", [State.STANDBY, State.RELAYING, State.WAITING])
def test_a_thread_that_stands_still_is_not_alive(state: State) -> None:
    """Without a fact for twice the time; with the next one it is alive again."""
    health = Health()
    found, hear = pulse.of_relay("p", hang_seconds=HANG_SECONDS)
    health.follow(found)
    hear(entered(state))
    assert health.liveness().well
    wait_until(lambda: not health.liveness().well, description="it stands still")
    assert "stands still" in health.liveness().lines[0]
    hear(entered(state))
    assert health.liveness().well


def test_a_paused_relay_is_alive(caplog: pytest.LogCaptureFixture) -> None:
    """However long nobody resumes it; its thread says that it goes round."""
    found, hear = pulse.of_relay("p", hang_seconds=1.0)
    stopping, told = threading.Event(), []

    def listen(fact: Fact) -> None:
        told.append(fact)
        hear(fact)

    standing = Standing(Observer(listen), partition="p", state=State.OPENING)
    interlude = Interlude(partition=OutboxPartition("p"), standing=standing, stopping=stopping)
    interlude.is_on.set()
    thread = threading.Thread(target=interlude.sit_out, args=(lambda: None,))
    thread.start()
    wait_until(lambda: len(told) >= 4, description="it goes round")
    assert found.not_alive is None
    assert found.not_ready is None
    stopping.set()
    thread.join()
    assert caplog.text.count("is paused") == 1


def test_a_wait_on_purpose_is_no_hang() -> None:
    """A standby that asks for the mutex each minute stands still for that long."""
    found, hear = pulse.of_relay("p", hang_seconds=0.01, pause_seconds=60)
    hear(entered(State.STANDBY))
    threading.Event().wait(0.1)
    assert found.not_alive is None


def test_a_thread_that_died_is_not_alive_and_one_that_was_stopped_is() -> None:
    """It is looked at itself, and not only what it told."""
    found, hear = pulse.of_consumer("s", hang_seconds=60)
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    found.is_running = thread.is_alive
    hear(inbox_facts.StateEntered(subscription="s", state="consuming"))
    assert found.not_alive == "the thread of the consumer of subscription 's' has died"
    assert found.not_ready is not None
    hear(inbox_facts.StateEntered(subscription="s", state="stopped"))
    assert found.not_alive is None


def test_topics_that_come_and_go_hide_no_dispatcher_that_hangs() -> None:
    """They are told by another thread, which goes on; what is read is known all the same."""
    found, hear = pulse.of_consumer("s", hang_seconds=60)
    tell = inbox_facts.Teller(Observer(hear), "s")
    connection: Any = SimpleNamespace(
        _waits=None,
        _tell=tell,
        _consumption=SimpleNamespace(topics=["a/b/c"], subscription="s"),
        _troubles=SimpleNamespace(of_topics="a/b/c cannot be read"),
    )
    tell(inbox_facts.StateEntered, state="connecting")
    tell(
        inbox_facts.Load,
        held=1,
        held_bytes=1,
        running=1,
        waiting_to_retry=0,
        longest_seconds=100,
        longest="h",
    )
    found._noted.heard_at -= 1000
    for topics, state in ((0, "waiting"), (1, "consuming"), (0, "waiting")):
        Connection._on_open(connection, topics, 1)
        assert found.state == state
        assert [hang.what for hang in found.hangs()] == ["handler", "thread"]
    assert (found.not_ready or "").endswith("waiting: a/b/c cannot be read")
    tell(inbox_facts.StateEntered, state="connecting")
    assert not found.hangs()


def test_what_a_consumer_waits_for_is_what_is_known_now() -> None:
    """A trouble that is met later than its topic was closed takes the place of what was said."""
    found, hear = pulse.of_consumer("s", hang_seconds=60)
    troubles = SimpleNamespace(of_topics="")
    connection: Any = SimpleNamespace(
        _waits=None,
        _tell=inbox_facts.Teller(Observer(hear), "s"),
        _consumption=SimpleNamespace(topics=["a/b/c"], subscription="s"),
        _troubles=troubles,
    )
    for known, trouble, said in (
        (0, "", "no topic fits"),
        (1, "", "its topics are not open at the moment; they are opened again"),
        (1, "Pulsar is away", "Pulsar is away"),
        (1, "Pulsar refuses", "Pulsar refuses"),
    ):
        troubles.of_topics = trouble
        Connection._on_open(connection, 0, known)
        assert (found.not_ready or "").endswith(f"waiting: {said}")
    Connection._on_open(connection, 1, 1)
    assert found.not_ready is None


def test_leader_and_standby_are_ready_and_others_say_why_not() -> None:
    """Readiness is a state; the reason is that of the status."""
    found, hear = pulse.of_relay("p", hang_seconds=60)
    assert found.not_ready is not None
    for state in (State.STANDBY, State.RELAYING, State.PAUSED):
        hear(entered(state))
        assert found.not_ready is None
    for state in (State.OPENING, State.WAITING, State.STOPPED):
        hear(entered(state, "MongoDB is away"))
        assert (found.not_ready or "").endswith(f"{state.value}: MongoDB is away")


def test_one_workers_task_pool_is_ready_when_it_takes_tasks() -> None:
    """It has no relay and no consumer; alive it is all the time."""
    health = Health()
    assert health.liveness().well
    assert not health.readiness().well
    health.ready()
    assert health.readiness().well


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Lend an endpoint on a free port."""
    found = Endpoint("127.0.0.1", 0, registry=CollectorRegistry(), health=Health())
    found.start()
    yield found
    found.stop()


def get(url: str) -> tuple[int, str]:
    """Return status and text of what a probe asks for."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_endpoint_answers_probes_and_nothing_else(endpoint: Endpoint) -> None:
    """Yes is 200, no is 503 with the reason, the rest is 404."""
    assert get(f"{endpoint.url}/livez") == (200, "alive\n")
    assert get(f"{endpoint.url}/readyz?verbose") == (503, "not ready\nthe worker is starting\n")
    assert get(f"{endpoint.url}/metrics")[0] == 200
    assert get(f"{endpoint.url}/")[0] == 404


def test_clients_that_say_nothing_keep_nobody_from_asking(endpoint: Endpoint) -> None:
    """They have their time, and there is room for others; it answers again behind them."""
    port = int(endpoint.url.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    assert get(f"{endpoint.url}/livez")[0] == 200
    for each in silent:
        each.close()


def test_a_port_that_is_taken_is_refused_in_a_sentence(endpoint: Endpoint) -> None:
    """It names the setting, the port and the remedy."""
    port = int(endpoint.url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"POSTROOM_METRICS_PORT is {port}, .* or 0 for"):
        Endpoint("127.0.0.1", port, registry=CollectorRegistry(), health=Health())


@pytest.mark.parametrize(
    "host", ["*", "\u00e9", "300.1.1.1", "a..b", "x" * 200, "127.0.0.1:9", "203.0.113.7"]
)
def test_a_host_that_is_none_of_this_machine_is_named(host: str) -> None:
    """By its own variable, and without a remedy for something else."""
    with pytest.raises(ConfigurationError) as refused:
        Endpoint(host, 0, registry=CollectorRegistry(), health=Health())
    said = str(refused.value)
    assert said.startswith(
        f"POSTROOM_METRICS_HOST is {host!r}, which is no address of this machine"
    )
    assert "Unknown error" not in said


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_it_answers_by_ipv6(host: str) -> None:
    """With or without brackets; every address is one of IPv4, too."""
    found = Endpoint(host, 0, registry=CollectorRegistry(), health=Health())
    found.start()
    try:
        assert get(f"{found.url}/livez")[0] == 200
        if host == "::":
            port = found.url.rpartition(":")[2]
            assert get(f"http://127.0.0.1:{port}/livez")[0] == 200
    finally:
        found.stop()


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install; and without the setting nothing needs it."""
    for name in list(sys.modules):
        if name.startswith(("prometheus_client", "postroom.telemetry.exposition")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'postroom\[metrics\]'"):
        Telemetry(Settings(metrics_port=0))
    assert Telemetry(Settings()).url is None
