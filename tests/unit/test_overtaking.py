"""Overtaking: a row that was refused in its turn is told from one that comes late."""

from __future__ import annotations

from typing import Any

import pytest

from postroom import errors, pulsar_adapter
from postroom.cloud_events import CloudEvents
from postroom.relay.sending.intents import Intents
from postroom.relay.sending.lane import _message
from postroom.relay.sending.overtaking import OutOfTurnError, Overtaking
from postroom.relay.sending.tail import Tail, _Found
from postroom.routing import Routing
from postroom.store import letter
from postroom.store.checkpoint import Checkpoint
from postroom.store.intents import Intent
from postroom.store.scans import Scan
from postroom.store.values import DEFAULT_PARTITION, Position
from tests.unit.test_hot_path import outbound

PLAIN = Routing(default="a/b/c", topics={}, key=None)
CLOUD = Routing(default="a/b/c", topics={}, key=None, cloud_events=CloudEvents.of(None, "db"))


def written(number: int, routing: Routing, **row: Any) -> letter.Letter:
    """Return the letter of a row."""
    event = {"name": "E", "data": {"text": row.pop("text", "")}}
    return letter.write({"_id": str(number), "data": event, **row}, routing, 1 << 20)


def tail_of(*letters: letter.Letter, is_whole: bool = True) -> Tail:
    """Return what a topic has, as it is read back."""
    found = _Found(is_whole=is_whole)
    for position, each in enumerate(letters, 10**6):
        message: Any = _message(pulsar_adapter.message_builder()(), each, position)
        found.add(message, ours=True)
    return found.tail()


@pytest.mark.parametrize("routing", [PLAIN, CLOUD], ids=["plain", "cloud"])
@pytest.mark.parametrize(
    "row",
    [
        {},
        {"key": "k"},
        {"key": "kéy" * 100},
        {"headers": {"größe": "müßig", "x": "y"}},
        {"key": "ключ", "headers": {"ce_sequence": "7", "ce_id": "own"}},
    ],
)
def test_a_message_measures_what_its_letter_does(routing: Routing, row: dict[str, Any]) -> None:
    """In bytes, with its key and headers, and without what the relay adds."""
    made = written(1, routing, **row)
    expected = letter.measured(made.payload, made.key, made.headers)
    assert tail_of(made).sizes == {"1": expected}
    if routing is CLOUD or ("headers" in row and "ce_sequence" not in row["headers"]):
        assert made.size == expected


@pytest.mark.parametrize(
    ("routing", "large", "small"),
    [
        pytest.param(CLOUD, {"text": "x" * 9}, {}, id="a little longer"),
        pytest.param(
            PLAIN, {"headers": {"h": "é" * 40}}, {"headers": {"h": "e" * 50}}, id="header"
        ),
        pytest.param(PLAIN, {"key": "é" * 200}, {"key": "e" * 250}, id="key"),
        pytest.param(PLAIN, {"key": "é" * 40}, {"text": "e" * 50}, id="short key"),
    ],
)
def test_a_row_is_held_to_be_refused_where_all_behind_it_is_smaller(
    routing: Routing, large: dict[str, Any], small: dict[str, Any]
) -> None:
    """However little, and in bytes; behind larger ones, or deleted perhaps, it is merely late."""
    for first, later, is_whole, is_refused in (
        (large, small, True, True),
        (small, large, True, False),
        (large, small, False, False),
    ):
        missing, there = written(1, routing, **first), written(2, routing, **later)
        tails = {missing.topic: tail_of(there, is_whole=is_whole)}
        overtaking = Overtaking(tails, Intents())
        overtaking.met("2", 2)
        overtaking.row = 1
        try:
            overtaking.require_in_order(missing)
        except errors.Poison:
            assert is_refused
        else:
            assert not is_refused


def test_rows_that_a_deploy_routes_elsewhere_are_late_however_large() -> None:
    """One that later ones exceed was never refused by its size, and neither were those behind."""
    there = [written(2, PLAIN, text="xxxx"), written(4, PLAIN)]
    first, third = written(1, PLAIN, text="xxx"), written(3, PLAIN, text="xx")
    overtaking = Overtaking({first.topic: tail_of(*there)}, Intents())
    overtaking.met("2", 2)
    overtaking.met("4", 4)
    for overtaking.row, late in ((1, first), (3, third)):
        overtaking.require_in_order(late)


def test_nobody_is_asked_to_mend_what_came_out_of_its_turn() -> None:
    """However small it is made, the topic has later ones: it is removed, or set aside."""
    out, row, intents = outbound(keyed=False), written(1, PLAIN), Intents()
    refused = Intent(topic=row.topic, ids=(row.id,))
    checkpoint = Checkpoint(
        partition=DEFAULT_PARTITION,
        epoch=1,
        position=Position(0),
        token=None,
        scan=Scan(),
        intents={0: refused},
    )
    intents.begin(checkpoint, lambda _, __: None)
    with pytest.raises(OutOfTurnError) as late:
        Overtaking({row.topic: tail_of()}, intents).require_in_order(row)
    for out._block_on_poison in (True, False):
        assert "to mend it does not help" in out._question(row.id, late.value)
        assert "mend or remove the row" in out._question(row.id, errors.Poison("too large"))
