"""Waiting: topics that cannot be opened now, and the rows that were set aside for them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from postroom.store.quarantine import Quarantine, Quarantined
    from postroom.topics import Topic

__all__ = ["Waiting"]

FIRST_TRY_SECONDS = 2.0
LONGEST_TRY_SECONDS = 30.0
# A topic whose opening takes long, as where nobody answers, takes at most a twentieth of the time.
REST = 20.0
EARLIER = "rows that were set aside for it earlier go there first"


@dataclass(slots=True)
class _Shut:
    """One topic: why nothing goes there now, and when it is looked at again."""

    reason: str
    wait: float = 0.0
    due: float = 0.0


class Waiting:
    """Which topics are waited for; used by the term's thread alone.

    What goes to such a topic is set aside in quarantine under it, and the rest flows. Once it can
    be opened, what was set aside goes there first, in its order; newer rows are set aside behind it
    until none is left. So each topic keeps its order, and nothing waits longer than its reason.
    `tell` hears the reasons by topic whenever they change.
    """

    def __init__(
        self, quarantine: Quarantine, *, tell: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._quarantine = quarantine
        self._tell = tell
        self._shut: dict[Topic, _Shut] = {}
        # Rows of chunks that are under way: they are in quarantine once all of a chunk is stored.
        self._unsaved: Counter[Topic] = Counter()

    def begin(self) -> None:
        """Find out what earlier terms have set aside."""
        self._shut = {topic: _Shut(EARLIER) for topic in self._quarantine.awaited_topics()}
        self._tell(self._reasons())

    def _reasons(self) -> dict[str, str]:
        return {topic: shut.reason for topic, shut in self._shut.items()}

    def __len__(self) -> int:
        return len(self._shut)

    def reason(self, topic: Topic) -> str | None:
        """Return why nothing goes to a topic now, None where it does."""
        shut = self._shut.get(topic)
        return None if shut is None else shut.reason

    def shut(self, topic: Topic, reason: str, *, took: float) -> bool:
        """Wait for a topic whose opening failed after so many seconds; say whether that is news."""
        known = self._shut.get(topic)
        shut = self._shut[topic] = _Shut(reason, known.wait if known else 0.0)
        shut.wait = min(max(2 * shut.wait, FIRST_TRY_SECONDS), LONGEST_TRY_SECONDS)
        shut.due = time.monotonic() + max(shut.wait, REST * took)
        is_news = known is None or known.reason != reason
        if is_news:
            self._tell(self._reasons())
        return is_news

    def due(self) -> list[Topic]:
        """Return the topics that are to be looked at again."""
        now = time.monotonic()
        return [topic for topic, shut in self._shut.items() if shut.due <= now]

    def set_aside(self, topic: Topic) -> None:
        """Note that a row of a chunk that is under way waits for a topic."""
        self._unsaved[topic] += 1

    def saved(self, rows: Iterable[Quarantined]) -> None:
        """Note that rows of a chunk are in quarantine."""
        for row in rows:
            if row.topic is not None:
                self._unsaved[row.topic] -= 1

    def is_over(self, topic: Topic) -> bool:
        """Say whether nothing that waits for a topic is still on its way into quarantine.

        If so, and if there is nothing in it, the topic is waited for no longer.
        """
        if self._unsaved[topic] > 0:
            return False
        del self._shut[topic]
        self._tell(self._reasons())
        return True
