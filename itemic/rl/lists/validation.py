"""What greedy lists are worth on a sample of the validation split: the same requests each time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from itemic.data.dataset import Dataset
from itemic.errors import DataError
from itemic.model.model import Model
from itemic.rl.lists.asks import ListBook
from itemic.rl.lists.rollout import ListRoller, Written, measured
from itemic.rl.lists.worth import ListRewards
from itemic.rl.objective import GroupObjective
from itemic.rl.rolled import Policy
from itemic.rl.scoring import Legal
from itemic.rl.settings import RLStage
from itemic.sid.trie import Trie
from itemic.training.ranks import ALONE, Ranks

SHOWN = 5
Together = Callable[[Callable[[], dict[str, float]]], dict[str, float]]


class ListValidation:
    """Writes the most probable list for each of the same requests, in the rollouts' mode.

    What is wanted is drawn by the stage's tasks after the histories of the validation split; the item that comes next
    is only looked at for what lists are worth.

    Args:
        model: its tokenizer and index; the weights are those of the call.
        dataset: its validation split is asked.
        book: the tasks, and the teacher.
        rewards: what lists are worth.
        stage: its ``validation.requests`` and its rollouts' form.
        seed: chooses the sample.
        ranks: rank 0 asks.

    Raises:
        DataError: no request can be made of the validation split.
    """

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        book: ListBook,
        rewards: ListRewards,
        stage: RLStage,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.book, self.rewards, self.stage, self.ranks = book, rewards, stage, ranks
        self.legal = Legal(Trie.build(model.item_rows), stage.rollout.normalize)
        self._roller(model)  # which tells the book how much room lists need
        self.asked = book.held(dataset.split("valid"), stage.validation.requests, seed)
        if not len(self.asked):
            raise DataError(
                "no request for a list can be made of the validation split",
                "Split the data otherwise, or set validation.every to null.",
            )

    def __call__(self, model: Model, together: Together = lambda ask: ask()) -> dict[str, float]:
        """``reward``, each reward by itself, ``legal``, ``count``, ``worth/KIND`` and ``requests``; the same on each
        rank."""
        return self.ranks.share(together(lambda: self._numbers(model) if self.ranks.main else {}))

    def _numbers(self, model: Model) -> dict[str, float]:
        answers = self.written(model).answers
        entries, lists, apart = self.rewards(answers)
        found = {"reward": float((entries.sum(1) + lists).mean())}
        found |= {f"reward/{name}": float(values.mean()) for name, values in apart.items()}
        found |= {name: total / max(weight, 1.0) for name, (total, weight) in measured(answers).items()}
        return found | {"requests": float(len(self.asked))}

    def answers(self, model: Model) -> list[dict[str, str]]:
        """The first prompts with the list that was written, to be read."""
        count = min(self.stage.validation.samples, len(self.asked))
        written = self.written(model)
        ids = model.index.item_ids
        return [
            {
                "prompt": str(model.tokenizer.decode(self.asked.prompts[row].tolist())),
                "answer": str(model.tokenizer.decode(written.tokens[row].tolist())),
                "target": ids[target] if (target := int(self.asked.requests.targets[row])) >= 0 else "",
                "recommended": " · ".join(
                    ids[item] if item >= 0 else "?" for item in written.read.items[row].tolist()
                ),
            }
            for row in range(count)
        ]

    def _roller(self, model: Model) -> ListRoller:
        policy = Policy(model, GroupObjective(model.lm, self.legal))
        return ListRoller(policy, self.stage.rollout, self.stage.objective, self.rewards, self.book)

    def written(self, model: Model) -> Written:
        """The list for each request."""
        return self._roller(model).write(self.asked, np.zeros(len(self.asked), int).tolist(), greedy=True)
