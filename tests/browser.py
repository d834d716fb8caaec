"""Chromium, where there is one: to look at our pages as people do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import BrowserContext, Dialog, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # which root can't have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The program, by ``ITEMIC_CHROMIUM`` or on the path; None where there is none."""
    named = os.environ.get("ITEMIC_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium(**context: Any) -> Iterator[BrowserContext]:
    """A browser without a window, with a profile of its own that nothing is left of.

    Args:
        context: as playwright takes it: ``viewport``, ``color_scheme``, ….
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=find_chromium(), headless=True, args=FLAGS, **context
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """An open page, with what went wrong in it and what it asked of the world."""

    page: Page
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_text_contents()

    def sideways(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )


def opened(
    browser: BrowserContext, file: Path, *, size: tuple[int, int] = (1280, 860), scheme: Any = "light"
) -> Window:
    """A page that is ready to be used: its list is there and the charts in view are drawn."""
    page = browser.new_page()
    window = Window(page)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    page.on("pageerror", lambda error: window.faults.append(str(error)))
    page.on("console", lambda said: window.faults.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: window.asked.append(request.url))

    def dismiss(dialog: Dialog) -> None:
        window.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    return window
