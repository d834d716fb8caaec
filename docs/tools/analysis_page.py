"""Takes the pictures of an analysis' page that the documents show, in docs/images/.

python docs/tools/analysis_page.py REPORT.html
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser import Window, chromium, opened  # noqa: E402

IMAGES = ROOT / "docs" / "images"
WIDE = (1280, 800)


def picture(window: Window, name: str) -> None:
    """What the window shows, as a small WebP."""
    file = IMAGES / f"{name}.webp"
    Image.open(BytesIO(window.page.screenshot())).convert("RGB").save(file, quality=82, method=6)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def main(report: Path) -> None:
    with chromium() as browser:
        window = opened(browser, report, size=WIDE)
        page = window.page
        page.locator("#causes").scroll_into_view_if_needed()
        page.wait_for_timeout(2500)  # until all charts are drawn
        page.evaluate("document.getElementById('causes').scrollIntoView()")
        picture(window, "analysis-causes")
        page.locator(".chip", has_text="bad").first.click()
        page.evaluate("document.getElementById('cases').scrollIntoView()")
        page.mouse.move(0, 0)
        page.locator("#list button.open").nth(2).click()
        page.locator("#case-title").evaluate("node => node.blur()")
        picture(window, "analysis-case")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
