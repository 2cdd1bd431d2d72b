"""The documentation's blocks that need MongoDB run on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.pages import PAGES, run, written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.site import Site


def test_blocks_that_need_mongodb_run(site: Site, tmp_path: Path) -> None:
    """Blocks that are marked `run: mongodb` are modules that can be imported beside MongoDB."""
    for page in sorted(PAGES):
        if folder := written(tmp_path, page, "run: mongodb"):
            database = f"{site.database.name}-{page.stem}"
            try:
                run([folder], **{**site.environment, "POSTROOM_MONGODB_DATABASE": database})
            finally:
                site.database.client.drop_database(database)
