"""What is said of a MongoDB that is no member of the replica set that the URI names."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient
from pymongo import errors as mongo

from devstack.service import free_port
from postroom.access import mongodb as mongodb_access

if TYPE_CHECKING:
    from tests.site import Site

# As POSTROOM_MONGODB_URI has it unless it is set.
FORM = "mongodb://127.0.0.1:{}/?replicaSet={}&directConnection=true"


def said(uri: str, *, of_the_driver: str = "belongs to a set named") -> str:
    """Return what is said of a call that fails, of which the driver says something else."""
    with (
        MongoClient[Any](uri, connectTimeoutMS=200, serverSelectionTimeoutMS=600) as client,
        pytest.raises(mongo.PyMongoError) as failed,
    ):
        client.admin.command("ping")
    assert of_the_driver in str(failed.value)
    return mongodb_access.why(failed.value, uri)


def test_where_nothing_listens_that_is_said() -> None:
    """The driver has it that the server is of no replica set."""
    found = said(FORM.format(free_port(), "rs0"))
    assert "Connection refused" in found
    assert "a set" not in found


def test_of_a_server_that_says_nothing_nothing_is_made_up() -> None:
    """It may be frozen, and a member all the same."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = said(FORM.format(server.getsockname()[1], "rs0"))
    assert "timed out" in found
    assert "a set" not in found


def test_a_member_of_another_replica_set_is_named(lite_site: Site) -> None:
    """Both names are told: one of them has to be changed."""
    uri = lite_site.environment["POSTROOM_MONGODB_URI"]
    port = uri.partition("127.0.0.1:")[2].partition("/")[0]
    found = said(FORM.format(port, "theirs"))
    assert "it is a member of the replica set 'rs0'" in found
    assert "replicaSet of POSTROOM_MONGODB_URI is 'theirs'" in found


def test_a_server_that_is_no_load_balancers_is_named_by_the_option(lite_site: Site) -> None:
    """The option is what has to be changed, and nothing in the driver's words names it."""
    uri = lite_site.environment["POSTROOM_MONGODB_URI"].partition("?")[0] + "?loadBalanced=true"
    found = said(uri, of_the_driver="load balancing mode")
    assert "loadBalanced=true of POSTROOM_MONGODB_URI is for load balancers alone" in found
