"""A test kit for applications: what was published, without any server or with the real ones.

The fixtures come by themselves with pytest: `outbox_recorder`. See docs/howto/testing.md.
"""

from postroom.testing.active import assert_nothing_published, assert_published, recording
from postroom.testing.published import Published
from postroom.testing.recorder import Delivered, OutboxRecorder
from postroom.testing.refusal import NotFaked

__all__ = [
    "Delivered",
    "NotFaked",
    "OutboxRecorder",
    "Published",
    "assert_nothing_published",
    "assert_published",
    "recording",
]
