"""A topic that is not read any more is said by name, and opened again."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pulsar

from postroom.inbox.receiving import keeper as keeping
from postroom.inbox.receiving import source as sources
from postroom.inbox.receiving.keeper import Keeper
from postroom.inbox.receiving.source import Condition, Source
from postroom.inbox.receiving.troubles import Troubles
from postroom.topics import Topic
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Client:
    """Pulsar's client, whose consumers answer a receive as they are told to."""

    def __init__(self, *receives: Callable[..., Any]) -> None:
        self._receives = iter(receives)
        self.opened = 0

    def subscribe(self, *_: object, **__: object) -> Any:
        """Return the next consumer."""
        self.opened += 1
        receive = next(self._receives)
        return SimpleNamespace(
            is_connected=lambda: True,
            receive=receive,
            close=lambda: None,
            get_last_message_id=lambda: pulsar.MessageId(-1, 7, 3, -1),
        )


def test_a_receive_that_hangs_is_named_and_its_topic_opened_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client's call does not come back: the topic is, with a consumer of its own."""
    monkeypatch.setattr(sources, "HANG_SECONDS", 0.2)
    monkeypatch.setattr(keeping, "CLIENTS_TURN_SECONDS", 0.2)
    told: list[tuple[str, ...]] = []
    troubles, released = Troubles("billing", told.append), threading.Event()

    def hang(**_: object) -> None:
        released.wait(20)
        raise pulsar.Timeout

    def quiet(**_: object) -> None:
        threading.Event().wait(0.01)
        raise pulsar.Timeout

    client, feed = Client(hang, quiet), SimpleNamespace(has_room=True)
    source = Source(Topic("a/b/c"), subscription="billing", kind="key_shared", feed=feed)  # type: ignore[arg-type]
    found = Keeper(
        source,
        access=None,  # type: ignore[arg-type]
        open_=lambda each: each.open(client, queue_size=1, own_thread=True),
        troubles=troubles,
    )

    def reads_again() -> bool:
        found.tend()
        troubles.say()
        return client.opened == 2 and told[-1] == ()

    wait_until(reads_again, description="the topic is read again", seconds=10)
    released.set()
    source.close()
    assert (
        "a/b/c is not read for the subscription 'billing' (a receive does not come back"
        in (told[0][0])
    )
    assert any("a receive does not come back" in each for each in caplog.messages)


def test_what_the_thread_of_an_earlier_opening_does_late_is_noted_of_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is about to receive when the source is opened anew, which receives by the client then."""
    monkeypatch.setattr(sources, "HANG_SECONDS", 0.0)
    opened_anew, over = threading.Event(), threading.Event()

    def ended(**_: object) -> None:
        over.set()
        raise pulsar.AlreadyClosed

    client: Any = Client(ended, ended)
    feed: Any = SimpleNamespace(has_room=True)
    source = Source(Topic("a/b/c"), subscription="billing", kind="key_shared", feed=feed)

    def late() -> float:
        if threading.current_thread().name == "consumer-c" and not opened_anew.is_set():
            opened_anew.set()
            source.open(client, queue_size=1, own_thread=False)
        return time.monotonic()

    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=late))
    source.open(client, queue_size=1, own_thread=True)
    assert over.wait(10)
    wait_until(
        lambda: "consumer-c" not in {each.name for each in threading.enumerate()},
        description="the thread of the earlier opening has ended",
    )
    assert client.opened == 2
    assert source.look() is Condition.GOOD
    source.close()
