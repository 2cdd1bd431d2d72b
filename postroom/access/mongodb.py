"""MongoDB's refusals in words: who was not let in, what was not allowed, whom it is not to trust.

The driver's own text quotes whatever was sent, documents and filters included; none of it is told.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo import errors as mongo
from pymongo.uri_parser import parse_uri

from postroom.access.cache import Cache
from postroom.access.diagnosis import TIMEOUT_SECONDS, speaks_tls
from postroom.access.server import Server
from postroom.access.tls import flaw_within, located, tls_reason
from postroom.access.validity import expired_at, valid_until
from postroom.mongodb_options import for_pymongo
from postroom.private_text import one_line
from postroom.server_codes import DOCUMENT_VALIDATION, UNAUTHORIZED

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["why"]

SETTING = "POSTROOM_MONGODB_URI"
CERTIFICATE = "tlsCertificateKeyFile"
SAME_SECONDS = 2.0
SOON_MS = 500
REPLICA_SET = "replicaSet"
BALANCED = "in load balancing mode, but the server does not support"
NO_MEMBER = "but this node belongs to a set named"

# UserNotFound (of a certificate), AuthenticationFailed, and Atlas' own.
NOT_LET_IN = {11, 18, 8000}
# What the server has not understood or not allowed, without the words of the command itself.
COMMAND = re.compile(
    r'not authorized on (?P<database>\S+) to execute command \{ (?P<command>\w+): "?(?P<on>[^",}]*)'
)


def why(error: mongo.PyMongoError, uri: str) -> str:
    """Say why a call of the driver's failed, in words that fit into brackets.

    Where the server has ended the connection without a word it is looked for the reason, in bounded
    time and without a secret.
    """
    # Some that the driver raises have names of its own alone: their parents' are documented.
    name = next(kind.__name__ for kind in type(error).mro() if not kind.__name__.startswith("_"))
    if isinstance(error, mongo.OperationFailure):
        return f"{name}: {_refusal(error)}"
    text = _text(error)
    if (flaw := flaw_within(text, f"tlsCAFile of {SETTING}")) is not None:
        return f"{name}: {located(flaw, SETTING)}"
    if (reason := _misnamed(text, uri)) is not None:
        return f"{name}: {reason}"
    if "connection closed" in text and (reason := _reason(uri)) is not None:
        return f"{name}: {reason}"
    if isinstance(error, (mongo.ConnectionFailure, mongo.ConfigurationError)):
        # Of the latter kind is what the driver or a name server makes of the URI itself.
        is_of_uri = isinstance(error, mongo.ConfigurationError)
        return f"{name}: {located(text, SETTING) if is_of_uri else text}"
    return name


def _misnamed(text: str, uri: str) -> str | None:
    """Say what an option of the URI is at fault for, where the driver says something else."""
    if BALANCED in text:
        return f"loadBalanced=true of {SETTING} is for load balancers alone, and it is none"
    if NO_MEMBER in text:
        return _answers.of((uri, NO_MEMBER), lambda: _membership(uri))
    return None


def _text(error: Exception) -> str:
    text = str(error).partition(" (configured timeouts:")[0].partition(", Timeout:")[0]
    return one_line(text)


def _refusal(error: mongo.OperationFailure) -> str:
    details: Mapping[str, Any] = error.details or {}
    code = f"code {error.code}, {details.get('codeName', 'without a name')}"
    if error.code in NOT_LET_IN:
        return f"it does not accept the user or certificate of {SETTING} ({code})"
    if error.code == DOCUMENT_VALIDATION:
        return (
            f"a collection's validator refuses what has to be written ({code}): in mongosh "
            "db.getCollectionInfos({'options.validator': {$exists: true}}) shows which have one"
        )
    if error.code != UNAUTHORIZED:
        return code
    said = str(details.get("errmsg", ""))
    if said.endswith("requires authentication"):
        return f"it wants to know who this is, and {SETTING} names no user"
    if (found := COMMAND.match(said)) is None:
        return f"the user of {SETTING} lacks a right ({code})"
    # A command like `aggregate: 1` is about the database as a whole.
    on = found["database"] + ("" if found["on"].isdigit() else f".{found['on']}")
    return (
        f"the user of {SETTING} may not {found['command']} on {on}: grant the right to it "
        "(docs/security.md says which)"
    )


def _membership(uri: str) -> str | None:
    """Say what the one server of a URI with directConnection=true is, if it is no such member.

    The driver says of every server that does not answer that it is of no replica set.
    """
    soon: dict[str, Any] = {"serverSelectionTimeoutMS": SOON_MS, "connectTimeoutMS": SOON_MS - 100}
    try:
        parsed = parse_uri(uri, warn=True)
        wanted = parsed["options"]["replicaSet"]
        # The driver waits for a server that refuses, too.
        if (refusal := _refused(*parsed["nodelist"][0])) is not None:
            return refusal
        with MongoClient[Any](for_pymongo(uri, without=REPLICA_SET), **soon) as client:
            found = client.admin.command("hello").get("setName")
    except (mongo.ConnectionFailure, mongo.ConfigurationError) as error:
        return _text(error)
    except (KeyError, OSError, ValueError, mongo.PyMongoError):
        return None
    if found is None:
        return (
            f"it is a member of no replica set, and replicaSet of {SETTING} names {wanted!r}: "
            "start mongod with --replSet, and run rs.initiate() once"
        )
    return f"it is a member of the replica set {found!r}, and replicaSet of {SETTING} is {wanted!r}"


def _refused(host: str, port: int | None) -> str | None:
    if port is None:
        return None  # of a socket in the file system
    try:
        socket.create_connection((host, port), SOON_MS / 1000).close()
    except OSError as error:
        return f"{Server(host=host, port=port)}: {error}"
    return None


_answers: Cache[str | None] = Cache(seconds=SAME_SECONDS)


def _reason(uri: str) -> str | None:
    """Say what the first server of the URI makes of a connection like the driver's."""
    return _answers.of(uri, lambda: _ask(uri))


