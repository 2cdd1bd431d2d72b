"""The structure by which newcomers find their way: small modules and classes, no circles."""

from __future__ import annotations

import ast
import re
import statistics
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "postroom"
LONGEST_FUNCTION = 40
LONGEST_MODULE = 350
MOST_ATTRIBUTES = 10
MOST_METHODS = 15
# Records that are filled in step by step, and do nothing: what one batch became on its way, and
# what is known of an event.
FILLED_IN = {"Chunk", "Journey"}


@dataclass(frozen=True)
class Module:
    """One module of the package, as parsed."""

    name: str
    lines: int
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    """Return all modules of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text()
        found.append(Module(name, len(text.splitlines()), ast.parse(text)))
    return tuple(found)


def definitions(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Yield every definition of a kind with its full name."""
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, kind):
                yield f"{module.name}.{node.name}", node  # type: ignore[attr-defined]


def is_value(node: ast.ClassDef) -> bool:
    """Say whether a class is a value: a frozen dataclass, a tuple, a model, or one filled in."""
    frozen = any("frozen=True" in ast.unparse(each) for each in node.decorator_list)
    based = {ast.unparse(base) for base in node.bases}
    models = {"NamedTuple", "BaseModel", "BaseSettings", "Secured"}
    return frozen or bool(based & models) or node.name in FILLED_IN


def attributes_of(node: ast.ClassDef) -> set[str]:
    """Return the names that a class sets on itself."""
    found = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    for each in ast.walk(node):
        if (
            isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and ast.unparse(each.value) == "self"
        ):
            found.add(each.attr)
    return found


def body_lines(node: ast.AST) -> int:
    """Count the lines of a function behind its docstring."""
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
    return (node.end_lineno or 0) - first.lineno + 1


def test_no_function_is_long() -> None:
    """A body that needs more lines has a second concept in it."""
    both = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {name: body_lines(node) for kind in both for name, node in definitions(kind)}
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_no_class_hides_a_second_noun() -> None:
    """Few attributes and methods, values apart: splitting nouns keeps weight out of `self`."""
    large = {}
    for name, node in definitions(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        methods = sum(
            isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) for each in node.body
        )
        attributes = 0 if is_value(node) else len(attributes_of(node))
        if attributes > MOST_ATTRIBUTES or methods > MOST_METHODS:
            large[name] = (attributes, methods)
    assert large == {}


# Relay and consumer have one each, in their rooms, and it means the same.
TWINS = {"Inspection", "StateEntered", "Status"}


