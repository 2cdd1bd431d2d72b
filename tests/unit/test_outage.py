"""Outage: what a logger says of a broker that is away, whatever its address looks like."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from redis.exceptions import ConnectionError as AwayError

from postroom import Settings
from postroom.access.redis import tls_trouble
from postroom.celery.outage import Outage
from postroom.celery.redis import configuration

SETTING = "POSTROOM_REDIS_URL"


def said(url: str, error: Exception, **ours: Any) -> str:
    """Return the line that is made of Celery's own about an error of a broker."""
    app: Any = Celery("unit", broker=url, set_as_current=False)
    vars(app).update(ours)
    record = logging.LogRecord("celery", logging.ERROR, "", 1, "cannot: %s", (error,), None)
    assert Outage(app, "it goes on").filter(record)
    return record.getMessage()


def test_sentinels_that_lost_their_master_are_told_in_a_sentence() -> None:
    """Two without a path: the URL has several ports, of which none is asked anything."""
    settings = Settings(redis_url="sentinel://h1:26379,h2:26379", redis_master_name="m")
    url = configuration(settings).broker_url
    assert ";" in url
    line = said(url, AwayError("Connection refused"), postroom=SimpleNamespace(settings=settings))
    assert line.startswith("The broker of Celery at h1:26379, h2:26379 does not do what Celery")
    assert f"(ConnectionError: Connection refused; its address is in {SETTING})" in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:notaport",
        "redis://h:99999/0",
        "redis://[::1/0",
        "redis://h1:1;redis://h2:1",
        f"redis://{'h' * 70}/0",
        "rediss://h..h/0",
        "rediss://127.0.0.1:1/0?ssl_ca_certs=%00",
        "sentinel://h1:26379;sentinel://h2:26379",
        "redis+socket:///run/redis.sock",
        "amqp://h:notaport",
    ],
)
@pytest.mark.parametrize("is_silent", [True, False])
def test_an_address_that_cannot_be_asked_is_no_error(url: str, *, is_silent: bool) -> None:
    """Nothing is known of TLS there."""
    assert tls_trouble(url, SETTING, is_silent=is_silent) is None


def test_a_line_is_logged_whatever_its_making_fails_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a filter would end the worker; the error's kind is told at least."""

    def broken(*_: object) -> str:
        raise LookupError("hunter2")

    monkeypatch.setattr("postroom.celery.outage.why", broken)
    line = said("redis://h:1/0", AwayError("hunter2"))
    assert line.startswith(
        "Redis at h:1 does not do what Celery asks (ConnectionError); it goes on"
    )
