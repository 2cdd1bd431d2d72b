"""Adapter: all that postroom takes from inside Celery, in one place.

Celery promises none of it. `tests/unit/test_celery_adapter.py` names each piece and the form in
which it is used, so that a new Celery which has changed one fails there. Other modules of this room
know its documented side alone: tasks, signals, steps.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing.util
import time
import warnings
from dataclasses import dataclass, field
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from celery import Task
from celery.app import trace
from celery.concurrency.base import apply_target
from celery.events import Event
from celery.exceptions import CPendingDeprecationWarning, TaskRevokedError
from celery.utils.imports import symbol_by_name
from celery.utils.nodenames import default_nodename, nodename, nodesplit
from celery.worker import state
from celery.worker.request import Request
from click.core import ParameterSource
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel
from kombu.utils.compat import detect_environment
from redis.exceptions import RedisError

from postroom import failures
from postroom.doubling import Doubling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

__all__ = [
    "OF_THE_BROKER",
    "POOL",
    "EventRequest",
    "Requests",
    "TaskRevokedError",
    "ask_to_end",
    "calls_tasks_itself",
    "carried",
    "event",
    "exit_code",
    "forget",
    "forget_channels",
    "given_options",
    "into_threads",
    "is_revoked",
    "is_unnamed",
    "listen_to_brokers_talk",
    "named",
    "outlive_broker",
    "patched_by",
    "pool_name",
    "queues",
    "reserve",
    "trace_in",
]

# The step of the worker behind which ours start.
POOL = "celery.worker.components:Pool"
# What Redis, the way to it, or Celery's library for it raises.
OF_THE_BROKER = (RedisError, OperationalError, OSError)
TALKERS = (
    "celery.bootsteps",
    "celery.worker.consumer.connection",
    "celery.worker.consumer.consumer",
    "celery.worker.loops",
    "celery.worker.pidbox",
    "kombu.asynchronous.hub",
    "kombu.transport.redis",
)
# The field of a request in which what it stands for travels to the task.
CARGO = "postroom_cargo"


@dataclass(frozen=True, slots=True)
class _Sealed:
    """What a request carries. Its repr says nothing: receivers of signals may log a request."""

    cargo: Any = field(repr=False)


class EventRequest(Request):
    """A request that stands for an event, which Redis has nothing to do with."""

    # What Celery gives out after a reconnection may block: it keeps the one that it has.
    eventer = property(lambda self: self._eventer, lambda _self, _eventer: None)

    def on_retry(self, exc_info: Any) -> None:
        """Tell of it, and let go of where it was raised, which holds it in turn."""
        super().on_retry(exc_info)
        failures.let_go(exc_info.exception.exc, exc_info.exception.exc.exc)

    def on_failure(self, exc_info: Any, **options: Any) -> None:
        """Do the same: with it goes billiard's copy of Celery's frames, a quarter of a MiB."""
        super().on_failure(exc_info, **options)
        failures.let_go(exc_info.exception)

    def mute(self) -> None:
        """Tell of it no more: it was abandoned."""
        self._eventer = None

    def cancel(self, *_args: Any, **_options: Any) -> None:
        """Do nothing where Redis goes away; a thread cannot be ended, and what waits is revoked."""

    terminate = cancel


class Requests:
    """Makes the requests that Celery would have made of messages for one task."""

    def __init__(self, task: Task, *, hostname: str, eventer: Any) -> None:
        own = {"app": task.app, "task": task, "hostname": hostname, "eventer": eventer}
        self._make = functools.partial(EventRequest, **own, decoded=True)
        self._fixed = {"task": task.name, "argsrepr": "()", "origin": "postroom"}

    def make(
        self,
        *,
        task_id: str,
        retries: int,
        shown: dict[str, Any],
        kwargsrepr: str,
        routing_key: str,
        cargo: object,
        carried: Mapping[str, str],
    ) -> EventRequest:
        """Make one; the task finds `cargo` in it."""
        headers = {
            **carried,
            **self._fixed,
            "id": task_id,
            "retries": retries,
            "kwargsrepr": kwargsrepr,
            CARGO: _Sealed(cargo),
            "ignore_result": True,
            # Otherwise Celery finds out which of all these are none of its own, for each task.
            "headers": dict(carried),
        }
        body: tuple[Any, ...] = ((), shown, {})
        message = SimpleNamespace(
            headers=headers,
            body=body,
            payload=body,
            delivery_info={"exchange": "pulsar", "routing_key": routing_key},
            properties={},
            content_type=None,
            content_encoding=None,
        )
        return self._make(message, body=body, headers=headers)


def carried(task_request: Any) -> Any:
    """Return the cargo of the request that a task runs for, or None where it has none."""
    sealed: _Sealed | None = getattr(task_request, CARGO, None)
    return None if sealed is None else sealed.cargo


def reserve(taken: EventRequest) -> Callable[[], object]:
    """Enter a request into Celery's books; return the call that runs its task, in any thread.

    Raises:
        TaskRevokedError: the task was revoked.

    """
    state.task_reserved(taken)
    pool = _Pool()
    taken.execute_using_pool(pool)
    return pool.call


class _Pool:
    """What a request takes for Celery's pool: it keeps the call that it is to make."""

    call: Callable[[], object]

    def apply_async(
        self, target: Any, *, args: Any, callback: Any, accept_callback: Any, **_options: Any
    ) -> None:
        self.call = functools.partial(apply_target, target, args, None, callback, accept_callback)


