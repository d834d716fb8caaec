"""What models answer to the sessions of a test, through files that grow: profiles, and what texts bring up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from itemic.artifact import digest_of
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.find import ItemVectors
from itemic.profile.judging import Told, worded
from itemic.profile.lines import grown
from itemic.profile.sessions import Sessions
from itemic.profile.turn_settings import Drawing
from itemic.profile.words import Prompts
from itemic.profile.writer import Writer
from itemic.progress import log, progress_bar
from itemic.rl.steps import hash_of
from itemic.teacher.rows import ItemRows
from itemic.training.language.run import weights_digest

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

CHUNK = 64  # sessions that are answered between two looks at the disk
VECTORS = "vectors"
OTHERS = "answers of another model, to other sessions or under other settings"


@dataclass(frozen=True, eq=False)
class Asked:
    """The sessions of a test.

    Attributes:
        sessions: ``S`` of them.
        numbers: int64 ``[S]``, which of their split they are.
        seed: of the profiles that are drawn.
        root: the folder of the files.
    """

    sessions: Sessions
    numbers: Int64
    seed: int
    root: Path

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every answer depends on, as plain JSON."""
        own = self.sessions
        what = [own.users.tolist(), own.items.tolist(), own.offsets.tolist(), own.targets.tolist()]
        return {"sessions": digest_of([self.numbers.tolist(), *what]), "seed": self.seed}

    @cached_property
    def seen(self) -> ItemRows:
        """Of each session its items."""
        return ItemRows(self.sessions.items, self.sessions.offsets)


@dataclass(frozen=True, eq=False)
class Lists:
    """What ``S`` texts bring up.

    Attributes:
        items: int32 ``[S, K]``, best first; -1 where there is nothing more, and all along for a failure.
        ranks: int64 ``[S]``, the target's; 0 where it wasn't found, and for a failure. Of what an embedder finds it is
            the rank in the whole catalogue, of other lists the place in them.
        failed: bool ``[S]``: texts that didn't end or have no words.
    """

    items: Int32
    ranks: Int64
    failed: Bool


def write_told(writer: Writer, name: str, prompts: Prompts, asked: Asked, drawing: Drawing) -> Told:
    """``drawing.samples`` profiles of each session, in ``profiles-NAME.jsonl``; what that has isn't written again.

    Raises:
        ArtifactError: the file is another writer's, or of other sessions.
        DataError: a prompt leaves too few of the model's positions.
    """
    rows, count, users = prompts.tokens, drawing.samples, asked.sessions.users.tolist()
    head = asked.identity | {
        "writer": weights_digest(writer.lm),
        "prompts": digest_of([rows.tokens.tolist(), rows.offsets.tolist()]),
        "drawing": [count, drawing.max_new_tokens, drawing.temperature, drawing.top_k, drawing.top_p],
    }
    with progress_bar(f"{name} writer", len(rows)) as bar:

        def make(start: int, stop: int) -> list[dict[str, Any]]:
            numbers = asked.numbers[start:stop].tolist()
            seeds = [hash_of(asked.seed, number) for number in numbers]
            made = writer.write(rows.take(np.arange(start, stop)), drawing, seeds)
            ended, tokens = made.ended.reshape(-1, count), made.tokens.lengths.reshape(-1, count)
            bar.advance(stop - start)
            return [
                {
                    "session": number,
                    "user": users[start + at],
                    "texts": list(made.texts[at * count : (at + 1) * count]),
                    "ended": ended[at].tolist(),
                    "tokens": tokens[at].tolist(),
                }
                for at, number in enumerate(numbers)
            ]

        file = asked.root / f"profiles-{name}.jsonl"
        lines = grown(file, head, len(rows), make, chunk=CHUNK, what=OTHERS)
    return Told(
        [[line["texts"][number] for line in lines] for number in range(count)],
        np.array([line["ended"] for line in lines], np.bool_).T,
        np.array([line["tokens"] for line in lines], np.int64).T,
        prompts.texts,
    )


@dataclass(eq=False)
class Seeker:
    """An embedder that searches with texts of the sessions of a test.

    Attributes:
        embedder: reads items and texts.
        name: of the embedder, in files.
        asked: the sessions.
        item_texts: of the whole catalogue.
        width: how many items a list has.
        batch_size: texts per forward pass.
    """

    embedder: Embedder
    name: str
    asked: Asked
    item_texts: Sequence[str]
    width: int
    batch_size: int = 32

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What every list depends on, beside the texts."""
        items = digest_of(list(self.item_texts))
        about = {"embedder": self.embedder.identity, "items": items, "width": self.width}
        return self.asked.identity | about

    @cached_property
    def catalogue(self) -> ItemVectors:
        """The items' vectors, which are kept while the test isn't done."""
        place = self.asked.root / VECTORS / self.name
        return item_vectors(self.embedder, self.item_texts, place, batch_size=self.batch_size)

    def find(self, what: str, texts: Sequence[str], usable: Bool) -> Lists:
        """What texts bring up, in ``lists-NAME-WHAT.jsonl``; what that has isn't looked for again.

        Args:
            what: of the file's name.
            texts: one of each session.
            usable: bool ``[S]``; the others are failures, as are texts without words.

        Raises:
            ArtifactError: the file is of another embedder, or of other texts or sessions.
        """
        fine = usable & worded(texts)
        if cut := self.embedder.tokens(texts, "profile").cut:
            log.warning("%s, %s: %d of %d texts are cut", self.name, what, cut, len(texts))
        head = self.identity | {"texts": digest_of([list(texts), fine.tolist()])}
        with progress_bar(f"{self.name} embedder, {what}", len(texts)) as bar:

            def make(start: int, stop: int) -> list[dict[str, Any]]:
                items, ranks = self._look(start + np.flatnonzero(fine[start:stop]), texts, start, stop)
                bar.advance(stop - start)
                numbers = self.asked.numbers[start:stop].tolist()
                rows = zip(numbers, ranks.tolist(), items.tolist(), strict=True)
                return [{"session": number, "rank": rank, "items": own} for number, rank, own in rows]

            file = self.asked.root / f"lists-{self.name}-{what}.jsonl"
            lines = grown(file, head, len(texts), make, chunk=CHUNK, what=OTHERS)
        items = np.array([line["items"] for line in lines], np.int32).reshape(len(lines), self.width)
        return Lists(items, np.array([line["rank"] for line in lines], np.int64), ~fine)

    def _look(self, rows: Int64, texts: Sequence[str], start: int, stop: int) -> tuple[Int32, Int64]:
        items = np.full((stop - start, self.width), -1, np.int32)
        ranks = np.zeros(stop - start, np.int64)
        if len(rows):
            asked = [texts[row] for row in rows]  # what is cut is told in the notes
            own = self.embedder.encode(asked, "profile", batch_size=self.batch_size, tell=False)
            found = self.catalogue.find(
                own,
                k=self.width,
                targets=self.asked.sessions.targets[rows],
                seen=self.asked.seen.take(rows),
                device=self.embedder.device,
            )
            items[rows - start], ranks[rows - start] = found.items, found.ranks
        return items, ranks
