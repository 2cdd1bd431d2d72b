"""Tracing: the W3C context of an event, from the caller to the handler. Needs postroom[otel].

By OpenTelemetry's API alone: the application brings the SDK, and without one nothing is made and
nothing is stored. Attributes are those of OpenTelemetry's conventions for messaging, which are
still in development. Errors are named by their class alone, since their texts may be private.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

try:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError:  # the extra is not installed
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "MOST_LINKS",
    "PARENT",
    "Processing",
    "context_in",
    "creating",
    "is_on",
    "is_sampled",
    "processing",
    "silently",
    "span_of_sent",
]

Given = ParamSpec("Given")
Result = TypeVar("Result")

NAME = "postroom"
NOTHING: Mapping[str, str] = {}
# More say no more of a chunk than these do.
MOST_LINKS = 64
LONGEST = 512
# How instrumentations of libraries are told to be silent; the key is OpenTelemetry's.
SUPPRESSED = "suppress_instrumentation"
SYSTEM = "messaging.system"
OPERATION, KIND = "messaging.operation.name", "messaging.operation.type"
# Java's and Go's producers write the first ones, DotPulsar the last.
PARENT, STATE, DOTPULSAR_PARENT = "traceparent", "tracestate", "messaging.trace_parent"


def is_on() -> bool:
    """Say whether the application has set an SDK up; asked once an event or a chunk."""
    return IS_INSTALLED and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextlib.contextmanager
def creating(name: str, event_id: str) -> Iterator[Mapping[str, str]]:
    """Make the span in which an event is made into a row; give the headers that carry it on.

    Where is_on() alone.
    """
    attributes = {
        SYSTEM: "pulsar",
        OPERATION: "create",
        KIND: "create",
        "messaging.message.id": event_id,
    }
    span = _tracer().start_as_current_span(
        f"create {name[:LONGEST]}", kind=trace.SpanKind.PRODUCER, attributes=attributes
    )
    with span:
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        yield carrier


def context_in(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the W3C headers among an event's, whoever produced it, or nothing."""
    parent = headers.get(PARENT) or headers.get(DOTPULSAR_PARENT)
    if parent is None or not _is_short(parent):
        return NOTHING
    state = headers.get(STATE)
    return {PARENT: str(parent), **({STATE: str(state)} if _is_short(state) else {})}


def is_sampled(parent: str) -> bool:
    """Say whether what a traceparent names is recorded: the last bit of its flags."""
    flags = parent.rpartition("-")[2]
    return len(flags) == 2 and flags[-1] in "13579bdf"


def _is_short(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST


def span_of_sent(
    parents: Sequence[str],
    *,
    partition: str,
    topics: Sequence[str],
    events: int,
    began_ns: int,
    ended_ns: int,
) -> None:
    """Make the span of a chunk that is stored, with links to the sampled spans of its events.

    `parents` are the traceparents of some of them.
    """
    links = [
        trace.Link(found)
        for parent in dict.fromkeys(parents)
        if is_sampled(parent) and (found := _span_context({PARENT: parent})) is not None
    ]
    attributes: dict[str, Any] = {
        SYSTEM: "pulsar",
        OPERATION: "send",
        KIND: "send",
        "messaging.batch.message_count": events,
        "postroom.outbox_partition": partition,
    }
    if len(topics) == 1:
        attributes["messaging.destination.name"] = topics[0]
    _tracer().start_span(
        f"send {topics[0] if len(topics) == 1 else partition}",
        kind=trace.SpanKind.CLIENT,
        attributes=attributes,
        links=links,
        start_time=began_ns,
        # A trace of its own: a chunk has events of many.
        context=context.Context(),
    ).end(ended_ns)


class Processing:
    """The span of one attempt; failed() says what it came to."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def failed(self, error: BaseException) -> None:
        """Note by what class of error the attempt failed."""
        self._span.set_attribute("error.type", type(error).__qualname__)
        self._span.set_status(trace.StatusCode.ERROR)


@contextlib.contextmanager
def processing(
    headers: Sequence[Mapping[str, str]], *, handler: str, attributes: Mapping[str, Any]
) -> Iterator[Processing]:
    """Make the span of one attempt of a handler: the child of what created its event.

    Of several events it has links to those. `headers` are one mapping an event. Where is_on()
    alone.
    """
    several = len(headers) > 1
    linked = headers[:MOST_LINKS] if several else ()
    links = [
        trace.Link(found)
        for each in linked
        if (found := _span_context(context_in(each))) is not None
    ]
    parent = None
    if not several and (carried := context_in(headers[0])):
        parent = TraceContextTextMapPropagator().extract(carried, context.get_current())
    with _tracer().start_as_current_span(
        f"process {handler}",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes={SYSTEM: "pulsar", OPERATION: "process", KIND: "process", **attributes},
        links=links,
        record_exception=False,
    ) as span:
        yield Processing(span)


def silently(run: Callable[Given, Result]) -> Callable[Given, Result]:
    """Have what is called in a thread make no spans by itself, as of every getMore of a stream."""
    if not IS_INSTALLED:
        return run

    @functools.wraps(run)
    def silent(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        token = context.attach(context.set_value(SUPPRESSED, value=True))
        try:
            return run(*args, **kwargs)
        finally:
            context.detach(token)

    return silent


def _tracer() -> Any:
    return trace.get_tracer(NAME)


def _span_context(carried: Mapping[str, str]) -> Any:
    extracted = TraceContextTextMapPropagator().extract(carried, context.Context())
    found = trace.get_current_span(extracted).get_span_context()
    return found if found.is_valid else None
