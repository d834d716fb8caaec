"""Lists to be read: a prompt, what was wanted, the lists, and what each entry and the whole is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from itemic.control.rewards import item_rewards, legal
from itemic.screen import Table, plain

if TYPE_CHECKING:
    from itemic.model.model import Model
    from itemic.rl.lists.rollout import RolledLists

WIDTH = 40  # of a title
NONE = "(no item)"


def list_lines(rolled: RolledLists, model: Model, step: int, count: int) -> Iterator[dict[str, Any]]:
    """The first prompts of a rollout of lists as plain JSON; see :func:`itemic.rl.preview.lines_of`."""
    asked, written, names = rolled.asked, rolled.written, model.index
    answers = written.answers
    worth, fine = item_rewards(answers), legal(answers)
    each = rolled.total.shape[1]
    for number in range(min(count, len(asked))):
        target = int(asked.requests.targets[number])
        lists = []
        for place in range(each):
            row = number * each + place
            own = [
                {
                    "item": names.item_ids[item] if item >= 0 else None,
                    "asked": bool(answers.inside[row, at]),
                    "legal": bool(fine[row, at]),
                    "reward": round(float(worth[row, at]), 4),
                }
                for at, item in enumerate(answers.items[row, : answers.lengths[row]].tolist())
            ]
            lists.append(
                {
                    "text": model.tokenizer.decode(written.tokens[row].tolist()),
                    "entries": own,
                    "cut": bool(written.cut[row]),
                    "rewards": {
                        name: round(float(values[number, place]), 4) for name, values in rolled.apart.items()
                    },
                    "reward": round(float(rolled.total[number, place]), 4),
                    "advantage": round(float(rolled.advantages[number, place]), 4),
                }
            )
        yield {
            "step": step,
            "user": str(asked.requests.users[number]),
            "prompt": model.tokenizer.decode(asked.prompts[number].tolist()),
            "target": names.item_ids[target] if target >= 0 else None,
            "task": asked.tasks[number],
            "want": repr(asked.wants[number]),
            "kind": answers.kinds[number * each],
            "lists": lists,
        }


def list_parts(line: Mapping[str, Any], titles: Mapping[str, str]) -> list[RenderableType]:
    """A prompt's lists side by side: entries, ``+`` for those that have what is asked for, ``×`` for those that aren't
    legal, and what each is worth."""
    lists = line["lists"]
    table = Table("", *(f"list {number}" for number in range(1, len(lists) + 1)), box=None, pad_edge=False)
    longest = max((len(own["entries"]) for own in lists), default=0)
    for place in range(longest):
        table.add_row(str(place + 1), *(_entry(own, place, line["target"], titles) for own in lists))
    for name in lists[0]["rewards"] if lists else ():
        table.add_row(name, *(f"{own['rewards'][name]:.3f}" for own in lists))
    table.add_row("reward", *(f"{own['reward']:.3f}" for own in lists))
    table.add_row("advantage", *(f"{own['advantage']:+.3f}" for own in lists))
    return [plain(f"{line['task']}: {line['want']}"), table]


def _entry(own: Mapping[str, Any], place: int, target: str | None, titles: Mapping[str, str]) -> str:
    if place >= len(own["entries"]):
        return "(cut off)" if own["cut"] and place == len(own["entries"]) else ""
    entry = own["entries"][place]
    item = entry["item"]
    title = NONE if item is None else titles.get(item, item)[:WIDTH]
    mark = "" if entry["legal"] else "× "
    mark += "+ " if entry["asked"] else ""
    mark += "→ " if item is not None and item == target else ""
    return f"{mark}{title} {entry['reward']:.2f}"
