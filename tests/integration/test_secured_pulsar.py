"""Pulsar with TLS, authentication, authorization: who is let in, and what the others are told."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pulsar
import pytest

from devstack.service import free_port
from postroom import Settings, broker, errors
from postroom.access import admin
from postroom.access import pulsar as access
from postroom.expiry import expiry
from postroom.findings import Grade
from postroom.pulsar_admin import PulsarAdmin
from postroom.reminders import Reminders
from postroom.topics import Topic
from tests.certificates import Authority
from tests.issuer import Issuer
from tests.secured_pulsar import PASSWORD, SUPERUSER, USER, SecuredPulsar, token
from tests.tls_proxy import TlsProxy
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.certificates import Certificate

pytestmark = pytest.mark.pulsar

SECRET = "s3cr3t-of-the-client"  # noqa: S105 - it is looked for
WRONG = "wr0ng-0ne"
AUDIENCE = "urn:pulsar"
SHORT = timedelta(seconds=2)
NAMESPACE = "public/default"


@pytest.fixture(scope="module")
def server(secured_pulsar: SecuredPulsar) -> SecuredPulsar:
    """Return the broker, where some roles may use the default namespace."""
    for role in ("relay", "certified", USER):
        secured_pulsar.grant(role, ["produce", "consume"], on=f"namespaces/{NAMESPACE}")
    return secured_pulsar


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Lend an issuer that knows one client."""
    with Issuer(lambda: token("relay"), client="client", secret=SECRET, audience=AUDIENCE) as found:
        yield found


@pytest.fixture
def told_of_admin(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Settings], str]:
    """Return how an admin interface is asked three times, and the one line is returned."""
    monkeypatch.setattr(admin, "_reminders", Reminders())

    def ask(chosen: Settings) -> str:
        asked = PulsarAdmin(access.of(chosen))
        for _ in range(3):
            assert not asked.statistics(broker.canonical(topic()))
        (said,) = [r.getMessage() for r in caplog.records if "admin interface" in r.getMessage()]
        assert asked.refusal
        assert said.startswith(asked.refusal)
        assert "(POSTROOM_PULSAR_ADMIN_URL); what it would tell is left out" in said
        return said

    return ask


def settings(server: SecuredPulsar, **given: Any) -> Settings:
    """Return settings that lead to the server, from variables' names without the prefix."""
    base = {
        "pulsar_url": server.url,
        "pulsar_admin_url": server.admin_url,
        "pulsar_tls_ca_file": server.environment_without_credentials["POSTROOM_PULSAR_TLS_CA_FILE"],
    }
    return Settings.model_validate({**base, **{k: str(v) for k, v in given.items()}})


def topic() -> str:
    """Return the name of a new topic."""
    return f"persistent://{NAMESPACE}/t{uuid.uuid4().hex[:10]}"


def use(chosen: Settings) -> None:
    """Send a message and receive it."""
    with broker.connected(access.of(chosen), operation_timeout=SHORT) as client:
        name = topic()
        consumer = client.subscribe(name, "s")
        client.create_producer(name).send(b"x")
        assert consumer.receive(timeout_millis=10_000).data() == b"x"


def refusal(chosen: Settings) -> str:
    """Return what is said to who is not let in."""
    with pytest.raises(errors.ServiceUnavailable) as refused:
        use(chosen)
    said = str(refused.value)
    assert "\n" not in said
    assert said.endswith("again")
    return said


def a_way_in(
    way: str, authority: Authority, issuer: Issuer, folder: Path, *, right: bool = True
) -> dict[str, Any]:
    """Return settings of one way in, which lead in or do not."""
    match way:
        case "token":
            return {"pulsar_token": token("relay") if right else token("relay", key=b"another")}
        case "token file":
            file = folder / "token"
            file.write_text((token("relay") if right else token("relay", seconds=-5)) + "\n")
            return {"pulsar_token_file": file}
        case "certificate":
            stranger = Authority(folder / "strangers", "stranger")
            made = (authority if right else stranger).sign("certified", unit="clients")
            return {"pulsar_tls_cert_file": made.certificate, "pulsar_tls_key_file": made.key}
        case "certificate's time":
            lifetime = timedelta(hours=1 if right else -1)
            made = authority.sign("certified", unit="clients", lifetime=lifetime)
            return {"pulsar_tls_cert_file": made.certificate, "pulsar_tls_key_file": made.key}
        case "user":
            return {
                "pulsar_basic_user": USER,
                "pulsar_basic_password": PASSWORD if right else WRONG,
            }
    key = folder / "key.json"
    key.write_text(json.dumps({"client_id": "client", "client_secret": SECRET if right else WRONG}))
    return {
        "pulsar_oauth2_issuer_url": issuer.url,
        "pulsar_oauth2_key_file": key,
        "pulsar_oauth2_audience": AUDIENCE,
    }


