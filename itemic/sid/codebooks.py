"""Learnt codebooks: what makes codes of vectors, vectors of codes, and travels with a tokenizer.

Every quantizer here is additive: in some space of its own (:mod:`itemic.sid.spaces`) a vector is about the sum of one
codebook row per level, and each level quantizes what the levels before it left over. RQ-KMeans does so in the vectors'
own space, product quantization after a rotation and with books that touch their own dimensions alone, RQ-VAE behind a
network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError, IndexMismatchError
from itemic.sid.spaces import SPACES, Identity, Space
from itemic.sid.vectors import ROWS, Float32, check_vectors

if TYPE_CHECKING:
    import torch

Int32 = npt.NDArray[np.int32]


class Codebooks:
    """Codebooks float32 ``[K_l, d']`` and the space ``d'`` that they stand in.

    Args:
        books: one for each level.
        space: how vectors ``[n, d]`` get there and back; nothing changes by default.

    Raises:
        ConfigError: the books have different widths.
    """

    def __init__(self, books: Sequence[Float32], space: Space | None = None) -> None:
        self.books = [np.ascontiguousarray(book, np.float32) for book in books]
        if len({book.shape[1] for book in self.books}) != 1:
            raise ConfigError(
                f"codebooks have the shapes {[list(book.shape) for book in self.books]}",
                "Give every level vectors of the same width.",
            )
        self.space: Space = Identity(self.books[0].shape[1]) if space is None else space

    def __repr__(self) -> str:
        return f"<Codebooks: {' × '.join(map(str, self.sizes))}, vectors of {self.width}>"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(book) for book in self.books)

    @property
    def levels(self) -> int:
        return len(self.books)

    @property
    def width(self) -> int:
        """Dimensions of the vectors that can be quantized."""
        return self.space.width

    def latent(self, vectors: npt.NDArray[np.floating]) -> Float32:
        """Vectors ``[n, d]`` in the codebooks' space, float32 ``[n, d']``.

        Raises:
            DataError: NaN or infinite values.
            ConfigError: another number of dimensions.
        """
        table = check_vectors(vectors)
        if table.shape[1] != self.width:
            raise ConfigError(
                f"the vectors have {table.shape[1]} dimensions, the codebooks are for {self.width}",
                "Use the encoder that the codebooks were made with.",
            )
        parts = [self.space.to_latent(table[i : i + ROWS]) for i in range(0, len(table), ROWS)]
        return np.concatenate(parts)

    def assign(self, vectors: npt.NDArray[np.floating], device: str | torch.device = "cpu") -> Int32:
        """The codes of vectors ``[n, d]`` (an array or a memory map), int32 ``[n, L]``; some rows in memory at a time.

        Raises:
            DataError: NaN or infinite values.
            ConfigError: another number of dimensions.
        """
        import torch  # loading and saving codebooks needs none

        from itemic.sid.nearest import nearest

        books = [torch.from_numpy(book).to(device) for book in self.books]
        codes = np.zeros((len(vectors), len(books)), np.int32)
        for start in range(0, max(len(vectors), 1), ROWS):
            residual = torch.from_numpy(self.latent(vectors[start : start + ROWS])).to(device)
            for level, book in enumerate(books):
                code = nearest(residual, book)
                residual = residual - book[code]
                codes[start : start + ROWS, level] = code.cpu().numpy()
        return codes

    def rebuild(self, codes: npt.NDArray[np.integer]) -> Float32:
        """The vectors that codes int ``[n, l ≤ L]`` stand for, float32 ``[n, d]``."""
        table = np.asarray(codes)
        total = np.zeros((len(table), self.books[0].shape[1]), np.float32)
        for level in range(table.shape[1]):
            total += self.books[level][table[:, level]]
        return self.space.from_latent(total)

    def save(self, file: str | Path) -> None:
        """Write one safetensors file: ``level_0`` …, the space's arrays, and its name in the metadata."""
        from safetensors.numpy import save_file

        arrays = {f"level_{level}": book for level, book in enumerate(self.books)}
        arrays |= {f"space.{name}": np.ascontiguousarray(x) for name, x in self.space.state.items()}
        about = {"space": self.space.name, "levels": json.dumps(list(self.sizes)), "width": str(self.width)}
        save_file(arrays, file, metadata=about)

    @classmethod
    def load(cls, file: str | Path) -> Codebooks:
        """Read what :meth:`save` wrote, bit for bit.

        Raises:
            IndexMismatchError: the file is missing, broken, or of an unknown space.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="numpy") as stored:
                about = stored.metadata() or {}
                count = len(json.loads(about["levels"]))
                books = [stored.get_tensor(f"level_{level}") for level in range(count)]
                names = [name for name in stored.keys() if name.startswith("space.")]  # noqa: SIM118
                state = {name.removeprefix("space."): stored.get_tensor(name) for name in names}
            space = SPACES[about["space"]].of(int(about["width"]), state)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise IndexMismatchError(
                f"{file} holds no codebooks: {error}",
                "Restore the file from where it was copied, or build the semantic IDs again.",
            ) from error
        return cls(books, space)
