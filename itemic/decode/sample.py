"""Samples: text that a model writes, many samples of many prompts at once.

A prompt is computed once for all its samples, and prompts and samples of all lengths stand side by side without
padding outside attention. A sample that is done makes room for one that waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from itemic.decode.abreast import Abreast
from itemic.decode.body import body_of, evaluating
from itemic.decode.draw import Filters
from itemic.decode.grammar import Grammar
from itemic.decode.plan import check_prompts
from itemic.decode.refill import Run, Written
from itemic.errors import ConfigError, ConstraintError
from itemic.forest.head import OutputHead
from itemic.forest.rows import TokenRows
from itemic.forest.support import check_supported
from itemic.model.positions import learned_positions
from itemic.progress import progress_bar

Int8 = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]

NORMALIZE = ("vocab", "legal")
ENDS = ("length", "stop token", "stop string", "grammar")


@dataclass(frozen=True)
class Samples:
    """``n`` samples of each of ``R`` prompts, those of one prompt one after the other.

    Attributes:
        tokens: ``R · n`` rows, what was written behind the prompt: the stop token, and the tokens that complete a stop
            string, included.
        log_probs: float32 ``[T]``, of each token under the distribution that it was drawn from: penalty, grammar,
            temperature and the other filters included. What importance weights of the samples need.
        model_log_probs: float32 ``[T]``, of each token under the model itself at temperature 1 without any filter: over
            the whole vocabulary, or over what the grammar allowed (see ``normalize`` of :class:`Sampler`). What a
            training step computes for the same tokens.
        ended: int8 ``[R · n]``, why each ended, as a place in :data:`ENDS`.
    """

    tokens: TokenRows
    log_probs: Float32
    model_log_probs: Float32
    ended: Int8

    def __repr__(self) -> str:
        return f"<Samples: {len(self.tokens):,} rows, {len(self.tokens.tokens):,} tokens>"

    @property
    def why(self) -> list[str]:
        """Why each ended, in words."""
        return [ENDS[code] for code in self.ended]


class Sampler:
    """Writes samples with a causal language model.

    What a sample is depends on the weights, the prompt, the request's seed and the sample's number alone: not on the
    other requests, their order, or how many are written at once (but for sums of floats in another order, which may tip
    a number that falls on the very edge between two tokens).

    Args:
        lm: a causal language model that :func:`itemic.forest.support.check_supported` lets pass.
        max_new_tokens: of a sample.
        temperature, top_k, top_p, min_p, repetition_penalty: see :class:`itemic.decode.draw.Filters`; they mean what
            they mean to ``generate``. Temperature 0 writes the most probable token each time.
        stop_tokens: a sample ends with any of them.
        stop_strings: a sample ends with the token that completes one of them in its text; the prompt doesn't count.
        tokenizer: for stop strings.
        grammar: what may come next; None for anything (see :mod:`itemic.decode.grammar`). Where it is complete, the
            sample ends.
        normalize: over what ``model_log_probs`` are normalised: ``vocab`` (the whole vocabulary) or ``legal`` (what the
            grammar allowed). Under ``legal`` a grammar that knows what must come next has it written in one go.
        max_batch_tokens: whose keys are held at once, of prompts and of samples, each of which counts for
            ``max_new_tokens``; bounds the memory. At least one sample is written whatever its size.

    Raises:
        ModelError: the model has layers that can't be sampled this way.
        ConfigError: an option is out of its range.
        ConstraintError: a stop or the grammar has tokens that the model doesn't.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop_tokens: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        tokenizer: PreTrainedTokenizerBase | None = None,
        grammar: Grammar | Abreast | None = None,
        normalize: str = "vocab",
        max_batch_tokens: int = 1 << 16,
    ) -> None:
        if max_new_tokens < 1 or max_batch_tokens < 1:
            raise ConfigError(
                f"{max_new_tokens} new tokens in batches of {max_batch_tokens} tokens",
                "Give 1 or more of both.",
            )
        if normalize not in NORMALIZE:
            raise ConfigError(f"unknown normalize {normalize!r}", f"Use one of {', '.join(NORMALIZE)}.")
        if stop_strings and tokenizer is None:
            raise ConfigError("stop strings without a tokenizer", "Give the model's tokenizer as well.")
        if isinstance(stop_strings, str) or not all(stop_strings):
            raise ConfigError(f"stop strings {stop_strings!r}", "Give a list of strings that aren't empty.")
        self.filters = Filters(temperature, top_k, top_p, min_p, repetition_penalty)
        check_supported(lm)
        self.lm, self.body, self.head = lm, body_of(lm), OutputHead.of(lm)
        self.max_new_tokens, self.max_batch_tokens = max_new_tokens, max_batch_tokens
        self.stop_tokens = np.unique(np.asarray(stop_tokens, np.int64))
        self.stop_strings, self.tokenizer = list(stop_strings), tokenizer
        # of a text's end: a character is at most four tokens of bytes; some more for what begins before it
        self._tail = 4 * max(map(len, stop_strings), default=0) + 8
        self.grammar, self.normalize = grammar, normalize
        # what must come next is written without asking; its probability is 1 only among what is legal
        self.runs_ahead = isinstance(grammar, Abreast) and normalize == "legal" and not self.stop_strings
        for name, tokens in (
            ("stop", self.stop_tokens),
            ("grammar", () if grammar is None else grammar.tokens()),
        ):
            wrong = [token for token in tokens if not 0 <= token < len(self.head.weight)]
            if wrong:
                raise ConstraintError(
                    f"the {name} has token {wrong[0]}, the model's vocabulary ends at {len(self.head.weight) - 1}",
                    "Use tokens of the model's own tokenizer.",
                )

    @torch.inference_mode()
    def sample(
        self, prompts: TokenRows, n: int = 1, *, seeds: int | Sequence[int] = 0, progress: bool = False
    ) -> Samples:
        """Write ``n`` samples of each prompt.

        Args:
            prompts: ``R`` prompts.
            n: samples of each.
            seeds: one for each request, or one for all. Requests of the same prompt and seed get the same samples.
            progress: show a bar.

        Raises:
            ConstraintError: a prompt is empty, has unknown tokens or goes past learned positions; it is named.
            ConfigError: ``n`` is below 1, or there is another number of seeds, or of the grammar's items, than of
                prompts.
            ModelError: the model gives no finite logits.
        """
        if n < 1:
            raise ConfigError(f"{n} samples", "Ask for 1 or more.")
        own = [seeds] * len(prompts) if isinstance(seeds, int) else list(seeds)
        if len(own) != len(prompts):
            raise ConfigError(
                f"{len(own)} seeds for {len(prompts)} prompts", "Give one for each, or one for all."
            )
        check_prompts(prompts, len(self.head.weight), learned_positions(self.lm), self.max_new_tokens - 1)
        if self.grammar is not None:
            self.grammar.check(len(prompts))
        with (
            evaluating(self.lm),
            torch.autocast(self.lm.device.type, enabled=False),
            progress_bar("sampling", len(prompts) * n if progress else None) as bar,
        ):
            run = Run(self, prompts, n, own)
            while run.step():
                bar.advance(run.just_done)
            bar.advance(run.just_done)
        return _joined([run.done[number] for number in range(len(prompts) * n)])


def _joined(found: list[Written]) -> Samples:
    rows = [one.tokens for one in found]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    tokens = np.concatenate([*rows, np.zeros(0, np.int32)])
    logs, model = (
        np.concatenate([np.zeros(0, np.float32), *some])
        for some in ([one.logs for one in found], [one.model for one in found])
    )
    return Samples(TokenRows(tokens, offsets), logs, model, np.array([one.why for one in found], np.int8))
