"""Constrained beam search against ``generate``: 50 beams, real test histories of Amazon Industrial & Scientific.

The model is a 6 M-parameter Qwen3 with random weights on the CPU in float32, eight requests at a time. The peers run
with SDPA, the same threads and the same malloc settings as ours:

- *prefix function*: ``generate(num_beams=50, prefix_allowed_tokens_fn=…)``, left-padded, with explicit position ids;
- *logits processor*: the same with one vectorised mask per step in place of a Python function per beam;
- *helped*: the prompt computed once, its cache repeated for the beams, and a vectorised constrained search on top: what
  a careful user would write by hand. It reorders the cache after every step, as ``generate`` does.

*Same steps* scores every token of a semantic ID, the opening and closing ones too, as ``generate`` does; it must find
the same items in the same places.

*Forced steps skipped* scores the three codes. *Template cached* also keeps the keys of the constant
beginning from call to call. *By level* normalises over the codes of a level, as the recipes do, in place of the whole
vocabulary. *Gemma 2* is a model of the same shape with a sliding window of 64 tokens in every other layer and soft
caps on scores and logits; its ratio is to be near that of the Qwen3, whose layers see all and go through a forward of
our own. The target against the helped peer is that of our best setting. Seconds are process CPU seconds on one thread,
both sides in turn: a second thread adds waiting, not work.

    python benchmarks/decode.py [--quick] [--json FILE]
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Row, in_subprocess, main, peak_rss, shared_data
from transformers import (
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
)

import itemic
from itemic.decode import BeamSearch
from itemic.decode.attention import PromptPass
from itemic.decode.body import body_of
from itemic.decode.layout import group_prompts
from itemic.forest.rows import TokenRows
from itemic.model import new_model
from itemic.sid.build import build_index
from itemic.sid.trie import Trie
from itemic.tasks import make_task, prompt_words

BEAMS, BATCH = 50, 8
LENGTHS = {"SIDs": 100, "titles": 230}  # tokens of a prompt, about


@dataclass
class Setting:
    """One kind of prompt, ready to be searched by everybody."""

    lm: Any
    rows: TokenRows
    trie: Trie
    prompts: list[list[int]]
    template: list[int]

    @cached_property
    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and mask, ``[R, L]``."""
        width = max(map(len, self.prompts))
        ids = torch.zeros(len(self.prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self.prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        return ids, mask

    @property
    def steps(self) -> int:
        return int(self.rows.lengths[0])

    def ours(
        self, skip: bool, template: bool, normalize: str = "vocab"
    ) -> Callable[[], np.ndarray[Any, Any]]:
        search = BeamSearch(
            self.lm,
            self.trie,
            beams=BEAMS,
            normalize=normalize,
            skip_forced=skip,
            template=self.template if template else None,
        )
        return lambda: search.rank(TokenRows.of(self.prompts), k=BEAMS)[0]

    def generate(self, **constraint: Any) -> np.ndarray[Any, Any]:
        ids, mask = self.padded
        out = self.lm.generate(
            ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            num_beams=BEAMS,
            num_return_sequences=BEAMS,
            max_new_tokens=self.steps,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=True,
            eos_token_id=None,
            pad_token_id=0,
            **constraint,
        )
        return self.items(out[:, ids.shape[1] :].numpy()).reshape(len(ids), BEAMS)

    def items(self, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        node = self.trie.find(TokenRows.of(tokens.tolist()))
        return self.trie.items[self.trie.item_first[node]]

    def prefix_function(self) -> Callable[[], np.ndarray[Any, Any]]:
        width = self.padded[0].shape[1]
        legal: dict[tuple[int, ...], list[int]] = {}
        for row in range(len(self.rows)):
            tokens = self.rows[row].tolist()
            for at in range(len(tokens)):
                legal.setdefault(tuple(tokens[:at]), []).append(tokens[at])
        legal = {prefix: sorted(set(tokens)) for prefix, tokens in legal.items()}
        return lambda: self.generate(
            prefix_allowed_tokens_fn=lambda _, ids: legal[tuple(ids[width:].tolist())]
        )

    def logits_processor(self) -> Callable[[], np.ndarray[Any, Any]]:
        processor = TrieProcessor(self.trie, self.padded[0].shape[1])
        return lambda: self.generate(logits_processor=LogitsProcessorList([processor]))

    @torch.inference_mode()
    def helped(self) -> np.ndarray[Any, Any]:
        """Prefill once, repeat the cache, search with vectorised masks, reorder the cache as it goes."""
        ids, mask = self.padded
        count, cache = len(ids), DynamicCache()
        position = (mask.cumsum(1) - 1).clamp(min=0)
        out = self.lm(
            ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = out.logits[:, -1].log_softmax(-1)
        node, score = np.zeros((count, 1), np.int64), torch.zeros(count, 1)
        tokens = torch.zeros(count, 1, 0, dtype=torch.long)
        position = position[:, -1:]
        for step in range(self.steps):
            width = node.shape[1]
            total = score[:, :, None] + (
                logits.view(count, width, -1)
                + legal_mask(self.trie, node.ravel(), logits.shape[-1]).view(count, width, -1)
            )
            score, chosen = total.view(count, -1).topk(BEAMS)
            beam, token = chosen // logits.shape[-1], chosen % logits.shape[-1]
            tokens = torch.cat([tokens.gather(1, beam[..., None].expand(-1, -1, step)), token[..., None]], -1)
            above = np.take_along_axis(node, beam.numpy(), 1)
            node = self.trie.step(above.ravel(), token.numpy().ravel()).reshape(count, BEAMS).astype(np.int64)
            node = np.maximum(node, 0)  # beams of -inf, where there are fewer continuations than beams
            if step == self.steps - 1:
                break
            if width == 1:
                cache.batch_repeat_interleave(BEAMS)
                mask, position = mask.repeat_interleave(BEAMS, 0), position.repeat_interleave(BEAMS, 0)
            else:
                cache.reorder_cache((beam + torch.arange(count)[:, None] * BEAMS).view(-1))
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            position = position + 1
            out = self.lm(
                token.view(-1, 1),
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
            logits = out.logits[:, -1].log_softmax(-1)
        return self.items(tokens.view(-1, self.steps).numpy()).reshape(count, BEAMS)

    def prefill(self) -> Callable[[], object]:
        """One forward pass over the prompts, as our search makes it and with what is common computed once."""
        prompts, body = TokenRows.of(self.prompts), body_of(self.lm)
        start = np.repeat(prompts.offsets[:-1], prompts.lengths)
        position = torch.from_numpy(np.arange(len(prompts.tokens)) - start)
        ids = torch.from_numpy(prompts.tokens.astype(np.int64))
        groups = group_prompts(prompts.lengths, ids.device)
        return torch.inference_mode()(lambda: body(ids, position, PromptPass(groups, [])))


class TrieProcessor(LogitsProcessor):
    """Masks what the trie doesn't allow, all beams at once."""

    def __init__(self, trie: Trie, width: int) -> None:
        self.trie, self.width = trie, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        node = self.trie.find(TokenRows.of(input_ids[:, self.width :].tolist()))
        return scores + legal_mask(self.trie, np.maximum(node, 0), scores.shape[-1])


def legal_mask(trie: Trie, node: np.ndarray[Any, Any], vocabulary: int) -> torch.Tensor:
    tokens, _, offsets = trie.children(node)
    mask = torch.full((len(node), vocabulary), float("-inf"))
    row = np.repeat(np.arange(len(node)), np.diff(offsets))
    mask[torch.from_numpy(row), torch.from_numpy(tokens.astype(np.int64))] = 0
    return mask


def settings() -> dict[str, Setting]:
    dataset = itemic.read("letter", shared_data() / "scientific")
    index = build_index(dataset, levels=(256,) * 3)
    titles = dataset.items["title"].to_list()
    model = new_model("qwen3-micro", index, titles, corpus=prompt_words(), seed=0)
    requests, trie = dataset.split("test"), Trie.build(model.item_rows)
    found = {}
    for kind, text in (("SIDs", "sid"), ("titles", "sid+title")):
        task = make_task("C", history_text=text)
        asked = task.prompts(index, requests, dataset)
        rows = model.chat.prompt_batch([prompt.messages for prompt in asked])
        near = np.argsort(np.abs(rows.lengths - LENGTHS[kind]), kind="stable")[:BATCH]
        prompts = [rows[int(row)].tolist() for row in near]
        template = shared_beginning([rows[int(row)].tolist() for row in range(200)])
        found[kind] = Setting(model.lm.train(False), model.item_rows, trie, prompts, template)
    return found


def shared_beginning(rows: list[list[int]]) -> list[int]:
    width = next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), 0)
    return rows[0][:width]


def timed(work: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median process CPU seconds of each piece of work, in turn, and what each gave."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    results = {}
    for name, run in work.items():  # once for the caches of all sides
        if "generate" not in name:
            results[name] = run()
    for _ in range(repeats):
        for name, run in work.items():
            started = time.process_time()
            results[name] = run()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}, results


def overlap(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The mean share of each request's items that both found, in whatever order."""
    return float(
        np.mean([len(set(x) & set(y)) / len(set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    )


TARGETS = {"SIDs": (20, 30, 40, 3, 0.42), "titles": (40, 55, 65, None, 0.6)}


def compare(kind: str, setting: Setting, quick: bool) -> list[Row]:
    peers: dict[str, Callable[[], Any]] = {
        "generate, prefix function": setting.prefix_function(),
        "generate, logits processor": setting.logits_processor(),
    }
    ours: dict[str, Callable[[], Any]] = {
        "helped": setting.helped,
        "same steps": setting.ours(skip=False, template=False),
        "skipped": setting.ours(skip=True, template=False),
        "cached": setting.ours(skip=True, template=True),
        "by level": setting.ours(skip=True, template=True, normalize="level"),
        "prefill": setting.prefill(),
    }
    slow, slow_found = timed(peers, 1 if quick else 3)
    fast, found = timed(ours, 5 if quick else 11)
    seconds = slow | fast
    same = found["same steps"]
    agree = min(float((same == other).mean()) for other in slow_found.values())
    best = min(slow, key=lambda name: slow[name])
    steps, skipped, cached, helped, share = TARGETS[kind]
    name = f"{kind} ({np.mean([len(p) for p in setting.prompts]):.0f} tokens)"

    def row(label: str, mine: str, peer: str, target: float | None) -> Row:
        ratio = seconds[peer] / seconds[mine]
        return Row(
            f"{name}: {label}, against {peer}",
            len(setting.prompts) / seconds[mine],
            len(setting.prompts) / seconds[peer],
            "requests/CPU s",
            ratio,
            None if target is None else f"≥ {target} ×",
            None if target is None else ratio >= target,
        )

    prefix, processor = peers
    part = seconds["prefill"] / seconds["skipped"]
    return [
        row("same steps", "same steps", prefix, steps),
        row("same steps", "same steps", processor, None),
        row("forced steps skipped", "skipped", prefix, skipped),
        row("template cached", "cached", prefix, cached),
        row("template cached, scored by level", "by level", prefix, None),
        row("same steps", "same steps", "helped", None),
        row("template cached", "cached", "helped", helped),
        Row(
            f"{name}: top-50 equal to generate's, place by place",
            agree,
            None,
            "share",
            None,
            "= 1",
            agree == 1.0,
        ),
        Row(
            f"{name}: items shared with the helped peer",
            overlap(same, found["helped"]),
            None,
            "share",
            None,
            None,
            None,
        ),
        Row(f"{name}: forward pass ÷ request", part, None, "", None, f"≥ {share}", part >= share),
        Row(f"{name}: best setting of generate", seconds[best], None, f"CPU s ({best})", None, None, None),
    ]


WINDOW = 64  # tokens; prompts are longer


def with_windows(setting: Setting) -> Setting:
    """The same prompts and items for a Gemma 2 of the model's shape."""
    own = setting.lm.config
    shape = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    shape += ("num_key_value_heads", "head_dim", "max_position_embeddings")
    config = Gemma2Config(
        **{key: getattr(own, key) for key in shape},
        query_pre_attn_scalar=own.head_dim,
        sliding_window=WINDOW,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return replace(setting, lm=Gemma2ForCausalLM(config).train(False))


def alike(setting: Setting, theirs: np.ndarray[Any, Any]) -> float:
    """The share of places with the same item, or with one whose score is as good to float32's last digit but two."""
    search = BeamSearch(setting.lm, setting.trie, beams=BEAMS, skip_forced=False)
    items, scores = search.rank(TokenRows.of(setting.prompts), k=BEAMS)
    good = 0
    for found, score, other in zip(items.tolist(), scores, theirs.tolist(), strict=True):
        own = dict(zip(found, score.tolist(), strict=True))
        pairs = zip(other, score.tolist(), strict=True)
        near = [abs(own.get(item, -np.inf) - mine) <= 5e-7 * abs(mine) for item, mine in pairs]
        good += sum(near)
    return good / theirs.size


def compare_windows(kind: str, plain: Setting, quick: bool) -> list[Row]:
    """Ours against ``generate`` on a Gemma 2, and how its ratio compares with the plain model's in the same run."""
    ratios, found = {}, {}
    setting = with_windows(plain)
    for name, one in (("plain", plain), ("windows", setting)):
        slow, theirs = timed({"generate": one.prefix_function()}, 1 if quick else 3)
        fast, _ = timed(
            {
                "same steps": one.ours(skip=False, template=False),
                "cached": one.ours(skip=True, template=True),
            },
            5 if quick else 11,
        )
        found[name] = theirs["generate"]
        ratios[name] = {way: slow["generate"] / seconds for way, seconds in fast.items()}
    name = f"Gemma 2, {kind}"
    rows = []
    for way, label in (("same steps", "same steps"), ("cached", "template cached")):
        mine, peer = ratios["windows"][way], ratios["plain"][way]
        text = f"{name}: {label}, times as fast as generate, beside Qwen3's"
        rows.append(Row(text, mine, peer, "×", mine / peer, "≥ .8 of it", mine >= 0.8 * peer))
    share = alike(setting, found["windows"])
    text = f"{name}: top-50 equal to generate's, or of equal score"
    return [*rows, Row(text, share, None, "share", None, "= 1", share == 1.0)]


def memory() -> Row:
    """Peak extra memory of one batch, each side in a process of its own."""
    script = Path(__file__)
    ours = in_subprocess(script, ["--memory", "ours"])["bytes"] / 2**20
    peer = in_subprocess(script, ["--memory", "generate"])["bytes"] / 2**20
    ratio = peer / ours
    return Row("titles: peak extra memory of a batch", ours, peer, "MB", ratio, "≤ 1/15", ratio >= 15)


def measure_memory(side: str) -> None:
    """Print how much the process grew during one batch, after the model has run once over one short prompt."""
    torch.set_num_threads(1)
    setting = settings()["titles"]
    small = Setting(setting.lm, setting.rows, setting.trie, [setting.prompts[0][:20]], setting.template[:10])
    make: Callable[[Setting], Callable[[], Any]]
    make = Setting.prefix_function if side == "generate" else lambda s: s.ours(skip=False, template=False)
    make(small)()
    run = make(setting)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what the batch needs
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts again from here
    before = peak_rss()
    run()
    print(json.dumps({"bytes": peak_rss() - before}))


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    made = settings()
    if quick:
        made["SIDs"] = replace(made["SIDs"], prompts=made["SIDs"].prompts[: BATCH // 2])
    lines = compare("SIDs", made["SIDs"], quick)
    lines += compare_windows("SIDs", made["SIDs"], quick)
    if not quick:
        lines += compare("titles", made["titles"], quick)
        lines += compare_windows("titles", made["titles"], quick)
        lines.append(memory())
    return lines


if __name__ == "__main__":
    if "--memory" in sys.argv:
        measure_memory(sys.argv[sys.argv.index("--memory") + 1])
    else:
        main("Constrained beam search, 50 beams, 6 M parameters, CPU", measure, __doc__)
