"""HR@10 and NDCG@10 on a sample of the validation split: the prompts of a task, exact beams over the full
catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from itemic.data.dataset import Dataset
from itemic.data.names import names_of
from itemic.data.sequences import Requests
from itemic.decode import BeamSearch
from itemic.forest.rows import Int64
from itemic.metrics import hit_rate, ndcg, ranks_of
from itemic.model import Model
from itemic.model.positions import most_positions
from itemic.sid.trie import Trie
from itemic.tasks import task_of
from itemic.tasks.asking import Asker
from itemic.training.language.stage import LanguageStage
from itemic.training.ranks import ALONE, Ranks

K = 10
ANSWER_TOKENS = 64
SHOWN = 5  # recommended items of a sample


class Validation:
    """Asks the same requests each time.

    Args:
        model: its tokenizer and index; the weights are those of the call.
        dataset: its validation split is asked.
        stage: its ``validation``.
        seed: chooses the sample.
        ranks: those who ask together: each calls this, and asks its share if its model has weights or shards of them.

    Raises:
        ConfigError: there is no such task, or it has no such option.
        DataError: the validation split is empty.
        IndexMismatchError: the model's index belongs to another dataset.
    """

    def __init__(
        self, model: Model, dataset: Dataset, stage: LanguageStage, seed: int, ranks: Ranks = ALONE
    ) -> None:
        model.index.check_dataset(dataset)
        self.stage = stage
        self.requests = sample_requests(dataset.split("valid"), stage.validation.requests, seed)
        task = task_of(stage.validation.task or "C")
        asked = Asker(model, task, dataset=dataset).ask(self.requests)
        self.prompts, self.targets = asked.prompts, self.requests.targets[asked.rows]
        self.trie = Trie.build(model.item_rows)
        self.names = names_of(dataset.items)
        self.ranks = ranks

    def __call__(
        self, model: Model, together: Callable[[Callable[[], Int64]], Int64] = lambda ask: ask()
    ) -> dict[str, float]:
        """``hr@10``, ``ndcg@10`` and ``requests``, how many were asked by all ranks; the same on each.

        Args:
            model: its weights.
            together: asks for each rank, where the ranks have to do it at the same time.
        """
        own = self._share(model)
        found = together(lambda: self._ask(model, own))
        told = self.ranks.gather((own, found))
        ranks = np.zeros(len(self.targets), np.int64)
        for part, places in told:
            ranks[part] = places
        return {
            f"hr@{K}": float(hit_rate(ranks, K).mean()),
            f"ndcg@{K}": float(ndcg(ranks, K).mean()),
            "requests": float(len(ranks)),
        }

    def _share(self, model: Model) -> Int64:
        """The requests of this rank: none where its model has no weights."""
        able = [rank for rank, has in enumerate(self.ranks.gather(model.lm.device.type != "meta")) if has]
        first = able.index(self.ranks.rank) if self.ranks.rank in able else len(self.targets)
        return np.arange(first, len(self.targets), len(able))

    def _ask(self, model: Model, requests: Int64) -> Int64:
        """The places of the targets among the recommended items, as :func:`itemic.metrics.ranks_of` counts them."""
        if not len(requests):
            return np.zeros(0, np.int64)
        search = BeamSearch(model.lm, self.trie, beams=self.stage.validation.beams)
        items, _ = search.rank(self.prompts.take(requests), k=K)
        return ranks_of(items, self.targets[requests]).astype(np.int64)

    @torch.no_grad()
    def answers(self, model: Model) -> list[dict[str, str]]:
        """The first prompts with the model's greedy, unconstrained answer, the target, and what exact beams would
        recommend, to be read."""
        count = min(self.stage.validation.samples, len(self.targets))
        positions = most_positions(model.lm)
        search = BeamSearch(model.lm, self.trie, beams=self.stage.validation.beams)
        best, _ = search.rank(self.prompts.take(range(count)), k=SHOWN)
        found = []
        for request in range(count):
            prompt = torch.from_numpy(self.prompts[request].astype(np.int64))[None].to(model.lm.device)
            generate: Any = model.lm.generate
            room = ANSWER_TOKENS if positions is None else positions - prompt.shape[1]
            out = generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                synced_gpus=False,  # where ranks have to meet, whoever calls this sees to it
                max_new_tokens=max(1, min(ANSWER_TOKENS, room)),
            )
            target = int(self.targets[request])
            found.append(
                {
                    "prompt": str(model.tokenizer.decode(prompt[0].tolist())),
                    "answer": str(model.tokenizer.decode(out[0, prompt.shape[1] :].tolist())),
                    "target": model.index.text(target),
                    "title": self.names[target],
                    "recommended": " · ".join(self.names[row] for row in best[request].tolist() if row >= 0),
                }
            )
        return found


def sample_requests(requests: Requests, count: int, seed: int) -> Requests:
    """At most ``count`` of the requests whose target is known, in their order."""
    known = np.flatnonzero(requests.targets >= 0)
    if len(known) > count:
        known = np.sort(np.random.default_rng([seed, count]).choice(known, count, replace=False))
    histories = [requests.history(int(request)) for request in known]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.concatenate([*histories, np.zeros(0, np.int32)]).astype(np.int32)
    return Requests(requests.users[known], offsets, items, requests.targets[known], requests.catalogue)
