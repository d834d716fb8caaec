"""Next-item rows as token forests against padded rows: tokens computed and time per epoch, at equal loss and gradients.

The rows are those of task C on Amazon Beauty at every split point, tokenised once. Both sides run forward and backward
through the same Qwen3 in float32. The padded side gets its best setting: rows sorted by length so that little is
padded, SDPA, and the head applied to supervised tokens only, as ours does. Tokens are counted over all rows; time is
measured on a sample of users and holds per epoch, as both sides do the same work for every user.

The same again with a sliding window in every layer, on both sides: there its speed-up is to be near that without.

    python benchmarks/forest.py [--quick] [--json FILE]
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from common import Row, main, median_alternating, shared_data
from transformers import PreTrainedModel

import itemic
from itemic.forest import TokenRows, build_forest, plan_blocks
from itemic.forest.context import forest_attention
from itemic.forest.loss import weighted_cross_entropy
from itemic.forest.pack import group_sizes
from itemic.forest.run import forest_loss
from itemic.model import Model
from itemic.sid.published import import_index
from itemic.tasks import prompt_words
from itemic.training.language.rows import training_rows

WINDOW = 64  # tokens of a sliding window; half of the rows are longer
BLOCK = 4096  # tokens computed at once, on both sides


def padded_batches(rows: TokenRows) -> Iterator[np.ndarray[Any, Any]]:
    """Row numbers of batches of at most :data:`BLOCK` tokens with padding, rows of like length together."""
    order = np.argsort(-rows.lengths, kind="stable")
    begin = 0
    while begin < len(order):
        longest = int(rows.lengths[order[begin]])
        stop = begin + max(1, BLOCK // longest)
        yield order[begin:stop]
        begin = stop


def padded_tokens(rows: TokenRows) -> int:
    return sum(len(batch) * int(rows.lengths[batch[0]]) for batch in padded_batches(rows))


def padded_epoch(lm: PreTrainedModel, rows: TokenRows) -> float:
    """Forward and backward over all rows, right-padded; the loss."""
    assert rows.weights is not None
    total = 0.0
    for batch in padded_batches(rows):
        some = rows.take(batch)
        width = int(some.lengths.max())
        inside = np.arange(width) < some.lengths[:, None]
        tokens, weights = np.zeros(inside.shape, np.int64), np.zeros(inside.shape, np.float32)
        tokens[inside] = some.tokens
        assert some.weights is not None
        weights[inside] = some.weights
        weights[:, 0] = 0
        hidden = lm.base_model(
            torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(inside.astype(np.int64)),
            use_cache=False,
        ).last_hidden_state
        row, place = np.nonzero(weights)
        loss, _ = weighted_cross_entropy(
            hidden[torch.from_numpy(row), torch.from_numpy(place - 1)],
            lm.get_output_embeddings().weight,
            torch.from_numpy(tokens[row, place]),
            torch.from_numpy(weights[row, place]),
        )
        loss.backward()
        total += float(loss.detach())
    return total


def forest_epoch(lm: PreTrainedModel, rows: TokenRows, blocks: list[Any]) -> float:
    """Forward and backward over all rows as forests; the loss."""
    total = 0.0
    with forest_attention(lm):
        for block in blocks:
            loss = forest_loss(lm, build_forest(rows.take(block))).total
            loss.backward()
            total += float(loss.detach())
    return total


def gradients(lm: PreTrainedModel, work: Callable[[], float]) -> tuple[float, torch.Tensor]:
    lm.zero_grad()
    loss = work()
    return loss, torch.cat([p.grad.flatten() for p in lm.parameters() if p.grad is not None])


def prepare() -> tuple[Any, Any, Model]:
    folder = shared_data() / "beauty"
    dataset = itemic.read("onerec-think", folder)
    index = import_index(dataset, folder / "Beauty.pretrain.json")
    texts = dataset.items["title"].to_list()
    return dataset, index, itemic.new_model("qwen3-micro", index, texts, corpus=prompt_words(), seed=0)


def rows_of(dataset: Any, index: Any, model: Model, **options: Any) -> tuple[TokenRows, np.ndarray[Any, Any]]:
    table = itemic.build_conversations(dataset, index, [{"task": "C", **options}])
    data = training_rows(table, model.chat.encode_table, encoder="benchmark", max_length=1024)
    return data.rows, data.groups


def sample(
    rows: TokenRows, groups: np.ndarray[Any, Any], users: int
) -> tuple[TokenRows, np.ndarray[Any, Any]]:
    chosen = np.random.default_rng(0).permutation(int(groups.max()) + 1)[:users]
    at = np.flatnonzero(np.isin(groups, chosen))
    return rows.take(at), groups[at]


def compare(name: str, model: Model, rows: TokenRows, groups: np.ndarray[Any, Any], users: int) -> list[Row]:
    ours_tokens = forest_tokens(rows, groups)
    peer_tokens = padded_tokens(rows)
    share = ours_tokens / peer_tokens
    some, some_groups = sample(rows, groups, users)
    blocks = plan_blocks(some, some_groups, BLOCK, np.random.default_rng(0))
    lm = model.lm.train()
    ours = gradients(lm, lambda: forest_epoch(lm, some, blocks))
    peer = gradients(lm, lambda: padded_epoch(lm, some))
    off = float((ours[1] - peer[1]).abs().max() / peer[1].abs().max())
    same = abs(ours[0] / peer[0] - 1)
    a, b = median_alternating(
        lambda: forest_epoch(lm, some, blocks), lambda: padded_epoch(lm, some), repeats=3, warmup=0
    )
    return [
        Row(
            f"{name}: tokens of an epoch",
            ours_tokens,
            peer_tokens,
            "tokens",
            1 / share,
            "≤ 0.35 of them",
            share <= 0.35,
        ),
        Row(f"{name}: time, {users} users", a, b, "CPU s", b / a, "≤ 0.4 of it", a / b <= 0.4),
        Row(f"{name}: loss, relative difference", same, None, "", None, "≤ 1e-5", same <= 1e-5),
        Row(
            f"{name}: gradients, largest difference to the largest",
            off,
            None,
            "",
            None,
            "≤ 1e-4",
            off <= 1e-4,
        ),
    ]


def with_window(model: Model) -> Model:
    """The same weights, every layer with a window of :data:`WINDOW` tokens."""
    config = copy.deepcopy(model.lm.config)
    config.use_sliding_window, config.sliding_window = True, WINDOW
    config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    lm = type(model.lm)(config)
    lm.load_state_dict(model.lm.state_dict())
    return Model(lm, model.tokenizer, model.index)


def beside(windowed: list[Row], plain: list[Row]) -> Row:
    """The speed-up with a window against the speed-up without."""
    mine, other = (next(row.ratio for row in rows if ": time" in row.name) for rows in (windowed, plain))
    assert mine is not None
    assert other is not None
    text = "speed-up with a window, beside that without"
    return Row(text, mine, other, "×", mine / other, "≥ .8 of it", mine >= 0.8 * other)


def forest_tokens(rows: TokenRows, groups: np.ndarray[Any, Any]) -> int:
    """Nodes of all blocks of an epoch: what is truly computed, the shared root once per block."""
    blocks = plan_blocks(rows, groups, BLOCK, np.random.default_rng(0))
    return sum(len(build_forest(rows.take(block))) for block in blocks)


def one_root(rows: TokenRows, groups: np.ndarray[Any, Any]) -> Row:
    """Whether every block is a single tree: all conversations hang below the one system prompt."""
    blocks = plan_blocks(rows, groups, BLOCK, np.random.default_rng(0))
    roots = max(int((build_forest(rows.take(block)).parent < 0).sum()) for block in blocks[:50])
    return Row("trees per block (all below one system prompt)", roots, None, "trees", None, "= 1", roots == 1)


def measure(quick: bool) -> list[Row]:
    dataset, index, model = prepare()
    users = 8 if quick else 60
    rows, groups = rows_of(dataset, index, model, windows=["all"])
    if quick:
        rows, groups = sample(rows, groups, 2000)
    lines = compare("C, whole histories", model, rows, groups, users)
    windowed = compare(f"C, a window of {WINDOW}", with_window(model), rows, groups, users)
    lines += [*windowed[1:], beside(windowed, lines)]
    lines.append(one_root(rows, groups))
    sizes = group_sizes(rows, groups)[2]
    lines.append(
        Row(
            "forest tokens per row",
            float(sizes.sum() / len(rows)),
            float(rows.lengths.mean()),
            "tokens",
            None,
            None,
            None,
        )
    )
    if not quick:
        rows, groups = rows_of(dataset, index, model)
        lines += compare("C, windows 2, 3, 5 and all", model, rows, groups, users)
    return lines


if __name__ == "__main__":
    main("Forests against padded rows, Amazon Beauty, task C", measure, __doc__)
