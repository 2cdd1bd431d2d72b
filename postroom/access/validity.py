"""Validity: until when a token or a certificate of ours is good, in words where that is over."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["expired_at", "valid_until"]

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# Not before, and not after (RFC 5280, 4.1.2.5): no other two times stand side by side.
TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
VALIDITY = re.compile(TIME + TIME)


def expired_at(end: datetime | None) -> str:
    """Return a clause that says when something expired, or nothing if it has not, or never does."""
    if end is None or end > datetime.now(UTC):
        return ""
    return f", which expired at {end:%Y-%m-%d %H:%M:%S} UTC"


def valid_until(file: str) -> datetime | None:
    """Return until when the first certificate of a file in PEM is good; None if it is not told."""
    try:
        found = PEM.search(Path(file).read_text(encoding="utf-8", errors="replace"))
        told = None if found is None else VALIDITY.search(ssl.PEM_cert_to_DER_cert(found[0]))
        return None if told is None else _time(told[3], told[4])
    except (OSError, ValueError):
        return None


def _time(short: bytes | None, full: bytes | None) -> datetime:
    if full is None:
        # Two digits of the year, of 1950 to 2049.
        assert short is not None  # noqa: S101 - one of both has matched
        full = (b"19" if short >= b"50" else b"20") + short
    return datetime.strptime(full.decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
