"""Groups to be read: a prompt, its answers, what each is worth and what is learned from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import RenderableType

from itemic.screen import Table, plain

if TYPE_CHECKING:
    from itemic.model.model import Model
    from itemic.rl.lists.rollout import RolledLists
    from itemic.rl.rolled import Rolled

EXAMPLES = 2  # groups of a rollout that are written out
WIDTH = 60  # of a title


def lines_of(
    rolled: Rolled | RolledLists, model: Model, step: int, count: int = EXAMPLES
) -> Iterator[dict[str, Any]]:
    """The first prompts of a rollout as plain JSON.

    Args:
        rolled: the rollout.
        model: names items, and turns tokens into text.
        step: of the training.
        count: how many prompts.
    """
    from itemic.rl.lists.preview import list_lines
    from itemic.rl.lists.rollout import RolledLists

    if isinstance(rolled, RolledLists):
        yield from list_lines(rolled, model, step, count)
        return
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


def shown(line: Mapping[str, Any], titles: Mapping[str, str]) -> list[RenderableType]:
    """One prompt with its groups for a screen.

    Args:
        line: one of :func:`lines_of`.
        titles: what people know items by, by item id.
    """
    target = line["target"]
    wanted = "nothing known" if target is None else titles.get(target, target)
    head = plain(f"user {line['user']} wanted {wanted}", "bold")
    prompt = plain(line["prompt"].strip(), "dim")
    if "lists" in line:
        from itemic.rl.lists.preview import list_parts

        return [head, prompt, *list_parts(line, titles)]
    if "answers" in line:
        return [head, prompt, _table(line["answers"], titles, target)]
    parts: list[RenderableType] = [head, prompt]
    for number, thought in enumerate(line["thoughts"], 1):
        cut = "" if thought["ended"] else " (cut off)"
        parts.append(plain(f"thought {number}, worth {thought['worth']:.3f}{cut}", "bold"))
        parts.append(plain(thought["text"].strip()))
        if thought["answers"]:
            parts.append(_table(thought["answers"], titles, target))
    return parts


def _table(answers: list[dict[str, Any]], titles: Mapping[str, str], target: str | None) -> Table:
    names = list(answers[0]["rewards"]) if answers else []
    table = Table("", "item", "log p", *names, "reward", "advantage", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for number, answer in enumerate(answers, 1):
        title = titles.get(answer["item"], answer["item"])[:WIDTH]
        table.add_row(
            str(number),
            f"→ {title}" if answer["item"] == target else title,
            f"{answer['log_prob']:.3f}",
            *(f"{answer['rewards'][name]:.3f}" for name in names),
            f"{answer['reward']:.3f}",
            f"{answer['advantage']:+.3f}",
        )
    return table
