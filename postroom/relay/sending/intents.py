"""Intents: in which order rows are handed to topics, noted where nothing else could tell later."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pymongo
from bson import errors as bson
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.events import id_text
from postroom.store.intents import Intent
from postroom.store.values import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from postroom.pulsar_adapter import Message
    from postroom.relay.sending.tail import First
    from postroom.store.checkpoints import Checkpoint
    from postroom.store.quarantine import Quarantined
    from postroom.topics import Topic

    IsAwaited = Callable[[Topic], bool]
    Note = Callable[[Mapping[int, Intent], Iterable[int]], None]

__all__ = ["Intents"]

# In bytes. A row with a longer id is left out, so that all that is under way fits into the
# checkpoint's row.
LONGEST_ID = 500
# More than twice what a term has under way; MongoDB takes 16 MB in a row.
MOST_IDS = 25_000
# As long as choosing a server takes; a member that steps down is replaced meanwhile.
NOTED_WITHIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Burst:
    """Messages that left together, and the number under which that was noted, if it was."""

    topic: Topic
    messages: Sequence[Message]
    position: int
    number: int | None


class Intents:
    """Kept by the relay from term to term, used by its thread alone.

    Of the messages that are under way the broker may refuse one, by a policy that was set just
    then, and take those behind it. Sent now it would come out of order. The change stream shows it
    in its place again, from which that can be told (Overtaking). A scan does not: what a topic
    lacks was refused there, or is committed only now. So while there is a scan each burst is noted
    in the checkpoint before it leaves. So is what is under way when a term ends by any error,
    should history be lost before the next one has sent it; but for Superseded, where another relay
    has its own. A row that its topic lacks, while it has one that was to be handed to it later, was
    refused.

    Later in the same term, that is: of what is noted for a topic when it is opened, only rows with
    a stored one behind them tell anything, and the rest gives way to what this term notes. The next
    term sends the same rows again, so that one order behind the other would condemn what nothing
    stands behind. Positions do not tell the order of different terms: their numbers jump.

    A topic for which rows wait tells of what was handed to it once it is open: what is noted is
    kept until then, though scan and stream have passed it.
    """

    def __init__(self) -> None:
        # How many bursts have left in this term.
        self.bursts = 0
        self._note: Note | None = None
        self._is_scanning = False
        self._noted: dict[int, Intent] = {}
        self._gone: list[int] = []
        # What is noted already, and about to leave.
        self._announced: dict[tuple[Topic, int], int] = {}
        self._under_way: deque[_Burst] = deque()
        self._refused: dict[str, Topic] = {}
        # What is left of earlier terms' intents once this one notes its own for their topic.
        self._left: dict[int, Intent] = {}
        self._is_awaited: IsAwaited = _never

    def forget(self) -> None:
        """Let go of all that an earlier term has left, which may be another relay's by now."""
        self.bursts, self._note, self._is_scanning = 0, None, False
        self._noted, self._gone, self._refused, self._left = {}, [], {}, {}
        self._is_awaited = _never
        self._announced.clear()
        self._under_way.clear()

    def begin(
        self, checkpoint: Checkpoint, note: Note, *, is_awaited: IsAwaited | None = None
    ) -> None:
        """Take over what earlier terms have noted, but for what the checkpoint has passed.

        `is_awaited` says whether rows wait for a topic.
        """
        self.forget()
        self._is_awaited = is_awaited or _never
        self._note, self._is_scanning = note, checkpoint.scan is not None
        self._noted = dict(checkpoint.intents)
        for number, intent in checkpoint.intents.items():
            is_kept = self._is_awaited(intent.topic)
            if intent.position is None and (self._is_scanning or is_kept):
                self._refused.update(dict.fromkeys(intent.ids, intent.topic))
            elif is_kept:
                continue
            elif intent.position is None or intent.position <= checkpoint.position:
                self._gone.append(number)
                del self._noted[number]

    def opened(self, topic: Topic, there: Collection[str], first: First | None) -> None:
        """Find out what a topic has refused; `there` are the ids that it has behind its mark.

        What it has nothing behind is free to be handed to it in another order. Of what would stand
        before the `first` one, if that is named, nothing is known: it may have been deleted. In the
        stream that is of use to a scan that comes next: it is kept in mind, and noted with what is
        under way when the term ends.
        """
        found = {
            number: intent
            for number, intent in self._noted.items()
            if intent.topic == topic and intent.position is not None
        }
        left = _left_of(found, there, first)
        if not self._is_scanning and not self._is_awaited(topic):
            self._left.update(left)
        elif found:
            ids = (row_id for intent in left.values() for row_id in intent.ids)
            refused = tuple(row_id for row_id in ids if row_id not in there)
            self._refused.update(dict.fromkeys(refused, topic))
            self._write([Intent(topic=topic, ids=refused)] if refused else [], gone=list(found))

    def has_refused(self, topic: Topic, row_id: str) -> bool:
        """Say whether a topic has refused a row in its turn, and has later ones."""
        return bool(self._refused) and self._refused.get(row_id) == topic

    def set_aside(self, rows: Iterable[Quarantined]) -> None:
        """Forget the refusal of rows that are in quarantine: from there they may be put back.

        Not of those that wait for their topic.
        """
        judged = {id_text(row.row_id) for row in rows if row.topic is None}
        refused = self._refused.keys() & judged
        for row_id in refused:
            del self._refused[row_id]
        for number, intent in list(self._noted.items()):
            if intent.position is None and not refused.isdisjoint(intent.ids):
                left = tuple(row_id for row_id in intent.ids if row_id not in refused)
                rest = [Intent(topic=intent.topic, ids=left)] if left else []
                self._write(rest, gone=[number])

    # --- what is under way -------------------------------------------------------------------

    def announce(self, bursts: Iterable[tuple[Topic, Sequence[Message], int]]) -> None:
        """Note in one write what is handed over next, to several topics; raises what that does.

        A write for each would have all topics wait for all writes.
        """
        intents = [_intent(*burst) for burst in bursts] if self._is_scanning else []
        if intents:
            numbers = self._write(intents, gone=())
            self._announced = {
                (intent.topic, intent.position): number
                for intent, number in zip(intents, numbers, strict=True)
                if intent.position is not None
            }

    def handing(self, topic: Topic, messages: Sequence[Message], position: int) -> None:
        """Take note of messages that leave together, up to a position, with others behind them.

        Raises:
            Superseded: a newer relay has taken over.
            pymongo.errors.PyMongoError: the checkpoint could not be written.

        """
        number = self._announced.pop((topic, position), None)
        if number is None and self._is_scanning:
            (number,) = self._write([_intent(topic, messages, position)], gone=())
        self._under_way.append(
            _Burst(topic=topic, messages=messages, position=position, number=number)
        )
        self.bursts += 1

    def landed(self, bursts: int) -> None:
        """Note that so many bursts, the first of this term, are stored."""
        while self.bursts - len(self._under_way) < bursts:
            number = self._under_way.popleft().number
            if number is not None:
                self._gone.append(number)

    def saved(self, position: int, *, is_scanning: bool) -> None:
        """Note that the checkpoint has come to a position, and still has a scan or not.

        Raises what handing() does.
        """
        if is_scanning:
            return  # what it has passed goes with the next burst
        was_scan, self._is_scanning = self._is_scanning, False
        if was_scan:
            kept = {row_id: at for row_id, at in self._refused.items() if self._is_awaited(at)}
            self._refused = kept
        gone = [
            number
            for number, intent in self._noted.items()
            if not self._is_awaited(intent.topic)
            and (was_scan or intent.position is None or intent.position <= position)
        ]
        if gone:
            self._write([], gone=gone)

    def failed(self) -> None:
        """Note what is under way where a term ends by any error; it is over then.

        Where MongoDB does not take that within seconds nothing is noted: the mutex is kept as long.
        """
        if self._is_scanning or not self._under_way:
            return
        under_way = [_intent(each.topic, each.messages, each.position) for each in self._under_way]
        self._under_way.clear()
        topics = {intent.topic for intent in under_way}
        gone = [number for number, intent in self._noted.items() if intent.topic in topics]
        left = [self._left[number] for number in gone if number in self._left]
        with (
            contextlib.suppress(mongo.PyMongoError, bson.BSONError, errors.RelayError),
            pymongo.timeout(NOTED_WITHIN_SECONDS),
        ):
            self._write([*left, *under_way], gone=gone)

    def _write(self, intents: Sequence[Intent], *, gone: Iterable[int]) -> Sequence[int]:
        if self._note is None:
            raise RuntimeError("No term has begun")
        gone = [*self._gone, *gone]
        gone += self._beyond_room(intents, gone)
        first = max([*self._noted, *gone], default=-1) + 1
        noted = dict(enumerate(intents, first))
        if noted or gone:
            self._note(noted, gone)
        self._noted.update(noted)
        for number in gone:
            self._noted.pop(number, None)
        self._gone = []
        return list(noted)

    def _beyond_room(self, intents: Sequence[Intent], gone: Sequence[int]) -> Sequence[int]:
        """Return the oldest that have to go, as where topics were shut in one term each."""
        passed = set(gone)
        left = {number: each for number, each in self._noted.items() if number not in passed}
        over = sum(len(each.ids) for each in [*left.values(), *intents]) - MOST_IDS
        beyond: list[int] = []
        for number, intent in left.items():
            if over <= 0:
                break
            over -= len(intent.ids)
            beyond.append(number)
        return beyond


