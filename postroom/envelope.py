"""Envelope: payloads that the broker cannot read; docs/security.md says what that covers.

A relay seals, whoever wrote the row; a consumer opens. On its way, in dead letters and when it is
put back, a message stays as it was sealed.
"""

from __future__ import annotations

import base64
import binascii
import importlib.metadata
import itertools
import os
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

from postroom import errors, event_classes, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["AES_256_GCM", "GROUP", "AesGcm", "Envelope", "Envelopes", "key_ring"]

AES_256_GCM = "aes-256-gcm"
# The group of entry points by which a package brings an Envelope of its own.
GROUP = "postroom.envelopes"

KEY_BYTES = 32
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LONGEST_SHOWN = 64

SALT_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
# Of one key derived; so few nonces at random never meet (NIST SP 800-38D, 8.3: 2^32).
MOST_UNDER_ONE_SALT = 1 << 20
MOST_DERIVED = 256
INFO = b"postroom aes-256-gcm"


class Envelope(Protocol):
    """What seals payloads, and opens them with nothing but what they are bound to. Thread-safe.

    The one built in is AesGcm. A package brings another one by an entry point of the group
    `postroom.envelopes`: a callable without arguments that returns it, found by its name.
    """

    @property
    def key_id(self) -> str:
        """The id of the key under which seal() seals; it travels with the message, readable."""

    def seal(self, payload: bytes, bound: bytes) -> bytes:
        """Return the payload sealed, at most 100 bytes longer."""

    def open(self, sealed: bytes, bound: bytes, *, key_id: str) -> bytes:
        """Return the payload again.

        Raises:
            KeyMissing: there is no key of that id.
            InvalidEvent: it, or what it is bound to, is not what was sealed.

        """


