"""Writing the weights of a model that nobody holds as a whole: one after the other, each to its place in the very files
that transformers would write.

A safetensors file begins with the places of all its tensors, which are known beforehand, so that no more than a tensor,
or the pieces of a layer that a family keeps otherwise on the disk, is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from itemic.errors import ModelError
from itemic.model.folder import quiet, without_deepspeed
from itemic.model.layers import layers_of
from itemic.model.stored import INDEX, weights_and_buffers

Value = Callable[[str], Tensor]  # a whole weight, by its name in the model
SHARD_SIZE = "50GB"  # transformers' own
# safetensors' names, in the order in which it lays tensors of several dtypes out: from the last one on
DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
_ORDER = list(DTYPES)


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor go.

    Attributes:
        file: its name.
        at: the first byte.
        size: how many bytes.
    """

    file: str
    at: int
    size: int


def write_lm(
    lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, value: Value | None = None
) -> None:
    """Write a plain Hugging Face folder, which is made.

    Args:
        lm: the model.
        tokenizer: its tokenizer.
        folder: where.
        value: gives a whole weight by its name, where the model is on the meta device.
    """
    folder.mkdir(parents=True)
    with quiet(), without_deepspeed():
        lm.save_pretrained(folder, state_dict=None if value is None else {})
    if value is not None:
        write_weights(lm, value, folder)
    tokenizer.save_pretrained(folder)


def write_weights(
    lm: PreTrainedModel, value: Value, folder: Path | None, shard_size: int | str = SHARD_SIZE
) -> None:
    """Write the weights of a model as ``save_pretrained`` would, where they are given one by one.

    Args:
        lm: the model, on the meta device: its names, shapes and dtypes.
        value: gives a weight, on any device and of any dtype; asked for in the same order on every rank, once each.
        folder: for the files; None on ranks that write nothing but take part in what ``value`` does.
        shard_size: of a file, as transformers understands it.

    Raises:
        ModelError: the family has a dtype or a layout that can't be written so.
        OSError: the disk refuses.
    """
    kept = _kept(lm)
    groups = _groups(lm, kept)
    if folder is None:
        for names in groups:
            for name in names:
                value(name)
        return
    places = _lay_out(lm, _as_stored(lm, kept), folder, shard_size)
    for names in groups:
        found = {name: value(name).to(kept[name].dtype).cpu() for name in names}
        for key, tensor in _as_stored(lm, found).items():
            _put(folder, places[key], tensor)


def _kept(lm: PreTrainedModel) -> dict[str, Tensor]:
    """What goes into the files, by the names that transformers keeps: of tied weights those that others are tied to."""
    tied = set(getattr(lm, "all_tied_weights_keys", None) or ())
    names: dict[int, list[str]] = {}
    for name, weight in lm.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    found = {}
    for name, tensor in weights_and_buffers(lm).items():
        same = names.get(id(tensor), [name])
        found[next((each for each in same if each not in tied), same[0])] = tensor
    ignored = set(getattr(lm, "_keys_to_ignore_on_save", None) or ())
    return {name: tensor for name, tensor in found.items() if name not in ignored}


def _as_stored(lm: PreTrainedModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names and in the shapes of the files."""
    from transformers.core_model_loading import revert_weight_conversion

    found: dict[str, Tensor] = revert_weight_conversion(lm, dict(tensors))
    return found


def _groups(lm: PreTrainedModel, kept: dict[str, Tensor]) -> list[list[str]]:
    """Which weights have to be there at the same time: each for itself, or those of a layer."""
    empty = {name: tensor.detach().to("meta") for name, tensor in kept.items()}
    stored = _as_stored(lm, empty)
    singles = [[name] for name in kept]
    if stored.keys() == kept.keys():
        return singles
    prefix = f"{layers_of(lm)[0]}."
    layers: dict[str, list[str]] = {}
    for name in kept:
        layer = name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else name
        layers.setdefault(layer, []).append(name)
    groups = list(layers.values())
    parts = {key for names in groups for key in _as_stored(lm, {name: empty[name] for name in names})}
    if parts != stored.keys():
        raise ModelError(
            f"a {lm.config.model_type} model mixes layers in its files, which can't be written layer by layer",
            "Train it in one process, or with strategy ddp.",
        )
    return groups


def _lay_out(
    lm: PreTrainedModel, stored: dict[str, Tensor], folder: Path, shard_size: int | str
) -> dict[str, Place]:
    """Write the heads of the files, and the index where there are several."""
    split = split_torch_state_dict_into_shards(
        stored, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_size
    )
    places: dict[str, Place] = {}
    for file, names in split.filename_to_tensors.items():
        head: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at, own = 0, {}
        for name in sorted(names, key=lambda each: (-_rank(stored[each]), each)):
            tensor = stored[name]
            size = tensor.numel() * tensor.element_size()
            head[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [at, at + size],
            }
            own[name], at = (at, size), at + size
        text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + at)
        places |= {name: Place(file, 8 + len(text) + first, size) for name, (first, size) in own.items()}
    if split.is_sharded:
        index = {
            "metadata": {"total_parameters": lm.num_parameters(), **split.metadata},
            "weight_map": split.tensor_to_filename,
        }
        listed = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX).write_text(listed, encoding="utf-8")
    return places


def _rank(tensor: Tensor) -> int:
    if tensor.dtype not in DTYPES:
        raise ModelError(
            f"weights of dtype {tensor.dtype} can't be written one by one",
            "Train the model in one process, or with strategy ddp.",
        )
    return _ORDER.index(tensor.dtype)


def _put(folder: Path, place: Place, tensor: Tensor) -> None:
    with (folder / place.file).open("r+b") as stream:
        stream.seek(place.at)
        stream.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