def _never(_: Topic) -> bool:
    return False


def _left_of(
    intents: Mapping[int, Intent], there: Collection[str], first: First | None
) -> dict[int, Intent]:
    """Return what tells of a refusal: rows that a topic lacks, and the last one that it has."""
    ids = [
        (number, row_id)
        for number, intent in intents.items()
        if _is_seen(intent, first)
        for row_id in intent.ids
    ]
    places = {row_id: place for place, (_, row_id) in reversed([*enumerate(ids)])}
    begin = places.get(first.row_id, 0) if first is not None else 0
    last = max((place for place, (_, row_id) in enumerate(ids) if row_id in there), default=0)
    lacking = [(number, row_id) for number, row_id in ids[begin:last] if row_id not in there]
    left: dict[int, list[str]] = {}
    for number, row_id in [*lacking, ids[last]] if lacking else ():
        left.setdefault(number, []).append(row_id)
    return {
        number: dataclasses.replace(intents[number], ids=tuple(row_ids))
        for number, row_ids in left.items()
    }


def _is_seen(intent: Intent, first: First | None) -> bool:
    """Say whether what was handed over would stand behind the first event that a topic has."""
    return first is None or intent.position is None or intent.position >= first.position


def _intent(topic: Topic, messages: Sequence[Message], position: int) -> Intent:
    ids = (str(message.properties()[wire.ID]) for message in messages)
    return Intent(
        topic=topic,
        ids=tuple(row_id for row_id in ids if len(row_id.encode()) <= LONGEST_ID),
        position=Position(position),
    )
