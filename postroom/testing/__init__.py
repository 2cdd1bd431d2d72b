"""A test kit for applications: what was published, without any server or with the real ones.

The fixtures come by themselves with pytest: `outbox_recorder` and `outbox_site`
(docs/howto/testing.md).
"""

from postroom.testing.active import assert_nothing_published, assert_published, recording
from postroom.testing.draining import NotDrained
from postroom.testing.published import Published
from postroom.testing.recorder import Delivered, OutboxRecorder, Scheduled
from postroom.testing.refusal import NotFaked
from postroom.testing.report import DeadLetter, Drained, Handled, Quarantined, Relayed
from postroom.testing.site import OutboxSite
from postroom.testing.wired import Wired

__all__ = [
    "DeadLetter",
    "Delivered",
    "Drained",
    "Handled",
    "NotDrained",
    "NotFaked",
    "OutboxRecorder",
    "OutboxSite",
    "Published",
    "Quarantined",
    "Relayed",
    "Scheduled",
    "Wired",
    "assert_nothing_published",
    "assert_published",
    "recording",
]
