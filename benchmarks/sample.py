"""Samples against ``generate`` and against transformers' continuous batching.

The model is a 6 M-parameter Qwen3 with random weights on the CPU in float32; the prompts are real test histories of
Amazon Industrial & Scientific as semantic IDs, of their own lengths. Every sample has the same number of tokens, so
that all sides do the same work. The peers run with SDPA, the same thread and the same malloc settings as ours:

- *generate*: ``generate(do_sample=True, num_return_sequences=16)``, left-padded, at the best of several batch sizes;
- *continuous batching*: ``generate_batch`` over each prompt repeated 16 times, as it has no samples of one prompt but
  through its own sharing of blocks.

*With filters* draws with top-k 50 and top-p .95. *Uneven* gives every sample a stop token that comes by chance, so that
they end at different times; its peers pad what is done until the last of a batch is. Tokens count up to each sample's
end. Seconds are process CPU seconds on one thread, both sides in turn.

    python benchmarks/sample.py [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Row, main, shared_data
from transformers import GenerationConfig

import itemic
from itemic.decode import Sampler
from itemic.forest.rows import TokenRows
from itemic.model import new_model
from itemic.sid.build import build_index
from itemic.tasks import make_task, prompt_words

SAMPLES = 16


class Bench:
    """A model and its prompts."""

    def __init__(self, prompts: int, new: int) -> None:
        dataset = itemic.read("letter", shared_data() / "scientific")
        index = build_index(dataset, levels=(256,) * 3)
        model = new_model(
            "qwen3-micro", index, dataset.items["title"].to_list(), corpus=prompt_words(), seed=0
        )
        task = make_task("C", history_text="sid")
        asked = task.prompts(index, dataset.split("test")[:prompts], dataset)
        rows = model.chat.prompt_batch([prompt.messages for prompt in asked])
        self.lm, self.new = model.lm.train(False), new
        self.prompts = [rows[row].tolist() for row in range(len(rows))]

    def ours(self, stop: tuple[int, ...] = (), **filters: Any) -> Callable[[], int]:
        sampler = Sampler(self.lm, max_new_tokens=self.new, stop_tokens=stop, **filters)
        return lambda: len(sampler.sample(TokenRows.of(self.prompts), SAMPLES).tokens.tokens)

    def generate(self, batch: int, stop: tuple[int, ...] = (), **filters: Any) -> Callable[[], int]:
        options = {"top_k": 0, "top_p": 1.0} | filters

        def run() -> int:
            total = 0
            for first in range(0, len(self.prompts), batch):
                ids, mask = padded(self.prompts[first : first + batch])
                out = self.lm.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=True,
                    num_return_sequences=SAMPLES,
                    max_new_tokens=self.new,
                    eos_token_id=list(stop) or None,
                    pad_token_id=0,
                    **options,
                )
                total += until_stop(out[:, ids.shape[1] :].numpy(), stop)
            return total

        return run

    def continuous(self) -> Callable[[], int]:
        config = GenerationConfig(
            do_sample=True, max_new_tokens=self.new, eos_token_id=-1, pad_token_id=0, top_k=0, top_p=1.0
        )
        rows = [prompt for prompt in self.prompts for _ in range(SAMPLES)]

        def run() -> int:
            before = self.lm.config._attn_implementation
            try:
                out = self.lm.generate_batch(inputs=rows, generation_config=config, progress_bar=False)
            finally:
                self.lm.set_attn_implementation(before)
            return sum(len(one.generated_tokens) for one in out.values())

        return run


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def until_stop(tokens: np.ndarray[Any, Any], stop: tuple[int, ...]) -> int:
    found = np.isin(tokens, stop)
    return int(np.where(found.any(1), found.argmax(1) + 1, tokens.shape[1]).sum())


def speed(run: Callable[[], int]) -> float:
    """Tokens per process CPU second."""
    started = time.process_time()
    count = run()
    return count / (time.process_time() - started)


def in_turn(sides: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            found[name].append(speed(run))
    return {name: statistics.median(values) for name, values in found.items()}


def row(name: str, ours: float, peer: float, target: float | None) -> Row:
    ratio = ours / peer
    aim = None if target is None else f"≥ {target} ×"
    return Row(name, ours, peer, "tokens/CPU s", ratio, aim, None if target is None else ratio >= target)


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    bench = Bench(8, 16) if quick else Bench(32, 64)
    repeats = 1 if quick else 3
    name = f"{len(bench.prompts)} × {SAMPLES} × {bench.new}, prompts of {np.mean(list(map(len, bench.prompts))):.0f}"
    batches = (2, 8) if quick else (1, 4, 8, 32)
    bench.ours()()  # once for the caches
    best = max(batches, key=lambda batch: speed(bench.generate(batch)))
    plain = {"ours": bench.ours(), "generate": bench.generate(best), "continuous": bench.continuous()}
    try:
        found = in_turn(plain, repeats)
    except Exception as error:  # it is written for GPUs
        print(f"continuous batching fails here: {type(error).__name__}: {error}")
        found = in_turn({key: run for key, run in plain.items() if key != "continuous"}, repeats)
    rows = [row(f"{name}, against generate ({best} prompts a batch)", found["ours"], found["generate"], 4)]
    if "continuous" in found:
        rows.append(row(f"{name}, against continuous batching", found["ours"], found["continuous"], 1.5))
    filters = {"top_k": 50, "top_p": 0.95}
    sides = {"ours": bench.ours(**filters), "generate": bench.generate(best, **filters)}
    found = in_turn(sides, repeats)
    rows.append(row(f"{name}, with filters", found["ours"], found["generate"], None))
    stop = tuple(range(0, len(bench.lm.get_input_embeddings().weight), 2 * bench.new // 3))
    sides = {"ours": bench.ours(stop), "generate": bench.generate(best, stop)}
    found = in_turn(sides, repeats)
    rows.append(row(f"{name}, uneven", found["ours"], found["generate"], None))
    return rows


if __name__ == "__main__":
    main("Samples, 6 M parameters, CPU", measure, __doc__)
