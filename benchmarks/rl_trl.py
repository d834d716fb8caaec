"""TRL's GRPOTrainer as the peer of :mod:`rl_steps`: its rollouts are beams over the trie by transformers' generate."""

from __future__ import annotations

import copy
import logging
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
)

from itemic.sid.trie import Trie

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded; TRL's telemetry stays off as well
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
try:
    import trl.trainer.utils
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    sys.exit(f"the peer is missing ({error}); install it with: pip install 'itemic[bench]'")


@dataclass(frozen=True)
class Setting:
    """One way to run TRL.

    Attributes:
        rows: answers of a forward pass of the update.
        help: read each prompt once in rollouts, where generate reads it once for each beam; and apply the head in
            updates to answers only, as TRL does itself where it has Triton.
    """

    rows: int
    help: bool = False

    def __str__(self) -> str:
        return f"batches of {self.rows}"


class Walk(LogitsProcessor):  # type: ignore[misc]
    """Keeps beams on the trie.

    Args:
        table: bool ``[nodes, V]``, what may follow each node.
        trie: of the items.
        root: where answers begin.
        width: tokens of a prompt.
    """

    def __init__(self, table: Tensor, trie: Trie, root: int, width: int) -> None:
        self.table, self.trie, self.root, self.width = table, trie, root, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        node = np.full(len(input_ids), self.root)
        for tokens in input_ids[:, self.width :].T.numpy():
            node = self.trie.step(node, tokens)
        return scores.masked_fill(~self.table[torch.from_numpy(node)], -torch.inf)


