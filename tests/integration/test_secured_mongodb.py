"""MongoDB with TLS and authentication: who is let in, and what is said to the others."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import pytest
from pymongo import errors as mongo

from postroom import Outbox, Settings, address, errors, wire
from postroom.inbox.handling.inbox import Inbox
from postroom.relay.reading.exchange import proven
from postroom.sentences import Sentences
from postroom.store import clients, quarantine_index
from postroom.store.oplog import Oplog
from postroom.store.values import ResumeToken
from tests.certificates import Authority
from tests.name_server import NameServer
from tests.pages import DOCS
from tests.tls_proxy import TlsProxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.certificates import Certificate
    from tests.secured_mongodb import SecuredMongoDB

# Every character that means something in a URI, a shell or a list.
PASSWORD = "p@ss:w/ö,r d%;x?#&=+'\"\\$€[]{}|`"  # noqa: S105 - it is looked for
WRONG = "wr0ng-0ne"
PRIVATE = "the name of a patient"
DATABASE = "secured"
READ_WRITE = {"role": "readWrite", "db": DATABASE}


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """Return the certificate of a user."""
    return authority.sign("certified", unit="clients")


@pytest.fixture(scope="module")
def server(secured_mongodb: SecuredMongoDB, certificate: Certificate) -> SecuredMongoDB:
    """Return the server, with a user of each kind and one who may only read."""
    secured_mongodb.make_user("writer", PASSWORD, [READ_WRITE])
    secured_mongodb.make_user("reader", "r", [{"role": "read", "db": DATABASE}])
    secured_mongodb.make_certified_user(certificate, [READ_WRITE])
    return secured_mongodb


def publish(uri: str) -> None:
    """Write an event, as an application does."""
    with clients.for_command_line(uri) as client:
        Outbox(client[DATABASE]).publish({"name": "Told", "data": {"patient": PRIVATE}})


def insert(uri: str) -> None:
    """Write a document, without the patience of a transaction."""
    with clients.for_command_line(uri) as client:
        client[DATABASE]["rows"].insert_one({"patient": PRIVATE})


def refusal(uri: str, call: Callable[[str], None] = insert) -> str:
    """Return what is said of a call that fails."""
    with pytest.raises(mongo.PyMongoError) as refused:
        call(uri)
    sentences = Sentences(mongodb_uri=uri, pulsar_url="pulsar://h", next_step="it is tried again")
    said = sentences.of(refused.value)
    assert said.endswith("; it is tried again")
    assert "\n" not in said
    for secret in (PASSWORD, WRONG, PRIVATE):
        assert secret not in said
    return said


def test_a_password_with_every_special_character_lets_in(server: SecuredMongoDB) -> None:
    """As long as it is percent-encoded in the URI."""
    publish(server.address("writer", PASSWORD))


def test_a_certificate_lets_in(server: SecuredMongoDB, certificate: Certificate) -> None:
    """X.509, by the URI alone."""
    publish(server.by_certificate(certificate))


def test_a_wrong_password_is_said(server: SecuredMongoDB) -> None:
    """With the setting that it stands in."""
    said = refusal(server.address("writer", WRONG))
    assert f"MongoDB at 127.0.0.1:{server.port} failed" in said
    assert "does not accept the user or certificate of POSTROOM_MONGODB_URI" in said


def test_a_certificate_of_nobody_is_said(
    server: SecuredMongoDB, authority: Authority, tmp_path: Path
) -> None:
    """One that no user has, one of an authority that the server does not know, one that expired."""
    unknown = authority.sign("unknown", unit="clients")
    assert "does not accept the user or certificate" in refusal(server.by_certificate(unknown))
    foreign = Authority(tmp_path / "strangers", "stranger").sign("certified", unit="clients")
    expired = authority.sign("expired", unit="clients", lifetime=timedelta(hours=-1))
    for each in (foreign, expired):
        said = refusal(server.by_certificate(each))
        assert "does not accept tlsCertificateKeyFile of POSTROOM_MONGODB_URI" in said
        assert ("POSTROOM_MONGODB_URI, which expired at 20" in said) == (each is expired)


def test_who_names_no_user_is_told_so(server: SecuredMongoDB) -> None:
    """It is not taken for a right that is missing."""
    said = refusal(server.address(None))
    assert "it wants to know who this is, and POSTROOM_MONGODB_URI names no user" in said


def test_a_missing_right_is_named_without_what_was_sent(server: SecuredMongoDB) -> None:
    """The server's own words quote filter and update."""

    def update(uri: str) -> None:
        with clients.for_command_line(uri) as client:
            client[DATABASE]["rows"].find_one_and_update(
                {"patient": PRIVATE}, {"$set": {"patient": PRIVATE}}
            )

    said = refusal(server.address("reader", "r"), update)
    assert "the user of POSTROOM_MONGODB_URI may not findAndModify on secured.rows" in said


