"""The weights of a model folder, read a slice at a time, for a model on the meta device, which has none."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from itemic.errors import ModelError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_AGAIN = "Copy the folder again, or save the model again."


@dataclass(frozen=True)
class Entry:
    """Where a tensor is stored.

    Attributes:
        file: the safetensors file.
        shape: of the tensor.
        dtype: of the tensor.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Made:
    """A weight that a family keeps in other pieces on the disk than in memory, such as experts one by one.

    Attributes:
        first: the name by which transformers knows the conversion.
        sources: the pattern and the key of each piece, in their order.
        converter: transformers' own conversion; it collects tensors, so it is copied for each use.
    """

    first: str
    sources: tuple[tuple[str, str], ...]
    converter: Any


class Stored:
    """The weights of a folder, by the names that they have in memory.

    Args:
        root: the folder, with safetensors files.
        lm: the model, on the meta device or not.

    Raises:
        ModelError: weights are missing, broken or of other shapes.
    """

    def __init__(self, root: Path, lm: PreTrainedModel) -> None:
        self.root, self._lm_config = root, lm.config
        self._entries = _entries(root)
        wanted = weights_and_buffers(lm)
        direct = {
            name
            for name, tensor in wanted.items()
            if name in self._entries and self._entries[name].shape == tuple(tensor.shape)
        }
        self._made = _conversions(lm, self._entries) if len(direct) < len(wanted) else {}
        self._renamed = {name: name for name in direct}
        for name, tensor in wanted.items():
            if name in direct:
                continue
            made = self._made.get(name)
            if made is None:
                fault = "has other shapes of" if name in self._entries else "lacks"
                raise ModelError(f"{root} {fault} weights, first {name}", _AGAIN)
            if made.converter is None:
                ((_, key),) = made.sources
                if self._entries[key].shape != tuple(tensor.shape):
                    raise ModelError(f"{root} has other shapes of weights, first {name}", _AGAIN)
                self._renamed[name] = key

    def read(self, name: str, begin: int = 0, stop: int | None = None) -> Tensor:
        """Rows ``begin … stop`` of a weight, in the dtype of the file, in main memory.

        What is stored as it is in memory is read for these rows alone.

        Raises:
            ModelError: the file has become unreadable.
        """
        key = self._renamed.get(name)
        if key is not None:
            return self._slice(key, begin, stop)
        found = self._convert(self._made[name], name)
        return found[begin:stop].clone()

    def _slice(self, key: str, begin: int = 0, stop: int | None = None) -> Tensor:
        entry = self._entries[key]
        try:
            with safe_open(entry.file, framework="pt") as file:
                if not entry.shape:
                    found: Tensor = file.get_tensor(key)
                else:
                    found = file.get_slice(key)[begin : entry.shape[0] if stop is None else stop]
                return found.clone()  # the file is mapped only as long as it is open
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{entry.file} can't be read: {error}", _AGAIN) from error

    def _convert(self, made: Made, name: str) -> Tensor:
        return _converted(made, {key: self._slice(key) for _, key in made.sources}, self._lm_config)[name]


_known: WeakKeyDictionary[PreTrainedModel, Stored] = WeakKeyDictionary()


def stored_of(lm: PreTrainedModel) -> Stored | None:
    """Where the weights of a model on the meta device are; None for one that has its own, or never had any."""
    return _known.get(lm) if lm.device.type == "meta" else None


def remember_stored(lm: PreTrainedModel, root: Path) -> None:
    """Let :func:`stored_of` find a folder's weights, and give the model its buffers, which are small.

    Args:
        lm: the model of the folder, on the meta device.
        root: the folder.

    Raises:
        ModelError: see :class:`Stored`.
    """
    stored = Stored(root, lm)
    _fill_buffers(lm, stored)
    _known[lm] = stored


def stored_dtype(root: Path) -> torch.dtype:
    """The dtype of the first floating-point weight of a folder.

    Raises:
        ModelError: it has no readable weights.
    """
    kinds = (entry.dtype for entry in _entries(root).values() if entry.dtype.is_floating_point)
    return next(kinds, torch.float32)


def weights_and_buffers(lm: PreTrainedModel) -> dict[str, Tensor]:
    """What a folder keeps of a model: its weights, a tied one once, and its persistent buffers."""
    kept = set(lm.state_dict())
    buffers = {name: tensor for name, tensor in lm.named_buffers() if name in kept}
    return {**dict(lm.named_parameters()), **buffers}


@torch.no_grad()
def _fill_buffers(lm: PreTrainedModel, stored: Stored) -> None:
    """Read the buffers that are stored, and compute the others as transformers does when it loads a model."""
    kept = weights_and_buffers(lm)
    for place, module in lm.named_modules():
        empty = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for name in empty:
            setattr(module, name, torch.empty_like(module.get_buffer(name), device="cpu"))
        if empty:
            lm._init_weights(module)  # type: ignore[no-untyped-call]  # weights on the meta device stay there
        for name in empty:
            full = f"{place}.{name}" if place else name
            if full in kept:
                module.get_buffer(name).copy_(stored.read(full))


def _entries(root: Path) -> dict[str, Entry]:
    """Every tensor of a folder's safetensors files."""
    try:
        if (root / INDEX).is_file():
            index = json.loads((root / INDEX).read_text(encoding="utf-8"))
            files = sorted({root / name for name in index["weight_map"].values()})
        else:
            files = [root / SINGLE]
        found = {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    part = file.get_slice(key)
                    found[key] = Entry(
                        path, tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), torch.uint8)
                    )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        raise ModelError(f"{root} can't be loaded: {str(error).splitlines()[0]}", _AGAIN) from error
    return found


_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}


def _conversions(lm: PreTrainedModel, entries: dict[str, Entry]) -> dict[str, Made]:
    """How each weight is made of what is stored, as transformers would make it when it loads the model."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(lm)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    state = lm.state_dict()
    sources: dict[str, list[tuple[Any, str]]] = {}
    for key in sorted(entries, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, lm.base_model_prefix, state)
        sources.setdefault(name, []).append((pattern, key))
    found = {}
    for name, pieces in sources.items():
        pattern = pieces[0][0]
        if pattern is None:
            found[name] = Made(name, ((name, pieces[0][1]),), None)
            continue
        made = Made(name, tuple(pieces), by_pattern[pattern])
        empty = {key: torch.empty(entries[key].shape, device="meta") for _, key in pieces}
        for each in _converted(made, empty, lm.config):
            found[each] = made
    return found


def _converted(made: Made, tensors: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The weights that pieces make, by name."""
    converter = copy.deepcopy(made.converter)
    for pattern, key in made.sources:
        converter.add_tensor(made.first, key, pattern, tensors[key])
    found = converter.convert(made.first, config=config)
    return {name: each[0] if isinstance(each, list) else each for name, each in found.items()}
