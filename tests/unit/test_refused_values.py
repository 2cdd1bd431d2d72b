"""Values that no service takes are refused at the start, by their variable or argument."""

from __future__ import annotations

import functools
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from bson import ObjectId
from celery import Celery
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st
from pymongo import AsyncMongoClient, MongoClient
from pymongo import errors as pymongo_errors

from postroom import ConfigurationError, Settings, address, handles, sentences, settings
from postroom.access import mongodb as mongodb_access
from postroom.async_outbox import AsyncOutbox
from postroom.celery import install
from postroom.errors import ServiceUnavailable
from postroom.inbox.handling.handlers import Registry
from postroom.operations.examining import configured
from postroom.outbox import Outbox
from postroom.store import clients
from postroom.supervision import Supervisor
from postroom.writing import Writing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Authority

SECRET = "S3cr3t"  # noqa: S105 - it is looked for in what is printed
UNPRINTABLE = ["\x1b[31m", "\x00", "\u200b", "\ud800", "\u2028", "\x7f", "\u00a0"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what says why settings of the environment are refused."""

    def sentence(**variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(f"POSTROOM_{name}", value)
        with pytest.raises(ConfigurationError) as refused:
            settings.load()
        assert "\n" not in str(refused.value)
        assert refused.value.__cause__ is None
        return str(refused.value)

    return sentence


@pytest.mark.parametrize(
    "name",
    ["my.db", "$x", "a b", "a/b", "a\\b", 'a"b', "x" * 64, "ä" * 32, "admin", "Local", "CONFIG"],
)
def test_a_database_that_mongodb_refuses_is_refused(said: Any, name: str) -> None:
    """Its variable is named, at the start, and no worker asks for it for ever."""
    assert said(MONGODB_DATABASE=name).startswith(f"POSTROOM_MONGODB_DATABASE is {name!r}: ")


@pytest.mark.parametrize("name", ["x" * 63, "ä" * 31, "aid-kit", "administration", "a:b*c"])
def test_a_database_that_mongodb_takes_is_taken(name: str) -> None:
    """The longest name too."""
    assert Settings(mongodb_database=name).mongodb_database == name


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("INBOX_DAYS", each) for each in ("0", "1e-9", "24856", "36500", "-1", "inf", "nan")),
        *(("RETENTION_DAYS", each) for each in ("21000", "36500", "-1", "inf")),
        *(("SEND_TIMEOUT_SECONDS", each) for each in ("0", "0.0001", "0.4", "1e99")),
        *(("HANDLER_TIMEOUT_SECONDS", each) for each in ("0", "1e-9")),
        *(("IDLE_CHECKPOINT_SECONDS", each) for each in ("0", "1e-300", "1e9")),
        ("HISTORY_MARGIN_HOURS", "1e-12"),
        ("SUBSCRIPTION", '"billing"'),
        ("PARTITION", "'north'"),
        ("PARTITION", "'"),
        ("MONGODB_DATABASE", "'shop'"),
        ("TOPIC", "\u00f6ffentlich/default/events"),
    ],
)
def test_a_value_that_is_of_no_use_is_refused(said: Any, variable: str, value: str) -> None:
    """A time that a service cannot keep, or that is over at once; quotation marks of a file."""
    assert said(**{variable: value}).startswith(f"POSTROOM_{variable} is {value!r}: ")


def test_the_longest_times_can_be_kept() -> None:
    """By the ids of rows, which begin in 1970, and by MongoDB, which counts seconds in 31 bits."""
    found = Settings(retention_days=20_000, inbox_days=20_000)
    assert found.retention is not None
    assert ObjectId.from_datetime(datetime.now(UTC) - found.retention)
    assert found.inbox_days * 86_400 < 2**31


@pytest.mark.parametrize("sign", UNPRINTABLE)
@pytest.mark.parametrize(
    ("variable", "form"),
    [
        ("TOPIC", "public/default/a{}b"),
        ("MUTEX_TOPIC", "public/default/a{}b"),
        ("DEAD_LETTER_TOPIC", "public/default/a{}b"),
        ("SUBSCRIPTION", "a{}b"),
        ("PARTITION", "a{}b"),
        ("MONGODB_DATABASE", "a{}b"),
        ("MONGODB_URI", "mongodb://u:a{}b@h/"),
        ("PULSAR_TOKEN", "a{}b"),
        ("FLOWER_PASSWORD", "a{}b"),
    ],
)
def test_what_cannot_be_printed_is_refused(variable: str, form: str, sign: str) -> None:
    """It would forge lines of logs, or be refused by each service in words of its own."""
    value = form.format(sign)
    found: dict[str, Any] = {variable.lower(): value}
    with pytest.raises(ValueError, match=f"(?i){variable}") as refused:
        Settings(**found)
    assert sign not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"https://usr:{SECRET}@issuer/",
        f"https://{SECRET}@issuer/",
        f"https://issuer/?client_secret={SECRET}",
        f"https://issuer/#{SECRET}",
        f"https://[{SECRET}",
        f"https://a,b/{SECRET}@",
        "https://a,b/",
        "http://issuer/",
    ],
)
def test_an_issuer_that_holds_more_than_its_host_is_refused(
    said: Any, tmp_path: Path, url: str
) -> None:
    """By name, and without what may be a secret."""
    (tmp_path / "key").write_text("{}")
    found = said(PULSAR_OAUTH2_KEY_FILE=str(tmp_path / "key"), PULSAR_OAUTH2_ISSUER_URL=url)
    assert found.startswith("POSTROOM_PULSAR_OAUTH2_ISSUER_URL is not https://host")
    assert SECRET not in found


def test_the_settings_show_of_an_issuer_its_host(tmp_path: Path) -> None:
    """As of every other address."""
    (tmp_path / "key").write_text("{}")
    found = Settings(
        pulsar_oauth2_issuer_url=f"https://issuer/{SECRET}",
        pulsar_oauth2_key_file=str(tmp_path / "key"),
    )
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("tls=true&tlsCAFile={nothing}", "an address whose option tlsCAFile has a wrong value"),
        ("tls=true&tlsCAFile={folder}", "an address whose option tlsCAFile has a wrong value"),
        ("tls=true&tlsCAFile={text}", "an address whose option tlsCAFile has a wrong value"),
        ("tls=true&tlsCRLFile={text}", "an address whose option tlsCRLFile has a wrong value"),
        (
            "tls=true&tlsCertificateKeyFile={text}",
            "an address whose option tlsCertificateKeyFile has a wrong",
        ),
        (
            "datetime_conversion=soon",
            "an address whose option datetime_conversion has a wrong value",
        ),
        ("maxPoolSize=1&minPoolSize=2", "an address whose options do not go together"),
        ("authMechanism=MONGODB-OIDC", "an address whose options do not go together"),
        (
            "authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:moon",
            "an address whose options do not go together",
        ),
        ("authMechanism=PLAIN", "an address whose options do not go together"),
        (
            "tlsCertificateKeyFilePassword=abc&S3cr3t",
            "an address whose option (not shown) has a wrong value",
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_a_uri_of_which_no_client_can_be_made_is_refused(
    said: Any, tmp_path: Path, scheme: str, query: str, words: str
) -> None:
    """At the start: a file that is not there, what is no certificate, half an identity."""
    (tmp_path / "text").write_text("no certificate")
    files = {each: tmp_path / each for each in ("nothing", "text")} | {"folder": tmp_path}
    found = said(MONGODB_URI=f"{scheme}://h.example.net/?{query.format(**files)}")
    assert found.startswith("POSTROOM_MONGODB_URI is ")
    assert words in found
    assert SECRET not in found


def test_certificates_that_are_in_order_are_taken(authority: Authority, tmp_path: Path) -> None:
    """The check is one of files and options: nothing is asked."""
    certificate, both = authority.sign("me"), tmp_path / "both.pem"
    both.write_bytes(certificate.certificate.read_bytes() + certificate.key.read_bytes())
    for scheme in ("mongodb", "mongodb+srv"):
        uri = f"{scheme}://h.example.net/?tls=true&tlsCAFile={authority.file}"
        uri += f"&tlsCertificateKeyFile={both}&authMechanism=MONGODB-X509"
        assert Settings(mongodb_uri=uri).mongodb_uri == uri


@pytest.mark.filterwarnings("error")
def test_what_pymongo_does_not_know_is_not_told_to_it() -> None:
    """It would warn of the name, which may be a part of a password."""
    uri = f"mongodb://h/?tlsCertificateKeyFilePassword=abc&{SECRET}=1&tls=true"
    clients.for_relay(uri).close()
    settings_ = Settings(mongodb_uri=uri)
    assert [each for each in configured.examine(settings_) if SECRET in each.sentence] == []
    assert SECRET not in mongodb_access.why(pymongo_errors.AutoReconnect("connection closed"), uri)


def test_a_file_that_goes_is_said_and_waited_for(authority: Authority, tmp_path: Path) -> None:
    """A rotation in two steps ends no thread: neither the client's making nor the sentence."""
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_bytes())
    uri = address.mongodb(f"mongodb://127.0.0.1:9/?tls=true&tlsCAFile={file}")
    file.unlink()
    said = sentences.Sentences(mongodb_uri=uri, pulsar_url="pulsar://h", next_step="again")
    closed = pymongo_errors.AutoReconnect("connection closed")
    assert "a file that POSTROOM_MONGODB_URI names" in mongodb_access.why(closed, uri)
    assert said.of(closed).startswith("MongoDB at 127.0.0.1:9 failed (AutoReconnect: a file")
    with pytest.raises(
        ServiceUnavailable, match="an address whose option tlsCAFile has a wrong value"
    ):
        clients.for_relay(uri)
    file.write_bytes(authority.file.read_bytes())
    clients.for_relay(uri).close()


