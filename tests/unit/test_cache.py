"""Cache: asked once where many ask at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from postroom.access.cache import Cache


def test_many_who_ask_at_once_ask_once() -> None:
    """Who comes while somebody asks waits for that answer."""
    answers: Cache[int] = Cache(seconds=60)
    asked, together = [], threading.Barrier(8)

    def ask() -> int:
        asked.append(1)
        return len(asked)

    def come(_: int) -> int:
        together.wait(5)
        return answers.of("a", ask)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(come, range(8))) == [1] * 8
    assert answers.of("b", ask) == 2


def test_an_old_answer_is_asked_for_again() -> None:
    """After its seconds, and where it is none at all as well."""
    answers: Cache[None] = Cache(seconds=0)
    asked: list[None] = []
    for _ in range(2):
        assert answers.of("a", lambda: asked.append(None)) is None
    assert len(asked) == 2
