"""All tasks of control by name. A new one is a class and one row here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from itemic.control.tasks.category import ControlRec, ControlRecRe, PersonalControlRec
from itemic.control.tasks.dialogues import Dialogues
from itemic.control.tasks.rate import CategoryRate, PersonalCategoryRate
from itemic.control.tasks.sequence import ItemCount, SeqRanking, SeqRec, SeqRecPALR
from itemic.control.tasks.task import ControlTask
from itemic.data.dataset import Dataset
from itemic.tasks.table import task_from
from itemic.teacher.teacher import Teacher

CONTROL_TASKS: dict[str, ControlTask | Dialogues] = {
    "SFTSeqRec": SeqRec(),
    "SFTSeqRecPALR": SeqRecPALR(),
    "SFTControlRec": ControlRec(),
    "SFTControlRec_re": ControlRecRe(),
    "SFTPersonalControlRec": PersonalControlRec(),
    "SFTCategoryRate": CategoryRate(),
    "SFTPersonalCategoryRate": PersonalCategoryRate(),
    "SFTSeqRanking": SeqRanking(),
    "SFTItemCount": ItemCount(),
    "ShareChatGPT": Dialogues(),
}
MIXTURE = ("task", "source", "limit", "weight", "seed")  # of an entry what isn't the task's


def control_entries(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A mixture for :func:`itemic.tasks.build.read_entries`, tasks of control made.

    Args:
        entries: ``{"task": name, …}`` each, of any tasks.

    Raises:
        ConfigError: an option that can't work.
    """
    found = []
    for entry in entries:
        own = dict(entry)
        if own["task"] in CONTROL_TASKS:
            options = {key: value for key, value in own.items() if key not in MIXTURE}
            task = task_from(CONTROL_TASKS, own["task"], options)
            own = {key: value for key, value in own.items() if key in MIXTURE} | {"task": task}
        found.append(own)
    return found


def with_control(
    entries: Iterable[Mapping[str, Any]], dataset: Dataset, teacher: Teacher | None = None
) -> list[dict[str, Any]]:
    """A mixture for :func:`itemic.tasks.build_conversations` in which tasks of control know what they need.

    Args:
        entries: ``{"task": name, …}`` each, of any tasks.
        dataset: whose items the labels are of.
        teacher: see :meth:`itemic.control.tasks.task.ControlTask.knowing`.

    Raises:
        ConfigError: an option that can't work, or a teacher is missing.
    """
    found = control_entries(entries)
    for entry in found:
        if isinstance(entry["task"], ControlTask):
            entry["task"] = entry["task"].knowing(dataset, teacher)
    return found
