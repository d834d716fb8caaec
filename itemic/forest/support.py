"""Which models a forest can go through: decided by their configuration, then proved by a small forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from itemic.errors import ModelError
from itemic.forest import attention
from itemic.forest.build import build_forest
from itemic.forest.carry import handed_on
from itemic.forest.head import OutputHead
from itemic.forest.rows import TokenRows
from itemic.forest.run import forest_hidden
from itemic.forest.windows import FULL, SLIDING, check_windows, short_windows

_REMEDY = (
    "Use a decoder whose layers all attend to the tokens before, or to the latest ones: Qwen, Llama, Gemma, …"
)
_STATE = "carry a state from token to token, in which the branches of a token forest would mix"
_WHY = {
    **dict.fromkeys(("linear_attention", "mamba", "mamba2", "recurrent", "hybrid"), f"which {_STATE}"),
    "conv": "which mix each token with its neighbours in the row, and a forest's neighbours are others",
    "chunked_attention": "which attend within fixed chunks of the row, not within a window before each token",
}
# rows that share beginnings
_TRIAL = ([5, 3, 4, 1, 2, 6, 4], [5, 3, 2], [5, 3, 4, 1, 6, 3], [6, 1, 2, 3, 4, 1])
_NAME = "itemic_trial"
_WINDOW = 3  # of the trial: shorter than its rows


@dataclass(frozen=True)
class Proof:
    """What the trial found out about a model.

    Attributes:
        keeps_keywords: its layers don't hand keywords on to their attention.
    """

    keeps_keywords: bool


_proved: WeakKeyDictionary[PreTrainedModel, Proof] = WeakKeyDictionary()


def check_config(config: PreTrainedConfig) -> None:
    """Refuse what is known not to work, by name.

    Raises:
        ModelError: encoder(-decoder), recurrent, convolutional or chunked layers.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"a {kind} model is an encoder-decoder, not a causal language model", _REMEDY)
    kinds = getattr(config, "layer_types", None)
    for other in sorted(set(kinds or []) - {FULL, SLIDING}):
        why = f", {_WHY[other]}" if other in _WHY else ""
        raise ModelError(f"this {kind} model has layers of type {other}{why}", _REMEDY)
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model is not None and not kinds and model._is_stateful:
        raise ModelError(f"the layers of a {kind} model {_STATE}", _REMEDY)


def check_supported(lm: PreTrainedModel) -> None:
    """Refuse a model whose outputs over a small forest differ from those over its rows; the proof is kept per model.

    The trial is run with sliding windows a few tokens long, so that they matter in it.

    Raises:
        ModelError: it does, or its configuration tells so beforehand.
    """
    if lm in _proved:
        return
    check_config(lm.config)
    check_windows(lm)
    kind = lm.config.model_type
    proof, worst = _trial(lm)
    if not worst < (1e-3 if lm.dtype == torch.float32 else 0.1):
        raise ModelError(
            f"a {kind} model gives other results over a token forest: logits differ by {worst:.2g} of the largest",
            "If its configuration was changed by hand, restore it. " + _REMEDY,
        )
    _proved[lm] = proof


def check_copy(copy: PreTrainedModel, lm: PreTrainedModel) -> None:
    """The same for a copy of a model, of the model itself: the copy may be about to be taken apart.

    Raises:
        ModelError: as :func:`check_supported`.
    """
    check_supported(lm)
    _proved[copy] = _proved[lm]


def agree_on(lm: PreTrainedModel, share: Callable[[Proof | None], Proof | None]) -> None:
    """Take over what another process found out about the same model, whose weights this one may not have.

    Args:
        lm: the model.
        share: gives the first process's value to all.

    Raises:
        ModelError: as :func:`check_supported`.
    """
    if lm.device.type != "meta":
        check_supported(lm)
    if (proof := share(_proved.get(lm))) is not None:
        _proved[lm] = proof


def with_keyword(lm: PreTrainedModel, keyword: str) -> Any:
    """A context in which the keyword of a call reaches every attention of a model.

    Raises:
        ModelError: as :func:`check_supported`.
    """
    check_supported(lm)
    return handed_on(lm, keyword) if _proved[lm].keeps_keywords else nullcontext()


def _trial(lm: PreTrainedModel) -> tuple[Proof, float]:
    """How far logits over a forest are from those over its rows, as a share of the largest."""
    asked = 0

    def noting(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += 1
        return attention.attend(*args, **kwargs)

    AttentionInterface.register(_NAME, noting)
    with _still(lm), short_windows(lm, _WINDOW):
        theirs = _over_rows(lm)
        lm.config._attn_implementation = _NAME
        try:
            try:
                proof, ours = Proof(keeps_keywords=False), _over_forest(lm)
            except attention.NotHandedOn:
                with handed_on(lm, "forest"):
                    proof, ours = Proof(keeps_keywords=True), _over_forest(lm)
        except ModelError:
            raise
        except (
            Exception
        ) as error:  # whatever a foreign forward pass raises, its user must hear that it is refused
            raise _refused(lm, asked, f" ({type(error).__name__}: {str(error).strip()[:200]})") from error
        if not asked:
            raise _refused(lm, asked)
    return proof, float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))


def _refused(lm: PreTrainedModel, asked: int, error: str = "") -> ModelError:
    kind = lm.config.model_type
    if asked:
        return ModelError(f"a {kind} model fails on a token forest{error}", _REMEDY)
    return ModelError(
        f"a {kind} model computes its attention in code of its own, which a token forest can't reach{error}",
        _REMEDY,
    )


@contextmanager
def _still(lm: PreTrainedModel) -> Iterator[None]:
    """No dropout, no gradients, no autocast; attention as it was at the end."""
    before, training = lm.config._attn_implementation, lm.training
    lm.train(False)
    try:
        with torch.no_grad(), torch.autocast(lm.device.type, enabled=False):
            yield
    finally:
        lm.config._attn_implementation = before
        lm.train(training)


def _over_rows(lm: PreTrainedModel) -> Tensor:
    """Logits ``[n, V]`` of the trial's rows one after the other, by the model's own attention."""
    lm.config._attn_implementation = "eager"
    rows = (torch.tensor([row], device=lm.device) for row in _TRIAL)
    try:
        return torch.cat([lm(row, use_cache=False).logits[0].float() for row in rows])
    except Exception as error:  # see above
        kind, said = lm.config.model_type, f"{type(error).__name__}: {str(error).strip()[:200]}"
        raise ModelError(
            f"the forward pass of this {kind} model fails: {said}",
            "Check its configuration against its weights.",
        ) from error


def _over_forest(lm: PreTrainedModel) -> Tensor:
    """The same over a forest of them."""
    forest = build_forest(TokenRows.of([list(row) for row in _TRIAL]))
    nodes: list[int] = []
    for leaf in forest.row_leaf.tolist():
        path = [leaf]
        while forest.parent[path[-1]] >= 0:
            path.append(int(forest.parent[path[-1]]))
        nodes += path[::-1]
    hidden = forest_hidden(lm, forest, backend="dense")
    return OutputHead.of(lm).logits(hidden[torch.tensor(nodes, device=lm.device)]).float()
