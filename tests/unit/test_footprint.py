"""How much memory an event takes is known before it is decoded."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest

from postroom.inbox.scheduling.delivery import footprint

MANY = 20_000


def listed(part: str) -> bytes:
    """Return a payload with many of one value."""
    return ('{"name":"A","data":{"x":[' + ",".join([part] * MANY) + "]}}").encode()


PAYLOADS = {
    "objects": listed("{}"),
    "lists": listed("[]"),
    "one key": listed('{"":0}'),
    "nested": listed('{"":{"":{}}}'),
    "numbers": listed("1234"),
    "fractions": listed("1.5"),
    "texts": orjson.dumps([f"t{n}" for n in range(MANY)]),
    "keys": orjson.dumps({f"k{n}": n for n in range(MANY)}),
    "wide text": orjson.dumps(["\N{GRINNING FACE}\N{EURO SIGN}" * MANY]),
    "text": orjson.dumps(["x" * MANY * 10]),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_it_is_never_much_less_than_it_really_is(payload: bytes) -> None:
    """Whatever the payload is made of, also where it grows to thirty times its size."""
    tracemalloc.start()
    try:
        decoded = orjson.loads(payload)
        real = tracemalloc.get_traced_memory()[0] + len(payload)
    finally:
        tracemalloc.stop()
    assert decoded
    assert 0.9 * real <= footprint(payload) <= 25 * real + 1000
