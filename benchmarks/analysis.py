"""What an analysis takes: of the 22,363 test requests of Amazon Beauty (transitions, 20 items each, published semantic
IDs), from the rankings to the last file; and of a million requests that are drawn from these. Each in a process of its
own, whose largest resident memory is told. The page is opened in headless Chromium, where there is one, until its list
of cases can be used.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Row, main, shared_data

MILLION = 1_000_000
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def measure(quick: bool) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="itemic-analysis-") as root:
        prepared, page = Path(root) / "ranked", Path(root) / "beauty" / "report.html"
        run("prepare", prepared)
        found = run("analyze", prepared, page.parent)
        rows += [
            below(f"Beauty: {found['requests']:,.0f} requests, all files", found["seconds"], "s", 60),
            below("  memory", found["gigabytes"], "GB", 2),
            below("  report.html", page.stat().st_size / 1e6, "MB", 15),
        ]
        opened = opening(page)
        if opened is not None:
            rows.append(below("  until the list of cases can be used", opened, "s", 2))
        many = MILLION // 20 if quick else MILLION
        found = run("analyze", prepared, Path(root) / "many", many)
        rows.append(Row(f"{many:,} requests, all files", found["seconds"], None, "s", None, None, None))
        rows.append(below("  memory", found["gigabytes"], "GB", 4))
    return rows


def below(name: str, value: float, unit: str, most: float) -> Row:
    return Row(name, value, None, unit, None, f"≤ {most:g} {unit}", value <= most)


def run(*arguments: object) -> dict[str, Any]:
    """One part in a process of its own; what it prints last."""
    command = [sys.executable, __file__, "--part", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def prepare(folder: str) -> dict[str, Any]:
    import itemic

    beauty = shared_data() / "beauty"
    dataset = itemic.read("letter", beauty)
    root = Path(folder)
    dataset.save(root / "data")
    published = next((beauty / "index").glob("*rqvae_zcr*"))
    itemic.import_index(dataset, published).save(root / "index")
    test = dataset.split("test")
    itemic.rank_all(
        itemic.Transitions(dataset),
        test,
        dataset.item_ids,
        k=20,
        exclude_history=True,
        output=root / "ranking",
    )
    return {}


def analyze(folder: str, output: str, many: str = "0") -> dict[str, Any]:
    import resource
    from dataclasses import replace

    import numpy as np

    import itemic
    from itemic.analysis import write_analysis

    begun = time.perf_counter()
    dataset = itemic.Dataset.load(Path(folder) / "data")
    index = itemic.ItemIndex.load(Path(folder) / "index")
    ranking = itemic.Ranking.load(Path(folder) / "ranking")
    evidence = itemic.gather(ranking, dataset, k=10, codes=index.codes)
    if count := int(many):
        rows = np.sort(np.random.default_rng(0).integers(0, len(evidence), count))
        requests = replace(evidence.requests.take(rows), users=np.arange(count).astype(str).astype(object))
        evidence = replace(
            evidence,
            requests=requests,
            numbers=np.arange(count),
            items=evidence.items[rows],
            scores=evidence.scores[rows],
            shortened=evidence.shortened[rows],
        )
    analysis, found = itemic.analyze(evidence)
    write_analysis(Path(output), evidence, analysis, found)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": time.perf_counter() - begun, "gigabytes": used, "requests": len(evidence)}


def opening(page: Path) -> float | None:
    """Seconds from asking for the page until its list is there; the median of five. None without Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        return None
    from playwright.sync_api import sync_playwright

    taken = []
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=list(FLAGS))
        for _ in range(5):
            tab = chromium.new_page()
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("#cases table tbody tr", state="attached")
            taken.append(time.perf_counter() - begun)
            tab.close()
        chromium.close()
    return sorted(taken)[2]


if __name__ == "__main__":
    if "--part" in sys.argv:
        part, *arguments = sys.argv[sys.argv.index("--part") + 1 :]
        print(json.dumps({"prepare": prepare, "analyze": analyze}[part](*arguments)))
    else:
        main("Analysis", measure, __doc__)