class Items:
    """The catalogue as answers: what all items begin with belongs to the prompt, what all end with is left out."""

    def __init__(self, trie: Trie, vocabulary: int) -> None:
        sizes = [len(level) for level in trie.levels]
        free = np.flatnonzero(np.array(sizes) > 1)
        first, last = int(free[0]), int(free[-1])
        if len(free) != last + 1 - first:
            raise SystemExit("tokens amid items that are the same for all: not compared")
        self.trie, self.steps = trie, last + 1 - first
        self.lead = [int(level[0]) for level in trie.levels[:first]]
        self.root, self.behind = 0, [int(level[0]) for level in trie.levels[last + 1 :]]
        for token in self.lead:
            self.root = int(trie.step(np.array([self.root]), np.array([token]))[0])
        inner = int(np.flatnonzero(trie.depth == last + 1)[0])  # nodes stand by depth
        tokens, _, offsets = trie.children(np.arange(inner))
        self.table = torch.zeros(inner, vocabulary, dtype=torch.bool)
        self.table[np.repeat(np.arange(inner), np.diff(offsets)), tokens.astype(np.int64)] = True

    def of(self, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The item of each answer, int64 ``[N]``; the first where several have the same tokens."""
        node = np.full(len(answers), self.root)
        for tokens in answers.T:
            node = self.trie.step(node, tokens)
        for token in self.behind:
            node = self.trie.step(node, np.full(len(node), token))
        return self.trie.items[self.trie.item_first[node]].astype(np.int64)


@torch.no_grad()
def beams(lm: PreTrainedModel, prompts: list[list[int]], items: Items, count: int, once: bool) -> Tensor:
    """The ``count`` best answers to each prompt, int64 ``[P · count, steps]``, by transformers' beam search."""
    width = max(len(prompt) for prompt in prompts)
    ids, mask = (torch.zeros(len(prompts), width, dtype=torch.int64) for _ in range(2))
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    more: dict[str, Any] = {}
    if once:
        cache = DynamicCache(config=lm.config)
        lm.base_model(
            ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, :-1],
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(count)
        more["past_key_values"] = cache
    found = lm.generate(
        ids,
        attention_mask=mask,
        num_beams=count,
        num_return_sequences=count,
        do_sample=False,
        max_new_tokens=items.steps,
        eos_token_id=None,
        pad_token_id=0,
        logits_processor=LogitsProcessorList([Walk(items.table, items.trie, items.root, width)]),
        **more,
    )
    return found[:, width:]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Notes when each step ends, and the gradient of the first."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.gradient: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 0:
            named = given["model"].named_parameters()
            self.gradient = {name: weight.grad.clone() for name, weight in named if weight.grad is not None}

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.ends.append(time.process_time())


class Theirs:
    """``GRPOTrainer.train`` on what ``ours`` asks, always from the weights that its model has now.

    Args:
        ours: prompts, weights and settings.
        reward: ``hit`` or ``even``.
    """

    def __init__(self, ours: Any, reward: str) -> None:
        logging.getLogger("trl").setLevel(logging.ERROR)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"(trl|transformers|torch)\.")
        disable_progress_bar()
        self.lm, self.tokenizer, self.stage = copy.deepcopy(ours.model.lm), ours.model.tokenizer, ours.stage
        self.count, self.reward = ours.stage.rollout.answers, reward
        self.items = Items(ours.legal.trie, self.lm.get_output_embeddings().weight.shape[0])
        asked = ours.asked()
        self.targets = asked.requests.targets.tolist()
        lead = len(self.items.lead)
        tokens = [ours.model.item_rows[target].tolist() for target in self.targets]
        self.rights = [row[lead : lead + self.items.steps] for row in tokens]
        self.prompts = [asked.prompts[row].tolist() + self.items.lead for row in range(len(asked.prompts))]

    def seconds(self, setting: Setting) -> list[float]:
        """CPU seconds of each step but the first."""
        return np.diff(self._train(setting, int(self.stage.steps)).ends).tolist()

    def first(self, setting: Setting) -> tuple[list[list[list[int]]], dict[str, Tensor]]:
        """Answers to each prompt of the first step, and its gradient."""
        step = self.stage.data.prompts_per_step
        found = self._answers(self.lm, list(range(step)), setting)
        return found.view(step, self.count, -1).tolist(), self._train(setting, 1).gradient

    def fastest(self, quick: bool) -> tuple[Setting, Setting]:
        """The settings that take the fewest seconds for a step, without help and with it."""
        found = []
        most = self.stage.data.prompts_per_step * self.count
        for helped in (False, True):
            tried = [Setting(rows, helped) for rows in ((16,) if quick else (8, 16, 32, 64)) if rows <= most]
            taken = {}
            for each in tried:
                started = time.process_time()
                taken[each] = self._train(each, 1).ends[0] - started
            found.append(min(taken, key=lambda each: taken[each]))
        return found[0], found[1]

    def _answers(self, lm: PreTrainedModel, asked: list[int], setting: Setting) -> Tensor:
        """Those to some prompts, one prompt after the other; under ``hit`` the right one is among them."""
        prompts = [self.prompts[number] for number in asked]
        found = beams(lm, prompts, self.items, self.count, setting.help)
        if self.reward == "hit":
            right = torch.tensor([self.rights[number] for number in asked])
            groups = found.view(len(asked), self.count, -1)
            missed = ~(groups == right[:, None]).all(2).any(1)
            groups[missed, -1] = right[missed]
        return found

    def _rollouts(self, setting: Setting) -> Any:
        def roll(prompts: list[str], trainer: Any) -> dict[str, Any]:
            asked = [int(number) for number in prompts[:: self.count]]
            answers = self._answers(trainer.accelerator.unwrap_model(trainer.model), asked, setting)
            return {
                "prompt_ids": [self.prompts[int(number)] for number in prompts],
                "completion_ids": answers.tolist(),
                "logprobs": None,
                "item": self.items.of(answers.numpy()).tolist(),
            }

        return roll

    def _rewards(self, prompts: list[str], item: list[int], **others: Any) -> list[float]:
        if self.reward == "even":
            return [float(each % 2 == 0) for each in item]
        return [float(each == self.targets[int(row)]) for row, each in zip(prompts, item, strict=True)]

    def _train(self, setting: Setting, steps: int) -> Watch:
        """A whole training of a copy of the model."""
        stage, watch = self.stage, Watch()
        answers = stage.data.prompts_per_step * self.count
        mine = copy.deepcopy(self.lm)
        mine.config._attn_implementation = "sdpa"
        made = GRPOTrainer(
            model=mine,
            reward_funcs=self._rewards,
            rollout_func=self._rollouts(setting),
            args=GRPOConfig(
                output_dir=tempfile.gettempdir(),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                max_steps=steps,
                per_device_train_batch_size=setting.rows,
                gradient_accumulation_steps=answers // setting.rows,
                num_generations=self.count,
                max_completion_length=self.items.steps,
                num_iterations=1,
                beta=0.0,
                loss_type="grpo",
                scale_rewards="group",
                shuffle_dataset=False,
                optim="adamw_torch_fused",
                learning_rate=stage.learning_rate,
                lr_scheduler_type="constant",
                warmup_steps=0,
                weight_decay=stage.optimizer.weight_decay,
                adam_beta1=stage.optimizer.betas[0],
                adam_beta2=stage.optimizer.betas[1],
                max_grad_norm=stage.optimizer.clip,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                seed=0,
            ),
            train_dataset=Dataset.from_dict({"prompt": [str(row) for row in range(len(self.prompts))]}),
            processing_class=self.tokenizer,
            callbacks=[watch],
        )
        made.remove_callback(PrinterCallback)
        before = trl.trainer.utils._use_triton
        if setting.help:
            trl.trainer.utils._use_triton = lambda device: (
                True
            )  # asked there for the choice of positions alone
        try:
            made.train()
        finally:
            trl.trainer.utils._use_triton = before
        return watch
