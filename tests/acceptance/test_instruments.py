"""What others hang on Celery and MongoDB sees handlers as it sees any task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from postroom import Outbox
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.site import Site, Worker

COMMAND = "celery -A tests.instrumented worker --loglevel=INFO -Q"


class Instruments:
    """A site with a worker that has instruments, and what they have written."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.path = site.folder / "instruments"
        self.variables = {
            "INSTRUMENTS": name,
            "INSTRUMENTS_FILE": str(self.path),
            "POSTROOM_MAX_ATTEMPTS": "2",
        }

    def start(self, queue: str, **variables: str) -> Worker:
        """Start a worker."""
        return self.site.start(f"{COMMAND} {queue}", **self.variables, **variables)

    def written(self, kind: str) -> list[dict[str, Any]]:
        """Return what was written of one kind so far."""
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if kind in line]

    def wait_for_signal(self, name: str) -> dict[str, Any]:
        """Wait until a signal was sent."""
        return self.wait_for("signal", lambda each: each["signal"] == name)

    def wait_for(self, kind: str, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something was written, and return it."""

        def there() -> dict[str, Any] | None:
            return next((line for line in self.written(kind) if found(line)), None)

        line = wait_until(there, description=f"a {kind}")
        assert line is not None
        return line


@pytest.fixture
def provider() -> Iterator[InMemorySpanExporter]:
    """Have this process make traces, for as long as the test lasts."""
    exporter = InMemorySpanExporter()
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = made
    yield exporter
    trace._TRACER_PROVIDER = before


def test_one_trace_from_the_caller_to_the_handlers_write(
    lite_site: Site, provider: InMemorySpanExporter
) -> None:
    """Through relay and broker, a retry and a dead letter too; a relay's own reads make no span."""
    found = Instruments(lite_site, "otel")
    relay = found.start("relay")
    relay.wait_for("Relaying partition")
    found.start("consumer").wait_for("Consuming")
    outbox = Outbox(lite_site.database)
    traces: dict[str, str] = {}
    created: dict[str, str] = {}
    for name in ("Written", "Flaky", "Poison"):
        provider.clear()
        with trace.get_tracer("caller").start_as_current_span("caller") as caller:
            outbox.publish({"name": name, "data": {}})
        traces[name] = f"0x{caller.get_span_context().trace_id:032x}"
        (create,) = [s for s in provider.get_finished_spans() if s.name == f"create {name}"]
        assert create.parent is not None
        assert create.parent.span_id == caller.get_span_context().span_id
        assert create.context is not None
        created[name] = f"0x{create.context.span_id:016x}"

    def of(name: str, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        line = found.wait_for(
            "span",
            lambda each: each["span"]["context"]["trace_id"] == traces[name] and what(each["span"]),
        )
        return dict(line["span"])

    process = of("Written", lambda span: span["name"].startswith("process "))
    assert process["parent_id"] == created["Written"]
    assert process["attributes"]["messaging.system"] == "pulsar"
    assert process["attributes"]["messaging.destination.subscription.name"] == "test"
    write = of(
        "Written",
        lambda span: (
            span["attributes"].get("db.operation.name") == "insert"
            or span["name"].endswith(".insert")
            or "seen" in span["name"]
        ),
    )
    assert write["context"]["trace_id"] == traces["Written"]
    celery = of("Written", lambda span: span["name"].startswith("run/"))
    assert celery["parent_id"] == created["Written"]

    def is_attempt(number: int) -> Callable[[dict[str, Any]], bool]:
        return lambda span: span["attributes"].get("postroom.attempt") == number

    attempts = [of("Flaky", is_attempt(number)) for number in (1, 2)]
    assert [each["status"]["status_code"] for each in attempts] == ["ERROR", "UNSET"]
    assert {each["parent_id"] for each in attempts} == {created["Flaky"]}
    given_up = of("Poison", lambda span: span["name"].startswith("process "))
    assert given_up["attributes"]["error.type"] == "Reject"
    letters = lite_site.subscribe(topic=f"{lite_site.topic}-test-DLQ")
    (letter,) = lite_site.receive(letters, 1)
    assert traces["Poison"][2:] in letter.properties()["traceparent"]
    sent = [
        each["span"] for each in found.written("span") if each["span"]["name"].startswith("send ")
    ]
    linked = {link["context"]["span_id"] for span in sent for link in span["links"]}
    assert linked == set(created.values())
    names = {each["span"]["name"] for each in found.written("span")}
    assert not [name for name in names if "getMore" in name or "aggregate" in name]


def test_without_an_sdk_nothing_is_stored(lite_site: Site) -> None:
    """A row has the four fields that it has always had."""
    Outbox(lite_site.database).publish({"name": "Counted", "data": {}})
    assert "headers" not in (lite_site.outbox.find_one() or {})


def test_celerys_signals_fire_with_what_others_expect(lite_site: Site) -> None:
    """Received, prerun, success, retry, failure and postrun, each with its usual arguments."""
    found = Instruments(lite_site, "signals")
    worker = found.start("consumer", OWN_TASK="1")
    worker.wait_for("Consuming")
    producer = lite_site.pulsar.create_producer(lite_site.topic)
    for name in ("Written", "Flaky", "Poison"):
        producer.send(json.dumps({"name": name, "data": {}}).encode(), properties={"id": name})
    expected = {
        "task_received": {"sender", "request"},
        "task_prerun": {"sender", "task_id", "task", "args", "kwargs"},
        "task_postrun": {"sender", "task_id", "task", "args", "kwargs", "retval", "state"},
        "task_success": {"sender", "result"},
        "task_retry": {"sender", "request", "reason", "einfo"},
        "task_failure": {
            *("sender", "task_id", "exception", "args", "kwargs", "traceback", "einfo"),
        },
    }
    for name, arguments in expected.items():
        line = found.wait_for_signal(name)
        assert arguments <= line.keys(), name
    states = {each["state"] for each in found.written("signal") if each["signal"] == "task_postrun"}
    wait_until(lambda: "OwnTask failed" in worker.text(), description="hooks of task_cls")
    assert {"str: SUCCESS"} <= states
    began = [each["signal"] for each in found.written("signal")]
    assert began.count("worker_process_init") == 1
    assert "OwnTask ran" in worker.text()


def test_sentry_sees_a_handler_that_fails(lite_site: Site) -> None:
    """Its Celery integration reports the error once, under the task's name, and no payload."""
    found = Instruments(lite_site, "sentry")
    found.start("consumer").wait_for("Consuming")
    producer = lite_site.pulsar.create_producer(lite_site.topic)
    payload = {"name": "Poison", "data": {"secret": "s3cret"}}
    producer.send(json.dumps(payload).encode(), properties={"id": "1"})
    error = found.wait_for("sentry", lambda each: "exception" in each["sentry"])
    assert error["sentry"]["transaction"].endswith("poison")
    assert "s3cret" not in json.dumps(found.written("sentry"))


def test_each_event_of_a_group_is_seen_as_a_task_of_its_own(lite_site: Site) -> None:
    """Its signals, its spans in its own trace, its error; though all share one transaction."""
    found = Instruments(lite_site, "signals otel sentry")
    found.start("consumer", POSTROOM_CONCURRENCY="1").wait_for("Consuming")
    producer = lite_site.pulsar.create_producer(lite_site.topic)

    def send(number: int, **data: bool) -> None:
        payload = json.dumps({"name": "Together", "data": data}).encode()
        parent = {"traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01"}
        producer.send(payload, properties={"id": f"e{number}", **parent})

    for number in (0, 1):
        send(number, blocks=True)
    for number in range(2, 8):
        send(number, fails=number == 5)
    seen = lite_site.database["seen"]
    wait_until(lambda: seen.count_documents({}) == 7, description="all but one are handled")
    assert all(row["task"] == row["event"] for row in seen.find())
    ended = {f"str: e{number}": "SUCCESS" for number in range(8)} | {"str: e5": "FAILURE"}

    def states() -> dict[str, list[str]]:
        told: dict[str, list[str]] = {}
        for each in found.written("signal"):
            if each["signal"] == "task_postrun":
                told.setdefault(each["task_id"], []).append(each["state"].removeprefix("str: "))
        return told

    wait_until(
        lambda: {task: each[-1] for task, each in states().items()} == ended,
        description="each task's last state",
    )
    assert sum(state == "FAILURE" for each in states().values() for state in each) == 1
    begun = [each for each in found.written("signal") if each["signal"] == "task_prerun"]
    assert len(begun) == sum(map(len, states().values()))
    spans = [each["span"] for each in found.written("span")]
    for number in range(8):
        own = [s for s in spans if s["context"]["trace_id"] == f"0x{number + 1:032x}"]
        names = " ".join(span["name"] for span in own)
        assert "run/instrumented.together" in names
        assert "process " in names
        written = [s for s in own if "seen" in s["name"] or s["name"].endswith(".insert")]
        assert written, names
    errors = [e["sentry"] for e in found.written("sentry") if "exception" in e["sentry"]]
    assert [each["transaction"] for each in errors] == ["instrumented.together"]
    assert errors[0]["contexts"]["trace"]["op"].startswith("queue.task")
