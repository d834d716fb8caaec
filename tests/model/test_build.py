from __future__ import annotations

import numpy as np
import pytest
import torch

from itemic.errors import ConfigError
from itemic.model import Model, new_model
from itemic.model.model import embeddings, head, supported
from tests.model.helpers import catalogue, small_index

INDEX = small_index()
TEXTS = catalogue(len(INDEX))


def tiny(**changes: object) -> Model:
    options = {"vocab_size": 330, "layers": 2, "hidden_size": 32, "seed": 0} | changes
    return new_model("qwen3-pico", INDEX, TEXTS, **options)  # type: ignore[arg-type]


def weights(model: Model) -> dict[str, torch.Tensor]:
    return model.lm.state_dict()


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def test_a_new_model_reads_its_items() -> None:
    model = tiny()
    start, stop = model.new_token_range
    assert stop - start == len(INDEX.tokens) == len(model.item_tokens)
    assert stop == len(model.tokenizer)
    assert model.lm.config.vocab_size % 64 == 0
    assert stop <= model.lm.config.vocab_size < stop + 64
    for row in (0, 7):
        assert model.item_rows[row].tolist() == model.tokenizer.encode(INDEX.text(row))
    assert not model.lm.training
    assert model.lm.config.max_position_embeddings == 1024
    supported(model.lm)


@pytest.mark.parametrize("init", ["normal", "text", "vectors"])
def test_equal_seeds_give_equal_weights(init: str) -> None:
    options = {"init": init, "vectors": np.random.default_rng(0).normal(size=(len(INDEX), 5))}
    before = torch.get_rng_state()
    assert same(tiny(**options), tiny(**options))
    assert not same(tiny(**options), tiny(**options, seed=1))
    assert torch.equal(before, torch.get_rng_state())  # the caller's random state is its own


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("init", ["text", "vectors"])
def test_only_the_indexs_rows_differ_from_a_normal_start(init: str, tie: bool) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(INDEX), 5))
    plain, other = tiny(tie=tie), tiny(tie=tie, init=init, vectors=vectors)
    start, stop = plain.new_token_range
    codes = sum(INDEX.sizes)
    for mine, theirs in ((embeddings(plain.lm), embeddings(other.lm)), (head(plain.lm), head(other.lm))):
        assert torch.equal(mine[:start], theirs[:start])
        assert torch.equal(mine[start + codes :], theirs[start + codes :])
        used = start + torch.from_numpy(np.unique(INDEX.codes[:, 0]).astype(np.int64))
        assert not (mine[used] == theirs[used]).all(1).any()
        assert theirs[start:stop].std().item() == pytest.approx(mine[:start].std().item(), rel=0.25)
    assert (head(other.lm) is embeddings(other.lm)) == tie
    assert {n for n, w in weights(plain).items() if not torch.equal(w, weights(other)[n])} <= {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }


def test_codes_of_similar_items_start_close_together() -> None:
    vectors = np.zeros((len(INDEX), 4))
    vectors[INDEX.codes[:, 0] < 2, 0] = 1
    vectors[INDEX.codes[:, 0] >= 2, 1] = 1
    model = tiny(init="vectors", vectors=vectors, hidden_size=64)
    rows = embeddings(model.lm)[model.new_token_range[0] :][:4]
    near = torch.corrcoef(rows.detach())
    assert near[0, 1] > 0.8
    assert near[2, 3] > 0.8
    assert near[0, 2] < 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"init": "zeros"}, "unknown init 'zeros'"),
        ({"init": "vectors"}, "got none"),
        ({"init": "vectors", "vectors": np.zeros((3, 4))}, r"got \[3, 4\]"),
        ({"depth": 3}, "no setting 'depth'"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        tiny(**changes)


def test_text_init_needs_a_text_per_item() -> None:
    with pytest.raises(ConfigError, match="30 items but got 3"):
        new_model("qwen3-pico", INDEX, TEXTS[:3], init="text", vocab_size=330)
