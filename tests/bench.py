"""A bench: an inbox as a consumer has it, for jobs that a test runs in its own thread."""

from __future__ import annotations

import functools
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import Event, Settings, handles
from postroom.inbox.handling.call import Call
from postroom.inbox.handling.execution import execute
from postroom.inbox.handling.handlers import Handler, Registry
from postroom.inbox.handling.inbox import Inbox
from postroom.inbox.handling.job import Job
from postroom.inbox.handling.outcome import Shared
from postroom.inbox.handling.sharing import Sharing
from postroom.store import clients
from postroom.store.server_watch import ServerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.client_session import ClientSession

    from postroom.inbox.handling.outcome import Outcome

__all__ = ["Bench"]


class Bench:
    """An inbox as a consumer has it, and jobs run in this thread."""

    def __init__(self, uri: str, database: str) -> None:
        watch = ServerWatch()
        self.client = clients.for_consumer(uri, name="postroom-inbox t", watch=watch)
        self.database = self.client[database]
        self.inbox = Inbox(self.database, subscription="s", keep=timedelta(days=30), watch=watch)
        self.inbox.prepare()
        self.database.create_collection("notes")

    def run(
        self,
        function: Callable[..., Any],
        number: int = 1,
        *,
        seconds: float = 60.0,
        attempt: int = 1,
        contends: bool = False,
        **options: Any,
    ) -> Outcome:
        """Run a handler on an event, and return what came of it."""
        return self.execute(
            _handler(function, **options),
            number,
            seconds=seconds,
            attempt=attempt,
            contends=contends,
        )

    def execute(
        self, handler: Handler, number: int, *, seconds: float, attempt: int, contends: bool = False
    ) -> Outcome:
        """Run a handler that is there."""
        job = _job(handler, _event(number), seconds=seconds, attempt=attempt, contends=contends)
        return execute(job, self.inbox, Settings())[0]

    def apply(self, handler: Handler, event: Event[Any]) -> Outcome:
        """Run a handler that is there on an event that is."""
        return execute(_job(handler, event), self.inbox, Settings())[0]

    def begin(self, function: Callable[..., Any], **options: Any) -> tuple[Call, threading.Thread]:
        """Run a handler on an event in a thread, and return its call."""
        job = _job(_handler(function, **options), _event(1))
        thread = threading.Thread(target=execute, args=(job, self.inbox, Settings()))
        thread.start()
        return job.call, thread

    def run_together(
        self,
        function: Callable[..., Any],
        count: int,
        *,
        before: Callable[[Job], object] = lambda _: None,
        **options: Any,
    ) -> tuple[Outcome, ...]:
        """Run a handler on a group of events, `before` each task, and return what came of each."""

        def task(member: Job) -> None:
            before(member)
            sharing.execute(members.index(member))

        handler = _handler(function, group=max(2, count), **options)
        events = [_event(number) for number in range(count)]
        job = _job(handler, events[0])._replace(events=tuple(events))
        members = tuple(job._replace(events=(event,)) for event in events)
        sharing = Sharing(job._replace(members=members), self.inbox, Settings())
        sharing.run([functools.partial(task, member) for member in members])
        assert isinstance(job.call.outcome, Shared)
        return job.call.outcome.outcomes

    def note(self, session: ClientSession, number: int = 1) -> None:
        """Write something with the handler's session."""
        self.database["notes"].insert_one({"n": number}, session=session)

    @property
    def notes(self) -> list[int]:
        """What was written."""
        return [row["n"] for row in self.database["notes"].find()]

    @property
    def remembered(self) -> int:
        """How many events the inbox remembers."""
        return self.database["__inboxMessages"].count_documents({})


def _handler(function: Callable[..., Any], **options: Any) -> Handler:
    found = Registry()
    handles("*", name="h", into=found, **options)(function)
    return found.handlers["h"]


def _event(number: int) -> Event[Any]:
    return Event(id=f"e{number}", name="A", data={"n": number}, topic="t")


def _job(
    handler: Handler,
    event: Event[Any],
    *,
    seconds: float = 60.0,
    attempt: int = 1,
    contends: bool = False,
) -> Job:
    call = Call(seconds)
    call.begin()
    return Job(
        handler=handler,
        events=(event,),
        attempt=attempt,
        task_id="t",
        topic="t",
        contends=contends,
        call=call,
    )
