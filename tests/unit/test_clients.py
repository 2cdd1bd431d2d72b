"""Which servers are fit: by what they say of themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pymongo import MongoClient, ReadPreference

from postroom.errors import ServiceUnavailable
from postroom.store.clients import PRIMARY, require_fit_server


def server(**hello: Any) -> Any:
    """Return what is asked of a client of a server that says this."""
    admin = SimpleNamespace(command=lambda _: hello)
    return SimpleNamespace(admin=admin, nodes={("db", 27017)})


@pytest.mark.parametrize(
    "options",
    [
        "",
        "readPreference=secondary",
        "readPreference=secondaryPreferred&maxStalenessSeconds=120",
        "readPreference=nearest&readPreferenceTags=nodeType:ANALYTICS",
    ],
)
def test_the_primary_is_read_whatever_the_uri_says(options: str) -> None:
    """Tags and staleness of the URI go together with no primary, so they are put aside."""
    with MongoClient[Any](f"mongodb://db/?{options}", connect=False, **PRIMARY) as client:
        assert client.read_preference == ReadPreference.PRIMARY


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
