"""What is wrong with a certificate or with the encryption, in words, of what a library says."""

from __future__ import annotations

import re
import ssl

__all__ = ["flaw_within", "located", "of_tls", "tls_reason"]

# What OpenSSL says of a certificate (X509_verify_cert_error_string).
UNKNOWN_AUTHORITY = ("unable to get", "self-signed certificate", "self signed certificate")
OTHER_HOST = ("Hostname mismatch", "IP address mismatch", "certificate is not valid for")
EXPIRED = "has expired"
# The same within the words of a library.
FLAW = re.compile(r"certificate verify failed: (?P<said>[^(]*[^(. ])")


def of_tls(error: Exception) -> ssl.SSLError | None:
    """Return the error of TLS that one of urllib is, or was raised for; None where it is another.

    One of TLS has a `reason` of its own, which is a word.
    """
    cause = error if isinstance(error, ssl.SSLError) else getattr(error, "reason", None)
    return cause if isinstance(cause, ssl.SSLError) else None


def flaw_within(text: str, trusted: str) -> str | None:
    """Say what is wrong with a certificate where a library's error is about one; else None."""
    found = FLAW.search(text)
    return None if found is None else f"it shows a certificate {_flaw(found['said'], trusted)}"


def tls_reason(error: ssl.SSLError, *, trusted: str, shown: str) -> str:
    """Say what is wrong with a certificate, or with the encryption.

    `trusted` names the setting with the authorities, `shown` the one with our certificate.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate {_flaw(error.verify_message, trusted)}"
    name = (error.reason or type(error).__name__).replace("_", " ").lower()
    if "alert" in name:
        return f"ends the TLS handshake ({name}): it does not accept {shown}"
    if "wrong version number" in name or "record layer failure" in name:
        return "does not speak TLS at that port"
    return f"cannot be spoken to by TLS ({name})"


def located(clause: str, setting: str) -> str:
    """Return a clause about a server that names the setting with its address, if none is named."""
    return clause if setting in clause else f"{clause}; its address is in {setting}"


def _flaw(said: str, trusted: str) -> str:
    """Say what is wrong with a certificate, of what OpenSSL has `said`."""
    said = said.rstrip(". ")
    if any(words in said for words in UNKNOWN_AUTHORITY):
        return f"of an authority that is not in {trusted}"
    if any(words in said for words in OTHER_HOST):
        return f"for another host ({said})"
    if EXPIRED in said:
        return "that has expired"
    return f"that is not accepted ({said})"
