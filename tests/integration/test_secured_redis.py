"""Redis that refuses, or is not to be trusted: what it gets, and the sentence that is said."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
import redis
from celery import Celery

from devstack.service import free_port
from postroom.celery import install, queue_broker
from postroom.celery import redis as celery_redis
from tests.certificates import Authority
from tests.sentinels import SENTINELS, sentinel
from tests.tls_proxy import TlsProxy
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.site import Site

PASSWORD = "p@ss:w/ö,r d%;x?#&=+'\"\\"  # noqa: S105 - it is looked for
WRONG = "wr0ng-0ne"


@pytest.fixture
def port(lite_site: Site) -> Iterator[int]:
    """Return the port of Valkey, which knows three users for the time of a test."""
    found = urlsplit(lite_site.environment["POSTROOM_REDIS_URL"]).port
    assert found
    rights = {
        "app": ["+@all", "-@dangerous", "+info"],
        "reader": ["+@read", "+ping", "+select", "+client"],
    }
    with redis.Redis(port=found) as admin:
        for user, commands in rights.items():
            admin.acl_setuser(
                user, enabled=True, passwords=[f"+{PASSWORD}"], commands=commands, keys=["*"]
            )
        yield found
        for user in rights:
            admin.acl_deluser(user)


@pytest.fixture
def asked(lite_site: Site) -> Callable[..., str]:
    """Return how an application with an address of Redis is examined; without a secret in it."""

    def ask(url: str, **given: str) -> str:
        settings = lite_site.settings(redis_url=url, **given)
        app, told = Celery("asked", set_as_current=False), celery_redis.configuration(settings)
        app.conf.broker_url = told.broker_url
        app.conf.broker_transport_options = dict(told.transport_options)
        install(app, settings)
        probe, said = queue_broker.Probe(app), []

        def answered() -> bool:
            said.append(probe.trouble())
            return "no answer within" not in said[-1]

        wait_until(answered, description="the trial is over", seconds=60)
        for secret in (PASSWORD, quote(PASSWORD, safe=""), WRONG, SENTINELS, "p@ss", "p%40ss"):
            assert secret not in said[-1]
        return said[-1]

    return ask


def as_user(port: int, *, user: str = "app", password: str = PASSWORD, **options: Any) -> str:
    """Return an address with TLS, or without where no authority is among the options."""
    scheme = "rediss" if options else "redis"
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{scheme}://{user}:{quote(password, safe='')}@127.0.0.1:{port}/0?{query}".rstrip("?")


def test_who_may_is_let_in_and_who_may_not_is_told_why(
    port: int, asked: Callable[..., str]
) -> None:
    """A password with every special character; a wrong one; none where one is wanted; a right."""
    assert asked(as_user(port)) == ""
    refusal = "OperationalError: it does not accept user and password of POSTROOM_REDIS_URL"
    assert asked(as_user(port, password=WRONG)).startswith(refusal)
    assert asked(as_user(port, user="nobody")).startswith(refusal)
    lacking = "does not allow the user of POSTROOM_REDIS_URL what Celery needs"
    assert f"it {lacking}" in asked(as_user(port, user="reader"))


FLAWS = {
    "authority": "shows a certificate of an authority that is not in ssl_ca_certs of {}",
    "host": "shows a certificate for another host (",
    "expired": "shows a certificate that has expired",
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_one_that_cannot_be_trusted_gets_nothing(
    port: int, authority: Authority, tmp_path: Path, asked: Callable[..., str], flaw: str
) -> None:
    """The sentence says what is wrong with its certificate; no password is sent to it."""
    made = {
        "authority": lambda: Authority(tmp_path / "others", "other").sign("redis"),
        "host": lambda: authority.sign("elsewhere", hosts=["elsewhere.example"]),
        "expired": lambda: authority.sign("expired", lifetime=timedelta(hours=-1)),
    }[flaw]()
    with TlsProxy(port, made) as proxy:
        said = asked(as_user(proxy.port, ssl_ca_certs=authority.file))
        assert f"it {FLAWS[flaw].format('POSTROOM_REDIS_URL')}" in said
        assert said.count("POSTROOM_REDIS_URL") == 1
        assert proxy.received == 0
        assert proxy.connections < 20


def test_without_an_authority_of_its_own_the_systems_are_asked(
    port: int, authority: Authority, asked: Callable[..., str]
) -> None:
    """Celery by itself would take a bare `rediss://` as leave to trust anyone."""
    with TlsProxy(port, authority.sign("redis")) as proxy:
        url = as_user(proxy.port).replace("redis://", "rediss://")
        assert "an authority that is not in ssl_ca_certs of POSTROOM_REDIS_URL" in asked(url)
        assert proxy.received == 0


def test_tls_and_none_are_told_apart(
    port: int, authority: Authority, asked: Callable[..., str]
) -> None:
    """One letter too many or too few in the address is not a Redis that is away."""
    said = asked(as_user(port, ssl_ca_certs=authority.file))
    assert "it does not speak TLS, and POSTROOM_REDIS_URL is rediss://" in said
    with TlsProxy(port, authority.sign("redis")) as proxy:
        said = asked(as_user(proxy.port))
        assert "it speaks TLS, and POSTROOM_REDIS_URL is redis://…: say rediss://…" in said
        assert proxy.received == 0


def test_a_client_shows_its_certificate(
    port: int, authority: Authority, tmp_path: Path, asked: Callable[..., str]
) -> None:
    """Mutual TLS: the right one is let in; none, a stranger's and an old one are told of."""
    stranger = Authority(tmp_path / "strangers", "stranger").sign("client", unit="clients")
    certified = authority.sign("client", unit="clients")
    with TlsProxy(port, authority.sign("redis"), clients=authority) as proxy:

        def showing(**own: Any) -> str:
            return asked(as_user(proxy.port, ssl_ca_certs=authority.file, **own))

        said = showing()
        assert "it does not accept a client without ssl_certfile in POSTROOM_REDIS_URL" in said
        said = showing(ssl_certfile=stranger.certificate, ssl_keyfile=stranger.key)
        assert "it does not accept ssl_certfile of POSTROOM_REDIS_URL" in said
        assert "expired at" not in said
        expired = authority.sign("expired", unit="clients", lifetime=timedelta(hours=-1))
        said = showing(ssl_certfile=expired.certificate, ssl_keyfile=expired.key)
        assert "accept ssl_certfile of POSTROOM_REDIS_URL, which expired at 20" in said
        assert proxy.received == 0
        assert showing(ssl_certfile=certified.certificate, ssl_keyfile=certified.key) == ""


def test_what_sentinels_are_asked_with_is_told_apart(
    port: int, tmp_path: Path, asked: Callable[..., str]
) -> None:
    """A wrong password of Sentinel's, one of Redis', a master that nobody knows, nobody there."""
    with sentinel(tmp_path, port) as own:
        user = quote(PASSWORD, safe="")
        url = f"sentinel://app:{user}@127.0.0.1:{free_port()},127.0.0.1:{own}/0"

        def of(url: str, *, master: str = "m", password: str = SENTINELS) -> str:
            return asked(url, redis_master_name=master, redis_sentinel_password=password)

        assert of(url) == ""
        setting = "POSTROOM_REDIS_URL"
        refusal = "does not accept the password for Sentinels (POSTROOM_REDIS_SENTINEL_PASSWORD)"
        assert f"a Sentinel of {setting} {refusal}" in of(url, password=WRONG)
        assert f"it does not accept user and password of {setting}" in of(url.replace(user, WRONG))
        assert f"the Sentinels of {setting} know no master 'other'" in of(url, master="other")
        away = f"sentinel://app:{user}@127.0.0.1:{free_port()}/0"
        assert f"no Sentinel of {setting} can be asked (" in of(away)
