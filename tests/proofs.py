"""What is promised for every family of models, each promise checked against plain transformers."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from itemic import train
from itemic.decode import BeamSearch
from itemic.forest import TokenRows, build_forest
from itemic.forest.context import forest_attention
from itemic.forest.run import forest_loss
from itemic.forest.support import check_copy
from itemic.model import Model
from itemic.model.expand import expand
from itemic.model.folder import quiet
from itemic.model.model import embeddings, head
from itemic.model.tokenizer import train_tokenizer
from itemic.sid.trie import Trie
from itemic.training.language.dropout import without_own_dropout
from itemic.training.language.learning import learning
from tests.decode.reference import generate, score_all
from tests.families import Family
from tests.forest.reference import gradients, row_by_row
from tests.model.helpers import catalogue, small_index
from tests.stages import stage_of
from tests.training.helpers import copy_of

INDEX = small_index()
BEAMS = 12
STEPS: dict[str, Any] = {
    "steps": 3,
    "data.tokens_per_step": 250,
    "learning_rate": 0.01,
    "schedule.warmup": 0,
    "optimizer.weight_decay": 0.0,
    "engine.precision": "float32",
    "objective.supervise": "itemic",
}
RANK = 4


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(catalogue(200), vocab_size=280)


def conversations() -> pl.DataFrame:
    """Of each of three users the item after one, two and three items: all longer than any window of the tests."""
    chats = [
        [
            {"role": "user", "content": "hair " + "".join(INDEX.text(user + 3 * k) for k in range(length))},
            {"role": "assistant", "content": INDEX.text(user + 3 * length)},
        ]
        for user in range(3)
        for length in (1, 2, 3)
    ]
    count = len(chats)
    return pl.DataFrame(
        {
            "uuid": [str(i) for i in range(count)],
            "source": ["C"] * count,
            "messages": [json.dumps(chat) for chat in chats],
            "segments": [None] * count,
            "metadata": [json.dumps({"group": str(i // 3)}) for i in range(count)],
        },
        schema_overrides={"segments": pl.String},
    )


@contextmanager
def eager(lm: PreTrainedModel) -> Iterator[None]:
    """transformers' own slow attention, which knows all that the family has."""
    before = lm.config._attn_implementation
    lm.config._attn_implementation = "eager"
    try:
        yield
    finally:
        lm.config._attn_implementation = before


def plain(folder: Path) -> PreTrainedModel:
    with quiet():
        lm: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return lm


