"""install(): what it is given is right, or refused by name before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals

from postroom import ConfigurationError, Settings
from postroom.celery import install
from postroom.celery.consumer_step import require_free_names
from postroom.celery.queues import Queue
from postroom.celery.runner import register
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.registration import handles
from postroom.store import letter
from postroom.topics import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC = "public/default/events"


def route(name: str, data: dict[str, Any]) -> str:
    """Route everything to one topic."""
    return TOPIC


@pytest.fixture
def app() -> Iterator[Celery]:
    """Lend an application; what install() connected is gone afterwards."""
    yield Celery("installed", set_as_current=False)
    for signal in (signals.worker_init, signals.worker_ready, signals.worker_shutting_down):
        signal.receivers = []


@pytest.mark.parametrize(
    "arguments",
    [
        {"topics": {"Order*": "shop/prod/orders"}},
        {"topics": {"Order*": "persistent://shop/prod/orders-partition-0"}},
        {"topics": route},
        {"key": "patientId"},
        {"key": lambda _name, data: data["a"]},
        {"shared": ["shop/prod/orders", "persistent://shop/prod/*"]},
        {"consume": {"billing": ["shop/prod/orders"], "audit": ("re:shop/prod/.*",)}},
        {"consume": {"billing": ["re:persistent://shop/prod/orders-[0-9]+"]}},
        {"relay_queue": "outbox", "consumer_queue": "inbox"},
    ],
)
def test_what_makes_sense_is_taken(app: Celery, arguments: dict[str, Any]) -> None:
    """Mappings, functions, lists and patterns as documented."""
    assert install(app, Settings(), **arguments) is app.postroom


@pytest.mark.parametrize("is_on", [True, False])
def test_a_replay_makes_of_a_row_what_the_relay_makes_of_it(app: Celery, *, is_on: bool) -> None:
    """With the attributes of CloudEvents where they are wanted, under the same topic and key."""
    settings = Settings(topic=TOPIC, cloudevents=is_on)
    installed = install(app, settings, key="n", topics={"B": f"{TOPIC}-b"})
    row = {"_id": "1", "occurredAt": None, "data": {"name": "B", "data": {"n": "k"}}}
    relayed, replayed = (
        letter.write(row, routing, 1 << 20)
        for routing in (installed.routing, installed.wiring.routing)
    )
    assert replayed == relayed
    assert replayed.key == "k"
    assert replayed.topic.endswith("-b")
    assert ("ce_id" in replayed.headers) is is_on


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"topics": {"Order*": "orders"}}, "topics['Order*'] is given 'orders'"),
        ({"topics": {"Order*": "re:shop/prod/.*"}}, "topics['Order*']"),
        ({"topics": {"Order*": None}}, "topics['Order*'] is given None"),
        ({"topics": {"Order*": "non-persistent://shop/prod/x"}}, "topics['Order*']"),
        ({"topics": {"": TOPIC}}, "topics has ''"),
        ({"topics": {7: TOPIC}}, "topics has 7"),
        ({"topics": TOPIC}, "topics takes a mapping or a function"),
        ({"topics": [TOPIC]}, "topics takes a mapping or a function"),
        ({"topics": lambda: TOPIC}, "topics takes a function of an event's name and data"),
        ({"key": ""}, "key takes the name of a field or a function"),
        ({"key": 7}, "key takes"),
        ({"key": lambda name: name}, "key takes a function"),
        ({"shared": TOPIC}, "shared takes a list of topics"),
        ({"shared": ["orders"]}, "shared is given 'orders'"),
        ({"shared": ["*"]}, "shared has the pattern '*'"),
        ({"consume": {"billing": "shop/prod/orders"}}, "consume['billing'] takes a list of topics"),
        ({"consume": {"billing": b"shop/prod/orders"}}, "consume['billing'] takes a list"),
        ({"consume": {"billing": {"a": 1}}}, "consume['billing'] takes a list"),
        ({"consume": {"billing": None}}, "consume['billing'] takes a list"),
        ({"consume": {"billing": []}}, "the subscription 'billing' (), and"),
        ({"consume": {}}, "consume names no subscription"),
        ({"consume": ["billing"]}, "consume takes a mapping"),
        ({"consume": "billing"}, "consume takes a mapping"),
        ({"consume": {"billing": ["events"]}}, "names 'events' for the subscription 'billing'"),
        ({"consume": {"billing": ["default/events"]}}, "names 'default/events'"),
        ({"consume": {"billing": ["a/b/c", 7]}}, "names 7 for"),
        ({"consume": {"billing": ["re:.*"]}}, "'re:.*' is not of the form"),
        ({"consume": {"billing": ["re:shop/.*/x"]}}, "re:tenant/namespace/expression"),
        ({"consume": {"billing": ["re:shop/prod/"]}}, "re:tenant/namespace/expression"),
        ({"consume": {"billing": ["re:shop/prod/(x"]}}, "is no regular expression"),
        ({"consume": {"": [TOPIC]}}, "consume has ''"),
        ({"consume": {"a/b": [TOPIC]}}, "consume has 'a/b'"),
        ({"consume": {"a,b": [TOPIC]}}, "consume has 'a,b'"),
        ({"consume": {7: [TOPIC]}}, "consume has 7"),
        ({"relay_queue": ""}, "'' is no name of a queue"),
        ({"relay_queue": "a,b"}, "'a,b' is no name of a queue"),
        ({"relay_queue": "consumer"}, "cannot both have the queue 'consumer'"),
        ({"settings": {"topic": TOPIC}}, "takes postroom.Settings as settings, not dict"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    app: Celery, arguments: dict[str, Any], named: str
) -> None:
    """One sentence with the argument and its value; nothing is installed."""
    with pytest.raises(SystemExit) as refused:
        install(app, **{"settings": Settings(), **arguments})
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not hasattr(app, "postroom")


def test_what_is_no_application_is_refused() -> None:
    """The first argument is the application itself, not its name."""
    with pytest.raises(SystemExit, match="takes a Celery application first, not 'tasks'"):
        install("tasks")


def test_a_second_installation_is_the_first_or_refused(app: Celery) -> None:
    """The same arguments change nothing; others would undo the first, and are refused."""
    first = install(app, Settings(), topics={"A": TOPIC})
    assert install(app, Settings(), topics={"A": TOPIC}) is first
    with pytest.raises(SystemExit, match="called twice for the application 'installed'"):
        install(app, Settings(), topics={"B": TOPIC})
    assert app.postroom is first


def test_topics_named_twice_are_read_once(app: Celery) -> None:
    """With and without persistent://, a topic is the same."""
    found = install(app, Settings(), consume={"s": [TOPIC, f"persistent://{TOPIC}"]})
    assert list(map(len, found.consume.values())) == [1]