def connected_since(server: SecuredPulsar, name: str) -> list[str]:
    """Return since when producers and consumers of a topic are connected."""
    stats = json.loads(server.admin("GET", f"{name.replace('://', '/')}/stats"))
    (subscription,) = stats["subscriptions"].values()
    return [each["connectedSince"] for each in (*stats["publishers"], *subscription["consumers"])]


WAYS = ("token", "token file", "certificate", "certificate's time", "user", "oauth2")


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_leads_to_broker_and_admin_interface(
    server: SecuredPulsar, authority: Authority, issuer: Issuer, tmp_path: Path, way: str
) -> None:
    """A message is sent and received, and the admin interface answers to the same credentials."""
    chosen = settings(server, **a_way_in(way, authority, issuer, tmp_path))
    use(chosen)
    name = topic()
    with broker.connected(access.of(chosen), operation_timeout=SHORT) as client:
        consumer = client.subscribe(name, "s", consumer_name="me")
        holder = PulsarAdmin(access.of(chosen)).holder(broker.canonical(name), "s")
        assert holder == {"name": "me"}
        consumer.close()


REFUSED = {
    "token": "does not accept the token of POSTROOM_PULSAR_TOKEN for 'relay'",
    "token file": "does not accept the token of POSTROOM_PULSAR_TOKEN_FILE for 'relay', which "
    "expired at 20",
    "certificate": "of POSTROOM_PULSAR_TLS_CERT_FILE",
    "certificate's time": "of POSTROOM_PULSAR_TLS_CERT_FILE, which expired at 20",
    "user": "does not accept the user 'basic-user' of POSTROOM_PULSAR_BASIC_USER",
    "oauth2": "gives no token for Pulsar (HTTP 401, invalid_client)",
}


@pytest.mark.parametrize("way", WAYS)
def test_wrong_credentials_are_refused_with_server_setting_and_reason(
    server: SecuredPulsar, authority: Authority, issuer: Issuer, tmp_path: Path, way: str
) -> None:
    """The client's library says Timeout; the sentence says what it was, and holds no secret."""
    given = a_way_in(way, authority, issuer, tmp_path, right=False)
    said = refusal(settings(server, **given))
    assert REFUSED[way] in said
    assert (issuer.url if way == "oauth2" else f"127.0.0.1:{server.port}") in said
    secrets = [given.get("pulsar_token"), WRONG]
    secrets += [given["pulsar_token_file"].read_text()] if way == "token file" else []
    assert not any(secret and str(secret) in said for secret in secrets)


def test_who_has_no_credentials_is_told_which_settings_there_are(server: SecuredPulsar) -> None:
    """It is not taken for a broker that does not answer."""
    said = refusal(settings(server))
    assert "wants to know who this is, and no POSTROOM_PULSAR_TOKEN_FILE" in said


def test_who_lacks_a_right_is_told_which(server: SecuredPulsar) -> None:
    """The sentence names who, what and where."""
    said = refusal(settings(server, pulsar_token=token("nobody")))
    assert "does not let the token of POSTROOM_PULSAR_TOKEN for 'nobody' consume persistent://" in (
        said
    )


def test_policies_that_may_not_be_read_are_not_taken_for_none(server: SecuredPulsar) -> None:
    """Who may produce and consume alone is told that nobody looked; a superuser, what there is."""
    subscribed = [("billing", Topic(topic())), ("shipping", Topic(topic()))]
    worker = settings(server, pulsar_token=token("relay"))
    (found,) = expiry(PulsarAdmin(access.of(worker)), subscribed)
    assert found.grade is Grade.OK
    assert f"does not let this user read the policies of {NAMESPACE}" in found.found
    administrator = settings(server, pulsar_token=token(SUPERUSER))
    assert expiry(PulsarAdmin(access.of(administrator)), subscribed) == []


