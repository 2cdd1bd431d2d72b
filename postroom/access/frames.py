"""Frames of Pulsar's binary protocol, as far as they are needed here (PulsarApi.proto)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

__all__ = ["NOT_PULSAR", "Fields", "command", "number", "text"]

VARINT, BYTES = 0, 2
NOT_PULSAR = "what it answers is not Pulsar's protocol"


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a protobuf message by their numbers, in the two forms that are needed here."""

    numbers: dict[int, list[int]] = field(default_factory=dict)
    texts: dict[int, list[bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, body: bytes) -> Fields:
        """Read a message.

        Raises:
            ValueError: it is none.

        """
        found, at = cls(), 0
        while at < len(body):
            tag, at = _read_varint(body, at)
            value, at = _read_varint(body, at)
            if tag & 7 == VARINT:
                found.numbers.setdefault(tag >> 3, []).append(value)
            elif tag & 7 == BYTES and at + value <= len(body):
                found.texts.setdefault(tag >> 3, []).append(body[at : at + value])
                at += value
            else:
                raise ValueError(NOT_PULSAR)
        return found

    def number(self, field_number: int) -> int:
        """Return a number, 0 where there is none."""
        return self.numbers.get(field_number, [0])[0]

    def text(self, field_number: int) -> str:
        """Return a text, an empty one where there is none."""
        return self.texts.get(field_number, [b""])[0].decode(errors="replace")

    def message(self, field_number: int) -> Fields:
        """Return a message within this one, an empty one where there is none."""
        return Fields.of(self.texts.get(field_number, [b""])[0])


def command(kind: int, body: bytes) -> bytes:
    """Return the frame of a command; its type is also the number of the field with its body."""
    whole = number(1, kind) + _varint(kind << 3 | BYTES) + _varint(len(body)) + body
    return struct.pack(">II", len(whole) + 4, len(whole)) + whole


def number(field_number: int, value: int) -> bytes:
    """Return a field that holds a number."""
    return _varint(field_number << 3 | VARINT) + _varint(value)


def text(field_number: int, value: str) -> bytes:
    """Return a field that holds a text."""
    body = value.encode()
    return _varint(field_number << 3 | BYTES) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(at + 10, len(body))):
        value |= (body[position] & 0x7F) << shift
        shift += 7
        if body[position] < 0x80:
            return value, position + 1
    raise ValueError(NOT_PULSAR)