def test_a_sentence_that_fails_ends_no_supervision(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises: the run is repeated."""
    stopping, runs = threading.Event(), 0

    def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            stopping.set()
        raise OSError

    def sentence(_: BaseException) -> str:
        raise FileNotFoundError("no such file")

    Supervisor(run, stopping=stopping, sentence=sentence, waiting=lambda _: None).supervise()
    assert runs == 2
    assert "OSError (no more can be said of it: FileNotFoundError)" in caplog.text


@pytest.mark.parametrize("name", ["", "a/b", "a,b", "a b", "x" * 201, "a\nb", "\ud800", 7, None])
@pytest.mark.parametrize("kind", [Outbox, AsyncOutbox])
def test_an_outbox_partition_is_called_as_a_relay_can_be(kind: Any, name: Any) -> None:
    """What is written into another one would wait for ever."""
    client: Any = (MongoClient if kind is Outbox else AsyncMongoClient)(connect=False)
    with pytest.raises(ConfigurationError, match=r"^No relay could be started for the outbox"):
        kind(client.db, partition=name)


async def later(_name: str, _data: object) -> str:
    """Answer later."""
    return "public/default/x"


def bit_by_bit(_name: str, _data: object) -> Any:
    """Answer bit by bit."""
    yield "public/default/x"


class Later:
    """Answers later, as an object."""

    async def __call__(self, name: str, data: object) -> str:
        """Answer later."""
        return await later(name, data)


class LaterStill(Later):
    """Inherits that."""

    async def method(self, name: str, data: object) -> str:
        """Answer later, too."""
        return await later(name, data)


@pytest.mark.parametrize(
    "function",
    [
        later,
        bit_by_bit,
        Later(),
        LaterStill(),
        LaterStill().method,
        functools.partial(later),
        functools.partial(functools.partial(Later())),
        functools.lru_cache(later),
    ],
)
def test_a_function_that_answers_later_is_refused(function: Any) -> None:
    """Each event would be poison: nobody awaits a topic or a key."""
    for arguments in ({"topics": function}, {"key": function}):
        with pytest.raises(SystemExit, match="is async or a generator"):
            install(Celery(), Settings(), **arguments)
    with pytest.raises(ConfigurationError, match="is async or a generator"):
        Outbox(MongoClient(connect=False).db, key=function)


def test_a_function_that_runs_what_is_async_is_taken() -> None:
    """One that wraps an async function and waits for it answers at once."""

    @functools.wraps(later)
    def now(*_: object) -> str:
        return "public/default/x"

    assert install(Celery(), Settings(), topics=now).topics is now


@pytest.mark.parametrize(
    "arguments",
    [
        {"topics": "mongodb://u:{}@h"},
        {"topics": ["mongodb://u:{}@h"]},
        {"topics": {"A": "mongodb://u:{}@h"}},
        {"topics": {"mongodb://u:{}@h": "x"}},
        {"topics": {"A": "redis:/:{}"}},
        {"topics": {"A": "eyJhbGciOi.{}"}},
        {"key": {"Bearer {}": 1}},
        {"key": ["mongodb://u:{}@h"]},
        {"shared": "mongodb://u:{}@h"},
        {"shared": ["mongodb://u:{}@h"]},
        {"shared": ["mongodb://u:{}@h/*"]},
        {"consume": "mongodb://u:{}@h"},
        {"consume": {"mongodb://u:{}@h": ["a/b/c"]}},
        {"consume": {"s": "mongodb://u:{}@h"}},
        {"consume": {"s": ["mongodb://u:{}@h"]}},
        {"consume": {"s": ["re:mongodb://u:{}@h"]}},
        {"consume": {"s": [["mongodb://u:{}@h"]]}},
        {"relay_queue": "mongodb://u:{}@h"},
        {"settings": "mongodb://u:{}@h"},
    ],
)
def test_no_argument_is_quoted_that_may_hold_a_secret(arguments: dict[str, Any]) -> None:
    """Arguments get mixed up as variables do."""

    def planted(value: Any) -> Any:
        match value:
            case str():
                return value.replace("{}", SECRET)
            case list():
                return [planted(each) for each in value]
            case dict():
                return {planted(name): planted(each) for name, each in value.items()}

    with pytest.raises(SystemExit) as refused:
        install(Celery(), **{"settings": Settings(), **planted(arguments)})
    assert SECRET not in str(refused.value)
    with pytest.raises(SystemExit) as refused:
        install(planted("mongodb://u:{}@h"))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CLOUDEVENTS": " 1 \n"}, True),
        ({"CLOUDEVENTS": "1", "CLOUDEVENTS_SOURCE": " "}, True),
        ({"CLOUDEVENTS": "1", "CLOUDEVENTS_SOURCE": " https://shop \n"}, True),
        ({"CLOUDEVENTS": "0", "CLOUDEVENTS_SOURCE": "a b"}, None),
        ({"CLOUDEVENTS": "1", "CLOUDEVENTS_SOURCE": "a b"}, None),
        ({"CLOUDEVENTS": "", "CLOUDEVENTS_SOURCE": ""}, None),
        ({"MAX_MESSAGE_BYTES": " 4096\n"}, False),
    ],
)
def test_writers_read_their_variables_by_the_relays_rule(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, expected: bool | None
) -> None:
    """What one of them takes the other takes, as the same; else the sizes would differ."""
    for name, value in variables.items():
        monkeypatch.setenv(f"POSTROOM_{name}", value)
    if expected is None:
        with pytest.raises(ConfigurationError) as by_settings:
            settings.load()
        with pytest.raises(ConfigurationError) as by_writer:
            Writing.of("aid-kit")
        assert str(by_writer.value) == str(by_settings.value)
        return
    found, relays = settings.load(), settings.load().cloud_events_of_database
    writing = Writing.of(found.mongodb_database)
    writers = writing.cloud_events
    assert (writers is not None) is (relays is not None) is expected
    assert writers is None or relays is None or vars(writers) == vars(relays)
    assert writing.max_message_bytes == found.max_message_bytes


@options(deadline=None, max_examples=300)
@given(
    name=st.sampled_from(sorted(Settings.model_fields)),
    value=st.one_of(
        st.sampled_from(["", " ", "\n", "'", '"', "''", "x" * 100_000, "0", "-1", "1e999", "nan"]),
        st.text(max_size=12).map(lambda text: text.encode(errors="ignore").decode()),
    ),
)
def test_every_variable_takes_a_value_or_names_itself(name: str, value: str) -> None:
    """Whatever stands in it: one line that names it, and no other error."""
    variable = f"POSTROOM_{name.upper()}"
    with mock.patch.dict(os.environ, {variable: value.replace("\0", "")}):
        try:
            settings.load()
        except ConfigurationError as error:
            said = str(error)
        else:
            return
    assert f"POSTROOM_{name.upper()[:5]}" in said
    assert "\n" not in said


@pytest.mark.parametrize("content", ["one\ntwo", "a\x00b", "a\x1bb", "a\u2028b"])
@pytest.mark.parametrize(
    "name", ["MONGODB_URI", "REDIS_URL", "PULSAR_TOKEN", "FLOWER_PASSWORD", "PULSAR_BASIC_PASSWORD"]
)
def test_a_secret_of_several_lines_is_refused(
    said: Any, tmp_path: Path, name: str, content: str
) -> None:
    """In a header of HTTP it would be refused by words that quote it."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}{content}")
    found = said(**{f"{name}_FILE": str(file)})
    assert f"POSTROOM_{name}_FILE names {file}, which holds more than one line" in found
    assert SECRET not in found


@pytest.mark.parametrize("option", ["subscription", "max_attempts", "timeout_seconds", "batch"])
def test_no_option_of_a_handler_is_quoted_that_may_hold_a_secret(option: str) -> None:
    """As it is with the arguments of install()."""
    registry, options_ = Registry(), {option: f"mongodb://u:{SECRET}@h"}

    def register() -> None:
        handles("A", into=registry, **options_)(lambda event: event)  # type: ignore[arg-type]
        registry.require_for(["s"], known=["s"])

    with pytest.raises(ConfigurationError) as refused:
        register()
    assert SECRET not in str(refused.value)
    assert "not not" not in str(refused.value)
