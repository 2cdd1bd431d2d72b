"""A letterbox on a broker that takes letters, and then for a while does not."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import pulsar
import pytest

from postroom.access import pulsar as pulsar_access
from postroom.inbox.parking.chute import Clients
from postroom.inbox.parking.letterbox import Letterbox, Plight
from postroom.inbox.parking.letters import Letter
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.site import Site


class Reluctant:
    """A client that opens no producer, as one whose broker has just gone, until it is `well`."""

    def __init__(self, client: pulsar.Client) -> None:
        self._client = client
        self.well = False
        self.asked = 0

    def create_producer(self, topic: str, **options: Any) -> pulsar.Producer:
        """Open a producer, or fail as the client's library does."""
        self.asked += 1
        if not self.well:
            raise pulsar.ConnectError
        return self._client.create_producer(topic, **options)


class Bench:
    """A letterbox, and what it has told of its letters and of its plight."""

    def __init__(self, site: Site) -> None:
        self.reluctant = Reluctant(site.pulsar)
        self.told: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()
        self.plights: list[Plight | None] = []
        self.box = Letterbox(
            f"{site.topic}-DLQ",
            Clients(together=self.reluctant, alone=site.pulsar),
            access=pulsar_access.of(site.settings()),
            timeout_seconds=10,
            changed=lambda _, plight: self.plights.append(plight),
        )

    def put(self, number: int, size: int = 10) -> None:
        """Put a letter in."""
        self.box.put(
            Letter(
                payload=b"x" * size,
                properties={},
                partition_key=None,
                ordering_key=None,
                event_timestamp=None,
                stored=lambda ok: self.told.put((number, ok)),
            )
        )


@pytest.fixture
def bench(lite_site: Site) -> Iterator[Bench]:
    """Lend a letterbox whose topic has taken a first letter, alone."""
    found = Bench(lite_site)
    found.put(0, size=1000)
    assert found.told.get(timeout=10) == (0, True)
    yield found
    found.box.close()


def test_a_producer_that_cannot_be_opened_loses_no_letter(bench: Bench) -> None:
    """The broker goes between the first letter and the next ones: they wait, and are stored."""
    for number in (1, 2, 3):
        bench.put(number)
    wait_until(lambda: bench.reluctant.asked > 1, description="it was tried again")
    assert bench.told.empty()
    plight = bench.plights[-1]
    assert plight is not None
    assert plight.waiting == 3
    bench.reluctant.well = True
    assert [bench.told.get(timeout=15) for _ in range(3)] == [(1, True), (2, True), (3, True)]
    wait_until(lambda: bench.plights[-1] is None, description="the plight is over")


def test_what_cannot_be_sent_is_handed_back_at_the_end(bench: Bench) -> None:
    """Each is told once that it is not stored, so that its event comes again."""
    for number in (1, 2):
        bench.put(number)
    wait_until(lambda: bench.reluctant.asked > 0, description="it was tried")
    bench.box.close()
    bench.put(3)
    found = sorted(bench.told.get(timeout=10) for _ in range(3))
    assert found == [(1, False), (2, False), (3, False)]
