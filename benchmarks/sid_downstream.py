"""What semantic IDs are worth downstream: the recipe ``scientific`` with one index after another.

Same data, model, conversations and budget (the recipe's 24 epochs); only the index changes. Every quantizer
quantizes the recipe's own vectors (text and a share of co-occurrence), RQ-KMeans once more the text alone, and the
three published indexes are taken as they are. Their vectors are unknown, so their codes start at random where ours
start at their items' vectors; one more row starts ours at random too. A row is the mean over the seeds, with the
seeds' own values beside it.

Finished runs are kept in the folder of ``--runs`` and not done again, so that the benchmark can be stopped and gone on
with.

    python benchmarks/sid_downstream.py [--quick] [--json FILE] [--epochs 24] [--seeds 0 1 2] [--runs DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import machine, shared_data
from rich.console import Console
from rich.table import Table

from itemic.evaluate.report import Report
from itemic.pipeline import Run
from itemic.recipe import load_recipe
from itemic.sid.quantizers import QUANTIZERS

RECIPE = "scientific"
METRICS = ("hr@10", "ndcg@10")
OWN_NAMES = [name for name, maker in QUANTIZERS.items() if maker.name == name]  # one name has a synonym


def variants() -> dict[str, list[str]]:
    """Overrides of the recipe by the name of the row."""
    found = {f"{name}, text + collaborative": [f"index.quantizer={name}"] for name in OWN_NAMES}
    found["rqkmeans, text alone"] = ["index.quantizer=rqkmeans", "index.encoder_options={}"]
    found["rqkmeans, random start"] = ["index.quantizer=rqkmeans", "model.init=normal"]
    for file in sorted((shared_data() / "scientific" / "index").glob("*.index.json")):
        name = file.name.removesuffix(".index.json")
        index = f"{{import: {json.dumps(str(file))}, format: minionerec}}"
        found[f"published {name}"] = [f"index={index}", "model.init=normal"]
    return found


def run(name: str, overrides: Sequence[str], seed: int, epochs: float, folder: Path, quick: bool) -> Report:
    """One run of the recipe, or what an earlier one left."""
    budget = [f"seed={seed}", f"stages.0.epochs={epochs:g}", "evaluate.baselines=[]"]
    if quick:
        budget += [
            "evaluate.beams=20",
            "stages.0.epochs=null",
            "stages.0.steps=20",
            "stages.0.validate_every=null",
        ]
    recipe = load_recipe(RECIPE, [*overrides, *budget])
    root = folder / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    Run.of(recipe, root).execute()
    return Report.load(root / "report" / "model.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two indexes, twenty steps, one seed")
    parser.add_argument("--json", metavar="FILE", help="write the rows there as well")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=24, help="24 are the recipe's (the default)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows that begin with one of these")
    parser.add_argument("--runs", metavar="DIR", help="where the runs are kept")
    flags = parser.parse_args()
    os.environ["ITEMIC_SHARED"] = str(shared_data())
    chosen = variants()
    if flags.quick:
        chosen = dict(list(chosen.items())[:1] + list(chosen.items())[-1:])
    if flags.only:
        chosen = {name: value for name, value in chosen.items() if name.startswith(tuple(flags.only))}
    seeds = flags.seeds[:1] if flags.quick else flags.seeds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(flags.runs or scratch)
        rows = {
            name: [run(name, overrides, seed, flags.epochs, folder, flags.quick) for seed in seeds]
            for name, overrides in chosen.items()
        }
    table = Table(title=f"scientific, {len(seeds)} seeds", title_justify="left", title_style="bold")
    for column in ("index", *(f"{metric.upper()}{what}" for metric in METRICS for what in ("", " by seed"))):
        table.add_column(column, justify="left" if column == "index" else "right")
    written = []
    for name, reports in rows.items():
        values = {metric: [report.item[metric].value for report in reports] for metric in METRICS}
        cells = [name]
        for metric in METRICS:
            cells += [f"{statistics.mean(values[metric]):.4f}", " ".join(f"{v:.4f}" for v in values[metric])]
        table.add_row(*cells)
        written.append({"name": name, **values})
    Console(width=None if Console().is_terminal else 140).print(table)
    print(machine())
    if flags.json:
        Path(flags.json).write_text(
            json.dumps({"machine": machine(), "rows": written}, indent=2) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