def test_a_consumer_that_lacks_rights_says_which_before_it_connects(
    server: SecuredMongoDB, caplog: pytest.LogCaptureFixture
) -> None:
    """With the command that grants them; what it needs at times alone does not hold it up."""

    def prepare(uri: str) -> None:
        with clients.for_command_line(uri) as client:
            Inbox(client[DATABASE], subscription="s", keep=timedelta(days=1)).prepare()

    with pytest.raises(errors.ServiceUnavailable) as refused:
        prepare(server.address("reader", "r"))
    said = str(refused.value)
    assert "may not createIndex, insert, update on secured.__inboxMessages" in said
    assert "db.grantPrivilegesToRole(" in said
    caplog.clear()
    prepare(server.address("writer", PASSWORD))
    (said,) = [record.getMessage() for record in caplog.records if "may not" in record.getMessage()]
    assert "may not collMod on secured.__inboxMessages, which is needed at times" in said


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ("authority", "of an authority that is not in tlsCAFile of POSTROOM_MONGODB_URI"),
        ("host", "for another host ("),
        ("expired", "that has expired"),
    ],
)
def test_a_server_that_cannot_be_trusted_gets_nothing(
    server: SecuredMongoDB, authority: Authority, tmp_path: Path, flaw: str, words: str
) -> None:
    """Neither password nor anything else is sent to it, and it is not asked a hundred times."""
    made = {
        "authority": Authority(tmp_path / "others", "other").sign("mongodb"),
        "host": authority.sign("elsewhere", hosts=["elsewhere.example", "127.0.0.2"]),
        "expired": authority.sign("expired", lifetime=timedelta(hours=-1)),
    }[flaw]
    with TlsProxy(server.port, made, encrypted=True) as proxy:
        said = refusal(server.address("writer", PASSWORD, port=proxy.port))
        assert f"it shows a certificate {words}" in said
        assert "POSTROOM_MONGODB_URI" in said
        assert proxy.received == 0
        assert proxy.connections < 30


def test_an_open_uri_to_a_server_with_tls_is_said(server: SecuredMongoDB) -> None:
    """The driver knows of a closed connection only."""
    said = refusal(f"mongodb://127.0.0.1:{server.port}/?directConnection=true")
    assert "speaks TLS, and POSTROOM_MONGODB_URI has no tls=true" in said


def test_hosts_of_a_name_server_are_refused_where_there_are_none() -> None:
    """mongodb+srv is read as any other URI, and what the name server says is told."""
    said = refusal(f"mongodb+srv://writer:{WRONG}@cluster.example.invalid/")
    assert "MongoDB at cluster.example.invalid failed (ConfigurationError: " in said
    assert "its address is in POSTROOM_MONGODB_URI" in said


CLUSTER, MEMBER = "cluster.hospital.test", "one.hospital.test"


def names(port: int, text: str = "authSource=admin&replicaSet=rs0") -> NameServer:
    """Return a name server that knows a cluster of one member, which is here at a port."""
    return NameServer(
        {
            (f"_mongodb._tcp.{CLUSTER}.", "SRV"): f"0 0 {port} {MEMBER}.",
            (f"{CLUSTER}.", "TXT"): f'"{text}"',
            (f"{MEMBER}.", "A"): "127.0.0.1",
        }
    )


def by_name(server: SecuredMongoDB, password: str = PASSWORD) -> str:
    """Return the address that a name server completes."""
    ca_file = quote_plus(str(server.authority.file))
    return f"mongodb+srv://writer:{quote_plus(password)}@{CLUSTER}/?tlsCAFile={ca_file}"


