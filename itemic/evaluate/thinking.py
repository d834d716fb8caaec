"""A model as a ranker that thinks first: thoughts are drawn for each request, and items are searched behind them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.sequences import Requests
from itemic.decode import BeamSearch, FreeText, Sampler, ThoughtSearch
from itemic.errors import ArtifactError, ConfigError
from itemic.evaluate.ranking import part_path
from itemic.evaluate.recommend import PROMPT_TOKENS, ModelRanker
from itemic.evaluate.settings import ThinkingSettings
from itemic.model.positions import most_positions
from itemic.model.think import thought_tokens
from itemic.tasks.asking import Asked, Asker
from itemic.tf32 import tf32

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

TEXTS, TOKENS, CUT, BEHIND = "thoughts", "tokens", "cut", "behind"  # columns of a part's thoughts


@dataclass(frozen=True)
class Thought:
    """A thought of a request: its text without its marks, its tokens, and whether it was cut off by its length."""

    text: str
    tokens: int
    cut: bool


@dataclass(frozen=True)
class Considered:
    """What a model recommends, and what it thought before.

    Attributes:
        items: int32 ``[R, k]``, best first; -1 where they run out.
        scores: float32 ``[R, k]``; -inf where they run out.
        behind: int32 ``[R, k]``, which of the request's thoughts gave the item its score; under ``mass`` the one that
            gives it most. -1 where there is no item.
        thoughts: of each request in the order in which they were drawn; none where it can't be asked.
    """

    items: Int32
    scores: Float32
    behind: Int32
    thoughts: list[list[Thought]]

    def __repr__(self) -> str:
        return f"<Considered: {len(self.items):,} requests, {sum(map(len, self.thoughts)):,} thoughts>"

    def table(self, users: npt.NDArray[np.object_]) -> pl.DataFrame:
        """For a file: a row for each request, lists of its thoughts and of its items' own ones."""
        return pl.DataFrame(
            {
                c.USER_ID: pl.Series(users.tolist(), dtype=pl.String),
                TEXTS: [[each.text for each in own] for own in self.thoughts],
                TOKENS: [[each.tokens for each in own] for own in self.thoughts],
                CUT: [[each.cut for each in own] for own in self.thoughts],
                BEHIND: [row[row >= 0].tolist() for row in self.behind],
            },
            schema_overrides={
                TEXTS: pl.List(pl.String),
                TOKENS: pl.List(pl.Int32),
                CUT: pl.List(pl.Boolean),
                BEHIND: pl.List(pl.Int32),
            },
        )