def forget(over: EventRequest) -> None:
    """Take a request out of Celery's books, which keep what it fails around, and what never ran."""
    state.reserved_requests.discard(over)
    state.active_requests.discard(over)
    if state.requests.get(over.id) is over:
        del state.requests[over.id]


def is_revoked(task_id: str) -> bool:
    """Say whether somebody has revoked a task."""
    return task_id in state.revoked


def trace_in(app: Celery, task: Task, hostname: str) -> None:
    """Prepare a task that was registered after the worker has prepared all it knew."""
    task.__trace__ = trace.build_tracer(task.name, task, app.loader, hostname, app=app)


def calls_tasks_itself() -> bool:
    """Say whether no agent has put itself before Celery's own call of a task, nor within it."""
    calls = Task.__call__, trace._patched.get("BaseTask.__call__", Task.__call__)  # noqa: SLF001
    # Not by __module__, which a wrapper takes from what it wraps.
    names = [type(each) is FunctionType and each.__globals__["__name__"] for each in calls]
    return {Task.__module__, trace.__name__}.issuperset(names)


def event(app: Celery, kind: str, hostname: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Make a task event as Celery's dispatcher does, with the time and clock of now."""
    made: dict[str, Any] = Event(kind, hostname=hostname, clock=app.clock.forward(), **fields)
    return made


def ask_to_end(code: int) -> None:
    """Have the worker stop as on TERM at its event loop's next turn, with an exit code."""
    state.should_stop = code


def exit_code() -> int:
    """Return the code with which the worker was asked to end; 0 where it was not."""
    return int(state.should_stop or 0)


def queues(app: Celery) -> set[str]:
    """Name the queues that this worker reads; right from worker_init on."""
    return set(app.amqp.queues.consume_from)


def given_options(worker: Any) -> dict[str, Any]:
    """Return the options that somebody gave to `celery worker`, less what Celery fills in itself.

    A worker that another program makes has none but what stands for a part of its own.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return {name: worker.options.get(name) for name in ("autoscale", "beat")}
    given = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    known, source = context.params, context.get_parameter_source
    return {name: value for name, value in known.items() if source(name) in given}


def pool_name(pool: Any) -> str:
    """Name a pool as -P does, be it given by its class or by its name."""
    name = str(getattr(pool, "__module__", pool or "")).rpartition(".")[2]
    return {"thread": "threads", "processes": "prefork"}.get(name, name)


def patched_by() -> str:
    """Name what has replaced this process' threads by its own, or nothing."""
    return str(detect_environment()).replace("default", "")  # type: ignore[no-untyped-call]


def is_unnamed(hostname: str) -> bool:
    """Say whether a worker has the node name that all get which were given none."""
    return bool(hostname == default_nodename(None))


def named(hostname: str, name: str) -> str:
    """Return the node name with another name before its host."""
    return str(nodename(name, nodesplit(hostname)[1]))


def into_threads(worker: Any, *, hostname: str, concurrency: int | str) -> None:
    """Give a worker that is in worker_init threads for its pool; nothing is built before that."""
    worker.hostname = hostname
    worker.pool_cls = "threads"
    worker.concurrency = concurrency
    worker.prefetch_multiplier = 1
    worker.options = {**worker.options, "without_gossip": True, "without_mingle": True}


class _Patient:
    """What a worker's consumer, the part that talks to the broker, is made of to outlive it.

    Celery's own lets the worker end for whatever its transport does not call a connection error: a
    Redis that is a replica, lacks memory or replicas, or cannot write its disk.
    """

    passing: tuple[type[Exception], ...] = ()
    on_news: Callable[[], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._pauses = Doubling(first=1.0, longest=8.0)
        super().__init__(*args, **kwargs)
        self.connection_errors: tuple[type[Exception], ...]
        self.connection_errors = (*self.connection_errors, *self.passing)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)  # type: ignore[misc]
        self._pause()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        with warnings.catch_warnings():
            # Of what Celery 6 will do after an outage: nothing that anybody could mend in one.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)  # type: ignore[misc]
        self._pause()

    def on_ready(self) -> None:
        super().on_ready()  # type: ignore[misc]
        self._pauses.reset()
        if self.on_news is not None:
            self.on_news()

    def _pause(self) -> None:
        # Such a Redis takes a connection and refuses at the first word: a loop without a pause.
        end = time.monotonic() + self._pauses.take()
        while time.monotonic() < end:
            state.maybe_shutdown()
            time.sleep(0.1)


def outlive_broker(
    worker: Any, *, passing: tuple[type[Exception], ...], on_ready: Callable[[], None] | None = None
) -> None:
    """Have a worker that is in worker_init go on after any of these errors of its broker's.

    `on_ready` is called each time that it is connected again and reads from its queues.
    """
    kind = symbol_by_name(worker.consumer_cls)
    own = {"passing": passing, "on_news": staticmethod(on_ready) if on_ready else None}
    worker.consumer_cls = type(kind.__name__, (_Patient, kind), own)


def listen_to_brokers_talk(listener: logging.Filter) -> None:
    """Have a filter see each record in which Celery tells of its broker."""
    for name in TALKERS:
        logging.getLogger(name).addFilter(listener)


def forget_channels() -> None:
    """In a forked process, let go of the connections to the broker without touching a lock."""
    # Left to itself the child would wait for one that a thread of its parent's held at the fork.
    for channel in list(multiprocessing.util._afterfork_registry.values()):  # type: ignore[attr-defined]  # noqa: SLF001
        if isinstance(channel, Channel):
            channel._pool = channel._async_pool = None  # noqa: SLF001 - what its _after_fork closes
            channel._sentinel_manager = channel._async_sentinel_manager = None  # noqa: SLF001
