"""The adapter: a Celery that has changed what postroom leans on fails here, by name."""

from __future__ import annotations

import ast
import inspect
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, current_app
from celery.app import trace
from celery.app.routes import Router
from celery.concurrency.base import apply_target
from celery.events import Event
from celery.utils import nodenames
from celery.worker import state
from celery.worker.request import Request
from celery.worker.worker import WorkController
from kombu.messaging import Producer
from kombu.serialization import loads

from postroom.celery import adapter
from postroom.celery.task_events import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = Path(adapter.__file__).parent
# Celery's documented side: any module of the room may know it.
DOCUMENTED = {"celery", "celery.exceptions", "celery.bootsteps", "celery.signals"}

USED: list[tuple[str, Any, set[str]]] = [
    ("celery.app.trace.build_tracer", trace.build_tracer, {"name", "task", "loader", "app"}),
    (
        "celery.concurrency.base.apply_target",
        apply_target,
        {"target", "args", "kwargs", "callback", "accept_callback"},
    ),
    ("celery.events.Event", Event, {"type", "fields"}),
    ("nodenames.default_nodename", nodenames.default_nodename, {"hostname"}),
    ("nodenames.nodename", nodenames.nodename, {"name", "hostname"}),
    ("nodenames.nodesplit", nodenames.nodesplit, {"name"}),
    ("state.task_reserved", state.task_reserved, {"request"}),
    (
        "Request",
        Request.__init__,
        {"message", "app", "hostname", "eventer", "task", "body", "headers", "decoded"},
    ),
    ("Request.execute_using_pool", Request.execute_using_pool, {"pool"}),
    ("Router.lookup_route", Router.lookup_route, {"name", "args", "kwargs", "options"}),
    ("Request.cancel", Request.cancel, {"pool"}),
    ("Request.terminate", Request.terminate, {"pool"}),
    ("WorkController.setup_instance", WorkController.setup_instance, {"queues"}),
]


@pytest.mark.parametrize(("name", "used", "parameters"), USED, ids=[u[0] for u in USED])
def test_what_is_called_takes_what_it_is_given(name: str, used: Any, parameters: set[str]) -> None:
    """Each function still has the parameters that the adapter uses."""
    assert parameters <= set(inspect.signature(used).parameters), name


@pytest.mark.parametrize(
    "name", ["requests", "reserved_requests", "active_requests", "revoked", "should_stop"]
)
def test_a_workers_books_are_where_they_were(name: str) -> None:
    """celery.worker.state still has each of them."""
    assert hasattr(state, name)


def test_the_pool_step_is_where_it_was() -> None:
    """Our steps start behind it."""
    assert adapter.POOL in WorkController.Blueprint.default_steps


@pytest.mark.parametrize("serializer", ["json", "yaml"])
@pytest.mark.parametrize("value", ["7", "ä\u2028", "\ud800", 2**70], ids=ascii)
def test_publish_sends_what_the_dispatchers_own_flush_sends(serializer: str, value: Any) -> None:
    """The same events leave with the same words, and are read as the same, whatever they are."""
    sent: list[Any] = []

    class Recorded(Producer):
        def publish(self, body: Any, **words: Any) -> None:  # type: ignore[override]
            form = ("serializer", "content_type", "content_encoding")
            given = {name: words.pop(name, None) for name in form}
            sent.append((self._prepare(body, **given), words))  # type: ignore[no-untyped-call]

    app = Celery("contract", set_as_current=False)
    app.conf.event_serializer = serializer
    dispatcher = app.events.Dispatcher(None, hostname="here", enabled=False)
    dispatcher.producer = Recorded.__new__(Recorded)
    made = adapter.event(app, "task-received", "here", {"uuid": value})
    assert (made["type"], made["hostname"], made["uuid"]) == ("task-received", "here", value)
    dispatcher._group_buffer["task"] = [made]
    dispatcher.flush()
    publish(dispatcher, [made])
    [(by_flush, words), (by_us, own)] = sent
    assert {"retry_policy": None, **own} == words
    assert _read(by_us) == _read(by_flush) == [made]


def _read(prepared: tuple[Any, str, str]) -> Any:
    body, kind, encoding = prepared
    assert encoding == "utf-8"
    return loads(body, kind, encoding, accept={kind})  # type: ignore[no-untyped-call]


@pytest.fixture
def app() -> Iterator[Celery]:
    """Lend an application that is the current one."""
    before = current_app._get_current_object()
    yield Celery("contract", set_as_current=True)
    before.set_current()


def test_a_request_runs_and_is_forgotten(app: Celery) -> None:
    """A request made here runs its task where it is told to, with its cargo."""
    app.conf.task_ignore_result = True
    seen: list[Any] = []

    class Kind(Task):  # type: ignore[misc]  # celery has no types
        name = "contract.task"
        typing = False
        acks_late = True

        def run(self, **shown: Any) -> None:
            cargo, headers = adapter.carried(self.request), self.request.headers
            seen.append((self.request.id, cargo, headers, shown, repr(self.request)))

    task = app.register_task(Kind())
    adapter.trace_in(app, task, "here")
    made = adapter.Requests(task, hostname="here", eventer=None).make(
        task_id="7",
        retries=0,
        shown={"event": "E"},
        kwargsrepr="{}",
        routing_key="topic",
        cargo="private",
        carried={"traceparent": "00-1"},
    )
    call = adapter.reserve(made)
    assert state.requests["7"] is made
    call()
    adapter.forget(made)
    [(task_id, cargo, headers, shown, as_text)] = seen
    assert (task_id, cargo, shown) == ("7", "private", {"event": "E"})
    assert headers == {"traceparent": "00-1"}
    assert "private" not in as_text
    assert "7" not in state.requests
    assert made not in state.reserved_requests
    assert made not in state.active_requests


def test_an_abandoned_request_is_heard_of_no_more() -> None:
    """Should its thread come back, Flower keeps what it was told of the next attempt."""
    app = Celery("unit", set_as_current=False)

    @app.task(name="unit.muted")  # type: ignore[untyped-decorator]  # celery has no types
    def muted() -> None:
        """Do nothing."""

    sent: list[str] = []
    eventer = SimpleNamespace(enabled=True, send=lambda kind, **_: sent.append(kind))
    made = adapter.Requests(muted, hostname="here", eventer=eventer).make(
        task_id="8",
        retries=0,
        shown={},
        kwargsrepr="{}",
        routing_key="topic",
        cargo=None,
        carried={},
    )
    made.send_event("task-failed")
    made.mute()
    made.send_event("task-retried")
    assert sent == ["task-failed"]


def test_no_other_module_leans_on_celerys_inside() -> None:
    """Whatever is not documented is imported by the adapter alone."""
    found = {
        (path.name, module)
        for path in ROOM.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _imported(node)
        if module.partition(".")[0] in {"celery", "kombu"}
    }
    assert {name for name, module in found if module not in DOCUMENTED} <= {"adapter.py"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    return []


def test_celerys_formatter_can_be_told_not_to_colour() -> None:
    """Its texts are made safe first, and coloured then, by the same colours."""
    from celery.utils.log import ColorFormatter

    formatter = ColorFormatter("%(message)s", use_color=True)
    record = logging.makeLogRecord({"msg": "m", "levelname": "ERROR"})
    coloured = str(formatter.colors["ERROR"]("m"))
    assert formatter.format(record) == coloured != "m"
    formatter.use_color = False
    assert formatter.format(record) == "m"
