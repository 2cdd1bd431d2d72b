"""What the tests' own services can be told to do: it has to be so, or the tests prove nothing."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pulsar
import pytest
import redis
from pymongo import MongoClient
from pymongo import errors as mongo
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.cluster import SESSION_MS
from devstack.mongodb import MongoDB
from devstack.service import free_port
from devstack.valkey import RedisState
from postroom.broker import connect
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devstack.brokers import Pulsar
    from devstack.cluster import ClusterBroker, PulsarCluster
    from devstack.replica_set import ReplicaSet
    from devstack.valkey import Valkey
    from tests.site import Site


def test_an_isolated_primary_is_replaced_and_still_reached(replica_set: ReplicaSet) -> None:
    """Clients read what it had, its writes never get a majority, and it follows when healed."""
    old = replica_set.primary()
    with (
        MongoClient[Any](replica_set.url) as set_client,
        MongoClient[Any](old.direct_url, w=1) as client,
    ):
        rows = set_client["devstack"]["rows"]
        rows.delete_many({})
        rows.insert_one({"_id": 1})
        replica_set.isolate(old)
        client["devstack"]["rows"].insert_one({"_id": 2})
        wait_until(lambda: replica_set.primary() is not old, description="it is replaced")
        assert {row["_id"] for row in client["devstack"]["rows"].find()} == {1, 2}
        rows.insert_one({"_id": 3})
        replica_set.heal()
        replica_set.wait_ready()
        assert {row["_id"] for row in rows.find()} == {1, 3}


def test_a_primary_steps_down_is_frozen_or_killed(replica_set: ReplicaSet) -> None:
    """Each time another member is elected within seconds."""
    for lose in ("step_down", "freeze", "kill"):
        old = replica_set.primary()
        replica_set.step_down() if lose == "step_down" else getattr(old, lose)()
        wait_until(partial(lambda old: replica_set.primary() is not old, old), description=lose)
        replica_set.restore()


def test_a_small_oplog_is_soon_rolled_over(tmp_path: Path) -> None:
    """With a megabyte of it a token is lost after some tens of them."""
    server = MongoDB(tmp_path, port=free_port(), oplog_mb=1)
    server.start()
    server.wait_ready()
    try:
        with MongoClient[Any](server.url) as client:
            rows = client["devstack"]["rows"]
            with rows.watch() as stream:
                stream.try_next()
                token = stream.resume_token

            def lost() -> bool:
                rows.insert_many([{"text": "x" * 10_000} for _ in range(200)])
                try:
                    with rows.watch(resume_after=token) as stream:
                        stream.try_next()
                except mongo.OperationFailure as error:
                    return error.code == 286
                return False

            wait_until(lost, description="the token is lost")
    finally:
        server.stop()


@pytest.mark.parametrize("state", RedisState)
def test_each_bad_state_of_redis_is_met_and_mended(valkey: Valkey, state: RedisState) -> None:
    """A write fails in it, on connections old and new, and succeeds afterwards."""
    with redis.Redis(port=valkey.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        client.set("name", "value")
        valkey.enter(state)
        with pytest.raises(redis.RedisError):
            client.set("name", "other")
        valkey.mend()
    with redis.Redis(port=valkey.port) as client:
        wait_until(partial(client.set, "name", "other"), description="it takes writes")


@pytest.mark.pulsar
def test_a_topic_has_policies_of_its_own(policies_site: Site) -> None:
    """A policy of the topic is kept, and shown."""
    policies_site.subscribe().close()
    policies_site.admin("POST", "/maxMessageSize", body=b"20000")

    def kept() -> bool:
        return bool(policies_site.admin("GET", "/maxMessageSize") == b"20000")

    wait_until(kept, description="the policy is kept")


@pytest.mark.pulsar
def test_a_broker_is_configured_by_the_test(new_pulsar: Callable[..., Pulsar]) -> None:
    """Names of broker.conf are passed on to it."""
    server = new_pulsar(conf={"allowAutoTopicCreation": False, "maxMessageSize": 100_000})
    address = f"{server.admin_url}/admin/v2/brokers/configuration/runtime"
    with urllib.request.urlopen(address, timeout=10) as answer:
        found = json.load(answer)
    assert found["allowAutoTopicCreation"] == "false"
    assert found["maxMessageSize"] == "100000"


@pytest.mark.pulsar
@pytest.mark.timeout(240)
def test_the_topics_of_a_lost_broker_go_to_the_other(cluster: PulsarCluster) -> None:
    """Killed, or frozen for longer than its session: what is sent then is stored once, in order."""

    def owner(topic: str) -> ClusterBroker:
        address = f"{cluster.admin_url}/lookup/v2/topic/persistent/{topic}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            url = json.load(answer)["brokerUrl"]
        return next(broker for broker in cluster.brokers if broker.url == url)

    client = connect(cluster.url, operation_timeout=timedelta(seconds=30))
    with contextlib.closing(client):
        for lose in ("kill", "freeze"):
            topic = f"public/default/{lose}"
            producer = client.create_producer(topic, send_timeout_millis=60_000)
            producer.send(b"before")
            old = owner(topic)
            getattr(old, lose)()
            producer.send_async(b"meanwhile", None)
            threading.Event().wait(2 * SESSION_MS / 1000)
            cluster.restore()
            producer.send(b"afterwards")
            reader = client.create_reader(topic, pulsar.MessageId.earliest)
            found = [reader.read_next(10_000).data() for _ in range(3)]
            assert found == [b"before", b"meanwhile", b"afterwards"]
            assert not reader.has_message_available()
