"""What handlers do to their transaction, and MongoDB to theirs: nothing is shown that is not so."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient, WriteConcern
from pymongo import errors as mongo

from postroom import Event, errors, handles
from postroom.failures import Kind
from postroom.inbox.handling.aftermath import Aftermath
from postroom.inbox.handling.applying import Applying
from postroom.inbox.handling.call import Stage
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.lifetime import Lifetime
from postroom.inbox.handling.outcome import Applied, GiveUp, TryAgain
from postroom.inbox.handling.sharing import Sharing
from postroom.store import clients
from tests.bench import Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.client_session import ClientSession

    from tests.site import Site

DEAD_HOST = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300&connectTimeoutMS=300"


@pytest.fixture
def bench(lite_site: Site) -> Iterator[Bench]:
    """Lend an inbox on the session's MongoDB."""
    found = Bench(lite_site.environment["POSTROOM_MONGODB_URI"], lite_site.name)
    yield found
    found.client.close()


def commits(session: ClientSession) -> None:
    """Commit the inbox's transaction."""
    session.commit_transaction()


def aborts(session: ClientSession) -> None:
    """Undo it."""
    session.abort_transaction()


def begins_anew(session: ClientSession) -> None:
    """Undo it, and begin another."""
    session.abort_transaction()
    session.start_transaction()


def ends(session: ClientSession) -> None:
    """End the whole session."""
    session.end_session()


def leaves(session: ClientSession) -> None:
    """End it as a context."""
    with session:
        pass


def runs_its_own(session: ClientSession) -> None:
    """Run a transaction of its own in it."""
    session.with_transaction(lambda _: None)


def swallows(session: ClientSession) -> None:
    """Commit, whatever is said about it."""
    with contextlib.suppress(Exception):
        session.commit_transaction()


TOUCHES = [commits, aborts, begins_anew, ends, leaves, runs_its_own, swallows]


@pytest.mark.parametrize("then_raise", [False, True])
@pytest.mark.parametrize("touch", TOUCHES)
def test_a_handler_that_touches_the_transaction_is_given_up(
    bench: Bench, touch: Callable[[ClientSession], None], *, then_raise: bool
) -> None:
    """Nothing is written, nothing is remembered, and the sentence says what was touched."""

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session)
        touch(session)
        if then_raise:
            raise ValueError("swallowed before")

    outcome = bench.run(handler)
    assert isinstance(outcome, GiveUp), outcome
    assert "the inbox's" in outcome.reason
    assert (bench.notes, bench.remembered) == ([], 0)


@pytest.mark.parametrize("fails", [None, 1], ids=["applied", "one fails"])
def test_nothing_of_a_group_is_left_to_the_collector(bench: Bench, fails: int | None) -> None:
    """Neither what had its transaction nor the errors that undid it."""

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session, event.data["n"])
        if event.data["n"] == fails:
            raise OSError

    gc.collect()
    gc.disable()
    try:
        bench.run_together(handler, 4)
        of_groups = Applying, Aftermath, Sharing
        left = [type(each).__name__ for each in gc.get_objects() if type(each) in of_groups]
    finally:
        gc.enable()
    assert left == []


def test_a_session_of_ones_own_is_the_handlers_business(bench: Bench) -> None:
    """A second session may do what it likes, beside the inbox's."""

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session)
        with session.client.start_session() as own, own.start_transaction():
            bench.note(own, 2)

    assert isinstance(bench.run(handler), Applied)
    assert sorted(bench.notes) == [1, 2]


def test_a_handler_longer_than_a_transaction_lasts_is_given_up_and_named(bench: Bench) -> None:
    """Each attempt counts, and the last one says which limit it was."""
    admin = bench.client.admin
    limit = "transactionLifetimeLimitSeconds"
    before = admin.command({"getParameter": 1, limit: 1})[limit]
    admin.command({"setParameter": 1, limit: 1})
    try:
        bench.inbox.prepare()

        def handler(event: Event[Any], session: ClientSession) -> None:
            bench.note(session)
            threading.Event().wait(3)
            bench.note(session, 2)

        first = bench.run(handler, max_attempts=2)
        last = bench.run(handler, max_attempts=2, attempt=2)
    finally:
        admin.command({"setParameter": 1, limit: before})
    assert isinstance(first, TryAgain)
    assert first.counts
    assert isinstance(last, GiveUp)
    assert f"{limit}=1" in last.reason
    assert bench.notes == []


def test_a_timeout_that_no_transaction_can_last_is_refused(caplog: Any) -> None:
    """At the start, by the handler's name; a mere default is warned of; unknown limits pass."""
    found = Registry()
    handles("*", name="long.one", timeout_seconds=61, into=found)(lambda event: None)
    known = Lifetime(60.0)
    with pytest.raises(errors.ConfigurationError, match=r"long\.one has timeout_seconds=61"):
        known.check(found.handlers.values(), default_seconds=60)
    Lifetime(None).check(found.handlers.values(), default_seconds=1000)
    assert not caplog.text
    known.check([], default_seconds=100)
    assert "POSTROOM_HANDLER_TIMEOUT_SECONDS is 100" in caplog.text