def test_a_name_is_one_class() -> None:
    """Whoever searches for a noun finds one thing; what a test stands in for has its name."""
    found: dict[str, list[str]] = {}
    for name, node in definitions(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        room, _, noun = name.rpartition(".")
        is_protocol = "Protocol" in {ast.unparse(base) for base in node.bases}
        apart = room.startswith(("postroom.testing", "postroom.contrib.django.management"))
        if not (noun.startswith("_") or noun in TWINS or is_protocol or apart):
            found.setdefault(noun, []).append(room)
    assert {noun: rooms for noun, rooms in found.items() if len(rooms) > 1} == {}


def test_a_word_of_the_glossary_is_explained_once() -> None:
    """A word with two meanings says of what each is."""
    rows = (ROOT / "docs" / "glossary.md").read_text().split("\n")
    words = [row.split("**")[1] for row in rows if row.startswith("| **")]
    assert sorted(set(words)) == sorted(words)


APART = ("postroom.testing", "postroom.contrib", "postroom.wire", "postroom.errors")
# What has a name elsewhere: in Pulsar, Celery, Flower, a library or a standard.
OTHERS_WORDS = {
    *("Anonymous", "Basic", "Certificate", "Token", "PulsarAdmin"),
    *("HandlerTask", "JsonFormatter", "Loader", "PlainFormatter", "Processing"),
    *("AesGcm", "HandlersClient", "LateDatabase", "NotingClient"),
}
OF_ITSELF = re.compile(r"Protocol|Enum|[Ee]rror|Exception")
MADE_OF = re.compile(r"[A-Z][a-z]+")


def test_a_class_that_does_something_is_in_the_glossary() -> None:
    """By its name or a word of it; a value, an error and an interface explain themselves."""
    rows = (ROOT / "docs" / "glossary.md").read_text().lower()
    words = {each.partition(" (")[0] for each in re.findall(r"\*\*(.+?)\*\*", rows)}
    plain = {word.removesuffix("s") for word in words}
    missing = set()
    for name, node in definitions(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        room, _, noun = name.rpartition(".")
        based = " ".join(map(ast.unparse, node.bases))
        decorated = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
        explained = decorated or is_value(node) or OF_ITSELF.search(based)
        apart = room.startswith(APART)
        if noun.startswith("_") or noun in OTHERS_WORDS or explained or apart:
            continue
        parts = [part.lower().removesuffix("s") for part in MADE_OF.findall(noun)]
        if parts and not {" ".join(parts), *parts} & plain:
            missing.add(name)
    assert missing == set()


def offered() -> dict[str, set[str]]:
    """Return what each module offers, where it says so."""
    return {
        module.name: set(ast.literal_eval(node.value))
        for module in modules()
        for node in module.tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    }


def test_a_module_uses_what_another_one_offers() -> None:
    """Its `__all__`, whether a name is imported or reached through its module."""
    offers, known = offered(), {module.name for module in modules()}
    wrong = []
    for module in modules():
        bound = {}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    if whole in known:
                        bound[alias.asname or alias.name] = whole
                    elif alias.name not in offers.get(str(node.module), {alias.name}):
                        wrong.append(f"{module.name}: {whole}")
        arguments = {each.arg for each in ast.walk(module.tree) if isinstance(each, ast.arg)}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = "" if node.value.id in arguments else bound.get(node.value.id, "")
                whole = f"{owner}.{node.attr}"
                if owner in offers and whole not in known and node.attr not in offers[owner]:
                    wrong.append(f"{module.name}:{node.lineno}: {whole}")
    assert wrong == []


def test_the_tests_that_guarantees_name_are_there() -> None:
    """Each by its file, or by its function."""
    page = (ROOT / "docs" / "guarantees.md").read_text()
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert {each for each in files if not (ROOT / each).is_file()} == set()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    functions = set(re.findall(r"`(test_\w+)`", page))
    assert {each for each in functions if f"def {each}(" not in tests} == set()


# What MongoDB itself calls so: an id, and the time of a change event.
MONGODBS_OWN = {"_id", "clusterTime"}


def test_a_stored_field_is_spelled_in_one_place() -> None:
    """Words that are no field elsewhere, as `name`, apart: those that nothing else is called by."""

    def texts(module: Module) -> set[str]:
        return {
            node.value.removeprefix("$").partition(".")[0]
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }

    (wire,) = (module for module in modules() if module.name == "postroom.wire")
    fields = {
        str(node.value.value)
        for owner in wire.tree.body
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    stored = {each for each in fields if not each.islower()} - MONGODBS_OWN
    assert "partitionKey" in stored
    elsewhere = {m.name: texts(m) & stored for m in modules() if m is not wire}
    assert {name: found for name, found in elsewhere.items() if found} == {}


def test_modules_are_short() -> None:
    """Five minutes are enough to understand one."""
    assert {m.name: m.lines for m in modules() if m.lines > LONGEST_MODULE} == {}
    assert statistics.median(m.lines for m in modules() if m.lines) < 150


def test_threads_of_relay_and_consumer_make_no_spans() -> None:
    """What they do in MongoDB is not for the application's instruments: docs/tracing.md."""
    rooms = (
        "postroom.relay.",
        "postroom.inbox.",
        "postroom.celery.runner",
        "postroom.celery.task_",
    )
    loud = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        if module.name.startswith(rooms)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "threading.Thread"
        and not ast.unparse(node).startswith("threading.Thread(target=tracing.silently(")
    ]
    assert loud == []


# A generator of one's own, whose state nobody else seeds, or without any.
OWN_GENERATORS = {"SystemRandom"}


def test_pythons_own_random_generator_is_the_applications() -> None:
    """It may be seeded, and watched, by who wants to see the same again: as Hypothesis does."""
    drawn = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if (
            isinstance(node, ast.Import)
            and any(alias.name.partition(".")[0] == "random" for alias in node.names)
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "random"
            and not {alias.name for alias in node.names} <= OWN_GENERATORS
        )
    ]
    assert drawn == []


def imports_of(module: Module) -> Iterator[str]:
    """Yield the modules of the package that a module imports, for its types or to run."""
    known = {m.name for m in modules()}
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("postroom"):
            continue
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in known else str(node.module)


def test_imports_form_no_circle() -> None:
    """Each module can be read after those that it imports."""
    graph = {m.name: set(imports_of(m)) - {m.name} for m in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"A circle of imports: {error.args[1]}") from None
