"""Handlers: what may be one, and which events it gets."""

from __future__ import annotations

import functools
import importlib
import itertools
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from postroom import ConfigurationError, DomainEvent, Event, InvalidEvent, errors, handles
from postroom.deferred import require_done
from postroom.inbox.handling import handlers, registration
from postroom.inbox.handling.handlers import Registry

if TYPE_CHECKING:
    from pathlib import Path


class Taken(DomainEvent):
    """A sample."""

    doses: int


def event(name: str, data: dict[str, Any]) -> Event[dict[str, Any]]:
    """Return an event as it comes from the topic."""
    return Event(id="1", name=name, data=data, topic="t")


def test_classes_names_and_patterns() -> None:
    """A handler gets the events of its class, of a name, or of a pattern."""
    found = Registry()
    for name, match in (("class", Taken), ("name", "Lost"), ("pattern", "T*")):
        handles(match, name=name, into=found)(lambda event: None)
    names = {n: [h.name for h in found.for_event(n, "s")] for n in ("Taken", "Lost", "Tried", "No")}
    assert names == {
        "Taken": ["class", "pattern"],
        "Lost": ["name"],
        "Tried": ["pattern"],
        "No": [],
    }


def test_a_handler_of_one_subscription_gets_no_other() -> None:
    """`subscription` restricts a handler."""
    found = Registry()
    handles("*", name="h", subscription="mine", into=found)(lambda event: None)
    assert [len(found.for_event("A", s)) for s in ("mine", "other")] == [1, 0]


def test_data_are_validated_for_a_class_and_raw_for_a_name() -> None:
    """An event class gets its instance; a name the plain object."""
    found = Registry()
    handles(Taken, "Lost", name="h", into=found)(lambda event: None)
    handler = found.handlers["h"]
    assert handler.prepared(event("Taken", {"doses": 2})).data == Taken(doses=2)
    assert handler.prepared(event("Lost", {"doses": "two"})).data == {"doses": "two"}


def test_wrong_data_are_refused_without_being_shown() -> None:
    """The error names the field and not the value."""
    found = Registry()
    handles(Taken, name="h", into=found)(lambda event: None)
    with pytest.raises(InvalidEvent, match="doses") as refused:
        found.handlers["h"].prepared(event("Taken", {"doses": "secret"}))
    assert "secret" not in str(refused.value)


def first_of_two(event: Any) -> None:
    """Do nothing."""


def refused(*args: Any, function: Any = lambda event: None, **options: Any) -> str:
    """Return the sentence with which a registration is refused."""
    with pytest.raises(ConfigurationError) as found:
        handles(*args, into=Registry(), **options)(function)
    return str(found.value)


def test_what_cannot_be_a_handler_is_refused_at_registration() -> None:
    """Celery's retries, tasks, coroutines and unknown parameters are refused with a sentence."""
    app = Celery("unit", set_as_current=False)

    async def asynchronous(event: Any) -> None:
        """Do nothing."""

    assert "move the event from Pulsar to Redis" in refused(Taken, autoretry_for=(ValueError,))
    task = app.task(name="a.task")(first_of_two)
    assert "a Celery task already" in refused(Taken, function=task)
    assert "async" in refused(Taken, function=asynchronous)
    assert "no `self`" in refused(Taken, function=lambda self, event: None)
    assert "asks for other" in refused(Taken, function=lambda event, other: None)
    assert "must take the event" in refused(Taken, function=lambda: None)
    assert "event class" in refused()
    assert "not 7" in refused(7)
    assert "batch" in refused(Taken, batch=0)


def test_two_functions_of_one_name_are_refused() -> None:
    """The name is the identity in the inbox, so it must be one handler's alone."""
    found = Registry()

    def first(event: Any) -> None:
        """Do nothing."""

    def second(event: Any) -> None:
        """Do nothing."""

    handles(Taken, name="same", into=found)(first)
    handles(Taken, name="same", into=found)(first)
    with pytest.raises(ConfigurationError, match="same"):
        handles(Taken, name="same", into=found)(second)


def test_one_handler_takes_no_other_ones_place_unseen() -> None:
    """A function decorated twice, two of one name in a module, and what a loop makes."""
    found = Registry()

    def make(event: str) -> None:
        @handles(event, into=found)
        def made(event: Any) -> None:
            """Do nothing."""

    make("A")
    with pytest.raises(ConfigurationError, match="Two handlers are called"):
        make("B")
    handles("A", into=found)(first_of_two)
    with pytest.raises(ConfigurationError, match="name all events of a function in one"):
        handles("B", into=found)(first_of_two)
    assert [handler.matches for handler in found.handlers.values()] == [("A",), ("A",)]


def test_a_module_that_is_loaded_again_brings_the_same_handlers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after it was changed, as a notebook or a reloader does it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(handlers, "registry", found := Registry())
    monkeypatch.setattr(registration, "registry", found)
    text = "from postroom import handles\n@handles({events!r})\ndef made(event): pass\n"
    module = tmp_path / "loaded_again.py"
    module.write_text(text.format(events="A"))
    loaded = importlib.import_module("loaded_again")
    module.write_text("\n" + text.format(events="Longer"))
    importlib.reload(loaded)
    assert [handler.matches for handler in found.handlers.values()] == [("Longer",)]