def test_what_comes_after_the_commit_happens_at_least_once(bench: Bench) -> None:
    """It sees the effect; a failure is tried again alone, and undoes nothing."""
    seen: list[Any] = []

    def after(event: Event[Any]) -> None:
        seen.append((event.id, bench.notes))
        if len(seen) < 3:
            raise ValueError("not yet")

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session)

    outcomes = [bench.run(handler, after_commit=after) for _ in range(4)]
    assert [type(outcome) for outcome in outcomes] == [TryAgain, TryAgain, Applied, Applied]
    assert seen == [("e1", [1])] * 3
    assert outcomes[2] == Applied(handled=0, repeated=1)
    gone = bench.run(lambda event: None, 2, after_commit=_fail, attempt=5)
    assert isinstance(gone, GiveUp)
    assert "Its effect stands" in gone.reason


def _fail(_: Any) -> None:
    raise ValueError("always")


def test_a_batch_gets_after_its_commit_what_is_due(bench: Bench) -> None:
    """One that was killed in between comes again with the others: of all, those that are due."""
    found = Registry()
    due: list[list[str]] = []

    @handles(
        "*", name="h", batch=5, after_commit=lambda es: due.append([e.id for e in es]), into=found
    )
    def handler(events: list[Event[Any]]) -> None:
        pass

    wanted: list[Event[Any]] = [Event(id=f"e{n}", name="A", data={}, topic="t") for n in range(3)]
    bench.inbox.apply(found.handlers["h"], wanted[:2])
    rows = bench.database["__inboxMessages"]
    rows.update_one({"_id.eventId": "e1"}, {"$set": {"afterCommit": True}})
    bench.inbox.apply(found.handlers["h"], wanted)
    assert due == [["e0", "e1"], ["e1", "e2"]]


def _ping_nobody() -> None:
    with MongoClient[Any](DEAD_HOST) as client:
        client.admin.command("ping")


@pytest.mark.parametrize(
    "use",
    [
        _ping_nobody,
        lambda: (_ for _ in ()).throw(mongo.AutoReconnect("of another service")),
        lambda: (_ for _ in ()).throw(mongo.OperationFailure("of another one", 13)),
        lambda: (_ for _ in ()).throw(mongo.WTimeoutError("of another one", 64)),
    ],
)
def test_what_the_handlers_own_client_cannot_reach_is_an_attempt(
    bench: Bench, use: Callable[[], object]
) -> None:
    """While our own servers answer, it is no outage, and ends as a dead letter."""

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session)
        use()

    first = bench.run(handler)
    assert isinstance(first, TryAgain)
    assert first.counts
    assert isinstance(bench.run(handler, attempt=5), GiveUp)


