"""Every page: its blocks are code, its commands and settings exist, its links lead somewhere."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shlex
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from postroom import Settings
from postroom.celery.commands.dead_letters import dead_letters
from postroom.celery.commands.outbox import outbox
from tests.pages import DOCS, FENCE, PAGES, ROOT, blocks, run, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BY_NAME = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in sorted(PAGES)]
# What the shell's own programs and other products are asked for.
PROGRAMS = {"celery", "docker", "helm", "kubectl", "make", "pip", "python3", "systemctl"}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of a page's plain blocks, and of its inline code."""
    text = FENCE.sub("", page.read_text())
    lines = [f"$ {code}" for code in re.findall(r"`((?:celery|make) [^`\n]+)`", text)]
    for block in blocks(page):
        if block.kind in {"", "sh", "console"}:
            joined = block.text.replace("\\\n", " ").splitlines()
            prompted = [line for line in joined if line.startswith("$ ")]
            # A block with a prompt has answers beside its commands.
            lines += prompted or [f"$ {line}" for line in joined]
    for line in lines:
        code = line.removeprefix("$ ").split("  #")[0].replace("…", "ELLIPSIS")
        try:
            words = shlex.split(code, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and words[0] in PROGRAMS:
            yield words


def slug(heading: str) -> str:
    """Return the anchor of a heading, as MkDocs makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


@functools.cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page."""
    text = FENCE.sub("", page.read_text())
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", BY_NAME)
def test_links_lead_somewhere(page: Path) -> None:
    """A page or a file that is there, and an anchor that it has."""
    text = FENCE.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if DOCS in page.parents:
            assert DOCS in target.parents, f"{link} is not in the site"
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", BY_NAME)
def test_python_is_python_and_names_what_there_is(page: Path) -> None:
    """Each block compiles, and what it imports from postroom, tasks or workers is there."""
    for block in blocks(page):
        if block.kind not in {"python", "py"}:
            continue
        tree = ast.parse(textual(block.text))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "postroom":
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    assert hasattr(module, name.name) or importable(f"{node.module}.{name.name}")


def importable(name: str) -> bool:
    """Say whether there is a module of this name."""
    return importlib.util.find_spec(name) is not None


def textual(code: str) -> str:
    """Return code that may end with a decorator, as a whole."""
    last = code.rstrip().splitlines()[-1]
    return f"{code}def f(): ...\n" if last.startswith("@") else code


@pytest.mark.parametrize("page", BY_NAME)
def test_yaml_is_yaml(page: Path) -> None:
    """Each block of YAML and JSON can be read."""
    for block in blocks(page):
        if block.kind in {"yaml", "yml", "json"}:
            assert yaml.safe_load(block.text) is not None


@pytest.mark.parametrize("page", BY_NAME)
def test_settings_exist(page: Path) -> None:
    """Every POSTROOM_ variable that is named is one, or the file of one."""
    known = {f"POSTROOM_{field.upper()}" for field in Settings.model_fields}
    # Of the tests, and of a family of names.
    known |= {"POSTROOM_REQUIRE_ALL"}
    for name in re.findall(r"POSTROOM_[A-Z0-9_]*[A-Z0-9](?![…_*A-Z0-9])", page.read_text()):
        assert name in known or name.removesuffix("_FILE") in known, name


@pytest.mark.parametrize("page", BY_NAME)
def test_commands_exist(page: Path) -> None:
    """What celery's own commands, ours and make are asked for is there, with its options."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            named = [word for word in words[1:] if re.fullmatch("[a-z-]+", word)]
            assert named[:1] == [] or named[0] in targets, words
        for group in (outbox, dead_letters):
            if words[0] == "celery" and group.name in words:
                understood(group, words[words.index(group.name) + 1 :], shlex.join(words))


def understood(command: click.Command, words: list[str], whole: str) -> None:
    """Assert that a command has these subcommands and options."""
    while isinstance(command, click.Group) and words and not words[0].startswith(("-", "ELLIPSIS")):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, whole
        command, words = found, words[1:]
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for word in words:
        if word.startswith("--") and word not in {"--help", "--"}:
            assert word.split("=")[0] in options, f"{word} of {whole}"


def test_marked_blocks_run(tmp_path: Path) -> None:
    """Blocks that are marked `run` are modules that can be imported, without any service."""
    run([folder for page in sorted(PAGES) if (folder := written(tmp_path, page, "run"))])


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml names each page once, and none that is not there."""

    def pages(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for each in node.values() if isinstance(node, dict) else node if node is not None else ():
            if not isinstance(node, str):
                yield from pages(each)

    named = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(named) == len(set(named))
    assert set(named) == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