def key_ring(text: str) -> dict[str, bytes]:
    """Read `id:key,id:key`, each key 32 bytes in base64; the first one seals, all of them open.

    Raises:
        ValueError: it is no such list; the message is a clause, without any of it.

    """
    ring: dict[str, bytes] = {}
    for number, each in enumerate(text.split(","), 1):
        key_id, colon, encoded = (part.strip() for part in each.partition(":"))
        if not colon or not KEY_ID.fullmatch(key_id):
            raise ValueError(
                f"key {number} is not written id:key, with an id of 1 to 64 letters, digits, dots, "
                "- and _"
            )
        try:
            key = base64.b64decode(encoded.translate(URL_SAFE), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {number} is not {KEY_BYTES} bytes in base64")
        if key_id in ring:
            raise ValueError(f"key {number} has the id of an earlier one")
        ring[key_id] = key
    return ring


URL_SAFE = str.maketrans("-_", "+/")


class Envelopes:
    """What one process seals and opens payloads with. Thread-safe.

    It seals what a row or an event's class says is to be encrypted, or with `seals_all` everything,
    by the `codec` of that name; the built-in one does under the first of the `keys`. Without keys
    it seals nothing: what is to be encrypted is never sent otherwise.

    Raises:
        ConfigurationError: there is no such codec, or the package that it needs is not there.

    """

    def __init__(
        self,
        keys: Mapping[str, bytes] | None = None,
        *,
        codec: str = AES_256_GCM,
        seals_all: bool = False,
    ) -> None:
        self.seals_all = seals_all
        self._names = event_classes.encrypted()
        self._codec = codec
        self._envelope = _found(codec, keys)
        self._opening = {} if self._envelope is None else {codec: self._envelope}
        if keys and AES_256_GCM not in self._opening:
            self._opening[AES_256_GCM] = AesGcm(keys)

    def require_keys(self) -> None:
        """Make sure that what is known to be sealed can be.

        Raises:
            ConfigurationError: it cannot.

        """
        if self._envelope is None and (self.seals_all or self._names):
            what = (
                "POSTROOM_ENCRYPT is all"
                if self.seals_all
                else f"{min(self._names)} and its like are events to be encrypted"
            )
            raise errors.ConfigurationError(
                f"{what}, and POSTROOM_ENCRYPTION_KEYS gives no key: without one none of them may "
                "be sent, or could be read. Nothing was started"
            )

    def wants(self, name: str) -> bool:
        """Say whether events of a name are to be sealed, whatever their rows say."""
        return self.seals_all or name in self._names

    def sealed(
        self, payload: bytes, *, event_id: str, key: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """Return a payload sealed for one event, and the properties that say so.

        Raises:
            Poison: there is no key.

        """
        if self._envelope is None:
            raise errors.Poison(
                "The event is to be encrypted, and POSTROOM_ENCRYPTION_KEYS gives no key here"
            )
        key_id = self._envelope.key_id
        sealed = self._envelope.seal(payload, _bound(self._codec, key_id, event_id, key))
        return sealed, {wire.ENVELOPE: self._codec, wire.ENVELOPE_KEY: key_id}

    def opened(
        self, payload: bytes, properties: Mapping[str, str], *, event_id: str, key: str | None
    ) -> bytes:
        """Return the payload of a message as it was before it was sealed, if it was.

        Raises:
            KeyMissing: the key is not here.
            InvalidEvent: it is not what was sealed for this event.

        """
        codec = properties.get(wire.ENVELOPE)
        if codec is None:
            return payload
        key_id = properties.get(wire.ENVELOPE_KEY, "")
        envelope = self._opening.get(codec)
        if envelope is None:
            raise errors.KeyMissing(
                f"The event is encrypted by {codec[:LONGEST_SHOWN]!r} under the key "
                f"{key_id[:LONGEST_SHOWN]!r}, and there is no key for that here "
                "(POSTROOM_ENCRYPTION_KEYS)"
            )
        return envelope.open(payload, _bound(codec, key_id, event_id, key), key_id=key_id)


def _found(codec: str, keys: Mapping[str, bytes] | None) -> Envelope | None:
    if codec == AES_256_GCM:
        return AesGcm(keys) if keys else None
    for entry in importlib.metadata.entry_points(group=GROUP, name=codec):
        found: Envelope = entry.load()()
        return found
    raise errors.ConfigurationError(
        f"POSTROOM_ENVELOPE is {codec[:LONGEST_SHOWN]!r}: that is neither {AES_256_GCM}, which is "
        f"built in, nor an entry point of the group {GROUP} of an installed package. Nothing was "
        "started"
    )


def _bound(codec: str, key_id: str, event_id: str, key: str | None) -> bytes:
    """Return what a payload is bound to: nobody can put it under another event's id or key."""
    return orjson.dumps([codec, key_id, event_id, key or ""])


class _Session(NamedTuple):
    """A key derived by a salt, and how often it was used."""

    salt: bytes
    cipher: AESGCM
    uses: Iterator[int]


class AesGcm:
    """AES-256-GCM under keys derived by HKDF-SHA256, with nonces at random. Thread-safe.

    Sealed it is salt (16 bytes), nonce (12), ciphertext, tag (16). Keys are derived anew for each
    million, so that one key serves any number of events. The first of the `keys` seals.

    Raises:
        ConfigurationError: the package `cryptography` is not there.

    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives import hashes
            from cryptography.hazmat.primitives.ciphers import aead
            from cryptography.hazmat.primitives.kdf import hkdf
        except ImportError:
            raise errors.ConfigurationError(
                "POSTROOM_ENCRYPTION_KEYS is set, and the package `cryptography` is not there: "
                "install postroom[encryption]. Nothing was started"
            ) from None
        self._keys = dict(keys)
        self._wrong = InvalidTag

        def derive(key: bytes, salt: bytes) -> AESGCM:
            return aead.AESGCM(hkdf.HKDF(hashes.SHA256(), KEY_BYTES, salt, INFO).derive(key))

        self._derive = derive
        self._derived: dict[tuple[str, bytes], AESGCM] = {}
        self.key_id = next(iter(keys))
        self._session = self._begun()

    def _begun(self) -> _Session:
        salt = os.urandom(SALT_BYTES)
        cipher = self._derive(self._keys[self.key_id], salt)
        return _Session(salt, cipher, itertools.count(1))

    def seal(self, payload: bytes, bound: bytes) -> bytes:
        """Return the payload sealed, 44 bytes longer."""
        session = self._session
        if next(session.uses) > MOST_UNDER_ONE_SALT:
            session = self._session = self._begun()
            next(session.uses)
        # At random, and not counted: a process may be forked, or its machine copied.
        nonce = os.urandom(NONCE_BYTES)
        return session.salt + nonce + session.cipher.encrypt(nonce, payload, bound)

    def open(self, sealed: bytes, bound: bytes, *, key_id: str) -> bytes:
        """Return the payload again.

        Raises:
            KeyMissing: there is no key of that id.
            InvalidEvent: it, or what it is bound to, is not what was sealed.

        """
        key = self._keys.get(key_id)
        if key is None:
            raise errors.KeyMissing(
                f"The event is encrypted under the key {key_id[:LONGEST_SHOWN]!r}, which is not "
                "among POSTROOM_ENCRYPTION_KEYS here"
            )
        # What is too short has too short a tag, which is wrong.
        sealed = sealed.ljust(SALT_BYTES + NONCE_BYTES + TAG_BYTES, b"\0")
        salt, nonce = sealed[:SALT_BYTES], sealed[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
        try:
            cipher = self._cipher(key_id, key, salt)
            return cipher.decrypt(nonce, sealed[SALT_BYTES + NONCE_BYTES :], bound)
        except self._wrong:
            raise errors.InvalidEvent(
                f"The event cannot be decrypted with the key {key_id!r}: its payload, id or key is "
                "not what was encrypted, or another key has this id here"
            ) from None

    def _cipher(self, key_id: str, key: bytes, salt: bytes) -> AESGCM:
        found = self._derived.get((key_id, salt))
        if found is None:
            # Strangers may send as many salts as they like.
            if len(self._derived) >= MOST_DERIVED:
                self._derived.clear()
            found = self._derived[key_id, salt] = self._derive(key, salt)
        return found
