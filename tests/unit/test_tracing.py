"""The W3C context of an event: read from whoever produced it, and linked where it is sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from postroom import tracing
from postroom.relay.saving.chunk import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def parent(number: int, flags: str = "01") -> str:
    """Return a traceparent."""
    return f"00-{TRACE}-{number:016x}-{flags}"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Have this process make traces, for as long as the test lasts."""
    exporter, made = InMemorySpanExporter(), TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = made
    yield exporter
    trace._TRACER_PROVIDER = before


@pytest.mark.parametrize(
    ("headers", "carried"),
    [
        ({}, {}),
        ({"traceparent": parent(1)}, {"traceparent": parent(1)}),
        (
            {"traceparent": parent(1), "tracestate": "a=b"},
            {"traceparent": parent(1), "tracestate": "a=b"},
        ),
        ({"messaging.trace_parent": parent(2)}, {"traceparent": parent(2)}),
        ({"tracestate": "a=b"}, {}),
        ({"traceparent": ""}, {}),
        ({"traceparent": "x" * 513}, {}),
        ({"traceparent": parent(1), "tracestate": "s" * 513}, {"traceparent": parent(1)}),
    ],
)
def test_the_context_of_any_producer_is_read(
    headers: dict[str, str], carried: dict[str, str]
) -> None:
    """Of ours, Java's and Go's, and of DotPulsar's; what is no context is none."""
    assert tracing.context_in(headers) == carried


@pytest.mark.parametrize("written", ["x", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01", "\n", "é"])
def test_what_is_no_context_begins_a_trace_of_its_own(
    spans: InMemorySpanExporter, written: str
) -> None:
    """An event of another producer may carry anything."""
    with tracing.processing([{"traceparent": written}], handler="h", attributes={}):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is None


def test_one_event_has_a_parent_and_several_have_links(spans: InMemorySpanExporter) -> None:
    """With the attributes of the conventions; a failed attempt names the class of its error."""
    attributes = {"messaging.destination.name": "t", "messaging.message.id": "e"}
    with tracing.processing(
        [{"traceparent": parent(1)}], handler="shop.bill", attributes=attributes
    ) as found:
        found.failed(ValueError("private"))
    with tracing.processing(
        [{"traceparent": parent(n)} for n in (1, 2)], handler="shop.bill", attributes={}
    ):
        pass
    one, several = spans.get_finished_spans()
    assert one.name == "process shop.bill"
    assert one.kind is trace.SpanKind.CONSUMER
    assert one.parent is not None
    assert one.parent.span_id == 1
    assert dict(one.attributes or {}) == {
        "messaging.system": "pulsar",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "t",
        "messaging.message.id": "e",
        "error.type": "ValueError",
    }
    assert "private" not in one.to_json()
    assert several.parent is None
    assert [link.context.span_id for link in several.links] == [1, 2]


def linked(spans: InMemorySpanExporter, *parents: str) -> Any:
    """Return the span of a chunk whose rows have these parents."""
    tracing.span_of_sent(
        parents, partition="p", topics=["t"], events=len(parents), began_ns=1, ended_ns=2
    )
    return spans.get_finished_spans()[-1]


def test_a_chunk_is_linked_to_what_is_sampled(spans: InMemorySpanExporter) -> None:
    """Once each; a context that nobody records is no link, and nor is one that is none."""
    span = linked(spans, parent(1), parent(2, "00"), parent(1), "nonsense", parent(3))
    assert [link.context.span_id for link in span.links] == [1, 3]
    assert (span.name, span.kind) == ("send t", trace.SpanKind.CLIENT)
    assert span.attributes["messaging.batch.message_count"] == 5
    assert span.attributes["messaging.destination.name"] == "t"


def test_unsampled_rows_take_no_links_place() -> None:
    """Of a hundred rows that nobody records and one that somebody does, that one is linked."""
    rows = [{"_id": n, "headers": {"traceparent": parent(n + 1, "00")}} for n in range(100)]
    rows += [{"_id": 200, "headers": {"traceparent": parent(200)}}, {"_id": 201, "headers": None}]
    chunk = Chunk(point=None, parents=[])
    chunk.add(rows)
    assert chunk.parents == [parent(200)]
