"""The pytest plugin: fixtures that come by themselves where postroom is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.testing.recorder import OutboxRecorder

__all__ = ["outbox_recorder"]


@pytest.fixture
def outbox_recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[OutboxRecorder]:
    """Lend databases in memory, and what was published there; no server is needed."""
    # Imported here: a test run that uses none of this should not pay for it.
    from postroom.testing.active import recording

    # How many there are would be asked of a server.
    monkeypatch.setenv("POSTROOM_PARTITIONS", "1")
    with recording() as recorder:
        yield recorder
