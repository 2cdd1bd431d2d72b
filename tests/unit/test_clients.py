"""MongoDB's clients, and which servers are fit."""

from __future__ import annotations

import functools
import linecache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from bson.binary import UuidRepresentation
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern

from postroom.errors import ServiceUnavailable
from postroom.settings import Settings
from postroom.store import clients
from postroom.store.clients import require_fit_server
from postroom.store.server_watch import ServerWatch

if TYPE_CHECKING:
    from collections.abc import Callable


def server(**hello: Any) -> Any:
    """Return what is asked of a client of a server that says this."""
    admin = SimpleNamespace(command=lambda _: hello)
    return SimpleNamespace(admin=admin, nodes={("db", 27017)})


CLIENTS: dict[str, Callable[[str], MongoClient[Any]]] = {
    "relay": clients.for_relay,
    "change stream": clients.for_change_stream,
    "consumer": functools.partial(clients.for_consumer, name="named", watch=ServerWatch()),
    "command line": clients.for_command_line,
}


@pytest.mark.parametrize("purpose", CLIENTS)
@pytest.mark.parametrize(
    "options",
    [
        "authSource=a",
        "readPreference=secondary",
        "readPreference=secondaryPreferred&maxStalenessSeconds=120",
        "readPreference=nearest&readPreferenceTags=nodeType:ANALYTICS&readpreferencetags=",
        "readConcernLevel=local;timeoutMS=2000",
        "w=0&journal=false&wtimeoutMS=1&retryWrites=false&retryReads=false",
        "W=2&J=false&wTimeout=5",
        "timeoutms=1&socketTimeoutMS=1000&waitQueueTimeoutMS=1&serverSelectionTimeoutMS=1",
        "maxPoolSize=1&minPoolSize=1&maxIdleTimeMS=1&maxConnecting=1&heartbeatFrequencyMS=600000",
        "tz_aware=false&appName=theirs&connectTimeoutMS=1",
    ],
)
def test_what_the_uri_may_not_change(purpose: str, options: str) -> None:
    """Whatever it says, calls mean what they mean and wait as long as they have to."""
    client = CLIENTS[purpose](f"mongodb://u:p%3F@db,other/base?{options}")
    with client:
        made = client.options
        assert client.read_preference == ReadPreference.PRIMARY
        assert client.read_concern == ReadConcern()
        assert client.write_concern == WriteConcern("majority", j=True)
        assert (made.retry_writes, made.retry_reads) == (True, True)
        assert made.timeout is None
        assert made.server_selection_timeout == 5
        pool: Any = made.pool_options
        unbounded = purpose in {"change stream", "consumer"}
        assert pool.socket_timeout == (None if unbounded else 15)
        assert (pool.connect_timeout, pool.wait_queue_timeout) == (5, None)
        assert pool.min_pool_size == 0
        assert pool.max_pool_size is None
        assert pool.appname == {"consumer": "named", "command line": "postroom-cli"}.get(
            purpose, "postroom-relay"
        )
        assert client.codec_options.tz_aware
        assert client.get_default_database().name == "base"


def test_what_the_uri_may_say() -> None:
    """Where the servers are, who we are, how that is secured, and how handlers' values are read."""
    uri = "mongodb://db/?replicaSet=rs7&tls=true&compressors=zlib&uuidRepresentation=javaLegacy"
    with clients.for_consumer(uri, name="named", watch=ServerWatch()) as consumer:
        assert consumer.options.replica_set_name == "rs7"
        assert consumer.options.pool_options._ssl_context
        assert consumer.options.pool_options._compression_settings
        assert consumer.codec_options.uuid_representation == UuidRepresentation.JAVA_LEGACY
    with clients.for_relay(uri) as relay:
        assert relay.codec_options.uuid_representation == UuidRepresentation.UNSPECIFIED


def test_what_is_not_obeyed_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """By name, without the rest of the URI."""
    with caplog.at_level("INFO", logger="postroom.store.clients"):
        for _ in range(2):
            clients.for_relay("mongodb://u:secret@db/?timeoutMS=7&w=0").close()
    (said,) = [each.getMessage() for each in caplog.records]
    assert said.endswith(": timeoutMS, w")
    assert "secret" not in said


def test_a_secondary_is_refused_with_the_remedy() -> None:
    """Only directConnection leads there, and to no other member when another becomes primary."""
    with pytest.raises(ServiceUnavailable, match=r"not the primary, and directConnection=true"):
        require_fit_server(server(maxWireVersion=17, setName="rs0", secondary=True))


@pytest.mark.parametrize("version", [13, 17, 21, 25])
def test_replica_sets_and_routers_of_5_to_8_are_fit(version: int) -> None:
    """versionPolicies.test.ts of Hermes: 5, 6, 7 and 8 are accepted."""
    require_fit_server(server(maxWireVersion=version, setName="rs0"))
    require_fit_server(server(maxWireVersion=version, msg="isdbgrid"))


def test_a_server_before_5_is_refused() -> None:
    """versionPolicies.test.ts of Hermes: 4 is refused."""
    with pytest.raises(ServiceUnavailable, match=r"db:27017 is older than 5.0.*upgrade it"):
        require_fit_server(server(maxWireVersion=9, setName="rs0"))


def test_a_single_server_is_refused_with_the_remedy() -> None:
    """There is no outbox without transactions."""
    with pytest.raises(ServiceUnavailable, match=r"is not a replica set.*rs\.initiate\(\)"):
        require_fit_server(server(maxWireVersion=17))


@pytest.mark.parametrize("made", [*CLIENTS.values(), lambda uri: Settings(mongodb_uri=uri)])
def test_no_source_is_kept_of_the_stack_in_which_a_client_is_made(made: Callable[..., Any]) -> None:
    """PyMongo has Python read the file of each function in it; what was read before stays."""
    linecache.clearcache()
    assert linecache.getlines(pytest.__file__)
    client = made("mongodb://127.0.0.1:1/?directConnection=true")
    if isinstance(client, MongoClient):
        client.close()
    assert list(linecache.cache) == [pytest.__file__]
