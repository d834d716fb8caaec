"""Samples against ``generate`` and against transformers' continuous batching.

The model is a 6 M-parameter Qwen3 with random weights on the CPU in float32; the prompts are real test histories of
Amazon Industrial & Scientific as semantic IDs, of their own lengths. Every sample has the same number of tokens, so
that all sides do the same work. The peers run with SDPA, the same thread and the same malloc settings as ours:

- *generate*: ``generate(do_sample=True, num_return_sequences=16)``, left-padded, at the batch size that is best on the
  first eight prompts;
- *continuous batching*: ``generate_batch`` over each prompt repeated 16 times, with the best of several sizes of cache
  (its own choice takes all the memory there is, and most of a minute for that), on the first four prompts.

*With filters* draws with top-k 50 and top-p .95. *Uneven* gives every sample stop tokens that come by chance, so that
samples end at different times; ``generate`` pads what is done until the last of a batch is. Both on the first eight
prompts. Tokens count up to each sample's end. Seconds are process CPU seconds on one thread, both sides in turn.

    python benchmarks/sample.py [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import torch
from common import Row, main, shared_data
from transformers import ContinuousBatchingConfig, GenerationConfig

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

    @property
    def size(self) -> str:
        mean = np.mean(list(map(len, self.prompts)))
        return f"{len(self.prompts)} × {SAMPLES} × {self.new}, prompts of {mean:.0f}"

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

    def continuous(self, **cache: int) -> Callable[[], int]:
        sampling = GenerationConfig(
            do_sample=True, max_new_tokens=self.new, eos_token_id=-1, pad_token_id=0, top_k=0, top_p=1.0
        )
        options = {"generation_config": sampling, "progress_bar": False}
        options["continuous_batching_config"] = ContinuousBatchingConfig(**cache)
        rows = [prompt for prompt in self.prompts for _ in range(SAMPLES)]

        def run() -> int:
            before = self.lm.config._attn_implementation
            try:
                out = self.lm.generate_batch(inputs=rows, **options)
            finally:
                self.lm.set_attn_implementation(before)
            return sum(len(one.generated_tokens) for one in out.values())

        return run

    def some(self, prompts: int) -> Bench:
        """The first prompts alone."""
        part = copy(self)
        part.prompts = self.prompts[:prompts]
        return part


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
    print(f"{name}: {ours:.0f} and {peer:.0f}, {ratio:.2f} ×", flush=True)
    aim = None if target is None else f"≥ {target} ×"
    return Row(name, ours, peer, "tokens/CPU s", ratio, aim, None if target is None else ratio >= target)


CACHES = (
    {"num_blocks": 64, "max_batch_tokens": 256},
    {"num_blocks": 256, "max_batch_tokens": 1024, "page_size": 32},
)


def against_generate(
    name: str, bench: Bench, batch: int, repeats: int, target: float | None, **options: Any
) -> Row:
    sides = {"ours": bench.ours(**options), "generate": bench.generate(batch, **options)}
    found = in_turn(sides, repeats)
    label = f"{name}: {bench.size}, against generate ({batch} prompts a batch)"
    return row(label, found["ours"], found["generate"], target)


def against_continuous(bench: Bench, quick: bool) -> Row:
    sides = {str(at): bench.continuous(**cache) for at, cache in enumerate(CACHES[: 1 if quick else None])}
    found = in_turn({"ours": bench.ours()} | sides, 1)
    best = max(sides, key=lambda side: found[side])
    return row(f"plain: {bench.size}, against continuous batching", found["ours"], found[best], 1.5)


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    bench = Bench(4, 16) if quick else Bench(32, 64)
    repeats, few = (1, bench.some(4)) if quick else (3, bench.some(8))
    bench.ours()()  # once for the caches
    best = max((2, 4) if quick else (1, 2, 4, 8), key=lambda batch: speed(few.generate(batch)))
    stop = tuple(range(0, len(bench.lm.get_input_embeddings().weight), 2 * bench.new // 3))
    return [
        against_continuous(bench.some(1 if quick else 4), quick),
        against_generate("plain", bench, best, repeats, 4),
        against_generate("with filters", few, best, repeats, None, top_k=50, top_p=0.95),
        against_generate("uneven", few, best, repeats, None, stop=stop),
    ]


if __name__ == "__main__":
    main("Samples, 6 M parameters, CPU", measure, __doc__)
