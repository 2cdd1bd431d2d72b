"""Tokens by OAuth 2: an issuer that is away or answers badly, a client whose secret is replaced."""

from __future__ import annotations

import json
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from devstack.service import free_port
from postroom import errors
from postroom.access.oauth2 import LONGEST_SECONDS, UNSAID_SECONDS, USED_FOR, ClientCredentials
from tests.issuer import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET, OTHER = "s3cr3t-one", "s3cr3t-two"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return the file of the client's secret."""
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"client_id": "c", "client_secret": SECRET}) + "\n")
    return file


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Lend an issuer that knows the client."""
    with Issuer(lambda: "t0ken", client="c", secret=SECRET, audience="a") as found:
        yield found


def credentials(url: str, key: Path) -> ClientCredentials:
    """Return the credentials of a client."""
    return ClientCredentials(
        issuer_url=url,
        key_file=str(key),
        audience="a",
        scope=None,
        context=ssl.create_default_context(),
    )


def refusal(asked: ClientCredentials) -> str:
    """Return the one line that is said where there is no token."""
    with pytest.raises(errors.ServiceUnavailable) as refused:
        asked.token()
    said = str(refused.value)
    assert "\n" not in said
    assert SECRET not in said
    assert OTHER not in said
    return said


def test_a_token_is_kept_for_half_of_its_time(issuer: Issuer, key: Path) -> None:
    """It is not fetched for each connection."""
    asked = credentials(issuer.url, key)
    assert [asked.token() for _ in range(3)] == ["t0ken"] * 3
    assert issuer.asked == 1


def test_the_secret_of_the_client_may_be_replaced(
    issuer: Issuer, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is read for each token; one that is wrong is asked with once in two seconds."""
    monkeypatch.setattr("postroom.access.oauth2.REFUSED_FOR_SECONDS", 0.0)
    key.write_text(json.dumps({"client_id": "c", "client_secret": OTHER}))
    asked = credentials(issuer.url, key)
    assert "gives no token for Pulsar (HTTP 401, invalid_client)" in refusal(asked)
    key.write_text(json.dumps({"client_id": "c", "client_secret": SECRET}))
    assert asked.token() == "t0ken"


@pytest.mark.parametrize("content", ["", SECRET, "[]", '{"client_id": "c"}', "[" * 100_000])
def test_a_key_file_that_is_none_is_named(issuer: Issuer, key: Path, content: str) -> None:
    """By its variable, without what it holds."""
    key.write_text(content)
    said = refusal(credentials(issuer.url, key))
    assert f"POSTROOM_PULSAR_OAUTH2_KEY_FILE names {key}, which is no JSON file" in said
    assert issuer.asked == 0


def test_an_issuer_that_is_away_is_named(key: Path) -> None:
    """With its setting and what was seen, and a flood of connections asks it once."""
    url = f"http://127.0.0.1:{free_port()}"
    said = refusal(credentials(url, key))
    assert said.startswith(f"POSTROOM_PULSAR_OAUTH2_ISSUER_URL: {url} gives no token for Pulsar (")
    assert "refused" in said


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"[" * 65_536, b'{"a":' * 9999])
def test_an_answer_that_is_none_is_no_crash(
    issuer: Issuer, key: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """Whatever stands at that address says."""
    monkeypatch.setattr(json, "dumps", lambda _: body.decode())
    assert "gives no token for Pulsar (" in refusal(credentials(issuer.url, key))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (9, 9),
        ("3599", 3599),
        (1e300, LONGEST_SECONDS),
        ("1e9", LONGEST_SECONDS),
        *(
            (wrong, UNSAID_SECONDS)
            for wrong in (float("nan"), float("inf"), -5, 0, True, "x", None)
        ),
        ("9" * 500, UNSAID_SECONDS),
        (10**400, UNSAID_SECONDS),
    ],
)
def test_a_lifetime_is_read_as_issuers_write_it(
    issuer: Issuer, key: Path, said: Any, seconds: float
) -> None:
    """As a number or in a string; one that is none is a minute: nobody keeps a token for ever."""
    issuer.expires_in = said
    asked = credentials(issuer.url, key)
    before = time.monotonic()
    assert asked.token() == "t0ken"
    assert asked._good_until - before == pytest.approx(seconds * USED_FOR, abs=5)
