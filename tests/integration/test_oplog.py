"""The oplog, on real MongoDB: the doctor and the metrics see the same beginning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from postroom.store.oplog import Oplog
from postroom.telemetry.partitions import _oplog

if TYPE_CHECKING:
    from tests.site import Site


def test_how_far_it_reaches_back_is_one_fact(lite_site: Site) -> None:
    """Its first entry is where both begin to count."""
    client = lite_site.database.client
    found, seconds = Oplog.of(client), _oplog(client)
    assert found is not None
    assert seconds is not None
    assert time.time() - seconds == pytest.approx(found.first.timestamp(), abs=1)
