"""In which thread Pulsar's client tells what became of a send."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom import pulsar_adapter
from postroom.relay.sending.acknowledgements import Acknowledgements, Refusal
from postroom.relay.sending.tap import Tap
from postroom.topics import Topic, canonical
from tests.waiting import wait_until

if TYPE_CHECKING:
    from typing import Any

    from tests.site import Site

    Told = list[tuple[Refusal, threading.Thread]]


def message(size: int) -> Any:
    """Return a message of so many bytes."""
    builder = pulsar_adapter.message_builder()()
    builder.content(b"x" * size)
    return builder.build()


def heard_by(topic: Topic, told: Told) -> Acknowledgements:
    """Return acknowledgements that note in which thread they are told of a refusal."""
    return Acknowledgements(
        topic,
        counted=False,
        batched=False,
        tell=lambda refusal: told.append((refusal, threading.current_thread())),
    )


def test_what_the_client_refuses_at_once_it_tells_within_the_send(lite_site: Site) -> None:
    """In the thread that sends, which is the term's; what the broker says comes in another one."""
    told: Told = []
    topic = canonical(lite_site.topic)
    tap = Tap(lite_site.pulsar.create_producer(topic))
    marks: list[threading.Thread] = []
    stored = heard_by(topic, told)
    tap.send(message(1), stored.expect(1, lambda _: marks.append(threading.current_thread())))
    wait_until(lambda: stored.settled == 1, description="the broker has it")
    assert marks != [threading.current_thread()]
    too_large = heard_by(topic, told)
    tap.send(message(7 << 20), too_large.expect(1, None))
    assert too_large.failure is not None
    assert too_large.failure.is_too_large
    tap.close()
    closed = heard_by(topic, told)
    tap.send(message(1), closed.expect(1, None))
    assert [thread for _, thread in told] == [threading.current_thread()] * 2
    assert (too_large.settled, closed.settled) == (0, 0)
    assert too_large.news.is_set()
    assert closed.news.is_set()
