"""Every command of an operator: help, work, nothing to do, an error, JSON, a service away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from postroom import wire
from postroom.inbox.receiving.selection import redrive_topic
from postroom.store.quarantine import Quarantine, Quarantined
from postroom.store.values import DEFAULT_PARTITION, Position
from tests.commands import run
from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from click.testing import Result

    from tests.site import Site

ROOT = Path(__file__).parents[2]
ESCAPES = "\x1b\r\x07\x9b\u202e"
COMMANDS = (
    *("outbox status", "outbox doctor", "outbox show", "outbox tail", "outbox replay"),
    *("outbox pause", "outbox resume", "outbox prune", "outbox setup", "outbox actions"),
    "outbox forget",
    *("outbox quarantine list", "outbox quarantine redrive", "outbox quarantine discard"),
    *("outbox scheduled list", "outbox scheduled show", "outbox scheduled cancel"),
    *("outbox scheduled reschedule", "outbox scheduled fire"),
    *("dead-letters list", "dead-letters redrive", "dead-letters discard"),
)
AWAY = {
    "POSTROOM_MONGODB_URI": "mongodb://127.0.0.1:1/?replicaSet=rs0",
    "POSTROOM_PULSAR_URL": "pulsar://127.0.0.1:1",
    "POSTROOM_REDIS_URL": "redis://127.0.0.1:1/0",
}


def values(done: Result) -> list[Any]:
    """Return what a command has printed as JSON."""
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def set_aside(site: Site, *reasons: str) -> list[str]:
    """Put rows into the outbox and into quarantine, and return their ids."""
    rows = [row(number, name="[red]Bad\x1b[2J\n") for number in range(len(reasons))]
    site.outbox.insert_many(rows)
    Quarantine(site.database, partition=DEFAULT_PARTITION).store(
        [
            Quarantined(row_id=each["_id"], position=Position(n), reason=reason)
            for n, (each, reason) in enumerate(zip(rows, reasons, strict=True))
        ]
    )
    return [str(each["_id"]) for each in rows]


def letters(site: Site, count: int) -> list[str]:
    """Send dead letters of a handler, and return their ids."""
    dead = f"{site.topic}-test-DLQ"
    site.subscribe("dead-letters", dead).close()
    producer = site.pulsar.create_producer(dead)
    ids = [f"e{number}" for number in range(count)]
    for each in ids:
        properties = {
            wire.ID: each,
            wire.DEAD_TOPIC: site.topic,
            wire.DEAD_SUBSCRIPTION: "test",
            wire.DEAD_HANDLER: "mail",
            wire.DEAD_REASON: "ValueError: a",
        }
        producer.send_async(b'{"name": "Paid", "data": {}}', lambda *_: None, properties=properties)
    producer.flush()
    producer.close()
    return ids


def test_every_command_says_what_it_does(lite_site: Site) -> None:
    """--help of each, in one process; the groups list all of them but the old names."""
    texts = [run(lite_site, *words.split(), "--help").stdout for words in COMMANDS]
    assert all("Usage: " in text for text in texts)
    for group in ("outbox", "outbox quarantine", "dead-letters"):
        listed = run(lite_site, *group.split(), "--help").stdout
        ours = [words for words in COMMANDS if words.rpartition(" ")[0] == group]
        assert all(words.rpartition(" ")[2] in listed for words in ours)
        assert "retry" not in listed


def test_quarantined_rows_are_filtered_redriven_and_discarded(lite_site: Site) -> None:
    """Nothing, some by filter, a question before what destroys, and the log of it all."""
    quarantine = ("outbox", "quarantine")
    assert run(lite_site, *quarantine, "list").stdout.endswith("0 quarantined rows\n")
    reasons = ("ValueError: [/x]\x1b]0;t\x07", "KeyError: 1\nforged", "ValueError: 2")
    a, b, c = set_aside(lite_site, *reasons)
    shown = run(lite_site, *quarantine, "list").stdout
    assert "ValueError: [/x]\\x1b]0;t\\x07" in shown
    assert "[red]Bad\\x1b[2J\\n" in shown
    assert not set(shown) & set(ESCAPES)
    narrow = run(lite_site, *quarantine, "list", COLUMNS="40").stdout
    assert max(map(len, narrow.splitlines())) <= 40
    assert a in narrow
    found = values(run(lite_site, *quarantine, "list", "--json", "--kind", "ValueError"))
    assert [each["row_id"] for each in found] == [a, c]
    run(lite_site, *quarantine, "redrive", code=2)
    run(lite_site, *quarantine, "discard", "--all", "--name", "x", "--yes", code=2)
    assert "nothing was done" in run(lite_site, *quarantine, "redrive", "--id", "x", code=1).stderr
    for bad in (("--reason", "["), ("--from", "soon"), ("--limit", "0"), ("--name", "\udcff")):
        assert run(lite_site, *quarantine, "list", *bad, code=None).exit_code in {1, 2}
    only_a = (*quarantine, "redrive", "--reason", r"\[/x\]")
    assert run(lite_site, *only_a, "--dry-run").stdout == "1 would be put back.\n"
    assert run(lite_site, *only_a).stdout == "1 put back.\n"
    assert run(lite_site, *quarantine, "retry", "--id", c).stdout == "1 put back.\n"
    refused = run(lite_site, *quarantine, "discard", "--all", code=1)
    assert "Discard 1 quarantined rows" in refused.stderr
    assert b in run(lite_site, *quarantine, "list").stdout
    assert run(lite_site, *quarantine, "discard", "--id", b, text="y\n").stdout == "1 discarded.\n"
    assert values(run(lite_site, *quarantine, "discard", "--all", "--yes", "--json")) == [
        {"discarded": 0}
    ]
    log = values(run(lite_site, "outbox", "actions", "--json"))
    assert [(each["what"], each["count"]) for each in log] == [
        ("quarantine discard", 0),
        ("quarantine discard", 1),
        ("quarantine redrive", 1),
        ("quarantine redrive", 1),
    ]
    assert "reason=" in run(lite_site, "outbox", "actions").stdout


def test_setup_makes_what_is_missing_once(lite_site: Site) -> None:
    """Collections and indexes, and the second time nothing; then the doctor finds them."""
    assert run(lite_site, "outbox", "actions").stdout.endswith("0 actions\n")
    first = values(run(lite_site, "outbox", "setup", "--json"))
    assert {"step": "index of __inboxMessages", "result": "made"} in first
    again = values(run(lite_site, "outbox", "setup", "--json"))
    assert "made" not in {each["result"] for each in again}
    assert "there" in run(lite_site, "outbox", "setup").stdout
    found = {
        each["what"]: each for each in values(run(lite_site, "outbox", "doctor", "--json", code=1))
    }
    assert found["index of __outboxConsumers"]["grade"] == "ok"
    assert found["workers"]["found"] == "No running worker has answered"
    assert found["MongoDB"]["grade"] == "ok"
    assert found["rights of the operator in MongoDB"]["grade"] == "ok"
    assert found["rights in Pulsar"]["grade"] == "ok"


def test_the_doctor_looks_at_everything_on_real_pulsar(pulsar_site: Site) -> None:
    """Before anything is there, after --fix, and with workers whose settings differ."""
    before = run(pulsar_site, "outbox", "doctor", code=1)
    assert "warn subscription test on" in before.stdout
    assert "-> celery -A … outbox setup" in before.stdout
    run(pulsar_site, "outbox", "doctor", "--fix", code=None)
    relay = pulsar_site.relay(POSTROOM_RETENTION_DAYS="3")
    relay.wait_for("goes on from there")
    wait_until(lambda: pulsar_site.checkpoint.get("resumeToken"), description="a checkpoint")
    dead = f"{pulsar_site.topic}-test-DLQ"
    letters = pulsar_site.pulsar.create_producer(dead, chunking_enabled=True)
    letters.send(bytes(6 << 20))
    done = run(pulsar_site, "outbox", "doctor", "--json", code=1)
    found = {each["what"]: each for each in values(done)}
    assert "differs: " in found["setting POSTROOM_RETENTION_DAYS"]["found"]
    assert found["what the broker can do"]["grade"] == "ok"
    assert "reaches back" in found["oplog for outbox partition default"]["found"]
    subscription = found[f"subscription test on {pulsar_site.topic}"]
    assert subscription["remedy"] == "celery -A … worker -Q consumer"
    assert found[f"topic {pulsar_site.topic}"]["grade"] == "ok"
    assert "0 messages wait" in subscription["found"]
    letter = found[f"dead letters of test on {pulsar_site.topic}"]["found"]
    assert letter.startswith("2 entries of dead letters (a batch is one, a large message one for")
    assert found["Pulsar's version"]["grade"] == "ok"


def test_contradictions_fail_and_nothing_of_an_address_but_hosts_is_shown(lite_site: Site) -> None:
    """Exit code 2; no password, whatever is away."""
    away = {**AWAY, "POSTROOM_MONGODB_URI": "mongodb://u:hidden@127.0.0.1:1/?replicaSet=rs0"}
    shared = {"POSTROOM_MUTEX_TOPIC": lite_site.environment["POSTROOM_TOPIC"]}
    done = run(lite_site, "outbox", "doctor", code=2, **away, **shared)
    assert "fail mutex topic: POSTROOM_TOPIC and POSTROOM_MUTEX_TOPIC are both" in done.stdout
    assert "fail MongoDB: MongoDB at 127.0.0.1:1 failed" in done.stdout
    assert "fail Pulsar: " in done.stdout
    assert "hidden" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "outbox status",
        "outbox show 6a6a6a6a6a6a6a6a6a6a6a6a",
        "outbox quarantine discard --all --yes",
        "outbox pause",
        "dead-letters list",
        "dead-letters redrive",
        "dead-letters discard --all --yes",
    ],
)
def test_a_service_that_is_away_is_a_sentence(lite_site: Site, words: str) -> None:
    """Exit code 1, which service and where, and nothing that only a worker does next."""
    done = run(lite_site, *words.split(), code=1, **AWAY)
    service, _, reason = done.stderr.partition("127.0.0.1:1")
    assert "MongoDB" in service or "Pulsar" in service
    assert "refuse" in reason
    assert "again" not in reason
    assert ("stays put back" in reason) is ("redrive" in words)


@pytest.mark.parametrize("direct", ["", "&directConnection=true"])
def test_status_says_within_two_seconds_that_mongodb_is_away(lite_site: Site, direct: str) -> None:
    """However long the driver would wait by itself, and whatever it makes of that."""
    away = {**AWAY, "POSTROOM_MONGODB_URI": AWAY["POSTROOM_MONGODB_URI"] + direct}
    began = time.monotonic()
    done = run(lite_site, "outbox", "status", code=1, **away)
    assert time.monotonic() - began < 2
    assert "Connection refused" in done.stderr


def test_pausing_by_command_and_status(lite_site: Site) -> None:
    """An unknown partition is refused, a known one stands still; status and doctor say so."""
    assert "There are: none" in run(lite_site, "outbox", "pause", code=1).stderr
    lite_site.database[wire.CHECKPOINTS].insert_one({"partitionKey": "default", "epoch": 1})
    assert run(lite_site, "outbox", "pause").stdout == "Outbox partition default is paused now.\n"
    assert values(run(lite_site, "outbox", "pause", "--json")) == [{"paused": True, "news": False}]
    (found,) = values(run(lite_site, "outbox", "status", "--json"))
    assert "@" in found["paused_by"]
    assert "its relay stands still" in run(lite_site, "outbox", "status").stdout
    assert "is relayed again" in run(lite_site, "outbox", "resume").stdout
    (found,) = values(run(lite_site, "outbox", "status", "--json"))
    assert found["paused_by"] is None


def test_show_and_tail_tell_no_payloads_unless_asked(lite_site: Site) -> None:
    """Found, not found and where it looked, filters, --follow until the reader goes away."""
    assert run(lite_site, "outbox", "tail").stdout == ""
    rows = [row(n) | {"key": "patient-1"} for n in range(3)]
    rows.append({"_id": "x\x1b[2J", "partitionKey": "other", "data": {"name": "[b]", "data": {}}})
    lite_site.outbox.insert_many(rows)
    event_id = str(rows[0]["_id"])
    text = run(lite_site, "outbox", "show", event_id).stdout
    assert "outbox partition default" in text
    assert "committed" in text
    assert "number" not in text
    assert (
        '{"number": 0}'
        in run(lite_site, "outbox", "show", event_id, POSTROOM_SHOW_PAYLOADS="1").stdout
    )
    (found,) = values(run(lite_site, "outbox", "show", event_id, "--json"))
    assert found["row"]["partition"] == "default"
    none = run(lite_site, "outbox", "show", "[red]\x1b[2J", code=1)
    assert "Not found: [red]\\x1b[2J. Looked in:" in none.stdout
    assert lite_site.topic in none.stdout
    run(lite_site, "outbox", "show", " ", code=1)
    newest = run(lite_site, "outbox", "tail").stdout
    assert len(newest.splitlines()) == 4
    assert "x\\x1b[2J" in newest
    assert "patient-1" not in newest
    keyed = values(run(lite_site, "outbox", "tail", "--key", "patient-1", "-n", "2", "--json"))
    assert [each["row_id"] for each in keyed] == [str(each["_id"]) for each in rows[1:3]]
    assert "patient-1" in run(lite_site, "outbox", "tail", POSTROOM_SHOW_PAYLOADS="1").stdout


def test_tail_follows_until_its_reader_goes_away(lite_site: Site) -> None:
    """`tail --follow | head -2` ends by itself, without a traceback."""
    program = str(Path(sys.executable).parent / "celery")
    with subprocess.Popen(  # noqa: S602 - a pipe is what is tried
        f"{program} -A tasks outbox tail --follow --name Counted | head -2",
        shell=True,
        env={**os.environ, **lite_site.environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as piped:

        def ended() -> bool:
            lite_site.outbox.insert_many([row(0), row(1, name="Other")])
            return piped.poll() is not None

        wait_until(ended, description="the pipe ends", seconds=30)
        out, err = piped.communicate(timeout=10)
    assert [line.split()[-1] for line in out.splitlines()] == ["Counted", "Counted"]
    assert "Traceback" not in err


def test_ctrl_c_ends_a_watch_quietly(lite_site: Site) -> None:
    """`status --watch` and `tail --follow` end by SIGINT with code 0, and without a traceback."""
    for words in ("status --watch", "status --watch --json", "tail --follow"):
        lite_site.insert(1)
        watching = lite_site.start(f"celery -A tasks outbox {words}")
        watching.wait_for("default")
        watching.signal(signal.SIGINT)
        assert watching.exit_code() == 0, watching.text()
        assert "Traceback" not in watching.text()


def test_ctrl_c_within_a_redrive_loses_no_letter(lite_site: Site) -> None:
    """Each letter is put back or still waits; it says how many, and the next one does the rest."""
    ids = letters(lite_site, 60)
    back = redrive_topic(lite_site.topic, "test")
    redriving = lite_site.start("celery -A tasks dead-letters redrive --rate 20")
    wait_until(lambda: len(lite_site.stored(back)) > 2, description="some are put back")
    redriving.signal(signal.SIGINT)
    assert redriving.exit_code() == 1, redriving.text()
    put_back = lite_site.stored(back)
    left = [each["id"] for each in values(run(lite_site, "dead-letters", "list", "--json"))]
    assert sorted({*put_back, *left}) == sorted(ids)
    # The one that was under way may be stored already, and not counted nor acknowledged yet.
    assert len(put_back) + len(left) in (len(ids), len(ids) + 1)
    said = re.search(r"Interrupted: (\d+) put back; the others", redriving.text())
    assert said is not None, redriving.text()
    assert int(said[1]) in (len(ids) - len(left), len(ids) - len(left) - 1)
    assert "Traceback" not in redriving.text()
    (act,) = values(run(lite_site, "outbox", "actions", "--json"))
    assert (act["result"], act["count"]) == ("interrupted", int(said[1]))
    assert f"{len(left)} put back" in run(lite_site, "dead-letters", "redrive").stdout
    assert set(lite_site.stored(back)) == set(ids)


def test_ctrl_c_within_a_replay_counts_what_is_stored(lite_site: Site) -> None:
    """What was on its way is waited for; it says how many, and from when to go on."""
    to = f"public/default/{lite_site.name}-again"
    now = datetime.now(UTC)
    rows = [row(n) | {"occurredAt": now - timedelta(minutes=60 - n)} for n in range(60)]
    lite_site.outbox.insert_many(rows)
    span = f"outbox replay --from 2h --to 1m --to-topic {to} --yes"
    sending = lite_site.start(f"celery -A tasks {span} --rate 20")
    wait_until(lambda: len(lite_site.stored(to)) > 2, description="some are sent")
    sending.signal(signal.SIGINT)
    assert sending.exit_code() == 1, sending.text()
    first = lite_site.stored(to)
    since = re.search(r"Go on with --from (\S+)", sending.text())
    said = re.search(r"Interrupted: (\d+) sent", sending.text())
    assert said is not None, sending.text()
    assert since is not None, sending.text()
    assert int(said[1]) == len(first)
    assert "Traceback" not in sending.text()
    (act,) = values(run(lite_site, "outbox", "actions", "--json"))
    assert (act["result"], act["count"]) == ("interrupted", len(first))
    rest = ("outbox", "replay", "--from", since[1], "--to", "1m", "--to-topic", to, "--yes")
    assert run(lite_site, *rest).stdout == f"{60 - len(first)} sent.\n"
    assert lite_site.stored(to) == [str(each["_id"]) for each in rows]


def test_old_rows_are_pruned_and_unsent_ones_never(lite_site: Site) -> None:
    """A number first, then a question, then the rows; what is not relayed stays."""
    assert run(lite_site, "outbox", "prune", "--yes").stdout == "0 pruned.\n"
    relay = lite_site.relay()
    relay.wait_for("goes on from there")
    lite_site.insert(3)
    wait_until(lambda: lite_site.checkpoint.get("position") == 3, description="the checkpoint")
    assert relay.stop() == 0
    lite_site.insert(2)
    prune = ("outbox", "prune", "--days", "0")
    wait_until(
        lambda: run(lite_site, *prune, "--dry-run").stdout == "3 would be pruned.\n",
        description="the rows are older than a second",
    )
    assert "Delete 3 relayed rows" in run(lite_site, *prune, code=1).stderr
    assert values(run(lite_site, *prune, "--yes", "--json")) == [{"pruned": 3}]
    assert lite_site.outbox.count_documents({}) == 2
    assert (
        "say --days"
        in run(lite_site, "outbox", "prune", code=1, POSTROOM_RETENTION_DAYS="0").stderr
    )


def test_old_events_are_replayed_to_a_topic_of_their_own(lite_site: Site) -> None:
    """Marked, under their ids, without the relay's number; the original topic is refused."""
    to = f"public/default/{lite_site.name}-again"
    plain = lite_site.subscribe("plain", to)
    written = lite_site.insert(3)
    lite_site.insert(1, name="Other")
    lite_site.outbox.insert_one(row(0, name="Counted") | {"data": {"name": "Counted"}})
    replay = ("outbox", "replay", "--from", "1h", "--to", "2100-01-01", "--name", "Counted")
    original = run(lite_site, *replay, "--to-topic", lite_site.topic, "--yes", code=1)
    assert "--onto-original" in original.stderr
    run(lite_site, *replay, "--to-topic", "nowhere", code=1)
    run(lite_site, "outbox", "replay", "--from", "1h", "--to", "2h", "--to-topic", to, code=2)
    assert run(lite_site, *replay, "--to-topic", to, "--dry-run").stdout == "4 would be sent.\n"
    done = run(lite_site, *replay, "--to-topic", to, "--yes")
    assert done.stdout == "3 sent, 1 left: they can be no messages.\n"
    # Without deduplication a connection that was lost sends some twice.
    found = lite_site.receive(plain, 3)
    while len({message.properties()["id"] for message in found}) < 3:
        found += lite_site.receive(plain, 1)
    assert list(dict.fromkeys(message.properties()["id"] for message in found)) == written
    assert all("replay" in message.properties() for message in found)
    assert not any("position" in message.properties() for message in found)
    (act,) = values(run(lite_site, "outbox", "actions", "--json"))
    assert (act["count"], act["result"]) == (3, "done")


