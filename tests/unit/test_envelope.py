"""Payloads that a broker cannot read: sealed for one event, opened by who has the key."""

from __future__ import annotations

import base64
import importlib.metadata
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from bson import ObjectId
from hypothesis import example, given
from hypothesis import strategies as st

from postroom import ConfigurationError, DomainEvent, InvalidEvent, Settings, envelope, wire
from postroom.envelope import AesGcm, Envelopes, key_ring
from postroom.errors import KeyMissing, Poison
from postroom.routing import Routing
from postroom.store import letter
from postroom.store.codec import decoded
from postroom.store.partitioner import Partitioner
from postroom.store.row_writer import RowWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
RING = {"2026": NEW, "2025": OLD}
PLAIN = b'{"name":"Diagnosed","data":{"finding":"tonsillitis"}}'


class Diagnosed(DomainEvent, name="EnvelopeDiagnosed", key="patient_id", encrypted=True):
    """An event that no broker is to read."""

    patient_id: str
    finding: str


def row(*, encrypted: object = None, **fields: Any) -> dict[str, Any]:
    """Return an outbox row of an event whose class says nothing."""
    marked = {} if encrypted is None else {"encrypted": encrypted}
    data = {"name": "EnvelopeNoticed", "data": {"finding": "tonsillitis"}}
    return {"_id": ObjectId(), "partitionKey": "default", "data": data, **marked, **fields}


def routing(envelopes: Envelopes | None = None) -> Routing:
    """Return the routing of a relay."""
    return Routing(default="a/b/c", topics={}, key=None, envelopes=envelopes)


def opened(made: letter.Letter, envelopes: Envelopes, **changed: str | None) -> bytes:
    """Open a letter as a consumer does, perhaps as that of another event."""
    bound: Mapping[str, Any] = {"event_id": made.id, "key": made.key, **changed}
    return envelopes.opened(made.payload, made.headers, **bound)


def test_a_sealed_payload_is_opened_by_who_has_the_key() -> None:
    """Nothing of it can be read; twice sealed it is another text each time."""
    relay, consumer = Envelopes(RING), Envelopes(RING)
    one, other = (relay.sealed(PLAIN, event_id="e", key="p1") for _ in range(2))
    assert one[0] != other[0]
    assert len(one[0]) == len(PLAIN) + 44 <= len(PLAIN) + letter.SEALED_BYTES
    assert not any(word in one[0] for word in (b"Diagnosed", b"finding", b"tonsillitis", b"p1"))
    assert one[1] == {"postroom-envelope": "aes-256-gcm", "postroom-envelope-key": "2026"}
    for payload, said in (one, other):
        assert consumer.opened(payload, said, event_id="e", key="p1") == PLAIN


def test_the_form_is_frozen() -> None:
    """What was sealed by this release is opened by every later one."""
    sealed = base64.b64decode(SEALED)
    said = {wire.ENVELOPE: "aes-256-gcm", wire.ENVELOPE_KEY: "2025"}
    opener = Envelopes(RING)
    assert opener.opened(sealed, said, event_id="65f000000000000000000001", key="p1") == PLAIN


SEALED = (
    "LBxlho5V5ioimFGEuQGa9TZ85dJlGFzyBvB+vC1FN4HpzfyErFOr7gdoTZMvWpSqipSgJuWzr0U3b34D"
    "vB7PaMRY6c/rgYfT8qXuy7BvGRmDpa1vDKfgndl+dxglvj265g=="
)


def test_old_keys_still_open() -> None:
    """The first key of the ring seals, and each of it opens: keys are replaced step by step."""
    before = Envelopes({"2025": OLD})
    payload, said = before.sealed(PLAIN, event_id="e", key=None)
    during = Envelopes({"2025": OLD, "2026": NEW})
    after = Envelopes({"2026": NEW, "2025": OLD})
    for each in (during, after):
        assert each.opened(payload, said, event_id="e", key=None) == PLAIN
    payload, said = after.sealed(PLAIN, event_id="e", key=None)
    assert said[wire.ENVELOPE_KEY] == "2026"
    assert during.opened(payload, said, event_id="e", key=None) == PLAIN
    with pytest.raises(KeyMissing, match="the key '2026', which is not among"):
        before.opened(payload, said, event_id="e", key=None)


