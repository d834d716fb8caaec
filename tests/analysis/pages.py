"""Analyses whose pages the tests look at: one of a small marketplace, and one whose every text is hostile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import itemic
from itemic.analysis import Analysis, Cases, Cause, Evidence, Part, analyze, choose_cases
from itemic.data.dataset import Dataset
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.evaluate.baselines import Transitions
from tests.analysis.helpers import evidence_of
from tests.cases import case

HOSTILE = [
    '<img src=x onerror="alert(1)">',
    "</script><script>alert(2)</script>",
    "<!-- <script> -->",
    '"><svg onload=alert(3)>',
    "&lt;b&gt; &amp; <b>bold</b>",
    "javascript:alert(4)",
    "{{ 7 * 7 }} ${7 * 7} {count} %s",
    "$$\\frac{1}{2}$$",
    "\x1b[31mred\x00\x07",
    "\u2028next\u2029line\u202eright to left",
    "half \ud800 of a pair",
    "__proto__",
    "[bold]x[/bold] [/]",
    "a\tb\nc",
]


def marketplace() -> tuple[Analysis, Cases]:
    """Some 250 requests, ranked by counted transitions, with semantic IDs of two levels drawn at random."""
    dataset = simulate(SimulatorConfig(users=250, items=120, categories=8, brands=12), seed=1).dataset
    return _looked_at(dataset, np.random.default_rng(0).integers(0, 8, (120, 2)).astype(np.int32))


def markup() -> tuple[Analysis, Cases]:
    """The catalogue of brackets, control codes and HTML that is kept beside the real data."""
    dataset = itemic.read("letter", case("markup-titles") / "x")
    return _looked_at(dataset, None)


def hostile() -> tuple[Analysis, Cases]:
    """The marketplace with all its texts replaced, one after another, by what should be shown and never run."""
    analysis, cases = marketplace()

    def text(number: int) -> str:
        return HOSTILE[number % len(HOSTILE)]

    items = [
        replace(item, title=text(i), category=text(i + 1), id=f"{text(i + 2)}{i}", sid=text(i + 3))
        for i, item in enumerate(cases.items)
    ]
    told = [replace(one, user=text(i)) for i, one in enumerate(cases.cases)]

    def cause(number: int, one: Cause) -> Cause:
        return replace(one, title=text(number), definition=text(number + 1), source=text(number + 2))

    def part(number: int, one: Part) -> Part:
        return replace(one, value=text(number))

    changed = replace(
        analysis,
        name=text(0),
        dataset=text(1),
        notes=[*HOSTILE],
        causes=[cause(i, one) for i, one in enumerate(analysis.causes)],
        slices={
            f"{text(i)}{i}": [part(i + j, one) for j, one in enumerate(parts)]
            for i, parts in enumerate(analysis.slices.values())
        },
        beyond={text(i): 0.5 for i in range(len(HOSTILE))},
        absent={text(i): text(i + 1) for i in range(len(HOSTILE))},
    )
    sentences = {name: says.replace("target", "<i>target</i>") for name, says in cases.sentences.items()}
    return changed, replace(cases, items=items, cases=told, sentences=sentences, stated=text(1))


def save(folder: Path, made: tuple[Analysis, Cases]) -> Path:
    from itemic.analysis.page import write_page

    write_page(folder / "report.html", *made)
    return folder / "report.html"


def _looked_at(dataset: Dataset, codes: np.ndarray | None) -> tuple[Analysis, Cases]:
    requests = dataset.split("test")
    items, _ = Transitions(dataset).rank(requests, min(20, len(dataset.item_ids)), False)
    evidence: Evidence = evidence_of(dataset, requests, items, min(10, items.shape[1]))
    if codes is not None:
        names = [f"<a_{a}><b_{b}>" for a, b in codes.tolist()]
        evidence = replace(evidence, codes=codes, sids=names)
    analysis, found = analyze(evidence)
    return analysis, choose_cases(evidence, found)
