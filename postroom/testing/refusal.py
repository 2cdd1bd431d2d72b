"""Refusal: what the test kit cannot stand in for, said in a sentence instead of pretended."""

from __future__ import annotations

from postroom.errors import PostroomError

__all__ = ["NotFaked", "not_faked"]

INSTEAD = "use the fixture outbox_site, which has the real services: docs/howto/testing.md"


class NotFaked(PostroomError):
    """The test kit has no honest stand-in for this."""


def not_faked(what: str, why: str = "the storage in memory does not have it") -> NotFaked:
    """Return the refusal of something, with what to do instead."""
    return NotFaked(f"{what}: {why}, and does not guess what MongoDB would do; {INSTEAD}")
