"""The search on a CUDA device finds what it finds on the CPU, and what ``generate`` finds there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from itemic.decode import BeamSearch
from itemic.forest.rows import TokenRows
from itemic.sid.trie import Trie
from tests.decode.test_beam import catalogue, generate, some_prompts
from tests.forest.reference import FAMILIES, SPECIAL, special, tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("normalize", ["vocab", "level", "legal"])
@pytest.mark.parametrize("family", [*FAMILIES, *SPECIAL])
def test_same_items_and_scores_as_on_the_cpu(family: str, normalize: str) -> None:
    rows, prompts = catalogue(), TokenRows.of(some_prompts())
    found = []
    for device in ("cpu", "cuda"):
        lm = (tiny(family) if family in FAMILIES else special(family)).eval().to(device)
        search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=12, normalize=normalize)
        found.append(search.rank(prompts, k=12))
    (items, scores), (there, other) = found
    np.testing.assert_allclose(other, scores, atol=2e-3)
    swapped = items != there  # only where two scores are as near as the device's rounding
    assert (np.abs(scores - other)[swapped] < 2e-3).all()
    assert swapped.mean() < 0.2


def test_same_items_as_generate_on_the_cpu() -> None:
    lm, rows, prompts = tiny("qwen3").eval(), catalogue(), some_prompts()
    wanted = [generate(lm, prompt, rows, 12)[0] for prompt in prompts]
    search = BeamSearch(lm.to("cuda"), Trie.build(TokenRows.of(rows)), beams=12, skip_forced=False)
    items, _ = search.rank(TokenRows.of(prompts), k=12)
    for request, sequences in enumerate(wanted):
        same = {tuple(rows[item]) for item in items[request]} & {tuple(row) for row in sequences}
        assert len(same) >= 11


def test_history_is_left_out() -> None:
    rows, prompts = catalogue(), TokenRows.of(some_prompts())
    lm = tiny("qwen3").eval().to("cuda")
    search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=12)
    items, _ = search.rank(prompts, k=5)
    again, _ = search.rank(prompts, k=5, exclude=[row[:2] for row in items])
    for before, after in zip(items, again, strict=True):
        assert not set(before[:2].tolist()) & set(after.tolist())
