"""Scheduled events under kills of relays, for half a minute or SECONDS."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.chaos.scheduled import Planner, disturb, judge
from tests.waiting import beside

if TYPE_CHECKING:
    from tests.site import Site

SECONDS = float(os.environ.get("SECONDS", "30"))
pytestmark = [pytest.mark.pulsar, pytest.mark.chaos, pytest.mark.timeout(400)]


def test_scheduled_events_are_fired_once_or_cancelled(pulsar_site: Site) -> None:
    """Never both, and none before it was due."""
    site, seed = pulsar_site, random.randrange(10**6)
    print(f"seed {seed}")
    uri = site.environment["POSTROOM_MONGODB_URI"]
    planners = [Planner(uri, site.name, seed + n) for n in range(2)]
    with contextlib.ExitStack() as writing:
        for planner in planners:
            writing.enter_context(beside(planner.write))
        disturb(site, seconds=SECONDS, dice=random.Random(seed))
    verdict = judge(site, planners)
    print(f"{verdict.scheduled} scheduled, {verdict.fired} fired, {verdict.cancelled} cancelled")
    assert verdict.clean, f"seed {seed}: {verdict}"
    assert verdict.fired > 100
    assert verdict.cancelled > 100
