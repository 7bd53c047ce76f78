"""A real browser for tests that look at a page as a person does: Debian's Chromium, driven by Playwright.

It reaches this machine only. Where no browser is installed a test is skipped and says so; under CI,
which installs one, it fails instead.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Tall, because pages that scroll inside themselves show in a picture only what fits.
WIDTH, HEIGHT = 1700, 1800
_TIMEOUT_MS = 30_000


def executable() -> str | None:
    """The first browser on PATH."""
    return next((found for name in NAMES if (found := shutil.which(name)) is not None), None)


@contextmanager
def opened_page(program: str) -> Iterator[Page]:
    """A blank page in a fresh profile. Playwright keeps the thread's event loop busy until the end."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(_TIMEOUT_MS)
            expect.set_options(timeout=_TIMEOUT_MS)
            page.route("**/*", _within_this_machine)
            yield page
        finally:
            browser.close()


def required() -> str:
    """The browser; skips the test where there is none, and fails it under CI."""
    program = executable()
    if program is None:
        problem = f"no browser on PATH ({', '.join(NAMES)}); install Debian's package chromium"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    return program


def shoot(page: Page, path: Path) -> Path:
    """Save what the page shows as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, full_page=True, animations="disabled")
    return path


def _within_this_machine(route: Route) -> None:
    host = urlsplit(route.request.url).hostname
    if host in (None, "127.0.0.1", "localhost"):
        route.continue_()
    else:
        route.abort()
