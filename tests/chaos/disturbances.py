"""What is done to workers and services; each leaves them as they were."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from devstack.service import DevstackError
from devstack.valkey import RedisState
from tests.chaos.torment import Disturbance

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from devstack.replica_set import Member, ReplicaSet
    from devstack.service import Service
    from tests.chaos.fleet import Fleet
    from tests.chaos.services import Services

__all__ = ["of_brokers", "of_mongodb", "of_redis", "of_workers", "pause"]

FREEZE_SECONDS = 7.0
# A client that waits for a connection asks again after up to a minute, but a frozen broker or
# member takes the requests of others as soon as it goes on.
MONGODB_SECONDS = 30.0
BROKER_SECONDS = 45.0


def pause(seconds: float) -> None:
    """Let time go by: what was ended or frozen stays so for a while."""
    threading.Event().wait(seconds)


def of_workers(fleet: Fleet, dice: random.Random) -> Sequence[Disturbance]:
    """Kill, stop and freeze workers, one or all of them."""

    def end(number: signal.Signals) -> Callable[[], None]:
        return lambda: fleet.end(dice.randrange(len(fleet)), number)

    def freeze() -> None:
        n = dice.randrange(len(fleet))
        fleet.send(n, signal.SIGSTOP)
        pause(FREEZE_SECONDS)
        fleet.send(n, signal.SIGCONT)

    def kill_all() -> None:
        for n in range(len(fleet)):
            fleet.end(n, signal.SIGKILL)

    return [
        Disturbance(name="worker kill", act=end(signal.SIGKILL), seconds=15, weight=6),
        Disturbance(name="worker stop", act=end(signal.SIGTERM), seconds=15, weight=2),
        Disturbance(name="worker freeze", act=freeze, seconds=15, weight=2),
        Disturbance(name="kill of all workers", act=kill_all, seconds=15, weight=2),
    ]


def of_mongodb(services: Services, dice: random.Random) -> Sequence[Disturbance]:
    """Kill and freeze MongoDB; have a member step down, or cut it off, where there are three."""
    replica_set = services.replica_set

    def member() -> Service:
        if replica_set is None:
            return services.mongodb  # type: ignore[return-value]
        # The primary more often than not.
        return replica_set.primary() if dice.random() < 0.7 else dice.choice(replica_set.members)

    def kill() -> None:
        _ended_for([member()], dice.uniform(0.0, 5.0))

    def freeze() -> None:
        _frozen_for([member()], dice.uniform(2.0, 12.0))

    found = [
        Disturbance(name="MongoDB kill", act=kill, seconds=MONGODB_SECONDS, weight=2),
        Disturbance(name="MongoDB freeze", act=freeze, seconds=MONGODB_SECONDS, weight=2),
    ]
    return found if replica_set is None else [*found, *_of_members(replica_set, member, dice)]


def _of_members(
    replica_set: ReplicaSet, member: Callable[[], Service], dice: random.Random
) -> Sequence[Disturbance]:
    def step_down() -> None:
        # Another one than is wanted may be stepping down already.
        with contextlib.suppress(DevstackError):
            replica_set.step_down(seconds=5)

    def isolate() -> None:
        replica_set.isolate(_member_of(replica_set.members, member()))
        pause(dice.uniform(3.0, 10.0))
        replica_set.heal()

    def stall() -> None:
        """Take the majority away, so that nothing is committed for it."""
        _frozen_for(replica_set.secondaries(), dice.uniform(2.0, 8.0))

    return [
        Disturbance(name="stepdown", act=step_down, seconds=MONGODB_SECONDS, weight=4),
        Disturbance(name="partition", act=isolate, seconds=MONGODB_SECONDS, weight=4),
        Disturbance(name="lost majority", act=stall, seconds=MONGODB_SECONDS, weight=2),
    ]


def of_brokers(
    services: Services, dice: random.Random, *, topics: Sequence[str], outage_seconds: float
) -> Sequence[Disturbance]:
    """Kill, freeze and unload; `outage_seconds` is a little longer than a send may take."""
    cluster = services.cluster
    brokers: Sequence[Service] = cluster.brokers if cluster else [services.pulsar]  # type: ignore[list-item]

    def freeze() -> None:
        _frozen_for([dice.choice(brokers)], dice.uniform(2.0, 9.0))

    def long_freeze() -> None:
        _frozen_for(brokers, outage_seconds)

    found = [
        Disturbance(name="broker freeze", act=freeze, seconds=BROKER_SECONDS, weight=2),
        Disturbance(name="broker frozen for long", act=long_freeze, seconds=BROKER_SECONDS),
    ]
    if cluster is None:
        found += _of_topics(services, dice, topics, long_freeze)
    if not services.scenario.topic_policies:
        found += _of_broker_ends(brokers, dice, outage_seconds)
    return found


def _of_topics(
    services: Services, dice: random.Random, topics: Sequence[str], freeze: Callable[[], None]
) -> Sequence[Disturbance]:
    def unload() -> None:
        services.admin("PUT", dice.choice(topics), "unload")

    def unload_and_freeze() -> None:
        unload()
        freeze()

    return [
        Disturbance(name="unload", act=unload, seconds=BROKER_SECONDS, weight=2),
        Disturbance(name="unload, freeze", act=unload_and_freeze, seconds=BROKER_SECONDS),
    ]


def _of_broker_ends(
    brokers: Sequence[Service], dice: random.Random, outage_seconds: float
) -> Sequence[Disturbance]:
    def kill() -> None:
        _ended_for([dice.choice(brokers)], dice.uniform(0.0, 3.0))

    def outage() -> None:
        _ended_for(brokers, outage_seconds)

    return [
        Disturbance(name="broker kill", act=kill, seconds=BROKER_SECONDS, weight=2),
        Disturbance(name="broker outage", act=outage, seconds=BROKER_SECONDS),
    ]


def of_redis(services: Services, dice: random.Random) -> Sequence[Disturbance]:
    """Bring Redis into each bad state that it has; nothing may wait for it."""

    def enter(state: RedisState) -> Callable[[], None]:
        def act() -> None:
            services.valkey.enter(state)
            pause(dice.uniform(2.0, 8.0))
            services.valkey.mend()

        return act

    def kill() -> None:
        _ended_for([services.valkey], dice.uniform(0.0, 4.0))

    return [
        Disturbance(name="Redis kill", act=kill, seconds=0),
        *(
            Disturbance(name=f"Redis {state.name.lower()}", act=enter(state), seconds=0)
            for state in RedisState
        ),
    ]


def _ended_for(services: Sequence[Service], seconds: float) -> None:
    for service in services:
        service.kill()
    pause(seconds)
    for service in services:
        service.start()
    for service in services:
        service.wait_ready()


def _frozen_for(services: Sequence[Service], seconds: float) -> None:
    for service in services:
        service.freeze()
    pause(seconds)
    for service in services:
        service.thaw()


def _member_of(members: Sequence[Member], service: Service) -> Member:
    return next(member for member in members if member is service)
