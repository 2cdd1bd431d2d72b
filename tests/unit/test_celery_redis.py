"""What Celery is told of Redis: nothing that leaves open whom it trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from pydantic import ValidationError

from postroom import Settings
from postroom.celery.redis import configuration
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t"  # noqa: S105 - it is looked for


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Return an authority's file whose path has a space."""
    return Authority(tmp_path / "an authority").file


def test_an_address_without_tls_stays_as_it_is() -> None:
    """And so does the path of a socket."""
    for url in ("redis://:p@h:1/2", "redis+socket:///run/redis.sock"):
        found = configuration(Settings(redis_url=url))
        assert (found.broker_url, found.result_backend) == (url, url)
        assert found.transport_options == {}


def test_tls_checks_certificates_and_names_unless_told_otherwise(authority: Path) -> None:
    """Left to themselves the broker would trust anyone, and the result store nothing at all."""
    url = f"rediss://u:{SECRET}@h:1/2?ssl_ca_certs={str(authority).replace(' ', '%20')}"
    told = configuration(Settings(redis_url=url))
    app = Celery("x", broker=told.broker_url, backend=told.result_backend)
    with app.connection_for_write() as connection:
        broker = connection.ssl
    store = app.backend.connparams
    for found in (broker, store):
        assert found["ssl_ca_certs"] == str(authority)
        assert str(found["ssl_cert_reqs"]) in {"2", "VerifyMode.CERT_REQUIRED"}
        assert found["ssl_check_hostname"] is True
    assert (store["username"], store["password"], store["db"]) == ("u", SECRET, 2)


@pytest.mark.parametrize(
    "url",
    [
        f"sentinel://u:{SECRET}@a:1,b:26379,[::1]:3/4",
        f"sentinel://u:{SECRET}@a:1/4;sentinel://b/4;sentinel://[::1]:3/4",
        f"sentinel://u:{SECRET}@a:1/4;sentinel://u:{SECRET}@b:26379/4;sentinel://[::1]:3/4",
    ],
)
def test_sentinels_are_told_apart(url: str) -> None:
    """Both forms lead to the same hosts, master and user, and no part of it is shown."""
    given: dict[str, Any] = {"redis_master_name": "m", "redis_sentinel_password": "t3ll"}
    settings = Settings(redis_url=url, **given)
    assert repr(settings.redis_url) == "<a:1, b:26379, [::1]:3>"
    told = configuration(settings)
    app = Celery("x", broker=told.broker_url, backend=told.result_backend)
    app.conf.broker_transport_options = app.conf.result_backend_transport_options = dict(
        told.transport_options
    )
    hosts = [(host["host"], int(host["port"])) for host in app.backend.connparams["hosts"]]
    assert hosts == [("a", 1), ("b", 26379), ("::1", 3)]
    assert app.backend.connparams["password"] == SECRET
    with app.connection_for_write() as connection:
        assert len(connection.alt) == 3
        assert all(SECRET in each for each in connection.alt)
    assert told.transport_options["master_name"] == "m"
    for shown in (str(app.conf.table(censored=True)), app.conf.humanize(), app.backend.as_uri()):
        assert SECRET not in shown
        assert "t3ll" not in shown


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    """At the start, where nobody waits for a connection yet: each by its option."""
    authority = Authority(tmp_path)
    one, other = authority.sign("one"), authority.sign("other")
    wrong = {
        f"ssl_ca_certs={one.key}": f"ssl_ca_certs in POSTROOM_REDIS_URL: {one.key} has no cert",
        f"ssl_certfile={one.certificate}&ssl_keyfile={other.key}": "are no certificate and its key",
        f"ssl_certfile={one.certificate}": "are no certificate and its key",
        f"ssl_keyfile={one.key}": "are no certificate and its key",
    }
    for options, words in wrong.items():
        with pytest.raises(ValidationError) as refused:
            Settings(redis_url=f"rediss://h/0?{options}")
        assert words in str(refused.value)
    right = f"ssl_ca_certs={authority.file}&ssl_certfile={one.certificate}&ssl_keyfile={one.key}"
    assert Settings(redis_url=f"rediss://h/0?{right}").redis_url.endswith(right)
    assert Settings(redis_url=f"rediss://h/0?ssl_certfile={one.both}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"redis_url": "sentinel://h/0"}, "POSTROOM_REDIS_MASTER_NAME is not set"),
        ({"redis_master_name": "m"}, "is not sentinel://"),
        ({"redis_url": "redis://h/0?ssl_ca_certs=/x"}, "is not rediss://"),
        (
            {"redis_url": "rediss://h/0?ssl_ca_certs=/tmp/no-such"},
            "names /tmp/no-such, which cannot",
        ),
        ({"redis_url": "sentinel://h/0?x=y", "redis_master_name": "m"}, "no address of the form"),
        ({"redis_url": "sentinel://h/0;redis://h", "redis_master_name": "m"}, "no address"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], words: str) -> None:
    """Each with the variable at fault."""
    with pytest.raises(ValidationError) as refused:
        Settings(**given)
    assert words in str(refused.value)
