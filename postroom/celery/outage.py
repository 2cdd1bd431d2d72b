"""Outage: a relay or consumer worker goes on whatever Redis does, and says so once a minute."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from postroom import address
from postroom.celery import adapter
from postroom.reminders import Reminders

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Outage", "go_on_without_broker", "named", "wait_for_broker"]

logger = logging.getLogger(__name__)

MOST_CHARACTERS = 200
# What a call to Redis may take, if the application says nothing or more. The client makes up to
# sixteen one after another before it says that Redis does not answer.
LONGEST_CALL_SECONDS = 2.0


class Outage(logging.Filter):
    """Says in one sentence what Celery would say of a broker that is away in many.

    A filter of Celery's loggers: of what tells of the broker the first record passes, with other
    words, and then one a minute. Called by any thread; a race costs a line too many.
    """

    def __init__(self, broker: str, meanwhile: str) -> None:
        super().__init__()
        self._broker = broker
        self._meanwhile = meanwhile
        self._reminders = Reminders()
        self._is_away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record pass, change it, or hold it back."""
        error = _error_in(record)
        if error is None:
            # Such a Redis is connected to again and again.
            return not (self._is_away and record.levelno <= logging.INFO)
        self._is_away = True
        if not self._reminders.is_due(self._broker):
            return False
        record.msg, record.args = self._sentence(error), ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True

    def over(self) -> None:
        """Say that the broker is back, if anybody was told that it was away."""
        if self._is_away:
            self._is_away = False
            logger.info("%s answers again", self._broker)

    def _sentence(self, error: BaseException) -> str:
        text = " ".join(str(error).partition(", with args")[0].split())[:MOST_CHARACTERS]
        return (
            f"{self._broker} does not do what Celery asks ({type(error).__name__}: {text}); "
            f"{self._meanwhile}, and what needs it (inspect, Flower) waits. It is asked again"
        )


def _error_in(record: logging.LogRecord) -> BaseException | None:
    raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    told = record.args if isinstance(record.args, tuple) else ()
    for found in (raised, *told):
        if isinstance(found, adapter.OF_THE_BROKER):
            return found
    return None


def go_on_without_broker(worker: Any, *, meanwhile: str) -> None:
    """Have a worker in worker_init live on through all that its broker can do.

    The application's own choices for its task workers mean nothing here: nothing that this worker
    does came through the broker.
    """
    outage = Outage(named(worker.app), meanwhile)
    adapter.listen_to_brokers_talk(outage)
    adapter.outlive_broker(worker, passing=(Exception,), on_ready=outage.over)
    conf = worker.app.conf
    conf.broker_connection_retry = conf.broker_connection_retry_on_startup = True
    conf.broker_connection_max_retries = None
    conf.worker_cancel_long_running_tasks_on_connection_loss = True
    given = conf.broker_transport_options or {}
    conf.broker_transport_options = {
        **given,
        **{
            name: min(given.get(name) or LONGEST_CALL_SECONDS, LONGEST_CALL_SECONDS)
            for name in ("socket_timeout", "socket_connect_timeout")
        },
    }


def wait_for_broker(worker: Any) -> None:
    """Have one of the application's task workers, in worker_init, wait for a Redis that refuses.

    As it waits for one that is gone: by the application's broker_connection_retry and so on. It
    says so once a minute.
    """
    outage = Outage(named(worker.app), "this worker waits for it")
    adapter.listen_to_brokers_talk(outage)
    adapter.outlive_broker(worker, passing=(RedisError,), on_ready=outage.over)


def named(app: Celery) -> str:
    """Return what the broker of an application is called, with its hosts and no secret."""
    url = str(app.conf.broker_url or "")
    name = "Redis" if url.startswith("redis") else "The broker of Celery"
    return f"{name} at {address.shown(url)}"
