"""Outbox and AsyncOutbox are one but for their awaits: what is changed in one is in the other."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "postroom"
# Words of the asynchronous one, and what the other one says.
WORDS = {
    "AsyncOutbox": "Outbox",
    "AsyncTransaction": "Transaction",
    "AsyncClientSession": "ClientSession",
    "AsyncCollection": "Collection",
    "AsyncDatabase": "Database",
    "AsyncIterator": "Iterator",
    "asynccontextmanager": "contextmanager",
    "async_transaction": "transaction",
    "asyncio": "time",
    "_run": "run",
}


class _Awaited(ast.NodeTransformer):
    """Takes the awaits out, and says each word as the other one does."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        """Leave what is awaited."""
        return self.visit(node.value)  # type: ignore[no-any-return]

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Leave the type of what is awaited."""
        self.generic_visit(node)
        awaited = isinstance(node.value, ast.Name) and node.value.id == "Awaitable"
        return node.slice if awaited else node

    def visit_With(self, node: ast.With | ast.AsyncWith) -> ast.AST:
        """Open one after the other, since only some of several may be awaited."""
        self.generic_visit(node)
        body = node.body
        for item in reversed(node.items):
            body = [ast.With([item], body)]
        return body[0]

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        """As with those that are not awaited."""
        return self.visit_With(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Say it in the other's words."""
        return ast.Name(WORDS.get(node.id, node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Say it in the other's words."""
        return ast.Attribute(self.visit(node.value), WORDS.get(node.attr, node.attr), node.ctx)


def methods(module: str) -> dict[str, str]:
    """Return the methods of both classes without their docstrings, as text without awaits."""
    found = {}
    tree = ast.parse((ROOT / module).read_text())
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef):
            for node in owner.body:
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    node.body = node.body[1:] if ast.get_docstring(node) else node.body
                    text = ast.unparse(ast.fix_missing_locations(_Awaited().visit(node))).replace(
                        "async ", ""
                    )
                    found[f"{WORDS.get(owner.name, owner.name)}.{node.name}"] = text
    return found


BLOCKING, AWAITED = methods("outbox.py"), methods("async_outbox.py")


def test_both_can_do_the_same() -> None:
    """A method of one is a method of the other."""
    assert sorted(BLOCKING) == sorted(AWAITED)


@pytest.mark.parametrize("name", sorted(BLOCKING))
def test_both_do_it_alike(name: str) -> None:
    """Rule by rule, awaits apart."""
    lines = difflib.unified_diff(BLOCKING[name].split("\n"), AWAITED[name].split("\n"), lineterm="")
    assert list(lines) == []
