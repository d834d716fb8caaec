"""A trained sequential model as a ranker, and in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from itemic import schema as c
from itemic.artifact import digest_of, verify, write_json
from itemic.data.sequences import Requests, catalogue_digest
from itemic.errors import ConfigError, ModelError
from itemic.evaluate.counting import Ranked
from itemic.teacher.model import SASRec
from itemic.teacher.rows import latest, pack

CONFIG, WEIGHTS, ITEMS = "config.json", "model.safetensors", "items.parquet"
CELLS = 8_000_000  # scores that are held at once
SHAPE = ("width", "layers", "heads", "inner", "max_length", "dropout")

Float32 = npt.NDArray[np.float32]
Rows = Sequence[npt.NDArray[np.integer]]


class Teacher:
    """Scores the whole catalogue for a history: a ranker like any other, and what rewards and labels are read from.

    The folder is plain: ``config.json`` (the shape, the catalogue's digest), ``model.safetensors``, and
    ``items.parquet``, the item ids by row.

    Args:
        model: of as many items as there are ids.
        item_ids: the catalogue, by row.
        shape: the settings that the model was made with, those of :class:`SASRec`.
        name: for tables.

    Raises:
        ModelError: the model has another number of items.
    """

    def __init__(
        self, model: SASRec, item_ids: Sequence[str], shape: Mapping[str, Any], name: str = "SASRec"
    ) -> None:
        if len(item_ids) != len(model.share):
            raise ModelError(
                f"a teacher of {len(model.share)} items with the ids of {len(item_ids)}",
                "Give the ids of the dataset that it was trained on.",
            )
        self.model, self.item_ids, self.name = model, list(item_ids), name
        self.shape = {key: shape[key] for key in SHAPE}

    def __repr__(self) -> str:
        about = f"width {self.shape['width']}, {self.shape['layers']} layers"
        return f"<Teacher {self.name!r}: {len(self.item_ids):,} items, {about}>"

    @classmethod
    def new(cls, item_ids: Sequence[str], shape: Mapping[str, Any], name: str = "SASRec") -> Teacher:
        """One with random weights, of torch's own random state.

        Raises:
            ConfigError: heads don't share the width evenly.
        """
        # a wrong shape may come from a file as well as from settings
        if shape["width"] % shape["heads"]:
            raise ConfigError(
                f"{shape['heads']} heads can't share a width of {shape['width']}",
                "Give a width that the number of heads divides.",
            )
        return cls(SASRec(len(item_ids), **{key: shape[key] for key in SHAPE}), item_ids, shape, name)

    @cached_property
    def catalogue(self) -> str:
        """Its digest, see :func:`itemic.data.sequences.catalogue_digest`."""
        return catalogue_digest(self.item_ids)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.share.device

    @property
    def config(self) -> dict[str, Any]:
        """What a ranking by it depends on, for resuming."""
        # bits as integers, which add up to the same in any order
        bits = {key: value.contiguous().view(torch.int32) for key, value in self.model.state_dict().items()}
        sums = {key: int(value.sum(dtype=torch.int64)) for key, value in bits.items()}
        return {"teacher": self.shape, "catalogue": self.catalogue, "weights": digest_of(sums)}

    # ------------------------------------------------------------------------------------- scores

    def scores(
        self, requests: Requests, *, allowed: Rows | None = None, excluded: Rows | None = None
    ) -> Float32:
        """The log-probability of every item as the next one, float32 ``[R, n]``; for a few requests at a time, see
        :meth:`score_batches`. An empty history is answered by the items' shares of the training interactions.

        Args:
            requests: of histories longer than the model's rows the latest items are read.
            allowed: for each request the rows of the items that it may get; all others have -inf. What is left isn't
                normalised anew.
            excluded: for each request the rows of the items that it must not get.

        Raises:
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that aren't there.
            ConfigError: there isn't a list of allowed or excluded items for each request, or one has unknown rows.
        """
        self._check(requests, allowed, excluded)
        found = np.empty((len(requests), len(self.item_ids)), np.float32)
        for part in self._parts(len(requests)):
            found[part] = self._scores(requests[part])
            mask(found[part], _of(allowed, part), _of(excluded, part))
        return found

    def score_batches(
        self, requests: Requests, *, allowed: Rows | None = None, excluded: Rows | None = None
    ) -> Iterator[tuple[slice, Float32]]:
        """The same for any number of requests, part by part: which requests, and their scores."""
        self._check(requests, allowed, excluded)
        for part in self._parts(len(requests)):
            yield (
                part,
                self.scores(requests[part], allowed=_of(allowed, part), excluded=_of(excluded, part)),
            )

    def rank(
        self,
        requests: Requests,
        k: int,
        exclude_history: bool = False,
        *,
        allowed: Rows | None = None,
        excluded: Rows | None = None,
    ) -> Ranked:
        """The best ``k`` items of each request, and their log-probabilities.

        Args:
            requests: what is asked.
            k: how many items to give.
            exclude_history: leave out the items of the request's own history.
            allowed: as in :meth:`scores`.
            excluded: as in :meth:`scores`.

        Returns:
            items int32 ``[R, k]`` and scores float32 ``[R, k]``, best first, of equals the lower row; -1 and -inf where
            items run out.

        Raises:
            ConfigError: k is below 1, or as for :meth:`scores`.
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that aren't there.
        """
        if k < 1:
            raise ConfigError(f"a ranking of {k} items", "Give a k of 1 or more.")
        items = np.full((len(requests), k), -1, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for part, found in self.score_batches(requests, allowed=allowed, excluded=excluded):
            if exclude_history:
                mask_history(found, requests[part])
            items[part], scores[part] = best(found, k)
        return items, scores

    def shortened(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """bool ``[R]``: whose oldest items aren't read."""
        return np.asarray(np.diff(requests.offsets) > self.model.max_length)

    @torch.inference_mode()
    def _scores(self, requests: Requests) -> Float32:
        found = np.empty((len(requests), len(self.item_ids)), np.float32)
        asked = np.diff(requests.offsets) > 0
        if not asked.all():
            found[~asked] = self.model.share.log().cpu().numpy()
        if asked.any():
            rows = latest(requests.take(np.flatnonzero(asked).astype(np.int64)), self.model.max_length)
            before = self.model.training
            self.model.eval()
            with torch.autocast(self.device.type, enabled=False):
                found[asked] = self.model.scores(pack(rows).to(self.device)).cpu().numpy()
            self.model.train(before)
        return found

    def _parts(self, requests: int) -> Iterator[slice]:
        step = max(1, CELLS // len(self.item_ids))
        return (slice(start, min(start + step, requests)) for start in range(0, requests, step))

    def _check(self, requests: Requests, allowed: Rows | None, excluded: Rows | None) -> None:
        size = len(self.item_ids)
        requests.check_catalogue(self.catalogue, size, f"the teacher {self.name!r}")
        for name, lists in (("allowed", allowed), ("excluded", excluded)):
            if lists is None:
                continue
            if len(lists) != len(requests):
                raise ConfigError(
                    f"{len(lists)} lists of {name} items for {len(requests)} requests", "Give one for each."
                )
            for request, rows in enumerate(lists):
                wrong = np.asarray(rows)[(np.asarray(rows) < 0) | (np.asarray(rows) >= size)]
                if len(wrong):
                    raise ConfigError(
                        f"{name} items of request {request} name row {wrong[0]}, there are {size} items",
                        "Use rows of the teacher's catalogue.",
                    )

    # ------------------------------------------------------------------------------------- folder

    def save(self, folder: str | Path) -> None:
        """Write the folder."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        state = {key: value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()}
        save_file(state, root / WEIGHTS)
        pl.DataFrame({c.ITEM_ID: self.item_ids}).write_parquet(root / ITEMS)
        config = {"kind": "sasrec", "name": self.name, "catalogue": self.catalogue, "shape": self.shape}
        write_json(root / CONFIG, config)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Teacher:
        """Read a folder that :meth:`save` wrote.

        Raises:
            ModelError: a file is missing or broken, or the files don't fit each other.
            ArtifactError: a file is not as it was when a run wrote the folder.
        """
        root = Path(folder)
        verify(root)
        try:
            config = json.loads((root / CONFIG).read_text(encoding="utf-8"))
            if config["kind"] != "sasrec":
                raise ValueError(f"a model of kind {config['kind']!r}")
            item_ids = pl.read_parquet(root / ITEMS)[c.ITEM_ID].to_list()
            made = cls.new(item_ids, config["shape"], config["name"])
            made.model.load_state_dict(load_file(root / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"{root} is not a teacher: {str(error).splitlines()[0]}",
                "Train one: `itemic run` with a section teacher, or itemic.teacher.train_teacher.",
            ) from error
        except pl.exceptions.PolarsError as error:
            raise ModelError(f"{root / ITEMS} can't be read: {error}", "Train the teacher again.") from error
        if made.catalogue != config["catalogue"]:
            raise ModelError(f"{root / ITEMS} has other items than {CONFIG} says", "Train the teacher again.")
        made.model.to(device).eval()
        return made


def _of(lists: Rows | None, part: slice) -> Rows | None:
    return None if lists is None else lists[part]


def mask(scores: Float32, allowed: Rows | None, excluded: Rows | None) -> None:
    """Put -inf where an item isn't allowed, in place; ``[R, n]``."""
    if allowed is not None:
        for row, items in zip(scores, allowed, strict=True):
            kept = row[items]
            row[:] = -np.inf
            row[items] = kept
    if excluded is not None:
        for row, items in zip(scores, excluded, strict=True):
            row[items] = -np.inf


def mask_history(scores: Float32, requests: Requests) -> None:
    """Put -inf at the items of each request's own history, in place; ``[R, n]``."""
    row = np.repeat(np.arange(len(requests)), np.diff(requests.offsets))
    scores[row, requests.items] = -np.inf


def best(scores: Float32, k: int) -> Ranked:
    """The ``k`` highest finite scores of each row, best first, of equals the lower item; -1 and -inf pad."""
    width = min(k, scores.shape[1])
    items = np.full((len(scores), k), -1, np.int32)
    found = np.full((len(scores), k), -np.inf, np.float32)
    # the least of the best decides which equals are among them: all above it, then the lowest rows of those at it
    least = np.partition(scores, -width, axis=1)[:, -width, None]
    above, at = scores > least, scores == least
    room = width - above.sum(axis=1, keepdims=True)
    chosen = above | (at & (np.cumsum(at, axis=1) <= room))
    item = np.nonzero(chosen)[1].reshape(len(scores), width)
    value = np.take_along_axis(scores, item, axis=1)
    order = np.argsort(-value, axis=1, kind="stable")
    item, value = np.take_along_axis(item, order, axis=1), np.take_along_axis(value, order, axis=1)
    items[:, :width] = np.where(np.isfinite(value), item, -1)
    found[:, :width] = value
    return items, found
