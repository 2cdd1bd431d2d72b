"""Diagnosis: why Pulsar cannot be used, asked of it once where the client's library does not say.

The library makes a Timeout of a refused token, and a ConnectError of every certificate that it does
not trust. So the same server is asked in the same way, and its own answer is told.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from postroom.access.cache import Cache
from postroom.access.conversation import AUTHENTICATION_ERROR, BrokerRefused, Conversation
from postroom.access.server import servers
from postroom.access.tls import tls_reason
from postroom.secured import has_tls

if TYPE_CHECKING:
    from postroom.access.pulsar import Access
    from postroom.access.server import Server

__all__ = [
    "TIMEOUT_SECONDS",
    "not_let_in",
    "reason_for_refusal",
    "shown",
    "speaks_tls",
    "trusted",
]

TIMEOUT_SECONDS = 3.0
MOST_SERVERS = 3
SAME_SECONDS = 2.0


def reason_for_refusal(access: Access) -> str | None:
    """Say why each of the servers cannot be used, or None where one can.

    Takes three seconds a server at most, and asks three of them at most. Nothing secret is sent
    where the connection is not encrypted. A hundred topics that fail at once ask once. Thread-safe.
    """
    return _answers.of(access, lambda: _ask(access))


_answers: Cache[str | None] = Cache(seconds=SAME_SECONDS)


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
    except BrokerRefused as refused:
        return _refusal(access, refused)
    except ssl.SSLError as error:
        return tls_reason(error, trusted=trusted(access), shown=shown(access))
    except (OSError, ValueError) as error:
        if not has_tls(access.url) and not isinstance(error, TimeoutError) and speaks_tls(server):
            return "speaks TLS, and POSTROOM_PULSAR_URL is pulsar://…: say pulsar+ssl://…"
        return _unreachable(error)
    return None


def _refusal(access: Access, refused: BrokerRefused) -> str:
    if refused.code != AUTHENTICATION_ERROR:
        return f"answers {str(refused)!r}"
    return not_let_in(access)


def not_let_in(access: Access) -> str:
    """Say that a server does not accept who we are, or wants to know it, with the setting."""
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


def trusted(access: Access) -> str:
    """Name the setting with the authorities that are trusted."""
    if access.ca_file:
        return f"POSTROOM_PULSAR_TLS_CA_FILE ({access.ca_file})"
    return f"the system's {access.authorities}, and POSTROOM_PULSAR_TLS_CA_FILE is not set"


def shown(access: Access) -> str:
    """Name the setting with our certificate."""
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
