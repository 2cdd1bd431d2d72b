"""The map of the code leads to what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = re.compile(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`")
NAME = re.compile(r"`([A-Za-z_]\w*)`")


def rows() -> list[tuple[str, str]]:
    """Return the modules and the names of each row of the map, each as it is written."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    (chapter,) = re.findall(r"^## Where to change what$(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    cells = [line.split("|")[1:-1] for line in chapter.splitlines() if line.startswith("|")]
    return [(modules, where) for _, modules, where, *_ in cells if PATH.search(modules)]


@pytest.mark.parametrize(("modules", "where"), rows())
def test_the_map_names_modules_and_names_that_exist(modules: str, where: str) -> None:
    """Each module of a row is there, and each name stands in one of them."""
    paths = [ROOT / "postroom" / found for found in PATH.findall(modules)]
    assert all(path.exists() for path in paths)
    source = "\n".join(path.read_text() for path in paths if path.is_file())
    for name in NAME.findall(where):
        assert re.search(rf"^ *(def|class) {name}\b|^{name} = ", source, re.MULTILINE), name
