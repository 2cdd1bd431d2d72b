"""Passing failures: whether what a user's function met passes by itself.

Nobody can know every library, but they name alike what they cannot reach: so a class says it by
where it comes from in the standard library and the drivers that are known here, and any other by
its name, or that of a class it is made of. An answer of HTTP or the like is judged by its status.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import queue
import re
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["passes"]

PASSING = (
    ConnectionError,
    TimeoutError,
    InterruptedError,
    BlockingIOError,
    MemoryError,
    socket.gaierror,
    socket.herror,
    ssl.SSLError,
    http.client.IncompleteRead,
    http.client.BadStatusLine,
    http.client.ImproperConnectionState,
    subprocess.TimeoutExpired,
    queue.Empty,
    queue.Full,
)
# A network, a server or a resource that is away for now; a file that is not there is none of them.
PASSING_ERRNO = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EINTR", "EBUSY", "EIO", "ENOMEM", "ENOBUFS", "EMFILE", "ENFILE", "ENOSPC"),
        *("EDQUOT", "ESTALE", "EPIPE", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ECONNABORTED"),
        *("ECONNRESET", "ECONNREFUSED", "ENOTCONN", "ESHUTDOWN", "ETIMEDOUT", "EHOSTDOWN"),
        *("EHOSTUNREACH", "EADDRNOTAVAIL", "ENOLCK", "EDEADLK", "EREMOTEIO"),
    )
    if hasattr(errno, name)
)
NAME = re.compile(
    r"Time(d)?_?Out|Connect(ion|ivity|or|_|Error|Timeout)|Connect$|Disconnect|Unavailable"
    r"|Unreachable|Temporar|TooManyRequests|Throttl|RateLimit|DeadlineExceeded|ServerDown"
    r"|SERVER_DOWN|BusyLoading|TryAgain|Retry|IncompleteRead|ChunkedEncoding|NetworkError"
    r"|TransportError|ProtocolError|OperationalError|InterfaceError|ReadError|WriteError"
    r"|NoBrokers|ClusterDown|NoHostAvailable|NotConnected|ClosedError|TooManyConnections"
    r"|ServerError|ServerSelection|PayloadError",
    re.IGNORECASE,
)
PASSING_STATUS = frozenset({408, 421, 423, 425, 429})
PASSING_REMOTE_CODES = frozenset(
    {"ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
)
ANY_STATUS = range(400, 600)
SERVER_ERROR = 500
MOST_LOOKED_AT = 50


def passes(error: BaseException) -> bool:
    """Say whether what was called may succeed for the same row later, without anyone's doing.

    It does where the error, or one that it was raised from, is about a connection, a time that ran
    out or a resource that is short for now; not where a value, a file or a right is wrong.
    """
    return any(map(_passes, _chain(error)))


def _passes(error: BaseException) -> bool:
    if _is_known(error):
        return errors.is_transient(error)
    if (status := _status(error)) is not None:
        return status >= SERVER_ERROR or status in PASSING_STATUS
    if isinstance(error, PASSING):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING_ERRNO
    if type(error) is OSError or _remote_code(error) in PASSING_REMOTE_CODES:
        return True
    own = (each for each in type(error).__mro__ if each.__module__ != "builtins")
    return any(NAME.search(each.__name__) for each in own)


def _is_known(error: BaseException) -> bool:
    """Say whether errors.py knows the class itself."""
    if isinstance(error, (errors.PostroomError, PyMongoError)):
        return True
    return type(error).__module__.startswith(("pulsar", "_pulsar"))


def _remote_code(error: BaseException) -> str:
    """Return the name of a remote procedure call's status; its errors have no class for each."""
    code = getattr(error, "code", None)
    with contextlib.suppress(Exception):
        return str(code().name) if callable(code) else ""
    return ""


def _status(error: BaseException) -> int | None:
    """Return the status of the answer that an error is about, where it has one as of HTTP."""
    about: tuple[Any, Any] = (error, getattr(error, "response", None))
    for each in about:
        for name in ("status_code", "status", "code"):
            value = getattr(each, name, None)
            if type(value) is int and value in ANY_STATUS:
                return value
    with contextlib.suppress(LookupError, TypeError):
        status: int = about[1]["ResponseMetadata"]["HTTPStatusCode"]  # as botocore has it
        return status
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, each once: they may go round in a ring."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left and len(seen) < MOST_LOOKED_AT:
        each = left.pop(0)
        if not isinstance(each, BaseException) or any(each is known for known in seen):
            continue
        seen.append(each)
        yield each
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
        # What urllib could not open it keeps in `reason`.
        left += [each.__cause__, getattr(each, "reason", None)]
        if not each.__suppress_context__:
            left.append(each.__context__)
