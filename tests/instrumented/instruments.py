"""The instruments, and the file that they write to."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from celery import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["hang_on"]

SIGNALS = (
    *("task_received", "task_prerun", "task_postrun", "task_success", "task_failure"),
    *("task_retry", "task_internal_error", "worker_process_init", "worker_init", "worker_ready"),
)


def hang_on(names: Sequence[str], path: Path) -> None:
    """Hang the named instruments on."""
    lock = threading.Lock()

    def tell(what: dict[str, Any]) -> None:
        with lock, path.open("a") as file:
            file.write(json.dumps(what, default=str) + "\n")

    for name in names:
        ON[name](tell)


def _signals(tell: Callable[[dict[str, Any]], None]) -> None:
    for name in SIGNALS:

        def told(_name: str = name, **given: Any) -> None:
            given.pop("signal", None)
            shown = {key: _shown(value) for key, value in given.items()}
            tell({"signal": _name, "thread": threading.current_thread().name, **shown})

        getattr(signals, name).connect(told, weak=False)


def _shown(value: Any) -> str:
    return f"{type(value).__name__}: {getattr(value, 'name', '') or value}"[:300]


def _otel(tell: Callable[[dict[str, Any]], None]) -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            for span in spans:
                tell({"span": json.loads(span.to_json())})
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Exporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    PymongoInstrumentor().instrument()


def _sentry(tell: Callable[[dict[str, Any]], None]) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.transport import Transport

    class Written(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            event = envelope.get_event() or envelope.get_transaction_event()
            if event is not None:
                tell({"sentry": event})

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Written,
        integrations=[CeleryIntegration()],
        traces_sample_rate=1.0,
        # Frames hold the event.
        include_local_variables=False,
    )


ON = {"signals": _signals, "otel": _otel, "sentry": _sentry}
