"""Test tasks by RecLM-gen's names, and how they are asked: small tables, importable in an instant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, field_validator

from itemic.errors import ConfigError
from itemic.settings import Count, Listed, Switch, Text, meant, settings, wrong
from itemic.text import settings_repr

if TYPE_CHECKING:
    from itemic.control.want import How  # which knows arrays

Kind = Literal["plain", "with", "without", "share", "count", "ranking", "several"]
Mode = Literal["soft", "distinct", "hard", "ranked", "free"]

HOWS: Final[dict[str, How]] = {"LP": "at most", "MP": "at least", "EP": "about"}
FIXED: Final[dict[str, Kind]] = {
    "SFTTestSeqRec": "plain",
    "SFT+TestPersonalControlRec": "with",
    "SFT-TestPersonalControlRec": "without",
    "SFTTestItemCount": "count",
    "SFTTestSeqRanking": "ranking",
}
SHARES: Final[dict[str, Kind]] = {"SFTTestPersonalCategoryRate": "share", "TestWithCategoryRate": "several"}
SHARE = re.compile(rf"({'|'.join(SHARES)})({'|'.join(HOWS)})_(\d{{1,3}})")
TRAINED: Final[dict[Kind, tuple[str, ...]]] = {  # the tasks that teach each, the nearest first
    "plain": ("SFTSeqRec", "SFTSeqRecPALR"),
    "with": ("SFTPersonalControlRec",),
    "without": ("SFTPersonalControlRec",),
    "share": ("SFTPersonalCategoryRate",),
    "count": ("SFTItemCount", "SFTSeqRec"),
    "ranking": ("SFTSeqRanking",),
    "several": ("SFTPersonalCategoryRate", "SFTPersonalControlRec"),
}
USUAL: Final = (
    "SFTTestSeqRec",
    "SFT+TestPersonalControlRec",
    "SFT-TestPersonalControlRec",
    "SFTTestPersonalCategoryRateLP_20",
    "SFTTestPersonalCategoryRateMP_30",
    "SFTTestPersonalCategoryRateEP_50",
    "SFTTestItemCount",
    "SFTTestSeqRanking",
)


@dataclass(frozen=True)
class ControlTest:
    """A test task.

    Attributes:
        name: RecLM-gen's, or our own for what it doesn't have.
        kind: what is wanted beside a number of items: nothing (``plain``), items of a label (``with``), none of one
            (``without``), a ``share`` of one, another number (``count``), some candidates (``ranking``), or items of
            a label and among them a share of another one (``several``).
        how: of a share.
        portion: of a share.
    """

    name: str
    kind: Kind
    how: How | None = None
    portion: float = 0.0


def control_test(name: str) -> ControlTest:
    """A test task by its name.

    ``SFTTestPersonalCategoryRateLP_20`` wants at most 20 %, ``…MP_30`` at least 30 %, ``…EP_50`` about 50 %; any whole
    percentage may stand there. ``TestWithCategoryRateLP_20`` is our own: items of a category, at most 20 % of them of
    another one.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in FIXED:
        return ControlTest(name, FIXED[name])
    found = SHARE.fullmatch(name)
    if found is None or int(found[3]) > 100:
        known = [*USUAL, "TestWithCategoryRateLP_20"]
        raise ConfigError(
            f"there is no test task {name!r}{meant(name, known)}",
            f"Use some of {', '.join(known)}; any whole percentage may stand at the end.",
        )
    return ControlTest(name, SHARES[found[1]], HOWS[found[2]], int(found[3]) / 100)


@settings(frozen=True, repr=False)
class ListTests:
    """Which test tasks are asked, and how.

    Attributes:
        tasks: their names, see :func:`control_test`.
        mode: ``soft`` (only names of the catalogue are legal), ``distinct`` (of these nothing twice, and nothing that
            the prompt shows as history; all else is the model's choice), ``hard`` (only lists that keep to what is
            wanted are), ``ranked`` (hard too, made of the ranking that the evaluation asks for, of the items that may
            come: nothing needs to have been taught) or ``free`` (the text is read).
        users: how many requests each task asks, drawn by the seed.
        k: cuts of the metrics.
        topk: items of a list; None for as many as the task was trained with.
        most: items of the longest list of ``SFTTestItemCount``, which wants more than ``topk``.
        candidates: how many items are ranked, where the data know none of the user.
        columns: what labels are made of; None for what the task was trained with.
        protocol: ``history`` takes what is wanted from the history, the catalogue and the seed; ``oracle`` is
            RecLM-gen's, which takes categories from the item that is to be found.
        unwanted: whose list says what is unwanted: the model's ``own``, the ``teacher``'s, or the ``history``.
        price: what obedience costs: the same requests without control, soft, distinct, hard, and by filtering a
            ranking.
    """

    tasks: Annotated[tuple[Text, ...], Listed, Field(min_length=1)] = USUAL
    mode: Mode = "soft"
    users: Count = 320
    k: Annotated[tuple[Count, ...], Listed, Field(min_length=1)] = (1, 5, 10)
    topk: Count | None = None
    most: Count = 15
    candidates: Annotated[int, Field(strict=True, ge=2)] = 20
    columns: Annotated[tuple[Text, ...], Listed, Field(min_length=1)] | None = None
    protocol: Literal["history", "oracle"] = "history"
    unwanted: Literal["own", "teacher", "history"] = "own"
    price: Switch = False

    __repr__ = settings_repr

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for place, name in enumerate(tasks):
            try:
                control_test(name)
            except ConfigError as error:
                raise wrong(f"{error.message}; {error.remedy}", name, place) from None
            if name in tasks[:place]:
                raise wrong(f"names {name} twice", name, place)
        return tasks

    @property
    def tests(self) -> list[ControlTest]:
        """The tasks themselves."""
        return [control_test(name) for name in self.tasks]