class ThinkingRanker:
    """A model that thinks before it recommends, behind the face that other rankers have.

    The prompt asks for thoughts, as reinforcement learning with thoughts does. Some are drawn for each request, those
    that don't end in time are closed, and behind each the catalogue is searched exactly; see
    :class:`itemic.decode.ThoughtSearch` for what an item's score is then. What is drawn depends on the seed, the
    request's user and its prompt alone, so a ranking is the same in whatever parts and batches it is made.

    Args:
        ranker: whose model, task and search; its own way to end prompts doesn't matter.
        settings: how thoughts are drawn and merged; None for the usual.
        seed: of the drawing.
        name: for tables.

    Raises:
        ConfigError: the tokenizer has no token that closes a thought, the task asks in plain texts, which have no
            thoughts, or thoughts of that length leave no room for a prompt.
    """

    def __init__(
        self,
        ranker: ModelRanker,
        settings: ThinkingSettings | None = None,
        *,
        seed: int = 0,
        name: str = "model with thoughts",
    ) -> None:
        self.name, self.ranker, self.settings, self.seed = name, ranker, settings or ThinkingSettings(), seed
        told, model = self.settings, ranker.model
        if ranker.task.plain:
            raise ConfigError(
                f"task {ranker.task.name} asks in plain texts, which have no turns and so no thoughts",
                "Ask another task that the model was trained with, such as C, or don't ask for thoughts.",
            )
        self.marks = thought_tokens(model)
        reserve = self.marks.count + told.max_tokens
        self.asker = Asker(model, ranker.task, "think", ranker.asker.dataset, reserve)
        if self.asker.room is not None and self.asker.room < 1:
            raise ConfigError(
                f"thoughts of {told.max_tokens} tokens and an answer leave no room for a prompt in the "
                f"{most_positions(model.lm)} positions of this model",
                "Give a smaller max_tokens.",
            )
        sampler = Sampler(
            model.lm,
            max_new_tokens=told.max_tokens,
            temperature=told.temperature,
            top_p=None if told.top_p == 1 else told.top_p,
            grammar=FreeText(self.marks.end),
            max_batch_tokens=ranker.batch_size * (PROMPT_TOKENS + told.count * told.max_tokens),
        )
        self._search = ThoughtSearch(
            sampler,
            # without a template: what the thoughts of one request share is all of its prompt
            BeamSearch(
                model.lm,
                ranker.trie,
                beams=ranker.beams,
                normalize=ranker.normalize,
                max_batch_tokens=ranker.batch_size * max(PROMPT_TOKENS, ranker.beams),
            ),
            merge=told.merge,
            end=[self.marks.end],
            behind=self.marks.behind.tolist(),
        )
        self._asked: tuple[Requests, Asked] | None = None
        self._last: tuple[Requests, Considered] | None = None

    def __repr__(self) -> str:
        return f"<ThinkingRanker {self.name!r}: {self.settings.words}, {self.ranker!r}>"

    @property
    def config(self) -> dict[str, Any]:
        """What the ranking depends on, for resuming."""
        alike = {"alike": self.asker.alike} if self.asker.alike else {}
        thinking = ["think", self.ranker.model.think_pattern]
        drawn = {"thoughts": asdict(self.settings), "seed": self.seed}
        return self.ranker.config | {"thinking": thinking} | drawn | alike

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> tuple[Int32, Float32]:
        """The best items of each request, int32 and float32 ``[R, k]``; -1 and -inf where they run out.

        Raises:
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that the model doesn't know.
            ConfigError: k is more than there are beams.
        """
        found = self.consider(requests, k, exclude_history)
        return found.items, found.scores

    def consider(self, requests: Requests, k: int, exclude_history: bool = False) -> Considered:
        """As :meth:`rank`, with the thoughts."""
        asked, told, ranker = self._ask(requests), self.settings, self.ranker
        shape = len(requests), k
        items, behind = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        scores = np.full(shape, -np.inf, np.float32)
        thoughts: list[list[Thought]] = [[] for _ in range(len(requests))]
        if len(asked.rows):
            rows = asked.rows.tolist()
            with tf32(ranker.tf32, ranker.model.lm.device):
                # all beams are candidates, so that an item which is low under every thought can rise by its mean
                found = self._search.rank(
                    self.marks.opened(asked.prompts),
                    told.count,
                    k=max(k, ranker.beams),
                    seeds=[seed_of(self.seed, str(requests.users[row])) for row in rows],
                    exclude=[requests.history(row) for row in rows] if exclude_history else None,
                )
            for whole, part in ((items, found.items), (scores, found.scores), (behind, found.thought)):
                whole[asked.rows] = part[:, :k]
            texts = self._texts([found.samples.tokens[number] for number in range(len(rows) * told.count)])
            for number, row in enumerate(rows):
                thoughts[row] = texts[number * told.count : (number + 1) * told.count]
        self._last = requests, Considered(items, scores, behind, thoughts)
        return self._last[1]

    def shortened(self, requests: Requests) -> Bool:
        """bool ``[R]``: whose oldest items were left out, so that prompt, thought and answer fit the model."""
        return self._ask(requests).shortened

    def keeping(self, folder: str | Path) -> Callable[[int], None]:
        """What writes a part's thoughts into the folder of its ranking, see :class:`itemic.evaluate.stream.Kept`."""

        def write(part: int) -> None:
            if self._last is None:
                raise ConfigError("no request was ranked yet", "Rank the part before its thoughts are kept.")
            requests, found = self._last
            file = thoughts_path(Path(folder), part)
            # a stray one goes with those of the ranking
            scratch = file.with_name(f".{part_path(file.parent, part).name}.thoughts.{os.getpid()}")
            found.table(requests.users).write_parquet(scratch)
            scratch.replace(file)

        return write

    def _ask(self, requests: Requests) -> Asked:
        """The prompts of requests; those of the last call are kept."""
        if self._asked is None or self._asked[0] is not requests:
            self.ranker.model.index.check_requests(requests)
            self._asked = (requests, self.asker.ask(requests))
        return self._asked[1]

    def _texts(self, thoughts: list[Int32]) -> list[Thought]:
        end = self.marks.end
        cut = [not len(tokens) or int(tokens[-1]) != end for tokens in thoughts]
        inside = [
            tokens.tolist() if open_ else tokens[:-1].tolist()
            for tokens, open_ in zip(thoughts, cut, strict=True)
        ]
        texts = [self.ranker.model.tokenizer.decode(tokens) for tokens in inside]
        return [
            Thought(str(text).strip(), len(tokens), open_)
            for text, tokens, open_ in zip(texts, inside, cut, strict=True)
        ]


def seed_of(seed: int, user: str) -> int:
    """A request's own seed: equal prompts of two users get thoughts of their own, in whatever order they come."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{user}".encode(), digest_size=7).digest(), "little")


def thoughts_path(folder: Path, part: int) -> Path:
    """Where the thoughts of a part are kept."""
    return folder / f"thoughts-{part:05d}.parquet"


def read_thoughts(folder: str | Path) -> pl.DataFrame:
    """The thoughts behind a ranking, a row for each request in their order.

    Returns:
        columns ``user_id``, ``thoughts``, ``tokens`` and ``cut`` (lists over the request's thoughts), and ``behind``
        (for each ranked item the number of the thought that gave it its score).

    Raises:
        ArtifactError: there are none, or they can't be read.
    """
    files = sorted(Path(folder).glob("thoughts-*.parquet"))
    if not files:
        raise ArtifactError(
            f"{folder} holds no thoughts", "Rank with evaluate.thoughts; they are in evaluate/thoughts."
        )
    try:
        return pl.concat([pl.read_parquet(file) for file in files])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(
            f"can't read the thoughts in {folder}: {error}", "Remove the folder and run the evaluation again."
        ) from error


def thoughts_note(name: str, settings: ThinkingSettings, thoughts: pl.DataFrame) -> str:
    """How thoughts were drawn, how long they were, and how many were cut off, in a sentence."""
    tokens, cut = thoughts[TOKENS].explode().drop_nulls(), thoughts[CUT].explode().drop_nulls()
    if not len(tokens):
        return f"{name}: {settings.words}; no request could be asked"
    closed = int(cut.sum())
    words = (
        f"{closed:,} of {len(cut):,} thoughts ({closed / len(cut):.1%}) didn't end in time and were closed"
    )
    return f"{name}: {settings.words}; {float(tokens.mean()):.1f} tokens on average, {words}"  # type: ignore[arg-type]
