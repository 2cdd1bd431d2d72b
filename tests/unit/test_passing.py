"""What a routing or key function failed by: whether it passes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http.client
import socket
import ssl
import subprocess
import threading
import urllib.error
from email.message import Message
from types import SimpleNamespace
from typing import Any

import kombu.exceptions
import pymongo.errors
import pytest
import redis.exceptions

from postroom import errors
from postroom.passing import passes
from postroom.relay.sending.unanswered import Unanswered
from postroom.routing import Routing


def named(name: str, base: type[Exception] = Exception, **attributes: Any) -> Exception:
    """Make an error as another library would have it, by its class's name."""
    error: Exception = type(name, (base,), {"__module__": "other"})("boom")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def answered(status: int) -> urllib.error.HTTPError:
    """Make the error of an answer by HTTP."""
    return urllib.error.HTTPError("http://x", status, "", Message(), None)


def raised_from(outer: Exception, inner: BaseException) -> Exception:
    """Have one error raised from another."""
    outer.__cause__ = inner
    return outer


def in_a_ring() -> Exception:
    """Make two errors that were raised from each other."""
    one, two = KeyError("x"), ValueError("x")
    one.__cause__, two.__cause__ = two, one
    return one


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        BrokenPipeError(),
        TimeoutError(),
        concurrent.futures.TimeoutError(),
        OSError(),
        OSError(113, "No route to host"),
        OSError(24, "Too many open files"),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        ssl.SSLError("eof"),
        http.client.IncompleteRead(b""),
        http.client.RemoteDisconnected("x"),
        subprocess.TimeoutExpired("x", 1),
        urllib.error.URLError(ConnectionRefusedError()),
        answered(503),
        answered(500),
        answered(429),
        redis.exceptions.ConnectionError(),
        redis.exceptions.TimeoutError(),
        redis.exceptions.BusyLoadingError(),
        kombu.exceptions.OperationalError(),
        pymongo.errors.AutoReconnect(),
        named("OperationalError"),  # psycopg, MySQL, SQLAlchemy
        named("InterfaceError"),
        named("ConnectionError", OSError),  # requests
        named("ReadTimeout", OSError),
        named("ChunkedEncodingError", OSError),
        named("ConnectError"),  # httpx
        named("PoolTimeout"),
        named("RemoteProtocolError"),
        named("HTTPError", OSError, response=SimpleNamespace(status_code=502)),
        named("MaxRetryError"),
        named("EndpointConnectionError"),
        named("ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 503}}),
        named("_InactiveRpcError", code=lambda: SimpleNamespace(name="UNAVAILABLE")),
        named("ServerDisconnectedError"),
        raised_from(KeyError("x"), TimeoutError()),
        ExceptionGroup("several", [ValueError(), ConnectionResetError()]),
        MemoryError(),
    ],
    ids=repr,
)
def test_what_is_about_a_connection_or_a_time_passes(error: Exception) -> None:
    """Whichever library it is of."""
    assert passes(error)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError(),
        TypeError(),
        AttributeError(),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
        FileNotFoundError(),
        FileNotFoundError(2, "No such file"),
        PermissionError(13, "denied"),
        IsADirectoryError(21, "x"),
        NotADirectoryError(20, "x"),
        FileExistsError(17, "x"),
        OSError(36, "File name too long"),
        subprocess.CalledProcessError(1, "x"),
        urllib.error.URLError("unknown url type: x"),
        answered(404),
        answered(403),
        http.client.InvalidURL(),
        redis.exceptions.ResponseError(),
        pymongo.errors.DuplicateKeyError("x"),
        pymongo.errors.ConfigurationError(),
        errors.InvalidEvent(),
        named("HTTPStatusError", response=SimpleNamespace(status_code=404)),
        named("HTTPError", OSError, response=SimpleNamespace(status_code=400)),
        named("MissingSchema", ValueError),
        named("DataError"),
        named("ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 400}}),
        named("RpcError", code=lambda: SimpleNamespace(name="NOT_FOUND")),
        named("Odd", code=lambda: 1 / 0),
        in_a_ring(),
    ],
    ids=repr,
)
def test_what_is_about_a_value_a_file_or_a_right_lasts(error: Exception) -> None:
    """Waiting for it would stop the outbox for ever."""
    assert not passes(error)


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError()], ids=repr)
def test_a_function_that_ends_its_thread_ends_no_relay(error: BaseException) -> None:
    """It is poison for that one row."""

    def function(*_: object) -> str:
        raise error

    asked = Routing(default="a/b/c", topics=function, key=None)
    met: list[BaseException] = []

    def ask() -> None:
        try:
            asked.topic("A", {})
        except errors.Poison as poison:
            met.append(poison)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert [type(error) for error in met] == [errors.Poison]


def test_a_row_is_waited_for_by_name_and_not_for_ever() -> None:
    """Each row has its own time, and one that comes anew begins to count anew."""
    failed = errors.RoutingFailed("The key function failed with Outage for 'A'")
    patient, hasty = Unanswered(), Unanswered(longest_seconds=0.0)
    for _ in range(3):
        with pytest.raises(errors.RoutingFailed, match="Row 17 and all behind it wait"):
            patient.judged(17, failed)
    for row_id in (1, 2):
        with pytest.raises(errors.RoutingFailed, match=f"Row {row_id} "):
            hasty.judged(row_id, failed)
        assert "failed with Outage" in str(hasty.judged(row_id, failed))
    with pytest.raises(errors.RoutingFailed):
        hasty.judged(1, failed)
