"""Why Redis or its Sentinels cannot be used, of which the client says little, or far too much."""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from postroom.access.cache import Cache
from postroom.access.diagnosis import speaks_tls
from postroom.access.server import Server
from postroom.access.tls import located, tls_reason
from postroom.access.validity import expired_at, valid_until
from postroom.private_text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

__all__ = ["sentinels_trouble", "tls_trouble"]

PORT = 6379
# Of one server. The URL of several Sentinels has several ports.
SCHEMES = ("redis://", "rediss://")
SAME_SECONDS = 2.0
TIMEOUT_SECONDS = 1.0
# What any Redis answers, whoever asks: with a word, or with the refusal to answer.
QUESTION, ANSWERS = b"PING\r\n", (b"+", b"-")
UNCHECKED = ("none", "CERT_NONE")
# What redis-py says when it has asked all Sentinels, and of each that it could not ask.
NO_MASTER = re.compile(r"No master found for (?P<master>'[^']*')")
NOT_ASKED = re.compile(r">\)>\)> - (?P<said>.*?)(?=, <redis|$)")
NOT_LET_IN = "AuthenticationError"


def tls_trouble(url: str, setting: str, *, is_silent: bool) -> str | None:
    """Say what Redis makes of a connection to it, as a clause about it; None if TLS is no matter.

    It is asked once more, in bounded time; neither user nor password is sent. One that `is_silent`,
    which keeps whoever asks waiting, is asked in clear alone. Thread-safe.
    """
    return _answers.of((url, is_silent), lambda: _ask(url, setting, is_silent=is_silent))


def sentinels_trouble(text: str, url: str, setting: str) -> str | None:
    """Say in a clause what the Sentinels of a URL have told, of what the client makes of it."""
    if (found := NO_MASTER.search(text)) is None:
        return None
    reasons = [each["said"] for each in NOT_ASKED.finditer(text)]
    if any(NOT_LET_IN in reason for reason in reasons):
        return (
            f"a Sentinel of {setting} does not accept the password for Sentinels "
            "(POSTROOM_REDIS_SENTINEL_PASSWORD)"
        )
    if len(reasons) > url.count(";"):
        return f"no Sentinel of {setting} can be asked ({one_line(reasons[-1])})"
    return f"the Sentinels of {setting} know no master {found['master']} that is up"


_answers: Cache[str | None] = Cache(seconds=SAME_SECONDS)


def _ask(url: str, setting: str, *, is_silent: bool) -> str | None:
    if not url.startswith(SCHEMES):
        return None
    try:
        return _answer(urlsplit(url), setting, is_silent=is_silent)
    except ValueError:
        # Its host or port is none: that is for the client to say.
        return None


def _answer(parts: SplitResult, setting: str, *, is_silent: bool) -> str | None:
    server = Server(host=parts.hostname or "localhost", port=parts.port or PORT)
    match parts.scheme:
        case "redis" if not is_silent and speaks_tls(server):
            return f"speaks TLS, and {setting} is redis://…: say rediss://…"
        case "rediss" if _speaks_in_clear(server):
            return f"does not speak TLS, and {setting} is rediss://…"
        case "rediss" if not is_silent:
            return _made_of_us(server, dict(parse_qsl(parts.query)), setting)
    return None


def _speaks_in_clear(server: Server) -> bool:
    try:
        with socket.create_connection((server.host, server.port), TIMEOUT_SECONDS) as asked:
            asked.sendall(QUESTION)
            return asked.recv(1) in ANSWERS
    except OSError:
        return False


def _made_of_us(server: Server, options: Mapping[str, str], setting: str) -> str | None:
    own = options.get("ssl_certfile")
    shown = f"a client without ssl_certfile in {setting}"
    if own:
        shown = f"ssl_certfile of {setting}{expired_at(valid_until(own))}"
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_cert_reqs") in UNCHECKED:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if own:
            context.load_cert_chain(own, options.get("ssl_keyfile"), password="")
        _shake_hands(server, context)
    except ssl.SSLError as error:
        made = tls_reason(error, trusted=f"ssl_ca_certs of {setting}", shown=shown)
        return located(made, setting)
    except OSError:
        return None
    return None


def _shake_hands(server: Server, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection((server.host, server.port), TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as secured,
    ):
        # By TLS 1.3 the server says what it makes of our certificate behind the handshake only.
        secured.recv(1)