@pytest.mark.parametrize("ring", [None, {"2025": NEW}])
def test_without_the_key_it_is_refused_by_the_keys_id(ring: dict[str, bytes] | None) -> None:
    """None at all, or another key under this id; no sentence holds any of the payload."""
    payload, said = Envelopes({"2025": OLD}).sealed(PLAIN, event_id="e", key="p1")
    with pytest.raises(InvalidEvent, match="'2025'") as refused:
        Envelopes(ring).opened(payload, said, event_id="e", key="p1")
    assert isinstance(refused.value, KeyMissing) is (ring is None)
    assert "tonsillitis" not in str(refused.value)


@pytest.mark.parametrize("changed", [{"event_id": "other"}, {"key": "p2"}, {"key": None}])
def test_a_payload_belongs_to_its_event(changed: dict[str, str | None]) -> None:
    """Nobody can put it under another event's id or another patient's key."""
    envelopes = Envelopes(RING)
    made = letter.write(row(encrypted=True, key="p1"), routing(envelopes), 1 << 20)
    assert opened(made, envelopes).startswith(b'{"name":"EnvelopeNoticed"')
    with pytest.raises(InvalidEvent, match="cannot be decrypted"):
        opened(made, envelopes, **changed)


def test_a_stranger_cannot_say_that_it_is_under_another_key_or_codec() -> None:
    """What the properties say is bound too."""
    envelopes = Envelopes({"2026": NEW, "2025": NEW})
    payload, said = envelopes.sealed(PLAIN, event_id="e", key=None)
    for name, value in ((wire.ENVELOPE_KEY, "2025"), (wire.ENVELOPE, "rot13")):
        with pytest.raises(InvalidEvent):
            envelopes.opened(payload, {**said, name: value}, event_id="e", key=None)


@given(st.binary(max_size=200), st.text(max_size=80), st.text(max_size=80))
@example(b"", "aes-256-gcm", "2026")
@example(bytes(44), "aes-256-gcm", "2026")
@example(bytes(44), "aes-256-gcm", "\x1b[2J\n" * 20)
def test_whatever_a_stranger_sends_is_refused(payload: bytes, codec: str, key_id: str) -> None:
    """By one kind of error, in a sentence of bounded length."""
    for said in (codec, "aes-256-gcm"):
        properties = {wire.ENVELOPE: said, wire.ENVELOPE_KEY: key_id}
        with pytest.raises(InvalidEvent) as refused:
            OPENER.opened(payload, properties, event_id="e", key=None)
        assert len(str(refused.value)) < 2000
        assert str(refused.value).isprintable()


OPENER = Envelopes(RING)


def test_salts_of_strangers_fill_no_memory() -> None:
    """As many as they like are tried, and few are remembered."""
    opener = AesGcm(RING)
    for number in range(envelope.MOST_DERIVED + 5):
        with pytest.raises(InvalidEvent):
            opener.open(number.to_bytes(60), b"", key_id="2026")
    assert len(opener._derived) <= envelope.MOST_DERIVED


