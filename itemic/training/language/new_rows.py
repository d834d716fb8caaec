"""``train: embeddings``: only the rows of the index's tokens learn, in place, inside the model's own
matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from itemic.errors import ModelError
from itemic.forest.run import NewRows
from itemic.model.stored import stored_of


@contextmanager
def learning_rows(lm: PreTrainedModel, token_ids: Sequence[int]) -> Iterator[NewRows]:
    """Freeze a model but for the embedding rows of ``token_ids``, of input and head alike.

    The parameters handed out share their storage with the matrices, so an optimizer's update lands in the
    model while nothing else of it has a gradient, an optimizer state, a share of the clipped norm or a decay. Those
    of a model in half precision are float32 and have a storage of their own; :func:`settle` rounds them into the
    matrices, which is done at the end as well. Those of a model on the meta device are read from its folder, where it
    has one. What required a gradient before does so again afterwards.

    Args:
        lm: the model.
        token_ids: ids without a gap, in any order.

    Raises:
        ModelError: the ids have gaps, or the model has no such rows.
    """
    ids = sorted(token_ids)
    start, stop = (ids[0], ids[-1] + 1) if ids else (0, 0)
    if not ids or ids != list(range(start, stop)):
        raise ModelError(
            f"the index's {len(ids)} tokens do not have one contiguous range of ids",
            "Expand the model with `itemic model expand`, which gives new tokens ids without gaps.",
        )
    inputs: Tensor = lm.get_input_embeddings().weight  # type: ignore[assignment]
    head: Tensor = lm.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    if stop > min(len(inputs), len(head)):
        raise ModelError(
            f"token id {stop - 1} is beyond the model's {len(inputs)} embeddings",
            "Expand the model with the same index that the tokenizer was expanded with.",
        )
    _check_embedding(lm, start)
    with frozen(lm):
        first = torch.nn.Parameter(_rows(lm, inputs, start, stop))
        second = None if head is inputs else torch.nn.Parameter(_rows(lm, head, start, stop))
        rows = NewRows(start, first, second)
        yield rows
        settle(lm, rows)


def _rows(lm: PreTrainedModel, matrix: Tensor, start: int, stop: int) -> Tensor:
    """Rows of a matrix in float32: no copy of what is float32."""
    stored = stored_of(lm)
    if stored is None:
        return matrix.data[start:stop].float()
    name = next(name for name, weight in lm.named_parameters() if weight is matrix)
    return stored.read(name, start, stop).float()


@contextmanager
def frozen(lm: PreTrainedModel) -> Iterator[None]:
    """No weight requires a gradient; those that did before do so again afterwards."""
    before = {weight: weight.requires_grad for weight in lm.parameters()}
    lm.requires_grad_(False)
    try:
        yield
    finally:
        for weight, flag in before.items():
            weight.requires_grad_(flag)


@torch.no_grad()
def settle(lm: PreTrainedModel, rows: NewRows) -> None:
    """Write learned rows into the matrices that they belong to, where they have a storage of their own."""
    matrices = (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)  # type: ignore[no-untyped-call]
    for matrix, own in zip(matrices, (rows.input, rows.output), strict=True):
        if own is None:
            continue
        place = matrix[rows.start : rows.start + len(own)]
        if place.device.type != "meta" and place.data_ptr() != own.data_ptr():
            place.copy_(own)


def _check_embedding(lm: PreTrainedModel, token: int) -> None:
    """Make sure that a row is looked up as :meth:`NewRows.embed` does it, so that its gradient is the right one.

    Raises:
        ModelError: the embedding does something else with its rows than to scale them.
    """
    if lm.device.type == "meta":
        return
    module, tokens = lm.get_input_embeddings(), torch.tensor([token], device=lm.device)
    with torch.no_grad():
        row = torch.nn.Parameter(module.weight[token : token + 1].detach())  # type: ignore[index]
        ours, theirs = NewRows(token, row).embed(lm, tokens), module(tokens)
    if not torch.allclose(ours.float(), theirs.float(), rtol=0.02):  # half precision rounds the number
        raise ModelError(
            f"the embedding of a {lm.config.model_type} model isn't its matrix's rows, nor these times one number",
            "Train all weights (`train: all`).",
        )
