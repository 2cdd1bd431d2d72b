"""Outage: a relay or consumer worker goes on whatever Redis does, and says so once a minute."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from postroom import address
from postroom.access import redis as access
from postroom.access.tls import flaw_within, located
from postroom.celery import adapter
from postroom.failures import with_what_led_to
from postroom.private_text import one_line
from postroom.reminders import Reminders

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Outage", "go_on_without_broker", "named", "wait_for_broker", "why"]

logger = logging.getLogger(__name__)

# What Redis says of who asks, and what it means; `{}` is the setting that holds the address.
REFUSALS = {
    "invalid username-password pair": "does not accept user and password of {}",
    "Authentication required": "wants to know who this is, and {} has no password",
    "AUTH <password> called without": "has no password, and {} has one",
    "has no permissions to": "does not allow the user of {} what Celery needs",
}
# What a call to Redis may take, if the application says nothing or more. The client makes up to
# sixteen one after another before it says that Redis does not answer.
LONGEST_CALL_SECONDS = 2.0
# The same for task workers, to which it is an application's own Redis: one that does not answer for
# so long is not merely busy with a snapshot, behind which tasks would be run twice.
TASKS_CALL_SECONDS = {"socket_connect_timeout": 5.0, "socket_timeout": 20.0}
BOUNDED = tuple(TASKS_CALL_SECONDS)
REDIS = ("redis", "sentinel")


class Outage(logging.Filter):
    """Says in one sentence what Celery would say of a broker that is away in many.

    A filter of Celery's loggers: of what tells of the broker the first record passes, with other
    words, and then one a minute. Called by any thread; a race costs a line too many.
    """

    def __init__(self, app: Celery, meanwhile: str) -> None:
        super().__init__()
        self._app, self._broker = app, named(app)
        self._meanwhile = meanwhile
        self._reminders = Reminders()
        self._is_away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record pass, change it, or hold it back; never raise."""
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
        try:
            reason = why(error, self._app)
        except Exception:  # noqa: BLE001 - raised in a filter, it would end the worker
            reason = type(error).__name__
        return (
            f"{self._broker} does not do what Celery asks ({reason}); "
            f"{self._meanwhile}, and what needs it (inspect, Flower) waits. It is asked again"
        )


def why(error: BaseException, app: Celery) -> str:
    """Say in words that fit into brackets what a call to the broker failed of, without a secret.

    What a certificate or password is at fault for is said with the setting that it stands in. A
    Redis that ends the connection, or says nothing, is asked what it makes of TLS.
    """
    setting = _setting_of(app)
    name, text = type(error).__name__, " ".join(str(error).partition(", with args")[0].split())
    if (flaw := flaw_within(text, f"ssl_ca_certs of {setting}")) is not None:
        return f"{name}: {located(flaw, setting)}"
    url = str(app.conf.broker_url or "")
    if (trouble := access.sentinels_trouble(text, url, setting)) is not None:
        return f"{name}: {trouble}"
    text = one_line(text)
    for words, refusal in REFUSALS.items():
        if words in text:
            return f"{name}: it {refusal.format(setting)} ({text})"
    is_silent = "imeout" in name + text or "timed out" in text
    if (trouble := access.tls_trouble(url, setting, is_silent=is_silent)) is not None:
        return f"{name}: it {trouble}"
    return f"{name}: {located(text, setting)}"


def _error_in(record: logging.LogRecord) -> BaseException | None:
    raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    told = record.args if isinstance(record.args, tuple) else ()
    # Celery stumbles over a connection that is gone already, and tells of that.
    for found in (*with_what_led_to(raised), *told):
        if isinstance(found, adapter.OF_THE_BROKER):
            return found
    return None


def go_on_without_broker(worker: Any, *, meanwhile: str) -> None:
    """Have a worker in worker_init live on through all that its broker can do.

    The application's own choices for its task workers mean nothing here: nothing that this worker
    does came through the broker.
    """
    outage = Outage(worker.app, meanwhile)
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
            for name in BOUNDED
        },
    }


def wait_for_broker(worker: Any) -> None:
    """Have one of the application's task workers, in worker_init, wait for a Redis that refuses.

    As it waits for one that is gone: by the application's broker_connection_retry and so on. It
    says so once a minute. One that says nothing, as a Redis in clear is silent when it is spoken to
    by TLS, is given up after a while, where the application has not chosen for how long.
    """
    conf = worker.app.conf
    if str(conf.broker_url or "").startswith(REDIS):
        given = conf.broker_transport_options or {}
        conf.broker_transport_options = {**TASKS_CALL_SECONDS, **given}
    outage = Outage(worker.app, "this worker waits for it")
    adapter.listen_to_brokers_talk(outage)
    adapter.outlive_broker(worker, passing=(RedisError,), on_ready=outage.over)


def _setting_of(app: Celery) -> str:
    """Return what says where the broker is: our setting, or Celery's where that is another one."""
    ours = getattr(app, "postroom", None)
    url = str(app.conf.broker_url or "")
    same = ours is not None and address.shown(str(ours.settings.redis_url)) == address.shown(url)
    return "POSTROOM_REDIS_URL" if same else "broker_url"


def named(app: Celery) -> str:
    """Return what the broker of an application is called, with its hosts and no secret."""
    url = str(app.conf.broker_url or "")
    name = "Redis" if url.startswith("redis") else "The broker of Celery"
    return f"{name} at {address.shown(url)}"