def test_a_key_is_derived_anew_before_its_nonces_could_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a million payloads, so that no key is ever used up."""
    monkeypatch.setattr(envelope, "MOST_UNDER_ONE_SALT", 3)
    sealer = AesGcm(RING)
    salts = [sealer.seal(PLAIN, b"")[:16] for _ in range(10)]
    assert [len(list(same)) for _, same in itertools.groupby(salts)] == [3, 3, 3, 1]


def test_who_says_that_an_event_is_encrypted() -> None:
    """Its class, its row or the setting: each alone is enough, also for rows of other programs."""
    keys = Envelopes(RING)
    hermes = row()
    diagnosed = row(data={"name": "EnvelopeDiagnosed", "data": {"finding": "tonsillitis"}})
    assert b"tonsillitis" in letter.write(hermes, routing(keys), 1 << 20).payload
    for given_row, envelopes in (
        (diagnosed, keys),
        (row(encrypted=True), keys),
        (hermes, Envelopes(RING, seals_all=True)),
    ):
        made = letter.write(given_row, routing(envelopes), 1 << 20)
        assert b"tonsillitis" not in made.payload
        assert made.headers[wire.ENVELOPE_KEY] == "2026"
        assert b"tonsillitis" in opened(made, keys)


@pytest.mark.parametrize(
    "given_row", [row(encrypted=True), row(data={"name": "EnvelopeDiagnosed", "data": {}})]
)
def test_what_is_to_be_encrypted_is_never_sent_otherwise(given_row: dict[str, Any]) -> None:
    """A relay without a key sets it aside, in a sentence that names the setting."""
    with pytest.raises(Poison, match="POSTROOM_ENCRYPTION_KEYS gives no key here"):
        letter.write(given_row, routing(), 1 << 20)


def test_a_row_says_that_it_is_encrypted() -> None:
    """Also a relay that does not know the class encrypts it; the writer needs no key."""
    writer = RowWriter(partitioner=Partitioner("p", 1), key=None, max_bytes=1 << 20)
    event = Diagnosed(patient_id="p1", finding="x")
    made = decoded(bytes(writer.row(event, row_id=ObjectId(), headers=None).raw))
    assert isinstance(made, dict)
    assert made["encrypted"] is True
    assert made["key"] == "p1"
    plain = writer.row({"name": "Other", "data": {}}, row_id=ObjectId(), headers=None)
    assert "encrypted" not in plain


@pytest.mark.parametrize("headers", [None, {"a": "b"}])
def test_publish_refuses_what_would_be_too_large_once_it_is_sealed(
    headers: dict[str, str] | None,
) -> None:
    """With any size: what one side accepts the other one sends."""
    keys = Envelopes(RING, seals_all=True)
    writer = RowWriter(partitioner=Partitioner("p", 1), key=None, max_bytes=2000, encrypts_all=True)
    accepted = 0
    for size in range(1300, 1600):
        event = {"name": "Big", "data": {"text": "x" * size}}
        try:
            made = writer.row(event, row_id=ObjectId(), headers=headers)
        except InvalidEvent:
            continue
        accepted += 1
        sent = letter.write(decoded(bytes(made.raw)), routing(keys), 2000)
        properties = sum(len(name) + len(value) for name, value in sent.headers.items())
        assert len(sent.payload) + properties < 2000
    assert 0 < accepted < 300


def test_a_strangers_header_does_not_say_that_a_message_is_sealed() -> None:
    """Those two names are ours."""
    made = letter.write(
        row(headers={wire.ENVELOPE: "aes-256-gcm", wire.ENVELOPE_KEY: "2026", "a": "b"}),
        routing(Envelopes(RING)),
        1 << 20,
    )
    assert dict(made.headers) == {"a": "b"}


def test_a_cloud_event_does_not_say_that_it_is_json() -> None:
    """Its attributes stay readable, the name among them; its data are octets."""
    settings = Settings(cloudevents=True, encryption_keys=text_of(RING), encrypt="all")
    dressed = Routing(
        default="a/b/c",
        topics={},
        key=None,
        cloud_events=settings.cloud_events_of_database,
        envelopes=settings.envelopes,
    )
    made = letter.write(row(), dressed, 1 << 20)
    assert made.headers["content-type"] == "application/octet-stream"
    assert made.headers["ce_type"] == "EnvelopeNoticed"
    assert made.headers[wire.ENVELOPE] == "aes-256-gcm"


def text_of(ring: dict[str, bytes]) -> str:
    """Return a key ring as the setting has it."""
    return ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in ring.items())


def test_keys_are_read_in_order() -> None:
    """With blanks, in either alphabet of base64, and with or without its end."""
    key = bytes([251, 255] * 16)
    safe = base64.urlsafe_b64encode(key).decode()
    assert key_ring(f" a : {safe} ,b:{base64.b64encode(OLD).decode()}") == {"a": key, "b": OLD}


SECRET = base64.b64encode(OLD).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SECRET, "key 1 is not written id:key"),
        (f"a:{SECRET},", "key 2 is not written id:key"),
        (f"a b:{SECRET}", "key 1 is not written id:key"),
        (f"a:{SECRET[:-4]}", "key 1 is not 32 bytes in base64"),
        ("a:", "key 1 is not 32 bytes in base64"),
        (f"a:{SECRET},a:{SECRET}", "key 2 has the id of an earlier one"),
        (f"a:{SECRET}ü", "key 1 is not 32 bytes in base64"),
    ],
)
def test_what_are_no_keys_is_refused_without_them(text: str, why: str) -> None:
    """By the number of the key; neither the sentence nor a representation shows any of them."""
    with pytest.raises(ValueError, match=why) as refused:
        Settings(encryption_keys=text)
    assert "POSTROOM_ENCRYPTION_KEYS (not shown)" in str(refused.value)
    assert SECRET[:20] not in str(refused.value)
    assert SECRET[:20] not in repr(Settings(encryption_keys=f"a:{SECRET}"))


def test_a_process_that_is_to_encrypt_has_a_key() -> None:
    """It says which setting lacks, before anything is started."""
    with pytest.raises(ConfigurationError, match="POSTROOM_ENCRYPT is all, and POSTROOM_ENCRYP"):
        Envelopes(seals_all=True).require_keys()
    with pytest.raises(ConfigurationError, match="and its like are events to be encrypted"):
        Envelopes().require_keys()
    Envelopes(RING, seals_all=True).require_keys()


def test_a_codec_that_is_not_there_is_named() -> None:
    """By the setting and the group of entry points."""
    with pytest.raises(ConfigurationError, match=r"POSTROOM_ENVELOPE is 'kms'.*postroom\.envelop"):
        _ = Settings(envelope="kms").envelopes


class Reversing:
    """A codec of somebody else's package."""

    key_id = "none"

    def seal(self, payload: bytes, bound: bytes) -> bytes:
        """Turn it round, behind what it is bound to."""
        return bound + b"|" + payload[::-1]

    def open(self, sealed: bytes, bound: bytes, *, key_id: str) -> bytes:
        """Turn it back."""
        assert key_id == "none"
        found, _, turned = sealed.partition(b"|")
        assert found == bound
        return turned[::-1]