def flawed(authority: Authority, folder: Path, flaw: str) -> Certificate:
    """Return the certificate of a server that is not to be trusted."""
    return {
        "authority": lambda: Authority(folder / "others", "other").sign("broker"),
        "host": lambda: authority.sign("elsewhere", hosts=["elsewhere.example", "127.0.0.2"]),
        "expired": lambda: authority.sign("expired", lifetime=timedelta(hours=-1)),
        "system": lambda: authority.sign("right"),
    }[flaw]()


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ("authority", "of an authority that is not in POSTROOM_PULSAR_TLS_CA_FILE ("),
        ("host", "for another host ("),
        ("expired", "that has expired"),
        ("system", "and POSTROOM_PULSAR_TLS_CA_FILE is not set"),
    ],
)
def test_a_server_that_cannot_be_trusted_gets_nothing(
    server: SecuredPulsar, authority: Authority, tmp_path: Path, flaw: str, words: str
) -> None:
    """Neither token nor anything else is sent to it, and it is not asked a hundred times."""
    with TlsProxy(server.port, flawed(authority, tmp_path, flaw), encrypted=True) as proxy:
        given: dict[str, Any] = {"pulsar_url": f"pulsar+ssl://127.0.0.1:{proxy.port}"}
        chosen = settings(server, **given, pulsar_token=token("relay"))
        if flaw == "system":
            chosen = chosen.model_copy(update={"pulsar_tls_ca_file": None})
        said = refusal(chosen)
        assert f"127.0.0.1:{proxy.port} shows a certificate" in said
        assert words in said
        assert proxy.received == 0
        assert proxy.connections < 20


def test_the_same_server_with_the_right_certificate_is_used(
    server: SecuredPulsar, authority: Authority
) -> None:
    """The negative control of the proxy: what it passes on arrives."""
    with TlsProxy(server.port, authority.sign("right"), encrypted=True) as proxy:
        url = f"pulsar+ssl://127.0.0.1:{proxy.port}"
        chosen = settings(server, pulsar_url=url, pulsar_token=token("relay"))
        with broker.connected(access.of(chosen), operation_timeout=SHORT) as client:
            assert client.get_topic_partitions(topic())
        assert proxy.received > 0


def test_an_open_url_to_a_server_with_tls_is_said(server: SecuredPulsar) -> None:
    """One letter less in the URL is not a broker that does not answer."""
    chosen = Settings(pulsar_url=f"pulsar://127.0.0.1:{server.port}")
    assert "speaks TLS, and POSTROOM_PULSAR_URL is pulsar://…: say pulsar+ssl://…" in refusal(
        chosen
    )


def test_tls_to_a_server_without_it_is_said() -> None:
    """And the other way round."""
    with TlsProxy(free_port(), None) as proxy:
        chosen = Settings(pulsar_url=f"pulsar+ssl://127.0.0.1:{proxy.port}")
        assert f"127.0.0.1:{proxy.port} " in refusal(chosen)


def test_one_of_several_hosts_is_enough(server: SecuredPulsar) -> None:
    """The first of them does not answer, for broker and admin interface."""
    dead = free_port()
    chosen = settings(
        server,
        pulsar_url=f"pulsar+ssl://127.0.0.1:{dead},127.0.0.1:{server.port}",
        pulsar_admin_url=server.admin_url.replace("://", f"://127.0.0.1:{dead},"),
        pulsar_token=token("relay"),
    )
    use(chosen)
    assert PulsarAdmin(access.of(chosen)).is_absent(broker.canonical(topic()))