@pytest.mark.parametrize(
    ("queue", "is_ours", "wanted"),
    [
        ("relay", True, [None]),
        ("relay.tenant-1", True, ["tenant-1"]),
        ("relay.", True, [""]),
        ("relays", False, []),
        ("celery", False, []),
    ],
)
def test_a_queue_of_ours(queue: str, *, is_ours: bool, wanted: list[str | None]) -> None:
    """The name alone, or with what is wanted in particular behind a dot."""
    ours = Queue(name="relay")
    assert ours.owns(queue) is is_ours
    assert ours.wanted({queue, "other"}) == wanted


def handler(registry: Registry, name: str, subscription: str | None = None) -> None:
    """Register a handler."""

    @handles("E", name=name, subscription=subscription, into=registry)
    def function(event: object) -> None:
        """Do nothing."""


def test_a_handler_that_comes_late_is_refused() -> None:
    """It would have missed the events until then; the same one imported again does no harm."""
    registry = Registry()
    code = "handles('A', name='early', into=registry)(lambda event: None)"
    names = {"handles": handles, "registry": registry, "__name__": "a_module"}
    exec(code, names)  # noqa: S102 - as an import does
    registry.close()
    exec(code, names)  # noqa: S102 - as an import does
    with pytest.raises(ConfigurationError, match="'late' was registered after the consumer"):
        handler(registry, "late")
    assert list(registry.handlers) == ["early"]


@pytest.mark.parametrize(
    ("subscription", "wanted", "named"),
    [
        ("biling", ["billing"], "'biling'; install\\(consume=…\\) knows billing, audit"),
        ("billing", ["billing", "audit"], "for the subscription 'audit', and every event"),
    ],
)
def test_handlers_and_subscriptions_fit(subscription: str, wanted: list[str], named: str) -> None:
    """No event is acknowledged unseen for a name that was mistyped or forgotten."""
    registry = Registry()
    handler(registry, "one", subscription)
    with pytest.raises(ConfigurationError, match=named):
        registry.require_for(wanted, known=["billing", "audit"])
    handler(registry, "two")
    if subscription == "billing":
        registry.require_for(wanted, known=["billing", "audit"])


def test_annotations_for_all_tasks_bring_no_handler_to_redis() -> None:
    """A Redis that is away would have each failure wait for its result to be stored there."""
    app = Celery("unit", set_as_current=False)
    app.conf.task_annotations = {
        "*": {"ignore_result": False, "store_errors_even_if_ignored": True, "priority": 5}
    }
    registry = Registry()
    handler(registry, "shop.note")
    task = register(app, registry.handlers["shop.note"])
    assert (task.ignore_result, task.store_errors_even_if_ignored) == (True, False)
    assert task.priority == 5


def test_a_handler_that_is_called_like_a_task_is_refused() -> None:
    """It would take the task's place in the consumer worker; other handlers are no such tasks."""
    app = Celery("unit", set_as_current=False)

    def touch() -> None:
        """Do nothing."""

    app.task(name="shop.touch")(touch)
    registry = Registry()
    handler(registry, "shop.note")
    register(app, registry.handlers["shop.note"])
    require_free_names(app, ["shop.note", "shop.other"])
    with pytest.raises(ConfigurationError, match="is called like a task"):
        require_free_names(app, ["shop.touch"])


@pytest.mark.parametrize(
    ("kind", "topic", "expected"),
    [
        ("failover", "a/b/orders", {"billing"}),
        ("failover", "a/b/orders-partition-3", {"billing"}),
        ("failover", "a/c/news", {"audit"}),
        ("failover", "a/b/other", set()),
        ("failover", "a/c/news-audit-DLQ", set()),
        ("key_shared", "a/b/orders", set()),
    ],
)
def test_which_topics_are_read_by_failover_alone(kind: str, topic: str, expected: set[str]) -> None:
    """Those that a declared subscription names, or finds by its pattern; others nobody knows of."""
    installation = install(
        Celery("unit", set_as_current=False),
        Settings(subscription_type=kind),
        consume={"billing": ["a/b/orders"], "audit": ["re:a/c/.*"]},
    )
    assert installation.routing.read_by_failover(canonical(topic)) == expected
