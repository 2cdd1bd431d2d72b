"""AsyncOutbox has everything that Outbox has, by the same arguments."""

from __future__ import annotations

import inspect

import pytest

from postroom import AsyncOutbox, AsyncTransaction, Outbox, Transaction


def offered(cls: type[object]) -> dict[str, object]:
    """Return what a class offers."""
    names = [name for name in dir(cls) if not name.startswith("_")]
    return {name: inspect.getattr_static(cls, name) for name in ["__init__", *names]}


@pytest.mark.parametrize(
    ("plain", "of_asyncio"), [(Outbox, AsyncOutbox), (Transaction, AsyncTransaction)]
)
def test_asyncio_has_everything(plain: type[object], of_asyncio: type[object]) -> None:
    """Each method, with each argument by its name, place and default; what waits is awaited."""
    here, there = offered(plain), offered(of_asyncio)
    assert set(here) == set(there)
    for name, one in here.items():
        other = there[name]
        if isinstance(one, property):
            assert isinstance(other, property)
            continue
        assert callable(one)
        assert callable(other)
        shown = [
            [(p.name, p.kind, p.default) for p in inspect.signature(each).parameters.values()]
            for each in (one, other)
        ]
        assert shown[0] == shown[1], name
    awaited = {"publish", "transact", "cancel", "reschedule"} & set(there)
    assert all(inspect.iscoroutinefunction(there[name]) for name in awaited)
