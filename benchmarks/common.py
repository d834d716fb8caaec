"""What all benchmarks share: rows of ratios, the table, the machine line, the JSON file, timing in turn.

A benchmark is a script with ``measure(quick) -> list[Row]`` that ends in ``main(title, measure, __doc__)``::

    python benchmarks/data.py --quick --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MALLOC = {  # without these, glibc gives big arrays back after each use, and page faults are what one measures
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


@dataclass(frozen=True)
class Row:
    """One measured line.

    Attributes:
        name: what was done.
        ours: our figure, in ``unit``.
        peer: the same for the peer, measured in turn in the same process; None where there is no peer.
        unit: of both.
        ratio: how many times better ours is than the peer's, or None.
        target: what was aimed at, as text ("≥ 20 ×", "≤ 60 s"), or None for a line that only informs.
        holds: whether the target is met, or None where there is none.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    target: str | None
    holds: bool | None


def machine() -> str:
    """The machine and the versions, in one line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = []
    for name in ("torch", "transformers", "polars", "numpy"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None:
        packages.append(f"{torch.get_num_threads()} threads")
    device = _cuda_name()
    parts = [
        f"{cores} cores of {model}",
        f"{memory:.0f} GB",
        f"Python {platform.python_version()}",
        *packages,
    ]
    return ", ".join([*parts, device] if device else parts)


def _cuda_name() -> str | None:
    torch = sys.modules.get("torch")  # a benchmark that never imported torch doesn't use a GPU either
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def median_alternating(
    fn_a: Callable[[], object], fn_b: Callable[[], object], repeats: int = 5, warmup: int = 1
) -> tuple[float, float]:
    """The median process CPU seconds (user and system, all threads) of two functions, run in turn.

    Taking turns lets whatever else the machine does fall on both sides alike.
    """
    for _ in range(warmup):
        fn_a()
        fn_b()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for fn, seconds in zip((fn_a, fn_b), times, strict=True):
            started = time.process_time()
            fn()
            seconds.append(time.process_time() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_rss() -> int:
    """The most memory this process has held so far, in bytes, counted since its own start.

    ``ru_maxrss`` would also count what the parent held when it forked, so Linux's own mark is asked first.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_subprocess(script: str | Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a script of ours in a fresh process and return the JSON object on its last line of output.

    Raises:
        RuntimeError: it failed; the message holds its standard error.
    """
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def shared_data() -> Path:
    """The folder of real data sets: ``ITEMIC_SHARED``, else ``../shared/data``."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ITEMIC_SHARED", default))
    if not folder.is_dir():
        sys.exit(f"no real data at {folder}; set ITEMIC_SHARED to the folder that holds it")
    return folder


def report(rows: Sequence[Row], json_path: str | Path | None, title: str) -> None:
    """Print the rows as a table with the machine below it; write them as JSON where a path is given."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("what", "ours", "peer", "unit", "ratio", "target", "holds"):
        numeric = column in ("ours", "peer", "ratio")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    marks = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    for row in rows:
        ratio = "" if row.ratio is None else f"{_figure(row.ratio)} ×"
        peer = "" if row.peer is None else _figure(row.peer)
        cells = (row.name, _figure(row.ours), peer, row.unit, ratio, row.target or "", marks[row.holds])
        table.add_row(*cells)
    wide = Console() if sys.stdout.isatty() else Console(width=140)
    wide.print(table)
    wide.print(machine(), style="dim", soft_wrap=True, highlight=False)
    if json_path is not None:
        value = {"title": title, "machine": machine(), "rows": [asdict(row) for row in rows]}
        Path(json_path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - int(f"{abs(value):e}".split("e")[1]))
    return f"{value:.{digits}f}"


def main(
    title: str,
    measure: Callable[[bool], list[Row]],
    description: str | None = None,
    modes: Mapping[str, Callable[[bool], list[Row]]] | None = None,
) -> None:
    """Parse ``--quick`` and ``--json FILE``, tune malloc (starts the script over), measure and report.

    Args:
        title: of the table.
        measure: measures, on a small scale if its argument is true.
        description: for ``--help``.
        modes: flags that measure something else instead, by name.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under 45 s on two cores")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    for mode in modes or {}:
        parser.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help="see above")
    flags = parser.parse_args()
    if platform.system() == "Linux" and any(name not in os.environ for name in MALLOC):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**MALLOC, **os.environ})
    chosen = (modes or {}).get(getattr(flags, "mode", None) or "", measure)
    report(chosen(flags.quick), flags.json, title)