def test_the_admin_interface_gets_no_secret_in_clear(
    server: SecuredPulsar, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the broker is spoken to by TLS and the admin interface is not, it is not asked."""
    with TlsProxy(server.port, None) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        chosen = settings(server, pulsar_admin_url=url, pulsar_token=token("relay"))
        admin = PulsarAdmin(access.of(chosen))
        assert admin.keeps_for_minutes(NAMESPACE) is None
        assert proxy.connections == 0
    assert "POSTROOM_PULSAR_ADMIN_URL is http://" in caplog.text
    assert "is not asked" in (admin.refusal or "")


FLAWS = {
    "authority": "of an authority that is not in POSTROOM_PULSAR_TLS_CA_FILE",
    "host": "for another host (",
    "expired": "that has expired",
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_an_admin_interface_that_cannot_be_trusted_gets_nothing(
    server: SecuredPulsar,
    authority: Authority,
    tmp_path: Path,
    flaw: str,
    told_of_admin: Callable[[Settings], str],
) -> None:
    """Server, setting and reason are told once, however often it is asked; no token is sent."""
    with TlsProxy(server.port, flawed(authority, tmp_path, flaw)) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        said = told_of_admin(settings(server, pulsar_admin_url=url, pulsar_token=token("relay")))
        assert f"at 127.0.0.1:{proxy.port} shows a certificate {FLAWS[flaw]}" in said
        assert proxy.received == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way != "oauth2"])
def test_the_admin_interface_says_whom_it_does_not_let_in(
    server: SecuredPulsar,
    authority: Authority,
    tmp_path: Path,
    way: str,
    told_of_admin: Callable[[Settings], str],
) -> None:
    """In the same words as the broker; none of them is a secret."""
    with Issuer(str, client="", secret="", audience="") as unasked:
        given = a_way_in(way, authority, unasked, tmp_path, right=False)
    said = told_of_admin(settings(server, **given))
    assert f"at {server.admin_url.partition('://')[2]} " in said
    assert REFUSED[way] in said
    for secret in (WRONG, str(given.get("pulsar_token", WRONG))):
        assert secret not in said


def test_a_right_that_is_lacking_at_the_admin_interface_is_no_refusal(
    server: SecuredPulsar, caplog: pytest.LogCaptureFixture
) -> None:
    """Relays and consumers need none there: that is not warned of."""
    asked = PulsarAdmin(access.of(settings(server, pulsar_token=token("nobody"))))
    assert asked.keeps_for_minutes(NAMESPACE) is None
    assert asked.refusal is None
    assert caplog.text == ""


@pytest.mark.parametrize("flaw", FLAWS)
def test_an_issuer_that_cannot_be_trusted_gets_no_secret(
    server: SecuredPulsar, authority: Authority, issuer: Issuer, tmp_path: Path, flaw: str
) -> None:
    """The sentence names the issuer, its setting and what is wrong with its certificate."""
    given = a_way_in("oauth2", authority, issuer, tmp_path)
    port = int(issuer.url.rpartition(":")[2])
    with TlsProxy(port, flawed(authority, tmp_path, flaw)) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        said = refusal(settings(server, **{**given, "pulsar_oauth2_issuer_url": url}))
        assert (
            f"POSTROOM_PULSAR_OAUTH2_ISSUER_URL: {url} gives no token for Pulsar (it shows a"
            in (said)
        )
        assert FLAWS[flaw] in said
        assert proxy.received == 0


def test_a_token_is_replaced_while_connected(server: SecuredPulsar, tmp_path: Path) -> None:
    """Tokens of three seconds, replaced in time: no connection is lost in three lives of them."""
    file = tmp_path / "token"
    file.write_text(token("relay", seconds=3))
    chosen = settings(server, pulsar_token_file=file)
    with broker.connected(access.of(chosen), operation_timeout=SHORT) as client:
        name = topic()
        producer = client.create_producer(name, send_timeout_millis=2_000)
        consumer = client.subscribe(name, "s")
        before = connected_since(server, name)
        for number in range(18):
            file.write_text(token("relay", seconds=3))
            producer.send(str(number).encode())
            with pytest.raises(pulsar.Timeout):
                while True:
                    consumer.acknowledge(consumer.receive(timeout_millis=500))
        assert connected_since(server, name) == before


def test_a_token_that_is_replaced_too_late_is_found(server: SecuredPulsar, tmp_path: Path) -> None:
    """Between two tokens the producer waits; with the next one it goes on by itself."""
    file = tmp_path / "token"
    file.write_text(token("relay", seconds=2))
    chosen = settings(server, pulsar_token_file=file)
    made = broker.connect(access.of(chosen), operation_timeout=SHORT)
    producer = made.create_producer(topic(), send_timeout_millis=1_000)
    wait_until(lambda: not producer.is_connected(), description="the token has expired")
    file.unlink()
    with pytest.raises(pulsar.Timeout):
        producer.send(b"x")
    file.write_text(token("relay"))
    wait_until(producer.is_connected, description="the new token is accepted")
    producer.send(b"x")
    broker.close(made)
