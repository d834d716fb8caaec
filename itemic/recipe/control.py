"""The options of the tasks of control as a recipe spells them: the fields of the classes in ``itemic.control.tasks``
(a test compares)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from itemic.recipe.tasks import TaskOptions
from itemic.schema import CATEGORIES
from itemic.settings import Count, Share, Switch, Text, wrong

if TYPE_CHECKING:
    from itemic.recipe.schema import TaskPart

COLUMNS = [CATEGORIES]
Parts = dict[Text, Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]] | None


class Control(TaskOptions):
    """What every task of control takes."""

    templates: Literal[1] | None = None
    samples: Count | None = None
    epochs: Count = 1
    topk: Count = 10
    draws: Count = 1
    numbered: Switch = True
    separator: Text = "\n"
    columns: Annotated[list[Text], Field(min_length=1)] = COLUMNS
    shorter: Switch = True


class OfHistory(Control):
    """Those that show a history."""

    max_items: Count = 10


class Signed(Control):
    """SFTControlRec and SFTControlRec_re."""

    kinds: Parts = None


class SignedOfHistory(OfHistory):
    """SFTPersonalControlRec."""

    kinds: Parts = None


class Rates(Control):
    """SFTCategoryRate."""

    kinds: Parts = None
    order: Literal["teacher", "grouped"] = "teacher"
    stricter: Share = 0.5


class RatesOfHistory(OfHistory):
    """SFTPersonalCategoryRate."""

    kinds: Parts = None
    order: Literal["teacher", "grouped"] = "teacher"
    stricter: Share = 0.5


class Ranking(OfHistory):
    """SFTSeqRanking."""

    candidates: Annotated[int, Field(strict=True, ge=2)] = 20


class ItemCount(OfHistory):
    """SFTItemCount."""

    most: Count = 15


def _given(path: str | None) -> str | None:
    if path is None:
        raise wrong("is missing; name a file of dialogues")
    return path


class Dialogues(TaskOptions):
    """ShareChatGPT."""

    templates: Literal[1] | None = None
    system: Text | None = None
    path: Annotated[Text | None, Field(validate_default=True), AfterValidator(_given)] = None
    samples: Count | None = None
    epochs: Count = 1
    max_chars: Count = 2000


CONTROL_OPTIONS: dict[str, type[TaskOptions]] = {
    "SFTSeqRec": OfHistory,
    "SFTSeqRecPALR": OfHistory,
    "SFTControlRec": Signed,
    "SFTControlRec_re": Signed,
    "SFTPersonalControlRec": SignedOfHistory,
    "SFTCategoryRate": Rates,
    "SFTPersonalCategoryRate": RatesOfHistory,
    "SFTSeqRanking": Ranking,
    "SFTItemCount": ItemCount,
    "ShareChatGPT": Dialogues,
}
OF_THEIR_OWN = ("ShareChatGPT",)  # tasks that don't open as the recipe says
ASK_TEACHER = (
    "SFTSeqRec",
    "SFTPersonalControlRec",
    "SFTPersonalCategoryRate",
    "SFTSeqRanking",
    "SFTItemCount",
)


def control_columns(tasks: Iterable[TaskPart]) -> list[list[str]]:
    """What the labels are made of that a recipe's tasks of control ask for, each choice of columns once."""
    found: list[list[str]] = []
    for task in tasks:
        if issubclass(CONTROL_OPTIONS.get(task.task, TaskOptions), Control):
            columns = [*task.arguments.get("columns", COLUMNS)]
            found += [columns] if columns not in found else []
    return found