async def asynchronous(event: Any) -> None:
    """Do nothing."""


def generating(event: Any) -> Any:
    """Do nothing."""
    yield


class Called:
    """An object that is called."""

    async def __call__(self, event: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "function",
    [asynchronous, generating, Called(), functools.partial(generating)],
    ids=["async", "generator", "object", "partial"],
)
def test_what_does_nothing_when_it_is_called_is_refused(function: Any) -> None:
    """As a handler and as what comes after its commit."""
    assert "a plain function" in refused("A", function=function, name="h")
    assert "a plain function" in refused("A", after_commit=function)


@pytest.mark.parametrize(
    "returned",
    [asynchronous(None), generating(None), Future(), (n for n in [1]), itertools.chain([1])],
    ids=["coroutine", "generator", "future", "expression", "chain"],
)
def test_what_is_left_to_be_awaited_is_not_taken_for_done(returned: Any) -> None:
    """A plain function may return it all the same."""
    with pytest.raises(errors.NothingDone, match="was not done"):
        require_done(returned, who="The handler h")
    plain: list[Any] = [None, 7, [], iter([]), threading.Lock()]
    for done in plain:
        require_done(done, who="The handler h")


class Ways:
    """Handlers of other kinds than a plain function."""

    def method(self, event: Any, session: Any) -> None:
        """Do nothing."""

    @classmethod
    def of_class(cls, event: Any, session: Any) -> None:
        """Do nothing."""

    @staticmethod
    def static(event: Any, session: Any) -> None:
        """Do nothing."""

    def __call__(self, event: Any, *, session: Any = None) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "function",
    [
        Ways().method,
        Ways.of_class,
        Ways.static,
        vars(Ways)["static"],
        Ways(),
        functools.partial(Ways().method),
        functools.partial(functools.partial(Ways.static), session=None),
        functools.lru_cache(Ways.static),
        lambda event, session: None,
    ],
    ids=[
        "method",
        "class",
        "static",
        "staticmethod",
        "object",
        "partial",
        "nested",
        "lru",
        "lambda",
    ],
)
def test_whatever_can_be_called_with_an_event_may_be_a_handler(function: Any) -> None:
    """It gets the session, and its errors are the application's own words."""
    found = Registry()
    assert handles("A", name="h", into=found)(function) is function
    handler = found.handlers["h"]
    assert handler.wants_session
    assert handler.package == __name__.partition(".")[0]
    handler.function(None, session=None)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (None, "a NoneType, which cannot be called"),
        ("billing", "a str, which cannot be called"),
        (vars(Ways)["of_class"], "a classmethod, which cannot be called"),
        (property(first_of_two), "a property, which cannot be called"),
        (functools.partialmethod(first_of_two), "a partialmethod, which cannot be called"),
        (max, "does not tell which arguments it takes"),
        # One with arguments of its own, such as itemgetter, tells since 3.13.
        (functools.partial(max, key=len), "does not tell which arguments it takes"),
        (Ways.method, "no `self`"),
    ],
)
def test_what_cannot_be_called_with_an_event_is_refused_by_a_sentence(
    function: Any, words: str
) -> None:
    """With a name and without: no error of Python's own."""
    assert words in refused("A", function=function, name="h")
    assert words in refused("A", function=function) or "no name of its own" in refused(
        "A", function=function
    )


WRONG_OPTIONS: list[dict[str, Any]] = [
    *({"max_attempts": n} for n in (0, -1, "3", 2.5, True, 1001)),
    *({"batch": n} for n in (0, 1001, 1.5, "5", True)),
    *(
        {name: n}
        for name in ("backoff_seconds", "timeout_seconds")
        for n in (0, -1, 1e-9, "1", 1e9)
    ),
    {"timeout_seconds": 0.05},
    *({name: float("nan")} for name in ("backoff_seconds", "timeout_seconds")),
    *({"give_up_on": kinds} for kinds in (["ValueError"], (5,), None, ValueError("x"))),
    *({"name": n} for n in ("", " ", 5, "a\nb", "a\ud800", "x" * 201, "celery.ping")),
]


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=repr)
def test_an_option_that_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    """Not taken for the default, nor found out when the first event comes."""
    assert refused("A", **options)


def test_one_class_of_errors_may_be_given_up_on_as_it_is() -> None:
    """Without a list around it."""
    found = Registry()
    handles("A", name="h", give_up_on=KeyError, into=found)(first_of_two)
    assert found.handlers["h"].give_up_on == (KeyError,)
    assert "by its place" in refused("A", function=lambda *, event: None)
    assert "no name of its own" in refused("A", function=functools.partial(first_of_two))


@pytest.mark.parametrize("options", [{"group": 0}, {"group": 33}, {"group": True}, {"group": "4"}])
def test_a_group_has_a_size_that_can_be_meant(options: dict[str, Any]) -> None:
    """From one event to thirty-two, and never for a function that takes a list."""
    with pytest.raises(errors.ConfigurationError, match=r"group of .* must be 1 to 32"):
        handles("A", name="a", into=Registry(), **options)(lambda event: None)
    with pytest.raises(errors.ConfigurationError, match="has both batch and group"):
        handles("A", name="a", into=Registry(), batch=2, group=2)(lambda events: None)