def _ask(uri: str) -> str | None:
    if uri.startswith("mongodb+srv://"):
        return None
    try:
        parsed = parse_uri(for_pymongo(uri), warn=True)
    except (OSError, ValueError, mongo.PyMongoError):
        # A file that it names has gone since the start: by a rotation that is half done, for one.
        return f"a file that {SETTING} names cannot be read now"
    host, port = parsed["nodelist"][0]
    options = parsed["options"]
    server = Server(host=host, port=port or 27017)
    if options.get("tls"):
        return _made_of_us(server, options)
    return f"{server} speaks TLS, and {SETTING} has no tls=true" if speaks_tls(server) else None


def _made_of_us(server: Server, options: Mapping[str, Any]) -> str | None:
    own = options.get(CERTIFICATE)
    certificate = f"{CERTIFICATE} of {SETTING}{expired_at(valid_until(own)) if own else ''}"
    try:
        closed = _is_closed(server, options)
        if own and closed and not _is_closed(server, {**options, CERTIFICATE: ""}):
            return f"{server} does not accept {certificate}, and would go on without it"
    except ssl.SSLError as error:
        shown = certificate if own else f"a client without {certificate}"
        made = tls_reason(error, trusted=f"tlsCAFile of {SETTING}", shown=shown)
        return f"{server} {located(made, SETTING)}"
    except OSError:
        return None
    return None


def _is_closed(server: Server, options: Mapping[str, Any]) -> bool:
    """Encrypt a connection, and say whether the server closes it without a word from us."""
    context = ssl.create_default_context(cafile=options.get("tlsCAFile"))
    if own := options.get(CERTIFICATE):
        context.load_cert_chain(own, password=options.get("tlsCertificateKeyFilePassword", ""))
    with (
        socket.create_connection((server.host, server.port), TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as secured,
    ):
        # By TLS 1.3 the server says what it makes of our certificate behind the handshake only.
        secured.settimeout(1.0)
        try:
            return not secured.recv(1)
        except TimeoutError:
            return False
