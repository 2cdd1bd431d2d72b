"""A pause whose drain fails, on real MongoDB: the relay waits, and is paused all the same."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom import wire
from postroom.relay import facts
from postroom.relay.relay import Relay
from postroom.relay.state import State
from postroom.routing import Routing
from postroom.store.pauses import Pauses
from postroom.store.values import DEFAULT_PARTITION
from tests.relays import relaying, saved
from tests.waiting import wait_until

if TYPE_CHECKING:
    from postroom.observation import Fact
    from tests.site import Site


def test_a_checkpoint_that_fails_while_a_pause_drains_ends_the_term_alone(lite_site: Site) -> None:
    """The relay's thread lives on: it is paused, and relays once each when the pause is over."""
    site = lite_site
    settings = site.settings(
        mutex_retry_seconds=0.1, checkpoint_seconds=60, idle_checkpoint_seconds=60
    )
    with relaying(site):  # the end of a first start's scan has a checkpoint of its own
        written = site.insert(1)
        saved(site, 1)
    relay = Relay(settings, Routing(default=settings.topic, topics={}, key=None))
    states: list[State] = []
    written_down: list[int] = []

    def hear(fact: Fact) -> None:
        if isinstance(fact, facts.CheckpointWritten):
            written_down.append(fact.position)
        if isinstance(fact, facts.StateEntered) and states[-1:] != [fact.state]:
            states.append(fact.state)

    relay.observer.subscribe(hear)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        wait_until(lambda: relay.status.state is State.RELAYING, description="a term")
        written += site.insert(1)
        # Behind a term's first checkpoint there is none for a minute, but for that of the drain.
        wait_until(lambda: written_down, description="a checkpoint")
        last = {"$lte": written_down[-1]}
        no_more = {"$or": [{"position": {"$exists": False}}, {"position": last}]}
        site.database.command("collMod", wire.CHECKPOINTS, validator=no_more)
        written += site.insert(1)
        wait_until(lambda: site.stored() == written, description="it is stored")
        Pauses(site.database).begin(DEFAULT_PARTITION, by="me")
        wait_until(lambda: relay.status.state is State.PAUSED, description="the pause")
        behind = states[states.index(State.STOPPING) + 1 :]
        assert behind == [State.WAITING, State.OPENING, State.PAUSED]
        site.database.command("collMod", wire.CHECKPOINTS, validator={})
        Pauses(site.database).end(DEFAULT_PARTITION)
        written += site.insert(1)
        wait_until(lambda: site.stored() == written, description="all are stored once")
    finally:
        relay.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert states[-1] is State.STOPPED