class TestThreeMembers:
    """Members that do not follow, and connections that break."""

    @pytest.fixture
    def stalled(self, replicated_site: Site) -> Iterator[Bench]:
        """Lend an inbox on three members, of which two can be stopped from following."""
        found = Bench(replicated_site.environment["POSTROOM_MONGODB_URI"], replicated_site.name)
        yield found
        found.client.close()

    def stop_followers(self, replica_set: Any, *, mode: str) -> None:
        """Have the secondaries fetch no more, or go on."""
        for member in replica_set.secondaries():
            with MongoClient[Any](member.direct_url) as client:
                client.admin.command({"configureFailPoint": "stopReplProducer", "mode": mode})

    def test_a_member_that_does_not_answer_is_found(
        self, replicated_site: Site, replica_set: Any
    ) -> None:
        """By its address, killed or frozen, though everything goes on without it."""
        killed, frozen = replica_set.secondaries()
        killed.kill()
        frozen.freeze()
        try:
            with clients.for_command_line(replicated_site.environment["POSTROOM_MONGODB_URI"]) as c:
                away = clients.members_away(c, seconds=8)
        finally:
            frozen.thaw()
            killed.start()
            replica_set.wait_ready()
        assert sorted(away) == sorted((killed.address, frozen.address))
        with clients.for_command_line(replicated_site.environment["POSTROOM_MONGODB_URI"]) as c:
            assert clients.members_away(c, seconds=8) == []

    def test_handled_before_is_believed_of_a_majority_alone(
        self, stalled: Bench, replica_set: Any
    ) -> None:
        """A row that may still be undone acknowledges nothing; once it lasts, it does."""
        calls: list[str] = []

        def handler(event: Event[Any], session: ClientSession) -> None:
            calls.append(event.id)

        stalled.run(handler, 7)
        row = stalled.database["__inboxMessages"].find_one()
        assert row is not None
        row["_id"]["eventId"] = "e1"
        self.stop_followers(replica_set, mode="alwaysOn")
        try:
            local = stalled.database["__inboxMessages"].with_options(
                write_concern=WriteConcern(w=1)
            )
            local.insert_one(row)
            outcome = stalled.run(handler, 1)
        finally:
            self.stop_followers(replica_set, mode="off")
        assert isinstance(outcome, TryAgain), outcome
        assert (outcome.counts, outcome.kind) == (False, Kind.OUTAGE)
        assert stalled.run(handler, 1) == Applied(handled=0, repeated=1)
        assert calls == ["e7"]

    def test_a_commit_that_no_majority_confirms_comes_back_in_time(
        self, stalled: Bench, replica_set: Any
    ) -> None:
        """It is an outage and no attempt; afterwards the effect is there once."""

        def handler(event: Event[Any], session: ClientSession) -> None:
            stalled.note(session)

        self.stop_followers(replica_set, mode="alwaysOn")
        try:
            began = time.monotonic()
            outcome = stalled.run(handler, seconds=2.0)
            took = time.monotonic() - began
        finally:
            self.stop_followers(replica_set, mode="off")
        assert isinstance(outcome, TryAgain), outcome
        assert (outcome.counts, outcome.kind) == (False, Kind.OUTAGE)
        assert took < 8
        assert isinstance(stalled.run(handler), Applied)
        assert stalled.notes == [1]

    def test_a_commit_that_hangs_is_known_as_one(self, stalled: Bench, replica_set: Any) -> None:
        """While no majority confirms it, the call says that it waits for MongoDB to commit."""

        def handler(event: Event[Any], session: ClientSession) -> None:
            stalled.note(session)

        self.stop_followers(replica_set, mode="alwaysOn")
        try:
            call, thread = stalled.begin(handler)
            wait_until(lambda: call.stage is Stage.COMMIT, description="the commit hangs")
        finally:
            self.stop_followers(replica_set, mode="off")
        thread.join(20)
        assert isinstance(call.outcome, Applied)
        assert stalled.notes == [1]

    def test_a_connection_that_our_own_client_loses_is_an_outage(self, stalled: Bench) -> None:
        """Also within the handler, and also where the server answers again at once."""
        data = {"failCommands": ["find"], "closeConnection": True, "appName": "postroom-inbox t"}
        fails = {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data}

        def handler(event: Event[Any], session: ClientSession) -> None:
            stalled.note(session)
            stalled.client.admin.command(fails)
            stalled.database["notes"].find_one({}, session=session)

        outcome = stalled.run(handler, attempt=5)
        assert isinstance(outcome, TryAgain), outcome
        assert (outcome.counts, outcome.kind) == (False, Kind.OUTAGE)


def closes(session: ClientSession) -> None:
    """Close the client that the session came from."""
    session.client.close()


def closes_behind_itself(session: ClientSession) -> None:
    """Do so by the usual form."""
    with session.client:
        pass


@pytest.mark.parametrize("close", [closes, closes_behind_itself])
def test_a_handler_that_closes_the_client_is_given_up_alone(bench: Bench, close: Any) -> None:
    """Its client is that of all handlers, whose events are handled as before."""
    bench.client.is_lent = True

    def touches(event: Event[Any], session: ClientSession) -> None:
        bench.note(session)
        close(session)

    outcome = bench.run(touches)
    assert isinstance(outcome, GiveUp)
    assert "has closed the client" in outcome.reason
    assert (bench.notes, bench.remembered) == ([], 0)
    assert isinstance(bench.run(lambda event, session: bench.note(session, 2)), Applied)
    assert bench.notes == [2]
    bench.client.is_lent = False


def test_a_handler_that_leaves_its_work_to_others_is_given_up(bench: Bench) -> None:
    """What it returns nobody awaits: nothing was done, and nothing is taken for handled."""

    def returns(event: Event[Any], session: ClientSession) -> Any:
        async def work() -> None:
            bench.note(session)

        return work()

    outcome = bench.run(returns)
    assert isinstance(outcome, GiveUp)
    assert "has returned a coroutine" in outcome.reason
    assert (bench.notes, bench.remembered) == ([], 0)


def test_what_comes_after_the_commit_is_done_or_given_up(bench: Bench) -> None:
    """The effect stands where it returns something to be awaited, and the sentence says so."""

    def after(event: Event[Any]) -> Any:
        return asyncio.sleep(0)

    outcome = bench.run(lambda event, session: bench.note(session), after_commit=after)
    assert isinstance(outcome, GiveUp)
    assert outcome.reason.startswith("Its effect stands")
    assert (bench.notes, bench.remembered) == ([1], 1)


def test_a_handler_cannot_pass_its_own_failure_off_as_ours(bench: Bench) -> None:
    """Errors that postroom itself goes by are attempts where a handler raises them."""

    def pretends(event: Event[Any]) -> None:
        raise errors.NotItsTurn

    outcome = bench.run(pretends)
    assert isinstance(outcome, TryAgain)
    assert outcome.counts
