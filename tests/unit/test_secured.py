"""Secrets come from variables or files, and settings that contradict each other are refused."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from postroom import ConfigurationError, Settings, settings
from postroom.access import pulsar as access
from postroom.access.validity import expired_at, valid_until
from postroom.operations.examining.workers import told
from tests.certificates import Authority, Certificate

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t"  # noqa: S105 - it is looked for
KEY = base64.b64encode(b"s3cr3t" * 5 + b"..").decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority of these tests."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """Return a client's certificate."""
    return authority.sign("client", unit="clients")


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: object) -> str:
    """Return the sentence with which variables are refused."""
    for name, value in variables.items():
        monkeypatch.setenv(f"POSTROOM_{name}", str(value))
    with pytest.raises(ConfigurationError) as refused:
        settings.load()
    said = str(refused.value)
    assert "\n" not in said
    assert SECRET not in said
    assert said.endswith("Nothing was started; set it right and start again.")
    return said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mongodb_uri", "mongodb://u:s3cr3t@h/"),
        ("redis_url", "redis://:s3cr3t@h/0"),
        ("pulsar_basic_password", SECRET),
        ("flower_password", f"{SECRET},with ümlaut"),
        ("redis_sentinel_password", SECRET),
        ("encryption_keys", f"k1:{KEY},k2:{KEY}"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "  \n\n"])
def test_a_secret_is_read_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: str, end: str
) -> None:
    """A line break at its end does no harm, and neither does one behind the file's name."""
    file = tmp_path / "secret"
    file.write_bytes(f"{content}{end}".encode())
    if name == "pulsar_basic_password":
        monkeypatch.setenv("POSTROOM_PULSAR_BASIC_USER", "somebody")
    if name == "redis_sentinel_password":
        monkeypatch.setenv("POSTROOM_REDIS_URL", "sentinel://h/0")
        monkeypatch.setenv("POSTROOM_REDIS_MASTER_NAME", "m")
    monkeypatch.setenv(f"POSTROOM_{name.upper()}_FILE", f" {file}\n")
    found = settings.load()
    value = getattr(found, name)
    assert (value if isinstance(value, str) else value.get_secret_value()) == content
    for shown in (repr(found), str(found), str(told(found)), repr(found.envelopes)):
        assert SECRET not in shown
        assert KEY not in shown


@pytest.mark.parametrize("name", ["MONGODB_URI", "REDIS_URL", "PULSAR_TOKEN", "FLOWER_PASSWORD"])
def test_a_variable_and_its_file_are_not_both_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Which one counts is not left to guess."""
    file = tmp_path / "secret"
    file.write_text("redis://h/0")
    said = refusal(monkeypatch, **{name: "redis://h/1", f"{name}_FILE": file})
    assert f"POSTROOM_{name} and POSTROOM_{name}_FILE are both set" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "holds no text in UTF-8"),
        (b"x" * 5_000_000, "holds more than 4194304 bytes"),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["MONGODB_URI_FILE", "PULSAR_TOKEN_FILE", "PULSAR_TLS_CA_FILE", "PULSAR_OAUTH2_KEY_FILE"],
)
def test_a_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    """The sentence has the variable, the file and what is wrong with it."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    assert f"POSTROOM_{name} names {file}, which {words}" in refusal(monkeypatch, **{name: file})


@pytest.mark.parametrize("value", [SECRET, f"/{SECRET}", f"eyJhbGciOi.{SECRET}.x", f"/n/{SECRET}"])
def test_a_secret_in_the_place_of_its_file_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """A value is shown where it is a path into a folder that exists, and nowhere else."""
    assert "a file (not shown here)" in refusal(monkeypatch, PULSAR_TOKEN_FILE=value)


