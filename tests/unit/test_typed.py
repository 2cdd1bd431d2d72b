"""What type checkers make of a user's handlers: mypy, and pyright by basedpyright's wheel."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Each line says what a checker has to say of it: a type, or that there is an error.
CODE = """
from dataclasses import dataclass
from typing import Any, Literal, TypedDict
import msgspec
from pydantic import BaseModel, Field
from pymongo import DeleteOne, InsertOne, UpdateOne
from postroom import AsyncOutbox, DomainEvent, Event, Outbox, Write, event_class, handles
from postroom.testing import assert_published


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"


class OrderPaid(DomainEvent, key="order_id"):
    order_id: str
    by: Card | Cash = Field(discriminator="kind")


@handles(OrderPaid, name="typed.invoice")
def invoice(event: Event[OrderPaid], session: Any) -> int:
    reveal_type(event.data.order_id)  # str
    reveal_type(event.data)  # OrderPaid
    if isinstance(event.data.by, Card):
        reveal_type(event.data.by.number)  # str
    event.data.nothing  # error
    return 1


@event_class(key="order_id")
@dataclass(frozen=True)
class OrderPacked:
    order_id: str


@event_class
class OrderSent(msgspec.Struct, frozen=True):
    order_id: str


class OrderLost(TypedDict):
    orderId: str


@handles(OrderPacked, OrderSent)
def pack(event: Event[OrderPacked]) -> None:
    reveal_type(event.data)  # OrderPacked
    reveal_type(event.data.order_id)  # str


@handles(OrderLost)
def lose(event: Event[OrderLost]) -> None:
    reveal_type(event.data["orderId"])  # str


@handles(OrderPacked, group=16)
def stock(event: Event[OrderPacked]) -> Write | list[Write]:
    taken = UpdateOne({"_id": event.data.order_id}, [{"$set": {"taken": True}}], upsert=True)
    Write("stock", {"_id": 1})  # error
    Write("stock", [taken])  # error
    if event.key is None:
        return Write("stock", taken, InsertOne({"_id": 1}))
    return [Write("stock", *[taken]), Write("log", DeleteOne({}), database="other")]


reveal_type(stock(Event(id="1", name="A", data=OrderPacked("7"), topic="t")))  # Write | list[Write]
OrderPacked(order_id=5)  # error
handles(5)  # error
event = Event(id="1", name="OrderPaid", data=OrderPaid(order_id="a", by=Cash()), topic="t")
reveal_type(event)  # Event[OrderPaid]
reveal_type(invoice(event, None))  # int
invoice("event", None)  # error
OrderPaid(order_id=5, by=Cash())  # error


def publish(outbox: Outbox) -> None:
    with outbox.scope() as tx:
        reveal_type(tx.publish(event.data))  # list[str]
        tx.publish(5)  # error
        tx.publish(OrderPacked("7"))
        tx.publish([OrderSent("7"), OrderPacked("7"), {"name": "OrderLost", "data": {}}])
    reveal_type(outbox.transact(lambda tx: 1.5))  # float


async def publish_async(outbox: AsyncOutbox) -> None:
    async with outbox.scope() as tx:
        reveal_type(await tx.publish(event.data))  # list[str]


def test_it() -> None:
    reveal_type(assert_published(OrderPaid, order_id="a").id)  # str
"""
CHECKERS = {
    "mypy": ("mypy", "--strict", "--no-incremental", "--config-file=", "--hide-error-context"),
    "basedpyright": ("basedpyright", "--pythonpath", sys.executable),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_types_are_known(checker: str, tmp_path: Path) -> None:
    """Handlers, transactions and assertions, each with the type that its line names."""
    file = tmp_path / "typed.py"
    file.write_text(CODE)
    words = [sys.executable, "-m", *CHECKERS[checker], str(file)]
    said = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    found: dict[int, str] = {}
    for line in said.splitlines():
        if match := re.search(
            r"typed\.py:(\d+):.*?(error|note|information|warning):? ?-? ?(.*)", line
        ):
            found[int(match[1])] = f"{found.get(int(match[1]), '')} {match[2]}: {match[3]}"
    for number, line in enumerate(CODE.splitlines(), 1):
        _, marked, wanted = line.partition("  # ")
        if marked and wanted == "error":
            assert "error:" in found.get(number, ""), (line, said)
        elif marked:
            told = found.get(number, "").replace("builtins.", "").replace("typed.", "")
            assert f'"{wanted}"' in re.sub(r"postroom\.[\w.]+\.", "", told), (line, said)
        else:
            assert "error:" not in found.get(number, ""), (line, said)
