"""Vectors from any Hugging Face encoder or causal language model: its last hidden states, pooled."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from itemic.errors import ConfigError, DataError, ModelError
from itemic.progress import log
from itemic.sid.encoders.huggingface import (
    check_dtype,
    find_model,
    first_line,
    model_digest,
    model_label,
    nan_remedy,
    pick_device,
    quiet,
    require_tokenizer,
    told_memory,
)
from itemic.sid.encoders.texts import TextEncoder
from itemic.sid.vectors import Float32

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "last", "cls"]
MAX_LENGTH = 512  # where neither option nor model says less
NO_LIMIT = 1 << 24  # tokenizers write 10^30 for "unknown"
TOKENIZE = 1024  # texts that are tokenized together


class TransformersEncoder(TextEncoder):
    """Last hidden states of a model, pooled over the tokens of a text.

    ``mean`` is the mean over all tokens, special ones and the instruction's included; ``last`` the state of the last
    token (the only one of a causal model that has seen all others); ``cls`` that of the first (BERT's). Batches are
    padded on the right, whatever the tokenizer is set to, and the padding is masked: positions are those of the text
    alone, a causal model never sees padding, and no padding token is needed.

    Args:
        model: a folder, or a name on the Hugging Face hub. Weights must be safetensors; code that a model brings
            along is not run. Of an encoder-decoder the encoder is taken.
        pooling: ``mean``, ``last`` or ``cls``.
        fields: text fields of an item; None for all.
        instruction: text in front of each item's, as the model was trained with.
        max_length: tokens of a text, special ones included; longer texts are cut and counted in the log. None for
            512, or less where the model takes less.
        batch_size: texts per forward pass.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda:1``, ….
        dtype: of the weights while they compute: float32, bfloat16 or float16. Pooling is always float32.
        dims: leading dimensions to keep; None for all.
        normalize: whether vectors get length 1.
        revision: branch, tag or commit on the hub.
        cache: folder of vectors that are there already, see :mod:`itemic.sid.encoders.cache`.
        seed: not used; the model is there already.
    """

    name = "transformers"

    def __init__(
        self,
        *,
        model: str = "",
        pooling: Pooling = "mean",
        fields: Sequence[str] | None = None,
        instruction: str = "",
        max_length: int | None = None,
        batch_size: int = 32,
        device: str = "auto",
        dtype: str = "float32",
        dims: int | None = None,
        normalize: bool = True,
        revision: str | None = None,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            model=model, fields=fields, batch_size=batch_size, dims=dims, normalize=normalize, cache=cache
        )
        if pooling not in get_args(Pooling):
            raise ConfigError(f"unknown pooling {pooling!r}", f"Use one of {', '.join(get_args(Pooling))}.")
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length is {max_length}", "Give a positive number of tokens.")
        check_dtype(dtype)
        self.pooling = pooling
        self.instruction = instruction
        self.max_length = max_length
        self.device = device
        self.dtype = dtype
        self.revision = revision

    @property
    def identity(self) -> dict[str, Any]:
        """Model and digest of its files, pooling, fields, instruction, length, dimensions, normalisation.

        The dtype isn't part of it: a GPU's bfloat16 and a CPU's float32 give comparable vectors.

        Raises:
            ModelError: there is no such model.
        """
        return {
            "name": self.name,
            "model": model_label(self.model),
            "digest": self._digest,
            "pooling": self.pooling,
            "fields": list(self.fields),
            "instruction": self.instruction,
            "max_length": self.max_length,
            "dims": self.dims,
            "normalize": self.normalize,
        }

    @property
    def precision(self) -> dict[str, Any]:
        """The dtype."""
        return {"dtype": self.dtype}

    @property
    def remedy(self) -> str:
        """What NaN may come from."""
        return nan_remedy(self.dtype)

    def encode(self, texts: Sequence[str]) -> Iterator[Float32]:
        """Vectors ``[m, d]`` of the texts, batch by batch."""
        device = pick_device(self.device)
        lm, limit = self._loaded(device)
        cut = 0
        for first in range(0, len(texts), TOKENIZE):
            ids, shortened = self._tokenize(texts[first : first + TOKENIZE], limit)
            cut += shortened
            for start in range(0, len(ids), self.batch_size):
                yield self._forward(lm, ids[start : start + self.batch_size], device)
        if cut:
            log.warning("%d of %d texts were cut to %d tokens", cut, len(texts), limit)

    def _forward(self, lm: Any, ids: Sequence[Sequence[int]], device: torch.device) -> Float32:
        """The pooled states of one batch; no mode of torch is left on while the caller has the result."""
        import torch

        tokens, mask = (torch.from_numpy(array).to(device) for array in pad_right(ids, self._pad))
        more = {"use_cache": False} if "use_cache" in inspect.signature(lm.forward).parameters else {}
        with torch.inference_mode(), told_memory(self.batch_size):
            hidden = lm(input_ids=tokens, attention_mask=mask, **more).last_hidden_state
            pooled: Float32 = pool(hidden, mask, self.pooling).cpu().numpy()
        return pooled

    @cached_property
    def _folder(self) -> Path:
        return find_model(self.model, self.revision)

    @cached_property
    def _digest(self) -> str:
        return model_digest(self._folder)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folder)

    @property
    def _pad(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)  # masked, so that any token will do

    def _tokenize(self, texts: Sequence[str], limit: int) -> tuple[list[list[int]], int]:
        return tokenize(self._tokenizer, [self.instruction + text for text in texts], limit, self.model)

    @cached_property
    def _model(self) -> Any:
        return load_encoder(self._folder, self.dtype)

    def _loaded(self, device: torch.device) -> tuple[Any, int]:
        """The model on its device, and how many tokens it takes.

        Raises:
            ConfigError: ``max_length`` is more than that.
        """
        limit = token_limit(self._model, self._tokenizer, self.max_length, self.model)
        with told_memory(self.batch_size):
            return self._model.to(device), limit


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model's folder.

    Raises:
        ModelError: there is none, or none that can be used.
    """
    from transformers import AutoTokenizer

    require_tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exceptions on broken files
        raise ModelError(
            f"{folder} has no usable tokenizer: {first_line(error)}",
            "Copy the model's tokenizer files there.",
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder} has a slow tokenizer", "Convert it to a tokenizer.json.")
    return tokenizer


def load_encoder(folder: Path, dtype: str = "float32") -> Any:
    """The model of a folder without a head, in evaluation mode; of an encoder-decoder the encoder.

    Raises:
        ModelError: it can't be loaded, or lacks weights.
    """
    import torch

    again = "Copy the folder again, or use a model that transformers knows without code of its own."
    try:
        with quiet():
            lm, info = _encoder_class(folder).from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (
        Exception
    ) as error:  # OSError, ValueError, KeyError, SafetensorError, RuntimeError: as the fault is
        raise ModelError(f"{folder} can't be loaded: {first_line(error)}", again) from error
    # BERT's pooler is often left out of the weights, and no pooling here reads it.
    lacking = sorted(key for key in map(str, info["missing_keys"]) if not key.startswith("pooler."))
    if lacking:
        raise ModelError(f"{folder} lacks {len(lacking)} weights, first {lacking[0]}", again)
    return (lm.get_encoder() if lm.config.is_encoder_decoder else lm).eval()


def _encoder_class(folder: Path) -> Any:
    """What loads a folder's encoder. A T5's is a class of its own, whose folders hold no decoder."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES as NAMES

    kind = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
    return AutoModelForTextEncoding if NAMES.get(kind, "").endswith("EncoderModel") else AutoModel


def token_limit(lm: Any, tokenizer: Any, wanted: int | None, name: str) -> int:
    """How many tokens of a text are read: those that are wanted, else 512 or less.

    Raises:
        ConfigError: more are wanted than the model takes.
    """
    most = min(
        int(tokenizer.model_max_length or NO_LIMIT),
        getattr(lm.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT,
        NO_LIMIT,
    )
    if wanted is not None and wanted > most:
        raise ConfigError(
            f"max_length is {wanted}, and model {name!r} takes {most} tokens", "Lower max_length."
        )
    return wanted or min(most, MAX_LENGTH)


def tokenize(tokenizer: Any, texts: Sequence[str], limit: int, name: str) -> tuple[list[list[int]], int]:
    """Token ids of each text, and how many texts were cut.

    Raises:
        DataError: a text has no token.
    """
    tokenizer.truncation_side = "right"
    batch = tokenizer(list(texts), truncation=True, max_length=limit, padding=False)
    ids: list[list[int]] = batch["input_ids"]
    for text, tokens in zip(texts, ids, strict=True):
        if not tokens:
            raise DataError(
                f"the tokenizer of {name!r} makes no token of {text[:60]!r}",
                "Use a model whose tokenizer knows the catalogue's script.",
            )
    return ids, sum(bool(encoding.overflowing) for encoding in batch.encodings)


def pad_right(ids: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tokens and mask, int64 ``[m, longest]``."""
    lengths = np.array([len(row) for row in ids], np.int64)
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.full(mask.shape, pad, np.int64)
    tokens[mask] = np.concatenate([np.asarray(row, np.int64) for row in ids])
    return tokens, mask.astype(np.int64)


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One float32 vector ``[m, d]`` per text from states ``[m, t, d]`` that are padded on the right."""
    import torch

    if pooling == "cls":
        return hidden[:, 0].float()
    if pooling == "last":
        last = mask.sum(dim=1) - 1
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, last].float()
    kept = hidden.float() * mask[:, :, None]
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True)