def test_dead_letters_are_filtered_and_discarded(lite_site: Site) -> None:
    """The same filters and words as for quarantined rows; a question before they are gone."""
    dead = f"{lite_site.topic}-test-DLQ"
    lite_site.subscribe("dead-letters", dead).close()
    producer = lite_site.pulsar.create_producer(dead)
    for number, reason in enumerate(("ValueError: a", "KeyError: b", "ValueError: c")):
        properties = {"id": f"e{number}", "dead-letter-reason": reason}
        producer.send(b'{"name": "Paid", "data": {}}', properties=properties, partition_key="k")
    kind = ("--kind", "ValueError")
    listed = values(run(lite_site, "dead-letters", "list", "--json", *kind, "--key", "k"))
    assert [each["id"] for each in listed] == ["e0", "e2"]
    shown = run(lite_site, "dead-letters", "list", "--limit", "1", *kind).stdout
    assert "1 of 2 dead letters" in shown
    dry = run(lite_site, "dead-letters", "redrive", "--dry-run", "--id", "e1").stdout
    assert dry == "1 would be put back.\n"
    run(lite_site, "dead-letters", "discard", "--yes", code=2)
    refused = run(lite_site, "dead-letters", "discard", *kind, code=1)
    assert "Discard 2 dead letters of test" in refused.stderr
    gone = run(lite_site, "dead-letters", "discard", *kind, "--yes").stdout
    assert gone == "2 discarded.\n"
    left = values(run(lite_site, "dead-letters", "list", "--json"))
    assert [each["id"] for each in left] == ["e1"]
    (act,) = values(run(lite_site, "outbox", "actions", "--json"))
    assert (act["what"], act["count"], act["where"]) == (
        "dead-letters discard",
        2,
        {"kind": "ValueError"},
    )