def test_a_package_brings_a_codec_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point; what the built-in one has sealed is opened all the same."""
    entry = importlib.metadata.EntryPoint("kms", f"{__name__}:Reversing", envelope.GROUP)
    monkeypatch.setattr(entry.__class__, "load", lambda _: Reversing)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [entry])
    own = Settings(envelope="kms", encryption_keys=text_of(RING), encrypt="all").envelopes
    payload, said = own.sealed(PLAIN, event_id="e", key="k")
    assert said == {wire.ENVELOPE: "kms", wire.ENVELOPE_KEY: "none"}
    assert own.opened(payload, said, event_id="e", key="k") == PLAIN
    before, said = Envelopes(RING).sealed(PLAIN, event_id="e", key="k")
    assert own.opened(before, said, event_id="e", key="k") == PLAIN


def test_what_it_costs() -> None:
    """A few microseconds an event each way, as docs/security.md says."""
    envelopes, rounds, times = Envelopes(RING), 2000, []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(rounds):
            payload, said = envelopes.sealed(PLAIN, event_id="e", key="p1")
            envelopes.opened(payload, said, event_id="e", key="p1")
        times.append((time.perf_counter() - began) / rounds * 1e6)
    logging.getLogger(__name__).info("sealed and opened in %.1f us", min(times))
    assert min(times) < 100
