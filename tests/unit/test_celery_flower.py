"""Flower lets in whom it should: what is set, how it is read, and what is leaned on in Flower."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from postroom import Settings
from postroom.celery import flower
from postroom.celery.flower import _say_outages_once
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t"  # noqa: S105 - it is looked for
PASSWORDS = ["a,b", "a,b:c", "wörd", "p w", ",", "x:y", '"', "密码", "a" * 300]


def let_in(
    *, given: list[str] | None = None, variable: str | None = None, oauth: bool = False, **own: Any
) -> list[str]:
    """Return whom Flower lets in."""
    return flower.let_in(Settings(**own), given=given or [], variable=variable, oauth=oauth)


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_taken_as_it_is(password: str) -> None:
    """Commas, colons and letters of any kind included."""
    assert let_in(flower_password=password) == [f"flower:{password}"]
    assert let_in(flower_password=password, flower_user="ädmin") == [f"ädmin:{password}"]


def test_nobody_is_let_in_without_a_password() -> None:
    """There is no Flower that is open."""
    with pytest.raises(SystemExit, match="set POSTROOM_FLOWER_PASSWORD"):
        let_in()
    assert let_in(oauth=True) == []


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("u:p", ["u:p"]),
        ("u:a,b", ["u:a,b"]),
        ("u:,", ["u:,"]),
        ("u:p,v:q", ["u:p", "v:q"]),
    ],
)
def test_flowers_own_variable_is_understood(variable: str, expected: list[str]) -> None:
    """What is behind a comma is another user only if it is one with a password."""
    assert let_in(given=variable.split(","), variable=variable) == expected


@pytest.mark.parametrize("variable", ["u", "u:", ":p", "u,v", ""])
def test_a_variable_that_keeps_nobody_out_is_refused(variable: str) -> None:
    """No user, no password."""
    with pytest.raises(SystemExit):
        let_in(given=variable.split(","), variable=variable)


def test_an_option_that_flower_took_apart_is_refused() -> None:
    """Of `--basic_auth=u:a,b` nobody can tell what was meant."""
    with pytest.raises(SystemExit, match="apart at each comma"):
        let_in(given=["u:a", "b"])


def test_two_ways_to_say_it_are_refused() -> None:
    """Which one counts is not left to guess."""
    with pytest.raises(SystemExit, match="are both set") as refused:
        let_in(flower_password=SECRET, given=["u:other"], variable="u:other")
    assert SECRET not in str(refused.value)
    assert "other" not in str(refused.value)


def test_a_certificate_that_flower_cannot_show_is_refused(tmp_path: Path) -> None:
    """By a sentence with both settings and the reason; what is right, or absent, is accepted."""
    authority = Authority(tmp_path)
    right, other = authority.sign("right"), authority.sign("other")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    locked = tmp_path / "locked.pem"
    loaded = serialization.load_pem_private_key(right.key.read_bytes(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    flower.require_certificate(None)
    flower.require_certificate({"certfile": str(right.certificate), "keyfile": str(right.key)})
    pairs = [
        (tmp_path / "absent.pem", right.key, "no such file"),
        (junk, right.key, "pem"),
        (right.certificate, junk, "pem"),
        (right.certificate, other.key, "mismatch"),
        (right.certificate, locked, "flower cannot serve"),
    ]
    for certificate, key, reason in pairs:
        with pytest.raises(SystemExit) as refused:
            flower.require_certificate({"certfile": str(certificate), "keyfile": str(key)})
        assert f"FLOWER_CERTFILE ({certificate}) and FLOWER_KEYFILE ({key})" in str(refused.value)
        assert reason in str(refused.value).lower()
    trusted = {"certfile": str(right.certificate), "keyfile": str(right.key), "ca_certs": str(junk)}
    with pytest.raises(SystemExit, match="FLOWER_CA_CERTS"):
        flower.require_certificate(trusted)


def test_what_is_leaned_on_is_there() -> None:
    """A Flower that has changed it fails here, by name."""
    import flower.command
    import flower.events
    import flower.views

    command, views = sys.modules[flower.command.__name__], sys.modules[flower.views.__name__]
    assert "Flower(capp=app, options=options, **settings)" in inspect.getsource(command)
    assert "settings['ssl_options'] = {'certfile'" in inspect.getsource(command)
    made = inspect.getsource(views.BaseHandler.get_current_user)
    assert "hmac.compare_digest(stored_credential, credentials)" in made
    assert "options.basic_auth" in made
    assert "Failed to capture events" in inspect.getsource(flower.events.Events.run)


def test_a_redis_that_is_away_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """In a sentence, not at each of Flower's attempts; what else it says stays as it is."""
    import flower.events

    said = flower.events.logger
    before = list(said.filters)
    _say_outages_once(Celery("x", broker="redis://127.0.0.1:1/0"))
    try:
        for seconds in (1, 2, 4):
            error = ConnectionError(f"Error 111 ({seconds})")
            said.error(
                "Failed to capture events: '%s', trying again in %s seconds.", error, seconds
            )
        said.error("Failed to load state")
    finally:
        for own in [each for each in said.filters if each not in before]:
            said.removeFilter(own)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("Redis at 127.0.0.1:1 does not do what Celery asks (ConnectionError: ")
    assert second == "Failed to load state"
