"""Redis by TLS, as a user of its own, and by Sentinel: Celery's side of the connections."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest
import redis

from devstack.service import free_port
from tests.certificates import Authority
from tests.sentinels import SENTINELS, sentinel
from tests.tls_proxy import TlsProxy
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.site import Site

# Every character that means something in a URL, a shell or a list.
PASSWORD = "p@ss:w/ö,r d%;x?#&=+'\"\\"  # noqa: S105 - it is looked for
QUOTED = quote(PASSWORD, safe="")
WORKER = "celery -A tasks worker --loglevel=INFO -P solo"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority that the workers trust."""
    return Authority(tmp_path / "certificates")


@pytest.fixture
def port(lite_site: Site) -> Iterator[int]:
    """Return the port of Valkey, which knows the user `app` for the time of a test."""
    found = urlsplit(lite_site.environment["POSTROOM_REDIS_URL"]).port
    assert found
    with redis.Redis(port=found) as admin:
        admin.acl_setuser(
            "app",
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            commands=["+@all", "-@dangerous", "+info"],
            keys=["*"],
            channels=["*"],
        )
        yield found
        admin.acl_deluser("app")


def url(port: int, authority: Authority, *, password: str = QUOTED) -> str:
    """Return an address with TLS."""
    return f"rediss://app:{password}@127.0.0.1:{port}/3?ssl_ca_certs={authority.file}"


def test_a_worker_speaks_tls_as_a_user_of_its_own(
    lite_site: Site, authority: Authority, port: int
) -> None:
    """It answers through the proxy, runs a task, and shows its password nowhere."""
    with TlsProxy(port, authority.sign("redis")) as proxy:
        file = lite_site.folder / "redis"
        file.write_text(f"{url(proxy.port, authority)}\n")
        del lite_site.environment["POSTROOM_REDIS_URL"]
        lite_site.environment["POSTROOM_REDIS_URL_FILE"] = str(file)
        worker = lite_site.start(WORKER)
        worker.wait_for("ready.")
        told = 'assign_medicine --kwargs {"medicine_id":"m","patient_id":"p"}'
        lite_site.run(f"celery -A tasks call tasks.{told}")
        worker.wait_for("succeeded")
        shown = "".join(
            lite_site.run(f"celery -A tasks inspect {what}") for what in ("conf", "stats", "report")
        )
        assert proxy.received > 0
    for secret in (PASSWORD, QUOTED, "p@ss", "p%40ss"):
        assert secret not in shown + worker.text()


FLAWS = {
    "authority": "of an authority that is not in ssl_ca_certs of POSTROOM_REDIS_URL",
    "host": "for another host (",
    "expired": "that has expired",
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_redis_that_cannot_be_trusted_gets_no_password(
    lite_site: Site, authority: Authority, port: int, tmp_path: Path, flaw: str
) -> None:
    """Worker and relay try again and again, at their ease, and send it nothing."""
    made = {
        "authority": Authority(tmp_path / "others", "other").sign("redis"),
        "host": authority.sign("elsewhere", hosts=["elsewhere.example"]),
        "expired": authority.sign("expired", lifetime=timedelta(hours=-1)),
    }[flaw]
    with TlsProxy(port, made) as proxy:
        worker = lite_site.start(WORKER, POSTROOM_REDIS_URL=url(proxy.port, authority))
        worker.wait_for(f"it shows a certificate {FLAWS[flaw]}")
        wait_until(lambda: proxy.connections > 1, description="it is tried again")
        assert proxy.received == 0
        assert proxy.connections < 20
        assert worker.process.poll() is None
    assert "p%40ss" not in worker.text()
    assert PASSWORD not in worker.text()


def test_a_redis_that_speaks_no_tls_is_named(
    lite_site: Site, authority: Authority, port: int
) -> None:
    """To TLS it says nothing; the worker gives it up, says so, and ends when it is told."""
    worker = lite_site.start(WORKER, POSTROOM_REDIS_URL=url(port, authority))
    worker.wait_for(f"Redis at 127.0.0.1:{port} does not do what Celery asks", seconds=60)
    assert "it does not speak TLS, and POSTROOM_REDIS_URL is rediss://" in worker.text()
    assert PASSWORD not in worker.text()
    assert worker.stop() == 0


def test_a_wrong_password_of_redis_is_said_and_tried_again(
    lite_site: Site, authority: Authority, port: int
) -> None:
    """The worker lives on, and is ready once the password is right."""
    wrong = "wr0ng-0ne"
    with TlsProxy(port, authority.sign("redis")) as proxy:
        address = url(proxy.port, authority, password=wrong)
        worker = lite_site.start(WORKER, POSTROOM_REDIS_URL=address)
        worker.wait_for("it does not accept user and password of POSTROOM_REDIS_URL")
        assert wrong not in worker.text()
        with redis.Redis(port=port) as admin:
            admin.acl_setuser("app", enabled=True, passwords=[f"+{wrong}"], keys=["*"])
        worker.wait_for("ready.")


def test_a_worker_finds_redis_by_sentinel(lite_site: Site, port: int, tmp_path: Path) -> None:
    """Of two Sentinels with a password the first one does not answer."""
    dead = free_port()
    with sentinel(tmp_path, port) as alive:
        lite_site.environment |= {
            "POSTROOM_REDIS_URL": f"sentinel://app:{QUOTED}@127.0.0.1:{dead},127.0.0.1:{alive}/4",
            "POSTROOM_REDIS_MASTER_NAME": "m",
            "POSTROOM_REDIS_SENTINEL_PASSWORD": SENTINELS,
        }
        worker = lite_site.start(WORKER)
        worker.wait_for("ready.", seconds=90)
        shown = lite_site.run("celery -A tasks inspect conf")
        shown += lite_site.run("celery -A tasks inspect stats")
        for secret in (PASSWORD, "p%40ss", SENTINELS):
            assert secret not in shown + worker.text()
        assert worker.stop() == 0
