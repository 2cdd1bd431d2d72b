"""Chromium, from the system, driven without a window."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    "The page is not tried in a browser: there is no chromium here (on Debian: apt-get install "
    "chromium), and no playwright that could drive it"
)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Lend a browser; skip where there is none, unless everything is required."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        if os.getenv("POSTROOM_REQUIRE_ALL"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, in a container, it has no sandbox of its own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