@dataclass
class Proof:
    """A family's base, expanded, and a folder for what is made of it."""

    family: Family
    folder: Path

    @cached_property
    def model(self) -> Model:
        """The base, from disk, with an index; tests change copies of it."""
        base = self.folder / "base"
        with quiet():
            self.family.model(len(tokenizer())).save_pretrained(base)
        tokenizer().save_pretrained(base)
        return expand(base, INDEX, pad_to=8)

    @cached_property
    def rows(self) -> TokenRows:
        """Conversations with the weights of one step, which sum up to 1."""
        rows = self.model.chat.encode_table(conversations())
        assert rows.weights is not None
        return TokenRows(rows.tokens, rows.offsets, rows.weights / rows.weights.sum())

    @cached_property
    def plainly(self) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of the base, its rows one by one through plain transformers."""
        return self._by_rows(self.own().lm)

    def own(self) -> Model:
        """A copy to change."""
        lm = copy.deepcopy(self.model.lm)
        check_copy(lm, self.model.lm)  # the trial of a forest needn't be run for each
        return Model(lm, self.model.tokenizer, self.model.index)

    # --------------------------------------------------------------- promises

    def training_by_all(self) -> None:
        lm = self.own().lm.train()
        loss, wanted = self.plainly
        with without_own_dropout(lm), forest_attention(lm):
            found = forest_loss(lm, build_forest(self.rows)).total
            found.backward()  # type: ignore[no-untyped-call]
        ours = float(found.detach())
        assert abs(ours - loss) < 1e-5, f"loss {ours:.6f}, row by row {loss:.6f}"
        same(gradients(lm), wanted, "gradients")
        self.trained  # noqa: B018

    def training_by_embeddings(self) -> None:
        lm, tokens = self.own().lm, range(*self.model.new_token_range)
        _, wanted = self.plainly
        names = {id(weight): name for name, weight in lm.named_parameters()}
        part = slice(tokens.start, tokens.stop)
        whole = {"input_rows": wanted[names[id(embeddings(lm))]], "output_rows": wanted[names[id(head(lm))]]}
        with learning(lm, stage_of({"train.what": "embeddings"}), tokens) as learns, forest_attention(lm):
            forest_loss(lm, build_forest(self.rows), new_rows=learns.new_rows).total.backward()  # type: ignore[no-untyped-call]
            found = {name: weight.grad for name, weight in learns.named.items()}
        same(found, {name: whole[name][part] for name in found}, "gradients of the rows")
        assert ("output_rows" in found) == (head(lm) is not embeddings(lm))
        trained = self._trained("embeddings")
        self._only_rows_changed(trained, set())

    def training_by_lora(self) -> None:
        lm, tokens = self.own().lm, range(*self.model.new_token_range)
        stage = stage_of({"train.what": "lora", "train.rank": RANK})
        torch.manual_seed(0)
        with learning(lm, stage, tokens) as learns:
            random = torch.Generator().manual_seed(1)
            for weight in learns.named.values():  # half of an adapter is zero at first
                if weight.requires_grad and not weight.any():
                    weight.data += 0.02 * torch.randn(weight.shape, generator=random)
            _, wanted = self._by_rows(lm)
            lm.zero_grad()
            for weight in learns.named.values():
                weight.grad = None
            with forest_attention(lm):
                forest_loss(lm, build_forest(self.rows), new_rows=learns.new_rows).total.backward()  # type: ignore[no-untyped-call]
            found = gradients(lm)
            adapters = [name for name in found if "lora_" in name]
            ours, theirs = ({name: each[name] for name in adapters} for each in (found, wanted))
            same(ours, theirs, "gradients of adapters")
            places = {name.partition(".lora_")[0].partition(".base_layer")[0] for name in adapters}
        assert places
        trained = self._trained("lora", self.folder / "lora")
        self._only_rows_changed(trained, {f"{place}.weight" for place in places})
        self._peft_reads(trained)

    def ranking(self) -> None:
        lm, rows = self.model.lm, [row.tolist() for row in self._items()]
        search = BeamSearch(lm, Trie.build(TokenRows.of(rows)), beams=BEAMS, skip_forced=False)
        prompts = self._prompts()
        items, scores = search.rank(TokenRows.of(prompts), k=BEAMS)
        for prompt, found, score in zip(prompts, items, scores, strict=True):
            with eager(lm):
                sequences, wanted = generate(lm, prompt, rows, BEAMS)
                chosen = [rows[item] for item in found]
                assert chosen == sequences, "other items than generate"
                near(score, wanted, "scores by generate")
                near(score, score_all(lm, prompt, chosen, "vocab", False), "scores in full")

    def saved_and_loaded(self) -> None:
        model = self.trained
        model.save(self.folder / "saved")
        again = plain(self.folder / "saved")
        assert torch.equal(self._logits(again), self._logits(model.lm)), "other logits"
        loaded = Model.load(self.folder / "saved")
        assert all(
            torch.equal(weight, copy_of(model.lm)[name]) for name, weight in copy_of(loaded.lm).items()
        )

    # ----------------------------------------------------------------- inside

    def _by_rows(self, lm: PreTrainedModel) -> tuple[float, dict[str, Tensor]]:
        weights = self.rows.weights
        assert weights is not None
        each = [weights[a:b].tolist() for a, b in pairwise(self.rows.offsets)]
        with eager(lm):
            loss, found = row_by_row(lm, [self.rows[i].tolist() for i in range(len(self.rows))], each)
        return float(loss), found

    @cached_property
    def trained(self) -> Model:
        """After a few steps of all weights, most of each layer computed twice."""
        return self._trained("all", **{"engine.gradient_checkpointing": True})

    def _trained(self, way: str, output: Path | None = None, **keys: Any) -> Model:
        """A few steps by the public way, after which the plain model's loss is lower."""
        model = self.own()
        train(
            model,
            conversations(),
            stage=stage_of({"train.what": way, "train.rank": RANK, **keys, **STEPS}),
            output=output,
        )
        with torch.no_grad():
            before, after = self.plainly[0], self._by_rows(model.lm)[0]
        assert after < before - 0.01, f"loss {before:.4f} → {after:.4f}"
        return model

    def _only_rows_changed(self, trained: Model, matrices: set[str]) -> None:
        """Nothing but the new rows of input and head, and all of ``matrices``."""
        before, after = copy_of(self.model.lm), copy_of(trained.lm)
        tables = {
            name
            for name, weight in self.model.lm.named_parameters(remove_duplicate=False)
            if weight is embeddings(self.model.lm) or weight is head(self.model.lm)
        }
        changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
        assert changed == tables | matrices, sorted(changed ^ (tables | matrices))
        start, stop = self.model.new_token_range
        for name in tables:
            rows = (after[name] != before[name]).any(1)
            assert not rows[:start].any(), name
            assert not rows[stop:].any(), name
        for name in matrices:
            assert torch.linalg.matrix_rank(after[name] - before[name], atol=1e-4) <= RANK, name

    def _peft_reads(self, trained: Model) -> None:
        from peft import PeftModel

        self.model.save(self.folder / "expanded")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = PeftModel.from_pretrained(
                plain(self.folder / "expanded"), str(self.folder / "lora" / "adapter")
            )
        wanted = self._logits(trained.lm)
        for lm in (plain(self.folder / "lora"), tuned):
            near(self._logits(lm).numpy(), wanted.numpy(), "logits")

    def _logits(self, lm: Any) -> Tensor:
        with torch.no_grad():
            return lm(torch.from_numpy(self.rows[5].astype(np.int64))[None], use_cache=False).logits  # type: ignore[no-any-return]

    def _items(self) -> list[Any]:
        rows = self.model.item_rows
        return list({tuple(rows[i].tolist()): rows[i] for i in range(len(rows))}.values())

    def _prompts(self) -> list[list[int]]:
        """A question, a single token, and random ones."""
        asked = [{"role": "user", "content": "oil " + "".join(INDEX.texts[:4])}]
        random = np.random.default_rng(3).integers(3, 270, 13).tolist()
        return [self.model.chat.prompt(asked), [5], random]


PROMISES: Mapping[str, Callable[[Proof], None]] = {
    "training by `all`": Proof.training_by_all,
    "`embeddings`": Proof.training_by_embeddings,
    "`lora`": Proof.training_by_lora,
    "ranking": Proof.ranking,
    "saved and loaded": Proof.saved_and_loaded,
}


def same(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Tensors of these names are equal to 1e-5."""
    assert set(found) == set(wanted)
    for name, right in wanted.items():
        off = float((found[name] - right).abs().max())
        assert off < 1e-5 * max(1.0, float(right.abs().max())), f"{what}: {name} is off by {off:.2g}"


def near(found: Any, wanted: Any, what: str) -> None:
    """Numbers are equal to 1e-4, as sums of logarithms in float32 are."""
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-5, err_msg=what)
