"""A page in a headless Chromium that talks to a running ComfyUI and to nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright


@contextmanager
def host_page(address: str, chromium: str, view: tuple[int, int]) -> Iterator[Page]:
    """Give a page of ``view`` pixels; close the browser afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": view[0], "height": view[1]})
        page.route(
            "**/*",
            lambda route: (
                route.continue_() if route.request.url.startswith((address, "data:", "blob:")) else route.abort()
            ),
        )
        yield page
        browser.close()
