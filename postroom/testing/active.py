"""Active: the recorder of the test that runs, and the assertions that ask it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from postroom.errors import ConfigurationError
from postroom.testing.recorder import OutboxRecorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.testing.published import Kind, Published

__all__ = ["assert_nothing_published", "assert_published", "recording"]

_active: list[OutboxRecorder] = []


@contextlib.contextmanager
def recording() -> Iterator[OutboxRecorder]:
    """Lend a recorder, which the assertions of this module ask; the fixture `outbox_recorder`."""
    recorder = OutboxRecorder()
    _active.append(recorder)
    try:
        yield recorder
    finally:
        _active.remove(recorder)


def assert_published(kind: Kind, /, *, times: int | None = None, **fields: Any) -> Published:
    """Make sure that such an event was published and committed; return the first one.

    See OutboxRecorder.assert_published().

    Raises:
        AssertionError: it was not; the sentence names what was.
        ConfigurationError: there is no recorder now.

    """
    __tracebackhide__ = True
    return _recorder().assert_published(kind, times=times, **fields)


def assert_nothing_published(kind: Kind | None = None, /, **fields: Any) -> None:
    """Make sure that no event was published and committed, or no such event.

    Raises:
        AssertionError: one was; the sentence names it.
        ConfigurationError: there is no recorder now.

    """
    __tracebackhide__ = True
    _recorder().assert_nothing_published(kind, **fields)


def _recorder() -> OutboxRecorder:
    if not _active:
        raise ConfigurationError(
            "There is no recorder now: have the test ask for the fixture outbox_recorder, or open "
            "`with postroom.testing.recording() as recorder`"
        )
    return _active[-1]
