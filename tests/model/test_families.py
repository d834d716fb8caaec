"""docs/families.md is true: each of its rows is proved here, against plain transformers.

`make families` writes the page.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest
import torch

from itemic.errors import ModelError
from tests.families import FAMILIES, Family
from tests.proofs import PROMISES, Proof

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
INTRODUCTION = """# Model families

Which causal language models itemic turns into recommenders. `make families` writes this page by trying each, and the
tests fail where it says anything else than they find. *exact* means, of a small model of the family with random numbers
everywhere, in float32:

- **training**: loss and gradients of a forest are those of its rows, one by one through plain transformers, to 1e-5,
  under `train: all`, `embeddings` and `lora`; a few steps lower the loss and change what should learn and nothing else.
  Adapters are merged when a stage ends; alone, they are what PEFT reads. They belong to matrices that are modules of
  their own: where the experts of a mixture are kept in one tensor, these and the router stay as they are, and so do
  dense and shared feed-forward layers whose names PEFT takes for those of the experts (DeepSeek, GLM-4.5, ERNIE).
- **ranking**: the items and scores of transformers' `generate` with as many beams, and of full forward passes.
- **saved and loaded**: plain transformers reads the trained folder and computes the same logits.

*Window* is attention to the last so many tokens, *full* to all. The models on the hub are examples of a family. Those
that see or hear as well (their configuration has a `text_config`) are refused; of these the text part alone is meant.
A base's own dropout is off while itemic trains: a stage's `dropout` is the only one. Rows and prompts are kept within
the positions that a model was made for; with two sets of rotary frequencies (`longrope`) within those of the short one.
"""
HEAD = ("family", "models on the hub", "layers", *PROMISES)
REFUSED = """## Refused

Before anything is computed, with these words:
"""


class Found:
    """What comes out for a family; each promise is tried once."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self.proof = Proof(family, folder)
        self._kept: dict[str, Exception | None] = {}

    @cached_property
    def refusal(self) -> Exception | None:
        """Why the base can't be expanded."""
        try:
            self.proof.model  # noqa: B018
        except Exception as error:
            return error
        return None

    def breach(self, promise: str) -> Exception | None:
        """How a promise is broken, if it is."""
        if promise not in self._kept:
            try:
                PROMISES[promise](self.proof)
                self._kept[promise] = None
            except Exception as error:
                self._kept[promise] = error
        return self._kept[promise]

    @property
    def row(self) -> str:
        """The family's row of the page."""
        family = self.family
        if self.refusal is not None:
            reason = re.sub(
                r" \(\w+Error: .*", "", str(self.refusal).partition("\n")[0]
            )  # as transformers puts it today
            return _row(family.name, family.models, reason)
        kept = ["exact" if self.breach(promise) is None else "**not exact**" for promise in PROMISES]
        return _row(family.name, family.models, family.layers, *kept)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([_row(*head), "|---" * len(head) + "|", *rows])


def page(rows: dict[str, str]) -> str:
    """The page, from the rows by family."""
    exact = [rows[family.name] for family in FAMILIES if not family.refused]
    refused = [rows[family.name] for family in FAMILIES if family.refused]
    tables = [_table(HEAD, exact), "", REFUSED, _table((*HEAD[:2], "reason"), refused)]
    return "\n".join([INTRODUCTION, *tables, ""])


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of so small models one is fastest
    yield Found(request.param, tmp_path_factory.mktemp("family"))
    torch.set_num_threads(threads)


def test_a_family_keeps_its_promises_or_is_refused_for_its_true_reason(found: Found) -> None:
    if found.family.refused:
        assert isinstance(found.refusal, ModelError)
        assert found.refusal.remedy
        assert found.family.refused in found.refusal.message
        return
    if found.refusal is not None:
        raise found.refusal
    broken = [error for promise in PROMISES if (error := found.breach(promise)) is not None]
    if broken:
        raise ExceptionGroup(f"{found.family.name} is not exact", broken)


def test_the_page_says_what_was_found(found: Found) -> None:
    assert found.row in PAGE.read_text("utf-8").splitlines(), "run `make families`"


def test_the_page_has_every_family_and_no_other() -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    rows = {
        family.name: line for family in FAMILIES for line in lines if line.startswith(f"| {family.name} | ")
    }
    assert "\n".join([*lines, ""]) == page(rows), "run `make families`"


def write() -> int:
    """Write the page; 1 if it holds what isn't exact."""
    torch.set_num_threads(1)
    rows, broken = {}, 0
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            found = Found(family, Path(folder))
            rows[family.name] = found.row
            faults = {promise: found.breach(promise) for promise in PROMISES} if found.refusal is None else {}
            if bool(found.refusal) != bool(family.refused):
                faults["expanding"] = found.refusal
            for promise, error in faults.items():
                if error is not None:
                    broken += 1
                    print(f"{family.name}: {promise}: {type(error).__name__}: {error}", file=sys.stderr)
    PAGE.write_text(page(rows), "utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(write())
