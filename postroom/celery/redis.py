"""Redis as Celery is to be told of it: encrypted for certain, by Sentinel, and as whom.

Celery's broker takes `rediss://…` without options as leave to trust any certificate, and its result
store refuses such a URL. Sentinel wants a form of URL of its own, with what goes with it elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.settings import Settings

__all__ = ["RedisConfiguration", "configuration"]

SENTINEL_PORT = 26379
CONNECT_SECONDS = 2.0
MASK = "********"
SECURE = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConfiguration:
    """What Celery's settings of these names take; `transport_options` are for both sides."""

    broker_url: str
    result_backend: str
    transport_options: Mapping[str, Any]


class _Masked:
    """What stands among options that `inspect stats`, and so Flower, shows as they are."""

    def __repr__(self) -> str:
        return MASK

    def __json__(self) -> str:
        return MASK


class _Password(_Masked, CredentialProvider):
    def __init__(self, password: str) -> None:
        self._password = password

    def get_credentials(self) -> tuple[str]:
        """Return the password, for the client."""
        return (self._password,)


class _Once(_Masked, Retry):
    """No second attempt: there is another Sentinel to ask."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 0)


def configuration(settings: Settings) -> RedisConfiguration:
    """Return what Celery needs to reach the Redis of the settings."""
    url = str(settings.redis_url)
    if url.startswith("sentinel://"):
        return _by_sentinel(settings)
    if url.startswith("rediss://"):
        url = _secured(url)
    return RedisConfiguration(broker_url=url, result_backend=url, transport_options={})


def _secured(url: str) -> str:
    base, _, query = url.partition("?")
    options = {**SECURE, **dict(parse_qsl(query))}
    return f"{base}?{'&'.join(f'{name}={quote(value)}' for name, value in options.items())}"


def _by_sentinel(settings: Settings) -> RedisConfiguration:
    first, *others = _sentinels(str(settings.redis_url))
    asking: dict[str, Any] = {"retry": _Once(), "socket_connect_timeout": CONNECT_SECONDS}
    if settings.redis_sentinel_password is not None:
        password = settings.redis_sentinel_password.get_secret_value()
        asking["credential_provider"] = _Password(password)
    user, at, _ = first.partition("://")[2].rpartition("@")
    with_user = [other.replace("://", f"://{user}{at}", 1) for other in others]
    return RedisConfiguration(
        broker_url=";".join([first, *with_user]),
        # Of several URLs Celery masks the first one's password only, wherever it shows this one.
        result_backend=";".join([first, *others]),
        transport_options={"master_name": settings.redis_master_name, "sentinel_kwargs": asking},
    )


def _sentinels(url: str) -> list[str]:
    """Take `sentinel://user:password@a:26379,b:26379/0` apart, or the form that Celery knows.

    The first has user and password, the others have not.
    """
    found: list[str] = []
    for part in url.split(";"):
        parts = urlsplit(part)
        user, at, hosts = parts.netloc.rpartition("@")
        for host in hosts.split(","):
            # Celery's result store would take the port of Redis itself.
            port = "" if re.search(r":\d+$", host) else f":{SENTINEL_PORT}"
            found.append(f"sentinel://{'' if found else user + at}{host}{port}{parts.path}")
    return found
