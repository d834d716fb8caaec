"""A model as a ranker: prompts by its task, exact constrained beams, a ranking on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.decode import BeamSearch, Include
from itemic.errors import ConfigError
from itemic.evaluate.ranking import Ranking
from itemic.evaluate.stream import Watch, check_requests, rank_all
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.model.think import check_thinking
from itemic.sid.trie import Trie
from itemic.tasks import Task
from itemic.tasks.asking import Asked, Asker, task_to_ask
from itemic.tf32 import tf32

PROMPT_TOKENS = 128  # of an ordinary prompt, after what it shares with all others


def recommend(
    model: Model,
    requests: Requests,
    *,
    task: str | Mapping[str, Any] | Task | None = None,
    beams: int = 50,
    k: int | None = None,
    normalize: str = "vocab",
    exclude_history: bool = False,
    thinking: str | None = None,
    batch_size: int = 32,
    tf32: bool = False,
    dataset: Dataset | None = None,
    name: str = "model",
    output: str | Path | None = None,
    watch: Watch | None = None,
) -> Ranking:
    """Rank the catalogue for each request with constrained beam search.

    The prompt is the task's own, the one that training used. Of a history that is longer than the model can
    read the oldest items are left out; that is counted and told, and so are requests that nothing is left
    for. Parts that ``output`` holds already are kept, provided that they come from the same weights, index,
    requests and settings.

    Args:
        model: also says the index.
        requests: item rows of the model's index.
        task: whose prompt is asked: a name of :data:`itemic.tasks.TASKS`, one with options
            (``{"task": "C", …}``) or a task; None for the one that the model was trained with.
        beams: width of the search.
        k: how many items to keep; None for as many as there are beams, or items.
        normalize: what scores are normalised over: ``vocab`` (as ``generate`` does), ``level`` or ``legal``.
        exclude_history: leave out the items of the request's own history.
        thinking: how prompts end, see :meth:`ChatRenderer.prompt`: ``no_think`` or ``empty``; None for the
            model's own way.
        batch_size: prompts that are searched at once, where they have 128 tokens of their own or fewer; of
            longer ones as many as make the same number of tokens. Bounds the memory.
        tf32: whether a GPU that can multiplies float32 weights in TensorFloat-32.
        dataset: needed for prompts that show item texts.
        name: for tables.
        output: the folder; None for one that lives as long as the ranking.
        watch: who is told on the way, see :class:`itemic.evaluate.stream.Watch`.

    Raises:
        ConfigError: an unknown task, or numbers that make no sense.
        IndexMismatchError: the requests, or the dataset, are of another catalogue than the model.
        DataError: the requests name items that the model doesn't know.
        ArtifactError: ``output`` holds another ranking.
    """
    check_requests(requests)
    ranker = ModelRanker(
        model,
        task=task,
        beams=beams,
        normalize=normalize,
        thinking=thinking,
        batch_size=batch_size,
        tf32=tf32,
        dataset=dataset,
        name=name,
    )
    return rank_all(
        ranker,
        requests,
        model.index.item_ids,
        k=min(beams, len(model.index)) if k is None else k,
        exclude_history=exclude_history,
        sids=model.index.texts,
        output=output,
        config=ranker.config,
        watch=watch,
    )


class ModelRanker:
    """A model behind the face that baselines have, see :class:`itemic.evaluate.stream.Ranker`.

    The keys of the prompts' common beginning are kept, so make a new one when the weights have changed.

    Args:
        model: in any mode; it is put into evaluation mode while it ranks.
        task: whose prompt is asked.
        beams: width of the search.
        normalize: as in :func:`recommend`.
        thinking: as in :func:`recommend`.
        batch_size: as in :func:`recommend`.
        tf32: as in :func:`recommend`.
        dataset: for prompts that show item texts.
        name: for tables.

    Raises:
        ConfigError: an unknown task, or a width or batch size below 1.
    """

    def __init__(
        self,
        model: Model,
        *,
        task: str | Mapping[str, Any] | Task | None = None,
        beams: int = 50,
        normalize: str = "vocab",
        thinking: str | None = None,
        batch_size: int = 32,
        tf32: bool = False,
        dataset: Dataset | None = None,
        name: str = "model",
    ) -> None:
        if thinking == "think":
            raise ConfigError(
                "a ranking can't be asked with thinking `think`: thoughts would come before the items",
                "Ask with thinking `empty` or `no_think`, or rank behind thoughts: evaluate.thoughts, ThinkingRanker.",
            )
        check_thinking(thinking)
        self.name = name
        self.model = model
        self.thinking = thinking
        self.task = task_to_ask(model, task)
        self.beams, self.normalize, self.batch_size = beams, normalize, batch_size
        self.asker = Asker(model, self.task, thinking, dataset)
        self._asked: tuple[Requests, Asked] | None = None
        self.tf32 = tf32
        self.trie = Trie.build(model.item_rows)
        self._search: BeamSearch | None = None
        self._template: list[int] | None = None

    def __repr__(self) -> str:
        return f"<ModelRanker {self.name!r}: task {self.task.name}, {self.beams} beams, {self.model!r}>"

    @property
    def config(self) -> dict[str, object]:
        """What the ranking depends on, for resuming: task, search, index, weights, and who sees the same histories."""
        alike = {"alike": self.asker.alike} if self.asker.alike else {}
        return {
            "task": repr(self.task),
            "beams": self.beams,
            "normalize": self.normalize,
            "tf32": self.tf32,
            "index": self.model.index.digest,
            "weights": fingerprint(self.model),
            "thinking": [self.thinking, self.model.think_pattern],
            **alike,
        }

    @property
    def way(self) -> str:
        """How its prompts end, whoever said so: ``no_think`` or ``empty``."""
        return way_of([self.thinking, self.model.think_pattern])

    def asking(self, thinking: str, name: str) -> ModelRanker:
        """The same model, asked in another way."""
        return ModelRanker(
            self.model,
            task=self.task,
            beams=self.beams,
            normalize=self.normalize,
            thinking=thinking,
            batch_size=self.batch_size,
            tf32=self.tf32,
            dataset=self.asker.dataset,
            name=name,
        )

    def rank(
        self, requests: Requests, k: int, exclude_history: bool = False
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The best items of each request, int32 and float32 ``[R, k]``; -1 and -inf where they run out.

        Raises:
            IndexMismatchError: the requests are of another catalogue.
            DataError: they name items that the model doesn't know.
        """
        histories = [requests.history(row) for row in range(len(requests))] if exclude_history else None
        return self.rank_without(requests, k, histories)

    def rank_among(
        self, requests: Requests, k: int, rows: Sequence[npt.NDArray[np.int32]]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The same of the items alone that each request may get; no other takes a beam's place.

        Args:
            requests: ``R`` of them.
            k: how many items to give.
            rows: of each request, the rows that it may get.

        Raises:
            as :meth:`rank`.
        """
        every = np.arange(len(self.trie.items), dtype=np.int32)
        return self.rank_without(requests, k, [np.setdiff1d(every, own) for own in rows])

    def rank_without(
        self, requests: Requests, k: int, out: Sequence[npt.NDArray[np.int32]] | None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The same without the rows ``out`` of each request, whatever its history has; None leaves nothing out."""
        asked = self.ask(requests)
        items = np.full((len(requests), k), -1, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        if len(asked.rows):
            exclude = None if out is None else [out[int(row)] for row in asked.rows]
            with tf32(self.tf32, self.model.lm.device):
                found = self._search_for(asked.prompts).rank(asked.prompts, k=k, exclude=exclude)
            items[asked.rows], scores[asked.rows] = found
        return items, scores

    def rank_including(
        self, requests: Requests, include: Include, k: int, exclude_history: bool = False
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """As :meth:`rank`, and the scores of further items, see :meth:`itemic.decode.BeamSearch.rank_including`.

        Args:
            requests: what is asked.
            include: further items of each request, whose floors are told the numbers of requests.
            k: how many items to give.
            exclude_history: leave out the items of the request's own history.

        Returns:
            items and scores as :meth:`rank` gives them, and for each request the scores of its further items, float32
            ``[m]``; -inf where an item is excluded or given up, or the request can't be asked.
        """
        asked = self.ask(requests)
        items = np.full((len(requests), k), -1, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        included = [np.full(len(rows), -np.inf, np.float32) for rows in include.items]
        if len(asked.rows):
            rows = [int(row) for row in asked.rows]
            exclude = [requests.history(row) for row in rows] if exclude_history else None
            floors, together = include.floors, include.together
            wanted = Include(
                [include.items[row] for row in rows],
                None if floors is None else lambda prompt, *beams: floors(rows[prompt], *beams),
                None if together is None else lambda prompts, *beams: together(asked.rows[prompts], *beams),
            )
            with tf32(self.tf32, self.model.lm.device):
                search = self._search_for(asked.prompts)
                *best, found = search.rank_including(asked.prompts, wanted, k=k, exclude=exclude)
            items[asked.rows], scores[asked.rows] = best
            for row, own in zip(rows, found, strict=True):
                included[row] = own
        return items, scores, included

    @cached_property
    def sharers(self) -> npt.NDArray[np.float64]:
        """float64 ``[n]``: how many items have each item's very tokens, itself included."""
        counts = np.diff(self.trie.item_first)
        sharers = np.empty(len(self.trie.items))
        sharers[self.trie.items] = np.repeat(counts, counts)
        return sharers

    def shortened(self, requests: Requests) -> npt.NDArray[np.bool_]:
        """bool ``[R]``: whose oldest items were left out, so that prompt and answer fit the model."""
        return self.ask(requests).shortened

    def ask(self, requests: Requests) -> Asked:
        """The prompts of requests; those of the last call are kept."""
        if self._asked is None or self._asked[0] is not requests:
            self.model.index.check_requests(requests)
            self._asked = (requests, self.asker.ask(requests))
        return self._asked[1]

    def _search_for(self, prompts: TokenRows) -> BeamSearch:
        """A search whose cached template all these prompts begin with; made anew when that gets shorter."""
        shared = common_prefix(prompts, self._template)
        if self._search is None or shared != self._template:
            self._template = shared
            self._search = BeamSearch(
                self.model.lm,
                self.trie,
                beams=self.beams,
                normalize=self.normalize,
                template=shared or None,
                max_batch_tokens=self.batch_size * max(PROMPT_TOKENS, self.beams),
            )
        return self._search


def way_of(thinking: Sequence[Any]) -> str:
    """``no_think`` or ``empty``, by what the config of a ranking records under ``thinking``: what was asked for, and
    whether the model speaks in the think pattern."""
    asked, pattern = thinking
    return str(asked or ("empty" if pattern else "no_think"))


def common_prefix(prompts: TokenRows, first: list[int] | None = None) -> list[int]:
    """The tokens that all prompts, and ``first``, begin with; at least one token of each is left over."""
    width = max(int(prompts.lengths.min()) - 1, 0)
    head = prompts.tokens[prompts.offsets[0] : prompts.offsets[0] + width]
    if first is not None:
        width = min(width, len(first))
        same = head[:width] == np.asarray(first[:width], np.int32)
        width = width if same.all() else int(same.argmin())
        head = head[:width]
    if not width:
        return []
    block = prompts.tokens[prompts.offsets[:-1, None] + np.arange(width)]
    same = (block == head).all(axis=0)
    return [int(token) for token in head[: width if same.all() else int(same.argmin())]]


@torch.no_grad()
def fingerprint(model: Model) -> str:
    """16 hex digits of the weights.

    Each tensor counts with the sum of its bits as integers, which no order of adding changes: fast on any
    device.
    """
    total = hashlib.sha256()
    for key, tensor in sorted(model.lm.state_dict().items()):
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        summed = int(tensor.contiguous().view(bits).sum(dtype=torch.int64)) if tensor.numel() else 0
        total.update(f"{key} {tuple(tensor.shape)} {tensor.dtype} {summed}\n".encode())
    return total.hexdigest()[:16]