def test_hosts_of_a_name_server_are_found(server: SecuredMongoDB, authority: Authority) -> None:
    """Host and port are of its SRV record, options of its TXT record; TLS is on without a word."""
    uri = by_name(server)
    assert address.shown(Settings(mongodb_uri=uri).mongodb_uri) == CLUSTER
    certificate = authority.sign("member", hosts=[MEMBER])
    with TlsProxy(server.port, certificate, encrypted=True) as proxy, names(proxy.port) as found:
        publish(uri)
        with clients.for_relay(uri) as client:
            assert client[DATABASE][wire.OUTBOX].find_one({"data.name": "Told"})
        assert {f"_mongodb._tcp.{CLUSTER}. SRV", f"{CLUSTER}. TXT"} <= set(found.asked)
        assert proxy.received > 0
        said = refusal(by_name(server, WRONG))
        assert f"MongoDB at {CLUSTER} failed" in said
        assert "does not accept the user or certificate of POSTROOM_MONGODB_URI" in said


def test_a_host_that_a_name_server_names_shows_its_certificate(
    server: SecuredMongoDB, authority: Authority
) -> None:
    """One for another host gets nothing, whatever the name server says."""
    certificate = authority.sign("other", hosts=["two.hospital.test"])
    with TlsProxy(server.port, certificate, encrypted=True) as proxy, names(proxy.port):
        said = refusal(by_name(server))
        assert "it shows a certificate for another host (" in said
        assert proxy.received == 0


def test_a_name_server_turns_off_no_encryption(
    server: SecuredMongoDB, authority: Authority
) -> None:
    """Of its options the driver takes those alone that it may set."""
    with TlsProxy(server.port, authority.sign("x"), encrypted=True) as proxy:
        with names(proxy.port, text="tls=false"):
            said = refusal(by_name(server))
        assert f"MongoDB at {CLUSTER} failed (ConfigurationError: " in said
        assert proxy.received == 0


COMMAND = re.compile(r'db\.getCollection\("(.+)"\)\.createIndex\({(.+)}, {name: "(.+)"}\)')


def test_an_index_that_may_not_be_made_is_named_with_its_command(
    server: SecuredMongoDB, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps nobody from relaying; the command makes the very index that is meant."""
    anywhere = {"resource": {"db": DATABASE, "collection": ""}, "actions": ["find", "insert"]}
    server.make_role("no_index", [anywhere])
    server.make_user("relay", "r", ["no_index"])
    with clients.for_command_line(server.address("relay", "r")) as client:
        quarantine_index.prepare_if_allowed(client[DATABASE])
    assert "may not make it (createIndex)" in caplog.text
    ((collection, fields, name),) = COMMAND.findall(caplog.text)
    with clients.for_command_line(server.url) as client:
        keys = [(field.partition(":")[0], 1) for field in fields.split(", ")]
        client[DATABASE][collection].create_index(keys, name=name)
        quarantine_index.prepare(client[DATABASE])  # another one would be refused


def test_an_index_that_mongodb_refuses_keeps_nobody_from_relaying(
    server: SecuredMongoDB, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has made another one by that name."""
    with clients.for_command_line(server.url) as client:
        client["other"][wire.QUARANTINE].create_index([("reason", 1)], name=wire.QUARANTINE_INDEX)
        quarantine_index.prepare_if_allowed(client["other"])
    assert "MongoDB refuses to make it (code 86)" in caplog.text


def test_the_pages_right_to_look_at_the_oplog_is_enough(server: SecuredMongoDB) -> None:
    """For the line of `outbox doctor` that says how far it reaches."""
    page = (DOCS / "security.md").read_text()
    (privilege,) = re.findall(r'`(\{"resource": \{"db": "local".*\})`', page)
    server.make_role("sees_oplog", [json.loads(privilege)])
    server.make_user("looks", "l", ["sees_oplog"])
    with clients.for_command_line(server.address("looks", "l")) as client:
        assert Oplog.of(client) is not None
    without = clients.for_command_line(server.address("reader", "r"))
    with without as client, pytest.raises(mongo.OperationFailure):
        Oplog.of(client)


def test_what_an_unreadable_oplog_leaves_open_is_said(
    server: SecuredMongoDB, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a checkpoint that is old; one of just now is no restored one."""
    with clients.for_command_line(server.address("writer", PASSWORD)) as client:
        for age, warnings in ((60, 0), (7200, 1)):
            token = ResumeToken({"_data": f"82{int(time.time()) - age:08X}000000012B0229296E04"})
            assert not list(proven(iter([]), database=client[DATABASE], token=token))
            assert caplog.text.count("its oplog could not be read (error 13)") == warnings
