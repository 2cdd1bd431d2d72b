"""What an application says of its own tasks changes nothing for the events of its workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.site import row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site

# Each would stop, delay, repeat or lose a handler's task if it were obeyed as for one from Redis.
LIMITS: dict[str, Any] = {
    "enable_utc": False,
    "result_backend": "disabled://",
    "task_acks_late": False,
    "task_acks_on_failure_or_timeout": False,
    "task_always_eager": True,
    "task_annotations": {
        "*": {"rate_limit": "1/m", "time_limit": 1, "soft_time_limit": 1, "max_retries": 0},
        "shop.note": {"acks_late": False, "ignore_result": False, "send_events": False},
    },
    "task_default_rate_limit": "1/m",
    "task_eager_propagates": True,
    "task_ignore_result": False,
    "task_reject_on_worker_lost": True,
    "task_soft_time_limit": 1,
    "task_store_errors_even_if_ignored": True,
    "task_time_limit": 1,
    "task_track_started": True,
    "timezone": "Asia/Kolkata",
    "worker_autoscaler": "nosuch.module:Autoscaler",
    "worker_concurrency": 1,
    "worker_deduplicate_successful_tasks": True,
    "worker_enable_remote_control": False,
    "worker_eta_task_limit": 1,
    "worker_max_memory_per_child": 1,
    "worker_max_tasks_per_child": 1,
    "worker_pool": "solo",
    "worker_prefetch_multiplier": 0,
    "worker_proc_alive_timeout": 0.1,
}
FORMS: dict[str, Any] = {
    "accept_content": ["msgpack", "yaml"],
    "broker_heartbeat": 1,
    "broker_pool_limit": 0,
    "broker_transport_options": {
        "fanout_prefix": False,
        "global_keyprefix": "shop:",
        "priority_steps": [0, 1],
        "queue_order_strategy": "sorted",
        "socket_timeout": 2.0,
        "visibility_timeout": 1,
    },
    "event_exchange": "other",
    "event_serializer": "yaml",
    "include": ["tests.own_task"],
    "result_backend": "rpc://",
    "result_extended": True,
    "result_serializer": "yaml",
    "task_compression": "gzip",
    "task_create_missing_queues": False,
    "task_default_queue": "work",
    "task_protocol": 1,
    "task_queues": {"relay": {}, "consumer": {}, "work": {}},
    "task_routes": {"*": {"queue": "work"}},
    "task_send_sent_event": True,
    "task_serializer": "msgpack",
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "worker_disable_rate_limits": True,
    "worker_hijack_root_logger": False,
    "worker_log_format": "%(message)s",
    "worker_redirect_stdouts": False,
    "worker_send_task_events": True,
}


@pytest.mark.parametrize("conf", [LIMITS, FORMS], ids=["limits", "forms"])
def test_events_are_handled_whatever_is_said_of_tasks(
    lite_site: Site, conf: dict[str, Any]
) -> None:
    """Dozens of Celery's settings at once: each event once, a slow one too, poison parked."""
    variables = {"SHOP_CONF": json.dumps(conf)}
    command = "celery -A tests.shop worker --loglevel=INFO -Q"
    workers = [
        lite_site.start(f"{command} {queue}", **variables) for queue in ("relay", "consumer")
    ]
    lite_site.insert(4)
    lite_site.insert(1, first=7, name="Slow")
    lite_site.insert(1, first=8, name="Broken")
    lite_site.outbox.insert_one(row(9, name="Odd"))
    seen = lite_site.database["seen"]

    def numbers() -> list[int]:
        for worker in workers:
            assert worker.process.poll() is None, worker.text()[-3000:]
        return sorted(found["number"] for found in seen.find())

    wait_until(lambda: numbers() == [0, 1, 2, 3, 7, 9], description="all are handled")
    letters = lite_site.subscribe(
        "watch", f"{lite_site.topic}-{lite_site.settings().subscription}-DLQ"
    )
    (letter,) = lite_site.receive(letters, 1)
    assert orjson.loads(letter.data())["data"] == {"number": 8}
    assert letter.properties()["dead-letter-attempts"] == "2"
    assert [worker.stop() for worker in workers] == [0, 0]
