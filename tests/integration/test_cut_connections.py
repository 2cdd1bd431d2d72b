"""Connections that are cut somewhere between: bytes vanish, nothing is closed."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from devstack.mongodb import MongoDB
from devstack.service import free_port
from postroom import wire
from postroom.relay import office, stand
from postroom.relay.inspection import Inspection
from postroom.relay.mutex import PulsarMutex
from postroom.relay.saving import retention, tenure
from postroom.relay.sending.opening import Opening
from postroom.relay.sending.tail import TailReader
from postroom.relay.state import State
from postroom.relay.watching import vigil
from postroom.store import clients
from tests.mute_proxy import MuteProxy
from tests.relays import relaying, saved
from tests.site import ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.brokers import Pulsar
    from devstack.stack import Stack
    from tests.site import Site

pytestmark = pytest.mark.pulsar

# Of a call that is bounded by its socket, and of one that is asked after.
CALL_MS = 2_500
PATIENCE_SECONDS = 1.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a call take seconds at most, where it takes tens of them otherwise."""
    monkeypatch.setattr(clients, "CALL_MS", CALL_MS)
    monkeypatch.setattr(vigil, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(vigil, "LOOK_EVERY_SECONDS", 0.5)
    monkeypatch.setattr(vigil, "UNDERWAY_SECONDS", 0.5)


@pytest.fixture
def proxy(stack: Stack) -> Iterator[MuteProxy]:
    """Lend a way to MongoDB that may swallow what is said."""
    port = int(stack.environment["POSTROOM_MONGODB_URI"].partition("127.0.0.1:")[2].split("/")[0])
    with MuteProxy(port) as found:
        yield found


def through(proxy: MuteProxy) -> dict[str, Any]:
    """Return the setting that leads through a proxy."""
    return {"mongodb_uri": f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"}


# Words of a command, and of what a relay says of it. Where its answer is awaited by the reader,
# no timeout may end it: the server is asked. The driver itself tries the others once more.
COMMANDS = {
    "getMore": (["getMore", wire.OUTBOX], "No answer to the command `getMore`"),
    "resume": (["aggregate", "$changeStream"], "No answer to the command `aggregate`"),
    "checkpoint": (["update", wire.CHECKPOINTS, "resumeToken"], ""),
    "confirm": (["find", wire.CHECKPOINTS, "linearizable"], ""),
    "epoch": (["findAndModify", wire.CHECKPOINTS], ""),
}


@pytest.mark.parametrize("answers_only", [False, True])
@pytest.mark.parametrize("what", COMMANDS)
def test_what_vanishes_on_the_way_to_mongodb_is_asked_again(
    pulsar_site: Site,
    proxy: MuteProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    *,
    answers_only: bool,
) -> None:
    """One connection is cut, in both directions or backwards alone; a new term goes on, exactly."""
    site, (words, sentence) = pulsar_site, COMMANDS[what]
    if what == "confirm":
        monkeypatch.setattr(tenure, "TRUST_SECONDS", 0.0)
    plain = site.subscribe()
    with relaying(site):
        written = site.insert(10)
        saved(site, 10)
    caplog.clear()
    at_start = what in {"resume", "epoch"}
    if at_start:
        proxy.mute(*words, answers_only=answers_only)
    with relaying(site, wait=False, **through(proxy)) as relay:
        if not at_start:
            wait_until(lambda: relay.status.state is State.RELAYING, description="a term")
            proxy.mute(*words, answers_only=answers_only)
        written += site.insert(5, first=10)
        assert ids(site.receive(plain, 15)) == written
        wait_until(lambda: proxy.muted == 1, description="the cut")
        saved(site, 15)
        wait_until(lambda: sentence in caplog.text, description=sentence)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("words", [["find", wire.OUTBOX, "snapshot"], ["listCollections"]])
def test_a_scan_whose_page_vanishes_goes_on(
    pulsar_site: Site, proxy: MuteProxy, words: list[str]
) -> None:
    """At a first start."""
    site = pulsar_site
    plain, written = site.subscribe(), sorted(site.insert(2500))
    proxy.mute(*words)
    with relaying(site, wait=False, **through(proxy)):
        assert ids(site.receive(plain, 2500)) == written
        assert proxy.muted == 1


def test_pruning_goes_on_after_a_delete_that_vanished(
    pulsar_site: Site, proxy: MuteProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay itself does not mind."""
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.5)
    site = pulsar_site
    proxy.mute("delete", wire.OUTBOX)
    with relaying(site, retention_days=1e-9, **through(proxy)) as relay:
        site.insert(10)
        saved(site, 10)
        wait_until(lambda: site.outbox.count_documents({}) == 0, description="pruned")
        assert (proxy.muted, relay.status.counts.terms) == (1, 1)


def test_a_server_that_is_at_work_is_waited_for(
    pulsar_site: Site,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever timeouts the URI has: the first read lasts, is told of, and no term ends by it."""
    monkeypatch.setattr(vigil, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(vigil, "SAY_EVERY_SECONDS", 0.5)
    caplog.set_level(logging.INFO)
    site = pulsar_site
    server = MongoDB(
        tmp_path_factory.mktemp("slow"), port=free_port(), parameters={"enableTestCommands": 1}
    )
    server.start()
    try:
        server.wait_ready()
        with clients.for_command_line(server.url) as client:
            impatient = f"{server.url}&timeoutMS=300&socketTimeoutMS=300"
            with relaying(site, wait=False, mongodb_uri=impatient) as relay:
                outbox = client[site.name][wire.OUTBOX]
                rows = client[site.name][wire.CHECKPOINTS]
                wait_until(
                    lambda: rows.count_documents({"scan": {"$exists": False}, "position": 0}),
                    description="its scan",
                )
            # As with millions of entries of others behind the token: each yields, slowly.
            client.admin.command(
                "configureFailPoint",
                "waitAfterPinningCursorBeforeGetMoreBatch",
                mode="alwaysOn",
                data={"shouldContinueToCheckForInterrupt": True},
            )
            release = threading.Timer(
                3.0,
                client.admin.command,
                args=("configureFailPoint", "waitAfterPinningCursorBeforeGetMoreBatch"),
                kwargs={"mode": "off"},
            )
            release.start()
            plain = site.subscribe()
            with relaying(site, wait=False, mongodb_uri=impatient) as relay:
                outbox.insert_one(row(1))
                assert len(site.receive(plain, 1)) == 1
                assert relay.status.counts.terms == 1
            release.join()
    finally:
        server.stop()
    said = [r.message for r in caplog.records if "has been at work" in r.message]
    assert any("reading through the oplog, from 20" in each for each in said), said


@pytest.mark.parametrize("moment", ["before", "mutex", "lane", "tail"])
def test_a_broker_that_says_nothing_is_named_and_asked_again(
    pulsar_site: Site,
    pulsar_server: Pulsar,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    moment: str,
) -> None:
    """It is frozen for what a relay asks it before and in a term; then everything goes on."""
    for module in (stand, office):
        monkeypatch.setattr(module, "OPERATION_TIMEOUT", timedelta(seconds=2))
    site, frozen = pulsar_site, threading.Event()
    plain = site.subscribe()
    with relaying(site):
        written = site.insert(10)
        saved(site, 10)
    written += site.insert(5, first=10)
    caplog.clear()

    def freeze_before(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def disturbed(*args: Any, **kwargs: Any) -> Any:
            if not frozen.is_set():
                pulsar_server.freeze()
                frozen.set()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, disturbed)

    match moment:
        case "before":
            freeze_before(Inspection, "before_standing")
        case "mutex":
            freeze_before(PulsarMutex, "acquire")
        case "lane":
            freeze_before(Opening, "open")
        case "tail":
            freeze_before(TailReader, "read")
    try:
        with relaying(site, wait=False) as relay:
            assert frozen.wait(20)
            words = ("Pulsar", "was not given in time")
            wait_until(
                lambda: any(each in relay.status.reason for each in words),
                description="a sentence",
                # Closes, a look for the reason and one at the policies, each in its own time.
                seconds=25,
            )
            pulsar_server.thaw()
            assert ids(site.receive(plain, 15)) == written
    finally:
        pulsar_server.thaw()
    assert "Traceback" not in caplog.text
