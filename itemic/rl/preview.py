"""Groups to be read: a prompt, its answers, what each is worth and what is learned from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from itemic.data.names import names_of
from itemic.text import shown as visible

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.model.model import Model
    from itemic.rl.rollout import Rolled

EXAMPLES = 2  # groups of a rollout that are written out


def lines_of(rolled: Rolled, model: Model, step: int, count: int = EXAMPLES) -> Iterator[dict[str, Any]]:
    """The first prompts of a rollout as plain JSON.

    Args:
        rolled: the rollout.
        model: names items, and turns tokens into text.
        step: of the training.
        count: how many prompts.
    """
    asked, names = rolled.asked, model.index
    for number in range(min(count, len(asked.prompts))):
        target = int(asked.requests.targets[number])
        line: dict[str, Any] = {
            "step": step,
            "user": str(asked.requests.users[number]),
            "prompt": model.tokenizer.decode(asked.prompts[number].tolist()),
            "target": names.item_ids[target] if target >= 0 else None,
        }
        if rolled.thought is None:
            yield line | {"answers": _answers(rolled, model, number)}
            continue
        thought, each = rolled.thought, rolled.thought.worth.shape[1]
        place = np.cumsum(thought.ended) - 1  # of an ended thought among those that were searched behind
        line["thoughts"] = [
            {
                "text": model.tokenizer.decode(thought.tokens[at].tolist()),
                "ended": bool(thought.ended[at]),
                "worth": float(thought.worth[number, at - number * each]),
                "answers": _answers(rolled, model, int(place[at])) if thought.ended[at] else [],
            }
            for at in range(number * each, (number + 1) * each)
        ]
        yield line


def _answers(rolled: Rolled, model: Model, row: int) -> list[dict[str, Any]]:
    answers = rolled.answers
    found = []
    for place in np.flatnonzero(answers.answered.there[row]).tolist():
        item = int(answers.paths.items[row, place])
        found.append(
            {
                "item": model.index.item_ids[item],
                "name": model.index.text(item),
                "log_prob": round(float(answers.paths.scores[row, place]), 4),
                "rewards": {
                    name: round(float(values[row, place]), 4) for name, values in answers.apart.items()
                },
                "reward": round(float(answers.total[row, place]), 4),
                "advantage": round(float(answers.advantages[row, place]), 4),
            }
        )
    return found


def shown(line: Mapping[str, Any], dataset: Dataset) -> Group:
    """One group as a table for a screen: titles as people know them."""
    titles = dict(zip(dataset.item_ids, names_of(dataset.items), strict=True))
    target = line["target"]
    head = Text.assemble(
        ("user ", "bold"),
        visible(str(line["user"])),
        ("   wanted ", "bold"),
        visible(titles.get(target, "nothing known")),
    )
    prompt = Text(visible(line["prompt"]), style="dim")
    if "answers" in line:
        return Group(head, prompt, _table(line["answers"], titles, target), Text())
    parts: list[Any] = []
    for number, thought in enumerate(line["thoughts"], 1):
        end = "" if thought["ended"] else " (cut off)"
        parts.append(Text(f"thought {number}, worth {thought['worth']:.3f}{end}", style="bold"))
        parts.append(Text(visible(thought["text"].strip())))
        if thought["answers"]:
            parts.append(_table(thought["answers"], titles, target))
    return Group(head, prompt, *parts, Text())


def _table(answers: list[dict[str, Any]], titles: Mapping[str, str], target: str | None) -> Table:
    names = list(answers[0]["rewards"]) if answers else []
    table = Table("", "item", "log p", *names, "reward", "advantage", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for number, answer in enumerate(answers, 1):
        hit = answer["item"] == target
        table.add_row(
            str(number),
            Text(visible(titles.get(answer["item"], answer["item"]))[:60], style="bold green" if hit else ""),
            f"{answer['log_prob']:.3f}",
            *(f"{answer['rewards'][name]:.3f}" for name in names),
            f"{answer['reward']:.3f}",
            f"{answer['advantage']:+.3f}",
        )
    return table