def test_ways_in_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    """A token and a certificate are two ways to say who this is."""
    said = refusal(
        monkeypatch,
        PULSAR_URL="pulsar+ssl://h",
        PULSAR_TOKEN=SECRET,
        PULSAR_TLS_CERT_FILE=certificate.certificate,
        PULSAR_TLS_KEY_FILE=certificate.key,
    )
    assert "POSTROOM_PULSAR_TOKEN or its _FILE and POSTROOM_PULSAR_TLS_CERT_FILE are set" in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"PULSAR_BASIC_USER": "u"}, "POSTROOM_PULSAR_BASIC_PASSWORD is not"),
        ({"PULSAR_BASIC_PASSWORD": SECRET}, "POSTROOM_PULSAR_BASIC_USER is not"),
        ({"PULSAR_OAUTH2_ISSUER_URL": "https://h"}, "POSTROOM_PULSAR_OAUTH2_KEY_FILE is not"),
        ({"PULSAR_BASIC_USER": "u", "PULSAR_BASIC_PASSWORD": f"a:{SECRET}"}, "has a colon"),
    ],
)
def test_halves_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str
) -> None:
    """What is missing is named."""
    assert words in refusal(monkeypatch, **given)


def test_a_secret_is_not_fetched_in_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The issuer's address is https, or within this machine."""
    key = tmp_path / "key.json"
    key.write_text("{}")
    given = {"PULSAR_OAUTH2_KEY_FILE": key}
    for url in ("http://issuer.example", "http://127.0.0.1.example", "ftp://h", "https://"):
        said = refusal(monkeypatch, **given, PULSAR_OAUTH2_ISSUER_URL=url)
        assert "POSTROOM_PULSAR_OAUTH2_ISSUER_URL is not https://" in said
    for url in (
        "https://issuer.example/x",
        "http://127.0.0.1:9",
        "http://[::1]/",
        "http://localhost",
    ):
        monkeypatch.setenv("POSTROOM_PULSAR_OAUTH2_ISSUER_URL", url)
        assert settings.load().pulsar_way_in == "oauth2"


def test_files_for_tls_need_tls(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, certificate: Certificate
) -> None:
    """An authority or certificate beside pulsar:// would be of no use, and nobody would know."""
    files = {
        "PULSAR_TLS_CERT_FILE": certificate.certificate,
        "PULSAR_TLS_KEY_FILE": certificate.key,
    }
    assert "POSTROOM_PULSAR_URL is not pulsar+ssl://" in refusal(monkeypatch, **files)
    for name in files:
        monkeypatch.delenv(f"POSTROOM_{name}")
    assert "nothing would be encrypted" in refusal(monkeypatch, PULSAR_TLS_CA_FILE=authority.file)
    monkeypatch.setenv("POSTROOM_PULSAR_ADMIN_URL", "https://h:8443")
    assert settings.load().pulsar_tls_ca_file == str(authority.file)


def test_files_that_are_no_certificates_are_refused(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    """A key in the place of an authority, a key of another certificate, one with a passphrase."""
    monkeypatch.setenv("POSTROOM_PULSAR_URL", "pulsar+ssl://h")
    said = refusal(monkeypatch, PULSAR_TLS_CA_FILE=certificate.key)
    assert f"POSTROOM_PULSAR_TLS_CA_FILE: {certificate.key} has no certificate" in said
    monkeypatch.delenv("POSTROOM_PULSAR_TLS_CA_FILE")
    other = authority.sign("other")
    locked = tmp_path / "locked.key"
    locked.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    for key in (other.key, certificate.certificate, locked):
        said = refusal(
            monkeypatch, PULSAR_TLS_CERT_FILE=certificate.certificate, PULSAR_TLS_KEY_FILE=key
        )
        assert "are no certificate and its key" in said


def test_a_secret_over_an_open_connection_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once a process and settings, and never with the secret."""
    given = Settings(pulsar_token=SECRET)
    for _ in range(3):
        access.of(given)
    (warned,) = [r.getMessage() for r in caplog.records]
    assert warned.startswith(
        "POSTROOM_PULSAR_TOKEN is set and POSTROOM_PULSAR_URL is not pulsar+ssl"
    )
    assert SECRET not in warned
    assert SECRET not in repr(access.of(given))


@pytest.mark.parametrize("days", [-1, 1, 40 * 365])
def test_when_a_certificate_expires_is_read_of_its_file(authority: Authority, days: int) -> None:
    """In both forms that a certificate has for a time; what is none tells nothing."""
    made = authority.sign("timed", lifetime=timedelta(days=days))
    end = valid_until(str(made.both))
    expected = x509.load_pem_x509_certificate(made.certificate.read_bytes()).not_valid_after_utc
    assert end == expected
    assert bool(expired_at(end)) == (days < 0)
    assert valid_until(str(made.key)) is None
    assert valid_until(f"{made.key}.none") is None
    assert expired_at(None) == ""
