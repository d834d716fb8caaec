"""Vectors kept by content: a text that was encoded once by the same encoder is never encoded again.

``<folder>/<encoder>/`` holds ``encoder.json`` (what the vectors were made with) and parts ``<name>.safetensors`` of
``keys`` uint8 ``[m, 16]`` (the first half of each text's SHA-256) and ``vectors`` float32 ``[m, d]``. A part is written
beside its place and renamed, so a killed run leaves whole parts only, and two runs can share one folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from itemic.artifact import digest_of, write_json
from itemic.errors import ArtifactError
from itemic.progress import log
from itemic.sid.vectors import Array, Float32

PART_TEXTS = 4096  # texts of a part
PART_SECONDS = 15.0  # a part is written after so long at the latest: the most that a killed run loses
KEY_BYTES = 16


class VectorCache:
    """The vectors of one encoder, in a folder of its own below ``folder``.

    Args:
        folder: where caches stand; None keeps nothing.
        encoder: plain JSON; vectors are shared by encoders for which it is equal.
    """

    def __init__(self, folder: str | Path | None, encoder: dict[str, Any]) -> None:
        self.encoder = encoder
        self.folder = None if folder is None else Path(folder) / digest_of(encoder)
        self._keys: list[bytes] = []
        self._vectors: list[Float32] = []
        self._written = time.monotonic()

    def read(self, texts: Sequence[str]) -> tuple[Array, Float32]:
        """Which texts are there, bool ``[n]``, and a table ``[n, d]`` with their vectors; d is 0 if none is."""
        found = np.zeros(len(texts), np.bool_)
        table = np.zeros((len(texts), 0), np.float32)
        places = {text_key(text): place for place, text in enumerate(texts)}
        for keys, vectors in self._parts():
            hits = np.array([places.get(key.tobytes(), -1) for key in keys], np.int64)
            rows = np.flatnonzero(hits >= 0)
            if not len(rows):
                continue
            if table.shape[1] == 0:
                table = np.zeros((len(texts), vectors.shape[1]), np.float32)
            if table.shape[1] != vectors.shape[1]:
                raise ArtifactError(
                    f"{self.folder} holds vectors of {table.shape[1]} and of {vectors.shape[1]} dimensions",
                    "Remove the folder; the encoder's model was replaced by another of the same name.",
                )
            table[hits[rows]] = vectors[rows]
            found[hits[rows]] = True
        return found, table

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What is :meth:`put` inside is on disk afterwards, also where the block ends with an error."""
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ArtifactError(
                    f"can't keep vectors in {self.folder}: {error}", "Name another folder as cache."
                ) from error
            write_json(self.folder / "encoder.json", self.encoder)
        self._written = time.monotonic()
        try:
            yield
        finally:
            self._flush()

    def put(self, texts: Sequence[str], vectors: Float32) -> None:
        """Keep the vectors ``[m, d]`` of these texts."""
        if self.folder is None:
            return
        self._keys += [text_key(text) for text in texts]
        self._vectors.append(vectors)
        if len(self._keys) >= PART_TEXTS or time.monotonic() - self._written > PART_SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self.folder is None or not self._keys:
            return
        joined = b"".join(self._keys)
        keys = np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)
        content = save({"keys": keys, "vectors": np.concatenate(self._vectors)})
        final = self.folder / f"{hashlib.sha256(joined).hexdigest()[:16]}.safetensors"
        scratch = final.with_name(f".{final.name}.{os.getpid()}")
        with scratch.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(final)
        self._keys, self._vectors = [], []
        self._written = time.monotonic()

    def _parts(self) -> Iterator[tuple[Array, Float32]]:
        if self.folder is None or not self.folder.is_dir():
            return
        for file in sorted(self.folder.glob("[!.]*.safetensors")):
            try:
                part = load_file(file)
                yield part["keys"], part["vectors"]
            except (OSError, SafetensorError, KeyError) as error:
                log.warning("%s is damaged (%s); its texts are encoded again", file, error)


def text_key(text: str) -> bytes:
    """The name of a text in the cache."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]
