"""Vectors from any model of the sentence-transformers library, with the pooling that the model brings along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from itemic.errors import ConfigError, ModelError, missing_extra
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


class SentenceTransformersEncoder(TextEncoder):
    """A sentence-transformers model (Reimers and Gurevych, "Sentence-BERT", 2019).

    Needs ``pip install "itemic[sentence-transformers]"``.

    Args:
        model: a folder, or a name on the Hugging Face hub; one without an owner is of ``sentence-transformers/``.
        fields: text fields of an item; None for all.
        instruction: text in front of each item's. None for the prompt that the model takes by default, if any.
        prompt: the name of one of the model's own prompts (``document``, say) instead of an instruction.
        max_length: tokens of a text; None for the model's own limit.
        batch_size, device, dtype, dims, normalize, revision, cache, seed: as
            :class:`itemic.sid.encoders.transformers.TransformersEncoder` has them.
    """

    name = "sentence-transformers"

    def __init__(
        self,
        *,
        model: str = "",
        fields: Sequence[str] | None = None,
        instruction: str | None = None,
        prompt: str | None = None,
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
        if instruction is not None and prompt is not None:
            raise ConfigError(
                "both an instruction and a prompt are given",
                "Give the text as instruction, or the name of the model's prompt.",
            )
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length is {max_length}", "Give a positive number of tokens.")
        check_dtype(dtype)
        self.instruction = instruction
        self.prompt = prompt
        self.max_length = max_length
        self.device = device
        self.dtype = dtype
        self.revision = revision

    @property
    def identity(self) -> dict[str, Any]:
        """Model and digest of its files (its pooling among them), fields, instruction, length, dimensions,
        normalisation."""
        return {
            "name": self.name,
            "model": model_label(self.model),
            "digest": self._digest,
            "fields": list(self.fields),
            "instruction": self.instruction,
            "prompt": self.prompt,
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
        with told_memory(self.batch_size):
            model = self._model.to(device)
        for start in range(0, len(texts), self.batch_size):
            with told_memory(self.batch_size):
                vectors = model.encode(
                    list(texts[start : start + self.batch_size]),
                    batch_size=self.batch_size,
                    prompt=self.instruction,
                    prompt_name=self.prompt,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                    device=str(device),
                )
            yield np.asarray(vectors, np.float32)

    @cached_property
    def _folder(self) -> Path:
        plain = "/" not in self.model and not Path(self.model).is_dir()
        return find_model(f"sentence-transformers/{self.model}" if plain else self.model, self.revision)

    @cached_property
    def _digest(self) -> str:
        return model_digest(self._folder)

    @cached_property
    def _model(self) -> Any:
        import torch

        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            who = "encoder sentence-transformers"
            raise missing_extra(who, "the package of that name", "sentence-transformers") from error
        require_tokenizer(self._folder)
        try:
            with quiet():
                model = SentenceTransformer(
                    str(self._folder),
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": getattr(torch, self.dtype), "use_safetensors": True},
                )
        except Exception as error:  # as many classes as there are faults of a folder
            raise ModelError(
                f"{self._folder} can't be loaded: {first_line(error)}",
                "Give the folder or name of a sentence-transformers model with safetensors weights.",
            ) from error
        if self.prompt is not None and self.prompt not in model.prompts:
            raise ConfigError(
                f"model {self.model!r} has no prompt {self.prompt!r}",
                f"It has {', '.join(map(repr, model.prompts)) or 'none'}; give a text as instruction.",
            )
        if self.max_length is not None:
            model.max_seq_length = self.max_length
        return model.eval()
