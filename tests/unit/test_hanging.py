"""Threads that hang although their time was up are said for as long as they do."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from postroom.inbox.receiving.troubles import Troubles
from postroom.inbox.scheduling.hanging import Hanging

if TYPE_CHECKING:
    import pytest


def test_what_hangs_is_told_until_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """By where it hangs, and no longer than it does."""
    caplog.set_level(logging.INFO, "postroom")
    told: list[tuple[str, ...]] = []
    troubles = Troubles("billing", told.append)
    hanging = Hanging(troubles)
    hanging.report()
    left = [True, True, True]
    for number, where in enumerate(
        ("shop.a in the handler", "shop.b before", "shop.a in the handler")
    ):
        hanging.add(where, functools.partial(left.__getitem__, number))
    hanging.report()
    troubles.say()
    assert "3 threads hang past the timeout" in told[-1][0]
    assert "(2 times shop.a in the handler; 1 times shop.b before)" in told[-1][0]
    left[0] = False
    hanging.report()
    troubles.say()
    assert "2 threads hang" in told[-1][0]
    left[:] = [False] * 3
    hanging.report()
    troubles.say()
    assert told[-1] == ()
    assert caplog.messages[-1] == "No thread hangs in a job any more"
