"""Lanes: a topic that cannot be opened never ends every term."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pulsar
import pytest

from postroom import errors
from postroom.relay.saving.marks import Marks
from postroom.relay.sending import lanes as lanes_module
from postroom.relay.sending.known_ids import KnownIds
from postroom.relay.sending.lanes import Lanes
from postroom.relay.sending.tail import Tail
from postroom.relay.sending.waiting import Waiting
from postroom.routing import Routing
from postroom.store.values import Mark
from postroom.topics import Topic

OPEN, SHUT, OTHER = (Topic(f"persistent://a/b/{name}") for name in ("open", "shut", "other"))
WAITED_FOR = Topic("persistent://a/b/waited-for")


class Refusing:
    """Opens one topic, and no other; remembers whose tails were read."""

    def __init__(self, error: type[Exception]) -> None:
        self.read_topics: list[Topic] = []
        self._error = error

    def open(self, topic: Topic, _span: object) -> Any:
        """Open a topic."""
        if topic != OPEN:
            raise self._error
        return SimpleNamespace(lane=f"lane of {topic}", mark=None, tail=Tail())

    def read_unopened(self, topic: Topic, _span: object, *, is_terminated: bool) -> Any:
        """Read the tail of one that cannot be opened."""
        assert not is_terminated
        self.read_topics.append(topic)
        return Tail(ids=KnownIds([f"sent to {topic}"]))

    def silence(self, _topic: Topic) -> int:
        """Say that somebody answers."""
        return 0

    def why_not(self, topic: Topic, error: Exception) -> str:
        """Say why a topic is not opened."""
        return f"{topic}: {type(error).__name__}"


def lanes(opening: Any) -> tuple[Lanes, Waiting]:
    """Return the lanes of a term whose checkpoint names two topics, while one is waited for."""
    marks = Marks()
    marks.begin({OPEN: Mark(b"1"), SHUT: Mark(b"2")})
    quarantine: Any = SimpleNamespace(awaited_topics=lambda: [WAITED_FOR])
    waiting = Waiting(quarantine, tell=lambda _: None)
    waiting.begin()
    saver: Any = SimpleNamespace(marks=marks, tenure=SimpleNamespace(renew=lambda: None))
    routing = Routing(default=OPEN, topics={}, key=None)
    return Lanes(opening, routing=routing, saver=saver, waiting=waiting), waiting


@pytest.mark.parametrize("error", [pulsar.TopicNotFound, pulsar.InvalidTopicName])
def test_a_term_begins_however_many_topics_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The tail of a topic that cannot be opened is known, and the others are open."""
    monkeypatch.setattr(lanes_module, "MOST_SHUT", 1)
    opening = Refusing(error)
    found, _ = lanes(opening)
    found.open([SHUT, OPEN], position=7, scan=None)
    assert [str(lane) for lane in found] == [f"lane of {OPEN}"]
    assert opening.read_topics == [SHUT]
    assert set(found.known) == {f"sent to {SHUT}"}


def test_what_the_checkpoint_names_is_waited_for_and_what_is_made_up_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A topic that was open keeps its order for ever; ever new ones cost no memory without end."""
    monkeypatch.setattr(lanes_module, "MOST_SHUT", 1)
    found, waiting = lanes(Refusing(pulsar.TopicNotFound))
    found.open([OPEN, SHUT], position=7, scan=None)
    with pytest.raises(errors.TopicNotOpen):
        found.of(SHUT)
    with pytest.raises(errors.Poison):
        found.of(OTHER)
    assert waiting.reason(SHUT) is not None
    assert waiting.reason(OTHER) is None
