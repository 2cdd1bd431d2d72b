"""What a module offers is in its `__all__`, and other modules use nothing else of it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for room in ("postroom", "tasks", "workers") for path in (ROOT / room).rglob("*.py")
)


def is_module(name: str) -> bool:
    """Say whether this is one of our modules."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def offers(name: str) -> list[str] | None:
    """Return the names that a module offers, or None where it does not say."""
    module: ModuleType = importlib.import_module(name)
    found: list[str] | None = getattr(module, "__all__", None)
    return found


def used(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what is used of which of our modules."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and is_module(node.module):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if is_module(whole):
                    modules[alias.asname or alias.name] = whole
                else:
                    yield node.module, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            modules.pop(node.arg, None)  # the same word for something else
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            yield modules[node.value.id], node.attr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_what_is_offered_is_used(path: Path) -> None:
    """A name that others need is added to `__all__` on purpose; the rest may change freely."""
    private = [
        f"{module}.{name}"
        for module, name in used(ast.parse(path.read_text()))
        if (offered := offers(module)) is not None and name not in offered
    ]
    assert not private


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_offered_is_there(path: Path) -> None:
    """Every module says what it offers; the wire format's names are all offered."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    offered = offers(name)
    assert offered is not None or path.name in {"__init__.py", "wire.py"}
    assert all(hasattr(importlib.import_module(name), each) for each in offered or ())
