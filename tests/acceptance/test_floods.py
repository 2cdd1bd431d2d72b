"""A service that lets nobody in is asked again without a flood, by whole workers."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from devstack.service import free_port
from tests.acceptance.test_secrets import SECRET, Locked, shows_secret
from tests.mute_proxy import MuteProxy
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.secured_mongodb import SecuredMongoDB
    from tests.site import Site

SECONDS = 10.0
WORKERS = {
    "relay": "celery -A tasks worker -Q relay --loglevel=INFO",
    "consumer": "celery -A tasks worker -Q consumer --loglevel=INFO",
    "tasks": "celery -A tasks worker -P solo --loglevel=INFO",
}
# Attempts double their pauses from a quarter of a second on; each takes a client's connections.
MOST_CONNECTIONS = 60


def test_a_wrong_password_is_tried_again_without_a_flood(
    lite_site: Site, secured_mongodb: SecuredMongoDB, tmp_path: Path
) -> None:
    """Of MongoDB by relay and consumer, and of Redis by these and a task worker, side by side."""
    valkey = Locked(tmp_path, port=free_port())
    valkey.start()
    valkey.wait_ready()
    try:
        with ExitStack() as open_:
            proxies, workers = {}, []
            for name, command in WORKERS.items():
                mongodb = proxies[name, "MongoDB"] = open_.enter_context(
                    MuteProxy(secured_mongodb.port)
                )
                redis = proxies[name, "Redis"] = open_.enter_context(MuteProxy(valkey.port))
                uri = secured_mongodb.address("admin", SECRET, port=mongodb.port)
                url = f"redis://:{SECRET}@127.0.0.1:{redis.port}/0"
                variables = {"POSTROOM_MONGODB_URI": uri, "POSTROOM_REDIS_URL": url}
                workers.append(lite_site.start(command, **variables))
            asked = [proxies[name, "Redis"] for name in WORKERS] + [proxies["relay", "MongoDB"]]
            wait_until(lambda: all(proxy.connections for proxy in asked), description="the first")
            before = {each: proxy.connections for each, proxy in proxies.items()}
            # How much is asked in a time can be seen in no shorter time.
            time.sleep(SECONDS)
            made = {each: proxy.connections - before[each] for each, proxy in proxies.items()}
        assert all(number <= MOST_CONNECTIONS for number in made.values()), made
        assert made["relay", "MongoDB"] > 0
        assert made["tasks", "Redis"] > 0
        for worker in workers:
            assert worker.process.poll() is None
            assert shows_secret(worker.text()) == []
    finally:
        valkey.stop()
