"""Diagnosis: why Pulsar cannot be used, asked of it once where the client's library does not say.

The library makes a Timeout of a refused token, and a ConnectError of every certificate that it does
not trust. So the same server is asked in the same way, and its own answer is told.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from postroom.access.answers import Answers
from postroom.access.conversation import AUTHENTICATION_ERROR, Conversation, Refused
from postroom.access.server import servers
from postroom.secured import has_tls

if TYPE_CHECKING:
    from postroom.access.pulsar import Access
    from postroom.access.server import Server

__all__ = ["TIMEOUT_SECONDS", "flaw", "reason_for_refusal", "speaks_tls", "tls_reason"]

TIMEOUT_SECONDS = 3.0
MOST_SERVERS = 3
SAME_SECONDS = 2.0

# What OpenSSL says of a certificate (X509_verify_cert_error_string).
UNKNOWN_AUTHORITY = ("unable to get", "self-signed certificate", "self signed certificate")
OTHER_HOST = ("Hostname mismatch", "IP address mismatch", "certificate is not valid for")
EXPIRED = "has expired"


def reason_for_refusal(access: Access) -> str | None:
    """Say why each of the servers cannot be used, or None where one can.

    Takes three seconds a server at most, and asks three of them at most. Nothing secret is sent
    where the connection is not encrypted. A hundred topics that fail at once ask once. Thread-safe.
    """
    return _answers.of(access, lambda: _ask(access))


_answers: Answers[str | None] = Answers(seconds=SAME_SECONDS)


def _ask(access: Access) -> str | None:
    reasons = []
    for server in servers(access.url)[:MOST_SERVERS]:
        reason = _reason(access, server)
        if reason is None:
            return None
        reasons.append(f"{server} {reason}")
    return "; ".join(reasons)


def _reason(access: Access, server: Server) -> str | None:
    try:
        with Conversation(access, server, timeout_seconds=TIMEOUT_SECONDS) as conversation:
            if access.credentials.secret_is_sent and not has_tls(access.url):
                return _plain_reason(server)
            conversation.greet()
    except Refused as refused:
        return _refusal(access, refused)
    except ssl.SSLError as error:
        return tls_reason(error, trusted=_trusted(access), shown=_shown(access))
    except (OSError, ValueError) as error:
        if not has_tls(access.url) and not isinstance(error, TimeoutError) and speaks_tls(server):
            return "speaks TLS, and POSTROOM_PULSAR_URL is pulsar://…: say pulsar+ssl://…"
        return _unreachable(error)
    return None


def _refusal(access: Access, refused: Refused) -> str:
    if refused.code != AUTHENTICATION_ERROR:
        return f"answers {str(refused)!r}"
    if not access.credentials.setting:
        return (
            "wants to know who this is, and no POSTROOM_PULSAR_TOKEN_FILE, _TLS_CERT_FILE, "
            "_OAUTH2_ISSUER_URL or _BASIC_USER is set"
        )
    return f"does not accept {access.credentials.description()}"


def _plain_reason(server: Server) -> str | None:
    if speaks_tls(server):
        return "speaks TLS, and POSTROOM_PULSAR_URL is pulsar://…: say pulsar+ssl://…"
    return None


def speaks_tls(server: Server) -> bool:
    """Find out by a handshake that checks nothing, after which nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        with socket.create_connection((server.host, server.port), TIMEOUT_SECONDS) as plain:
            context.wrap_socket(plain, server_hostname=server.host).close()
        return True
    return False


def tls_reason(error: ssl.SSLError, *, trusted: str, shown: str) -> str:
    """Say what is wrong with a certificate, or with the encryption.

    `trusted` names the setting with the authorities, `shown` the one with our certificate.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate {flaw(error.verify_message, trusted)}"
    name = (error.reason or type(error).__name__).replace("_", " ").lower()
    if "alert" in name:
        return f"ends the TLS handshake ({name}): it does not accept {shown}"
    if "wrong version number" in name or "record layer failure" in name:
        return "does not speak TLS at that port"
    return f"cannot be spoken to by TLS ({name})"


def flaw(said: str, trusted: str) -> str:
    """Say what is wrong with a certificate, of what OpenSSL has `said`."""
    said = said.rstrip(". ")
    if any(words in said for words in UNKNOWN_AUTHORITY):
        return f"of an authority that is not in {trusted}"
    if any(words in said for words in OTHER_HOST):
        return f"for another host ({said})"
    if EXPIRED in said:
        return "that has expired"
    return f"that is not accepted ({said})"


def _trusted(access: Access) -> str:
    if access.ca_file:
        return f"POSTROOM_PULSAR_TLS_CA_FILE ({access.ca_file})"
    return f"the system's {access.authorities}, and POSTROOM_PULSAR_TLS_CA_FILE is not set"


def _shown(access: Access) -> str:
    if access.credentials.method == "tls":
        return access.credentials.description()
    return "a client without POSTROOM_PULSAR_TLS_CERT_FILE"


def _unreachable(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"does not answer within {TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, socket.gaierror):
        return "is no host that the name server knows"
    if isinstance(error, ConnectionRefusedError):
        return "refuses the connection: nothing listens there"
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be used: {why}"
