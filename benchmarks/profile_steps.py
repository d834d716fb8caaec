"""A step of a writer's phase (writing, rewards, REBEL's update) against one row per profile with ``generate``.

Eight prompts of 300 to 1,000 tokens, four profiles each, by a Qwen3 of 2 M parameters with random weights on the CPU in
float32, one thread. *Equal*: every profile has the same number of tokens. *Uneven*: ends come by chance, as of a
trained writer, and no profile is longer than that.

One row per profile: each prompt stands four times, left-padded for ``generate`` and right-padded for the update, where
the head is applied to profiles alone, and the log-probabilities at writing time are given. *With one more pass* has
these computed by a forward pass of its own, as programs around ``generate`` do. Both at the batch size that is fastest,
tried before. The update is of the very profiles that ours wrote, so that gradients can be compared: no time is printed
unless they are the same. Rewards are the same made-up numbers on both sides.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import Row
from transformers import GenerationConfig, Qwen3ForCausalLM

from itemic.forest.rows import TokenRows
from itemic.model.configuration import preset_config
from itemic.model.tokenizer import train_tokenizer
from itemic.profile.rollout import FREE, ProfileBook, ProfileSteps, WriterPolicy, told_of_profiles
from itemic.profile.turn_settings import WriterStage
from itemic.profile.writer import Profiles, Writer
from itemic.rl.groups import Groups
from itemic.rl.rebel import RebelObjective

PROMPTS, SAMPLES, TARGET, AGREE = 8, 4, 5.0, 1e-3
VOCABULARY = 4096


class Counted(Writer):
    """A writer all of whose profiles count, also where they are cut off: it never learnt to end, or to say words."""

    def write(self, *args: Any, **options: Any) -> Profiles:
        found = super().write(*args, **options)
        texts = tuple(str(found.tokens[row].tolist()) for row in range(len(found)))
        every = np.ones(len(found), np.bool_)
        return replace(found, texts=texts, ended=every, empty=~every)


class Bench:
    """A writer, its prompts, and both ways to make a step."""

    def __init__(self, new: int, longest: int, ends: int) -> None:
        draw = np.random.default_rng(0)
        tokenizer = train_tokenizer(["a"], vocab_size=300)
        config = preset_config("qwen3-nano", vocab_size=VOCABULARY, max_length=2048)
        torch.manual_seed(0)
        lm = Qwen3ForCausalLM(config).eval()
        self.stops = draw.choice(np.arange(300, VOCABULARY), ends, replace=False).tolist() if ends else [0]
        lm.generation_config = GenerationConfig(eos_token_id=self.stops)
        self.writer, self.lm, self.new, self.ends = Counted(lm, tokenizer), lm, new, ends
        self.writer.__dict__["ends"] = tuple(self.stops)
        lengths = draw.integers(longest * 3 // 10, longest + 1, PROMPTS)
        self.prompts = [draw.integers(300, VOCABULARY, length).tolist() for length in lengths]
        self.stage = WriterStage.of(
            {
                "steps": 1,
                "rollout": {"samples": SAMPLES, "max_new_tokens": new, "epochs": 1},
                "data": {"prompts_per_step": PROMPTS, "block_tokens": 1 << 14},
                "examples": 0,
            }
        )
        self._start = copy.deepcopy(lm.state_dict())

    def fresh(self) -> None:
        self.lm.load_state_dict(self._start)
        self.lm.zero_grad(set_to_none=True)

    # -------------------------------------------------------------------------------- ours

    def ours(self, seed: int = 0) -> Groups:
        """One step, from prompts to new weights; the groups that it learned from."""
        objective = RebelObjective(self.lm, FREE, settings=self.stage.objective, told=told_of_profiles())
        source = ProfileSteps(ProfileBook(TokenRows.of(self.prompts)), self.stage, made_up, seed)
        source.begin(WriterPolicy(self.writer, objective))
        step = next(source.steps())
        optimizer = torch.optim.AdamW(self.lm.parameters(), lr=1e-6)
        with objective.stepping():
            for block in step.blocks:
                (objective(block).sum / step.sizes.weight).backward()
        optimizer.step()
        groups: Groups = step.blocks[0].groups if len(step.blocks) == 1 else joined(step.blocks)
        return groups

    # ------------------------------------------------------------------- one row per profile

    def generate(self, batch: int) -> None:
        rows = [prompt for prompt in self.prompts for _ in range(SAMPLES)]
        for first in range(0, len(rows), batch):
            ids, mask = padded(rows[first : first + batch], left=True)
            self.lm.generate(
                ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=self.new, pad_token_id=0
            )

    def update(self, groups: Groups, batch: int, again: bool = False) -> None:
        """REBEL over rows, whole groups at a time; ``again`` computes first what they were written with."""
        optimizer = torch.optim.AdamW(self.lm.parameters(), lr=1e-6)
        rewards = torch.from_numpy(groups.rewards)
        offsets = groups.answers.offsets
        for first in range(0, len(groups.answers), batch):
            own = range(first, min(first + batch, len(groups.answers)))
            before = [groups.prompts[int(groups.group[number])].tolist() for number in own]
            said = [groups.answers[number].tolist() for number in own]
            ids, mask = padded([one + two for one, two in zip(before, said, strict=True)], left=False)
            if again:
                with torch.no_grad():
                    self.lm.model(input_ids=ids, attention_mask=mask, use_cache=False)
            hidden = self.lm.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            row = np.repeat(np.arange(len(said)), [len(text) for text in said])
            at = np.concatenate(
                [np.arange(len(text)) + len(one) - 1 for one, text in zip(before, said, strict=True)]
            )
            logits = self.lm.lm_head(hidden[torch.from_numpy(row), torch.from_numpy(at)])
            tokens = torch.from_numpy(np.concatenate([np.asarray(text) for text in said]))
            now = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            then = torch.from_numpy(groups.log_probs[offsets[own[0]] : offsets[own[-1] + 1]])
            gained = torch.zeros(len(said)).index_add(0, torch.from_numpy(row), now - then)
            apart = (gained - rewards[own[0] : own[-1] + 1]).view(-1, SAMPLES)
            one, two = torch.triu_indices(SAMPLES, SAMPLES, 1)
            loss = (apart[:, one] - apart[:, two]).square().mean(1).sum() / PROMPTS
            loss.backward()
        optimizer.step()

    def gradient(self, work: Callable[[], Any]) -> torch.Tensor:
        self.fresh()
        work()
        return torch.cat(
            [weight.grad.flatten() for weight in self.lm.parameters() if weight.grad is not None]
        )


def joined(blocks: Sequence[Any]) -> Groups:
    moved, shift = [], 0
    for block in blocks:
        moved.append(block.groups.moved(shift))
        shift += len(block.groups)
    return Groups.joined(moved)


def made_up(texts: Sequence[str], sessions: Any) -> Any:
    """Rewards that a text decides."""
    return np.array([len(text) % 7 / 7 for text in texts])


def padded(rows: list[list[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        part = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, part], mask[row, part] = torch.tensor(tokens), 1
    return ids, mask


def seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_steps(quick: bool) -> list[Row]:
    """Both forms.

    Raises:
        SystemExit: the gradients of both sides are not the same.
    """
    torch.set_num_threads(1)
    shapes = [("equal", 24, 400, 0)] if quick else [("equal", 128, 1000, 0), ("uneven, up to", 256, 1000, 48)]
    return [row for shape in shapes for row in _measured(*shape, repeats=1 if quick else 3)]


def _measured(kind: str, new: int, longest: int, ends: int, repeats: int) -> list[Row]:
    bench = Bench(new, longest, ends)
    found: list[Groups] = []
    mine = bench.gradient(lambda: found.append(bench.ours()))
    groups = found[0]
    theirs = bench.gradient(lambda: bench.update(groups, SAMPLES))
    off = float((mine - theirs).abs().max() / theirs.abs().max())
    if not off <= AGREE:
        raise SystemExit(f"gradients differ by {off:.1e} of the largest: not compared")
    sizes = (4, 8, 16, 32)
    tried = {
        size: (seconds(lambda s=size: bench.generate(s)), seconds(lambda s=size: bench.update(groups, s)))
        for size in sizes
    }
    best = [min(sizes, key=lambda size: tried[size][part]) for part in (0, 1)]
    taken: tuple[list[float], ...] = ([], [], [])
    for _ in range(repeats):
        bench.fresh()
        taken[0].append(seconds(bench.ours))
        bench.fresh()
        taken[1].append(seconds(lambda: (bench.generate(best[0]), bench.update(groups, best[1]))))
        bench.fresh()
        taken[2].append(seconds(lambda: (bench.generate(best[0]), bench.update(groups, best[1], True))))
    ours, peer, more = (statistics.median(some) for some in taken)
    lengths = groups.answers.lengths
    name = f"writer's step, {PROMPTS} × {SAMPLES} profiles, {kind} {new} tokens (mean {lengths.mean():.0f})"
    text = f"{name}: against one row per profile (batches of {best[0]} and {best[1]})"
    return [
        Row(text, ours, peer, "CPU s", peer / ours, f"≥ {TARGET:g} ×", peer / ours >= TARGET),
        Row(f"{text}, with one more pass", ours, more, "CPU s", more / ours, None, None),
        Row(
            f"{name}: largest difference of gradients, over the largest",
            off,
            None,
            "",
            None,
            f"≤ {AGREE:g}",
            True,
        ),
    ]
