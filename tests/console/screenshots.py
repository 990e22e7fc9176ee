"""The pictures of the README, taken of a console that is running.

torghut demo                                   # in one terminal, until it goes on serving
python -m tests.console.screenshots ADDRESS    # in another; writes docs/img/*.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "img"
SIZE = {"width": 1100, "height": 760}
STORY = "/console/decisions?strategy=crossover&status=closed"


def main(address: str) -> None:
    """Take all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_page(viewport=SIZE)
        take(page, f"{address}/", "overview", 1010)
        take(page, f"{address}/console/attention", "attention", 380)
        page.goto(f"{address}{STORY}")
        page.locator("tbody a").first.click()
        page.wait_for_url("**/console/decisions/*")
        take(page, page.url, "decision", 1180)
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 844})
        take(page, f"{address}/", "phone", 844)
        browser.close()


def take(page: Page, url: str, name: str, height: int) -> None:
    """One picture, of the upper `height` pixels of a page."""
    size = page.viewport_size or SIZE
    page.set_viewport_size({"width": size["width"], "height": height})
    page.goto(url)
    page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
