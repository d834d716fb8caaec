"""``train_teacher``: a sequential model of a dataset's training split, by the one loop, to a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from itemic.artifact import digest_of, locked, versions, write_json
from itemic.data.dataset import Dataset
from itemic.errors import ArtifactError, ConfigError
from itemic.evaluate.counting import Popularity
from itemic.progress import log
from itemic.sid.build import encode_items
from itemic.sid.duplicates import text_digests
from itemic.sid.item_encoder import chosen_encoder
from itemic.teacher.objective import ItemSoftmax
from itemic.teacher.rows import ItemRows, windows
from itemic.teacher.settings import NAME, TeacherSettings
from itemic.teacher.source import RowSteps
from itemic.teacher.teacher import Teacher
from itemic.teacher.validation import Validation
from itemic.trackers import check_trackers
from itemic.training.distribution import Distribution
from itemic.training.loop import Trainer
from itemic.training.memory import keep_buffers
from itemic.training.place import Place
from itemic.training.ranks import Ranks, joined
from itemic.training.record import RECORD, finished

TOGETHER = 0.35  # the share of what is had together in the vectors that item embeddings start from
STD = 0.02  # of item embeddings at the start

Vectors = npt.NDArray[np.floating]


def train_teacher(
    dataset: Dataset,
    *,
    settings: TeacherSettings | Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    vectors: Vectors | None = None,
    distribution: Distribution | Mapping[str, Any] | None = None,
) -> Teacher:
    """Train a teacher on ``dataset.train``, and choose its best epoch on the validation split.

    With ``output`` a run that was killed goes on from its last checkpoint and ends, on CPU with the same number of
    threads, with the very weights of a run that wasn't; a finished one is loaded. The folder becomes a teacher's
    (:meth:`Teacher.load`), with ``training.json`` and ``log.jsonl`` beside.

    Under ``torchrun`` every process calls this with the same arguments and an ``output`` that all of them see.

    Args:
        dataset: split; items that training never saw have their initial vectors.
        settings: what and how.
        output: the folder; None keeps nothing.
        seed: decides weights, order and dropout.
        vectors: what item embeddings start from under ``init: vectors``, ``[n, d]``; None for those of the items'
            texts and of what is had together.
        distribution: how several processes share the work.

    Raises:
        ConfigError: settings that can't be, nothing to learn, or vectors of other items.
        ArtifactError: the folder holds another run, is in use, or the disk is full.
        KeyboardInterrupt: after a checkpoint; the same call goes on from it.
    """
    told, shared = TeacherSettings.of(settings), Distribution.of(distribution)
    rows = windows(dataset.train, told.model.max_length)
    if not len(rows):
        raise ConfigError(
            "a teacher with nothing to learn: no user has two items in training",
            "Split the data otherwise, or filter less.",
        )
    if output is not None:
        for line in check_trackers(told.logs.trackers):
            log.info("%s", line)
    keep_buffers()
    with joined() as ranks:
        return _train(dataset, rows, told, output, seed, vectors, ranks, shared)


def _train(
    dataset: Dataset,
    rows: ItemRows,
    settings: TeacherSettings,
    output: str | Path | None,
    seed: int,
    vectors: Vectors | None,
    ranks: Ranks,
    distribution: Distribution,
) -> Teacher:
    folder = Path(output) if output is not None else None
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        torch.manual_seed(seed)  # the same for all
        teacher = _begun(dataset, settings, seed, vectors)
        identity = _identity(dataset, rows, settings, seed, vectors)
        if folder is not None:
            if ranks.share(ranks.main and finished(folder, identity, "teacher")):
                log.info("%s: already trained, in %s", NAME, folder)
                return Teacher.load(folder, ranks.device)
            if ranks.main:
                stack.enter_context(locked(folder / "checkpoints"))
                _record(folder, identity, settings, rows, ranks)
        teacher.model.to(ranks.device)
        measure = None
        if settings.validation.every is not None:
            measure = Validation(dataset, settings.validation, seed)
        trainer = Trainer(
            ItemSoftmax(
                teacher.model,
                label_smoothing=settings.objective.label_smoothing,
                chunk=settings.engine.minibatch_size,
            ),
            RowSteps(rows, settings, seed),
            settings,
            seed=seed,
            folder=folder,
            identity=digest_of(identity),
            validate=None if measure is None else lambda: measure(teacher) if ranks.main else {},
            ranks=ranks,
            distribution=distribution,
        )
        torch.manual_seed(seed + ranks.rank)  # dropout differs from rank to rank
        place = trainer.run()
    teacher.model.eval()
    if folder is not None and ranks.main:
        _finish(teacher, folder, identity, settings, rows, ranks, place)
    ranks.wait()
    return teacher


def _begun(dataset: Dataset, settings: TeacherSettings, seed: int, vectors: Vectors | None) -> Teacher:
    """A teacher that has learnt nothing but shares."""
    teacher = Teacher.new(dataset.item_ids, settings.model.shape)
    share = torch.from_numpy(Popularity(dataset).share).float()
    teacher.model.share.copy_(share)
    if settings.model.init == "vectors":
        start = first_vectors(dataset, seed) if vectors is None else vectors
        if start.shape[0] != len(dataset.item_ids):
            raise ConfigError(
                f"vectors of {start.shape[0]} items for {len(dataset.item_ids)}", "Give one for each item."
            )
        with torch.no_grad():
            reduced = torch.from_numpy(reduce_vectors(start, settings.model.width))
            teacher.model.items.weight[:, : reduced.shape[1]] = reduced
    return teacher


def first_vectors(dataset: Dataset, seed: int) -> Vectors:
    """What items are by their texts and by what they are had together with in training, ``[n, d]``."""
    encoder = chosen_encoder("auto", dataset.items)
    options = {"collaborative_weight": TOGETHER} if encoder != "collaborative" else {}
    return encode_items(dataset, encoder, seed=seed, options=options)[0]


def reduce_vectors(vectors: Vectors, width: int) -> npt.NDArray[np.float32]:
    """Centred vectors along their ``width`` main directions at most, scaled to what random embeddings have."""
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    main = directions[:, np.argsort(-values, kind="stable")[:width]]
    # an eigenvector's sign is anybody's guess: its largest entry decides
    main = main * np.sign(main[np.abs(main).argmax(axis=0), np.arange(main.shape[1])])
    found = np.asarray(centred @ main)
    spread = float(found.std())
    scaled: npt.NDArray[np.float32] = (found * (STD / spread if spread > 0 else 0.0)).astype(np.float32)
    return scaled


def _identity(
    dataset: Dataset, rows: ItemRows, settings: TeacherSettings, seed: int, vectors: Vectors | None
) -> dict[str, Any]:
    """All that decides the weights at the end; not what is computed of it, which may differ in its last digits."""
    data = digest_of([rows.items.tolist(), rows.offsets.tolist()])
    begins: Any = None
    if settings.model.init == "vectors":
        begins = (text_digests(dataset.items) if vectors is None else np.asarray(vectors)).tolist()
    found = settings.decisive() | {"seed": seed, "catalogue": dataset.catalogue, "rows": data}
    return json.loads(json.dumps(found | {"vectors": digest_of(begins)}))  # type: ignore[no-any-return]


def _record(
    folder: Path,
    identity: dict[str, Any],
    settings: TeacherSettings,
    rows: ItemRows,
    ranks: Ranks,
    place: Place | None = None,
) -> None:
    record = {
        "finished": place is not None,
        "identity": identity,
        "settings": settings.to_json(),
        "rows": {"histories": len(rows), "targets": len(rows.items) - len(rows)},
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "versions": versions("torch"),
        "place": None if place is None else asdict(place),
    }
    write_json(folder / RECORD, record)


def _finish(
    teacher: Teacher,
    folder: Path,
    identity: dict[str, Any],
    settings: TeacherSettings,
    rows: ItemRows,
    ranks: Ranks,
    place: Place,
) -> None:
    """Write what was made, and tell of it."""
    try:
        teacher.save(folder)
    except OSError as error:
        raise ArtifactError(
            f"can't write the teacher to {folder}: {error}",
            "Free some space and start the same command again: it goes on from the last checkpoint.",
        ) from error
    _record(folder, identity, settings, rows, ranks, place)
    metric = settings.validation.metric
    best = "" if place.best is None else f", best {metric} {place.best:.4f} at step {place.best_step}"
    log.info("%s: %d steps%s", NAME, place.step, best)
    if settings.checkpoints.keep is None:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
