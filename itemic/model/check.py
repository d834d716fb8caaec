"""Proofs that a model folder is whole: what loads, what belongs together, what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from itemic.errors import ItemicError, ModelError
from itemic.forest.support import check_supported
from itemic.model.folder import load_lm, load_tokenizer, quiet, read_config
from itemic.model.model import RECORD, SID, Model, embeddings
from itemic.model.tokenizer import check_whole
from itemic.sid.going_on import read_on
from itemic.sid.kinds import load_names

PROBES = 4  # items whose semantic IDs are read and gone on from
NEW_TOKENS = 8
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest logit


@dataclass(frozen=True)
class Proof:
    """One thing that was looked at.

    Attributes:
        name: what must hold.
        ok: whether it does; None where an earlier fault left nothing to look at.
        detail: what was seen.
    """

    name: str
    ok: bool | None
    detail: str


def check_model(folder: str | Path, *, reference: PreTrainedModel | None = None) -> list[Proof]:
    """Look at a model folder from all sides; nothing is raised for a fault of its own.

    Args:
        folder: of a model.
        reference: what it was exported from; its logits on a few semantic IDs must be the same, to the precision
            of the folder's dtype.

    Returns:
        one proof for each thing that must hold, in order.
    """
    root = Path(folder)
    bench = _Bench(root, reference)
    proofs: list[Proof] = []
    failed = False
    for name, look in bench.steps().items():
        if failed:
            proofs.append(Proof(name, None, "not looked at"))
            continue
        try:
            proofs.append(Proof(name, True, look()))
        except (ItemicError, RuntimeError, ValueError, IndexError) as error:
            proofs.append(Proof(name, False, getattr(error, "message", str(error))))
            failed = name in bench.needed
    return proofs


class _Bench:
    """What has been loaded so far, and the next thing to look at."""

    needed = ("configuration", "index", "tokenizer", "weights")  # the others need these

    def __init__(self, root: Path, reference: PreTrainedModel | None) -> None:
        self.root = root
        self.reference = reference
        self.record: dict[str, Any] = {}

    def steps(self) -> dict[str, Callable[[], str]]:
        compared = {} if self.reference is None else {"same logits": self.same_logits}
        return {
            "configuration": self.configuration,
            "index": self.index_fits,
            "tokenizer": self.tokens,
            "weights": self.weights,
            "numbers": self.finite,
            "forests": self.forests,
            "generation": self.generation,
            **compared,
        }

    def configuration(self) -> str:
        config = read_config(self.root)
        record = getattr(config, RECORD, None)
        if not isinstance(record, dict):
            raise ModelError(f"{self.root} is a model without an item index")
        self.record = record
        return f"{config.model_type}, made for item index {self.record.get('digest')}"

    def index_fits(self) -> str:
        self.index = load_names(self.root / SID)
        if self.index.digest != self.record["digest"]:
            raise ModelError(f"sid/ holds index {self.index.digest}, not {self.record['digest']}")
        return f"{len(self.index):,} items, {len(self.index.tokens):,} tokens"

    def tokens(self) -> str:
        self.tokenizer = load_tokenizer(self.root)
        if not self.tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template")
        start, tokens = self.record["first_token"], self.index.tokens
        if not tokens:
            rows = self.index.token_rows(self.tokenizer)
            return f"the names of {len(rows):,} items have tokens of their own, {rows.lengths.max()} at most"
        for place, token in enumerate(tokens):
            ids = self.tokenizer.encode(token, add_special_tokens=False)
            if ids != [start + place]:
                raise ModelError(f"token {token} is read as {ids}, not as [{start + place}]")
        check_whole(self.tokenizer, tokens, range(start, start + len(tokens)))
        return (
            f"each of {len(tokens):,} tokens of the index is one token wherever it stands, from id {start} on"
        )

    def weights(self) -> str:
        self.lm = load_lm(self.root, "cpu", None)
        with quiet():
            plain = AutoModelForCausalLM.from_pretrained(self.root, dtype="auto", local_files_only=True)
        if type(plain) is not type(self.lm):
            raise ModelError(f"AutoModelForCausalLM makes a {type(plain).__name__} of it")
        self.model = Model(self.lm, self.tokenizer, self.index)
        return f"{self.lm.num_parameters():,} parameters in {str(self.lm.dtype).removeprefix('torch.')}"

    def finite(self) -> str:
        for name, weight in self.lm.named_parameters():
            bad = int((~torch.isfinite(weight)).sum())
            if bad:
                raise ModelError(f"{name} has {bad} values that are NaN or infinite")
        first, stop = self.model.new_token_range
        rows = embeddings(self.lm)[first:stop].float()
        if first == stop:
            return "all weights are finite"
        alike = len(rows) - len(torch.unique(rows, dim=0))
        if alike:
            raise ModelError(f"{alike} of the index's {len(rows)} tokens have the embedding of another one")
        return "all weights are finite, all tokens of the index have embeddings of their own"

    def forests(self) -> str:
        check_supported(self.lm)
        return "outputs over a token forest are those over its rows"

    def generation(self) -> str:
        prompt = self._probes()[:1]
        with torch.no_grad():
            generate: Any = self.lm.generate
            out = generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=NEW_TOKENS
            )
        if out.shape[1] <= prompt.shape[1]:
            raise ModelError("generate() gives nothing")
        text = self.tokenizer.decode(out[0, prompt.shape[1] :].tolist())
        return f"after {self.index.examples(1)[0]} it goes on with {text!r}"

    def same_logits(self) -> str:
        assert self.reference is not None
        prompts = self._probes()
        with torch.no_grad():
            ours = self.lm(prompts, use_cache=False).logits.float()
            theirs = self.reference(prompts.to(self.reference.device), use_cache=False).logits.float().cpu()
        if ours.shape != theirs.shape:
            raise ModelError(f"logits are {tuple(ours.shape)}, those of the reference {tuple(theirs.shape)}")
        worst = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))
        limit = TOLERANCE[self.lm.dtype]
        if not worst <= limit:
            raise ModelError(
                f"logits differ from the reference's by {worst:.2g} of the largest, over {limit:g}"
            )
        return f"logits differ from the reference's by {worst:.2g} of the largest"

    def _probes(self) -> Tensor:
        """Names of a few items, or of a few codes where there are no items, as prompts int64 ``[n, t]``."""
        texts = self.index.examples(PROBES)
        if self.index.tokens:
            return torch.tensor([self.tokenizer.encode(text, add_special_tokens=False) for text in texts])
        read = read_on(self.tokenizer, texts)
        return torch.tensor([ids[: min(map(len, read))] for ids in read])  # of the same length
