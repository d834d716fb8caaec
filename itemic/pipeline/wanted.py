"""One question with wishes to a finished run: a list that keeps to them, ranked or written by the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from itemic import schema as c
from itemic.control.form import ListForm
from itemic.control.turns import Turn, say_turn, turned
from itemic.control.want import PartOf, Want
from itemic.errors import ConfigError
from itemic.pipeline.answer import Answer, Item, Ranked
from itemic.pipeline.recommend import (
    Asked,
    alone,
    is_model,
    of_model,
    of_run,
    open_run,
    ranker_of,
    rows_of,
)
from itemic.recipe.control import CONTROL_OPTIONS, OfHistory
from itemic.recipe.tasks import options_of
from itemic.settings import faults_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from itemic.control.labels import Labels
    from itemic.control.terms import Terms
    from itemic.data.dataset import Dataset
    from itemic.model import Model

ListMode = Literal["ranked", "hard", "soft"]
HOW = {"=": "about", "<=": "at most", ">=": "at least"}
_SHARE = re.compile(r"(.+?)\s*(<=|>=|=)\s*(\d*\.?\d+)\s*(%?)")


def read_want(count: int, wanted: Sequence[str], unwanted: Sequence[str], shares: Sequence[str]) -> Want:
    """A want as a command says it.

    Args:
        count: how many items.
        wanted: labels.
        unwanted: labels.
        shares: ``Drama=.5``, ``Drama<=50%`` or ``Drama>=.5``.

    Raises:
        ConfigError: what is wrong with it.
    """
    parts = []
    for text in shares:
        found = _SHARE.fullmatch(text.strip())
        if found is None:
            raise ConfigError(
                f"the share {text!r} can't be read", "Write e.g. Drama=.5, Drama<=.5 or Drama>=.5."
            )
        label, how, number, percent = found.groups()
        parts.append({"label": label, "how": HOW[how], "portion": float(number) / (100 if percent else 1)})
    try:
        return Want(
            count=count,
            wanted=tuple(wanted),
            unwanted=tuple(unwanted),
            shares=tuple(PartOf(**part) for part in parts),  # type: ignore[arg-type]
        )
    except ValidationError as error:
        told = "; ".join(problem for kind in (Want, PartOf) for _, problem in faults_of(kind, error))
        raise ConfigError(f"this can't be wanted: {told or error}", "Correct what is wanted.") from None


def recommend_list(
    folder: str | Path,
    *,
    want: Want,
    user: str | None = None,
    items: Sequence[str] | None = None,
    mode: ListMode | None = None,
    beams: int = 1,
    dataset: str | Path | None = None,
    turns: Sequence[tuple[Turn, str]] = (),
) -> Answer:
    """Ask the last model of a run, or a model's own folder, for a list.

    The list keeps to what is wanted whatever the model thinks: exactly so many items, all allowed, none twice, none of
    the history, the shares met. It is made of the model's ranking of the items that may come, or written by the model
    (*hard*): the most probable one that the beams find, or, with one beam, the most probable token each time. A list
    that is written is asked for as the first of the recipe's tasks of control with a history words it. Labels may be of
    any column (``brand=Nike``, ``popularity=high``).

    Args:
        folder: of the run, or of a model.
        want: what is wanted.
        user: an id of the dataset.
        items: item ids, oldest first, instead of a user.
        mode: ``ranked``; ``hard``, which is written; or ``soft``, which is written, and only items are legal: the model
            decides which and how many, up to the number wanted. None for ``ranked``, and for ``hard`` where a recipe
            taught lists and not the task of its evaluation.
        beams: width of the search for the most probable list that is written.
        dataset: of a model's folder: it knows the labels.
        turns: what is said of the list, then of the one that was written after that, and so on: see
            :func:`itemic.control.turns.turned`. The last list is given.

    Returns:
        the items in the order of the list; their scores are the log-probabilities of their tokens, in the ranking or
        where they were written.

    Raises:
        ConfigError: neither or both of ``user`` and ``items``, or labels that aren't there.
        ConstraintError: no list keeps to what is wanted.
        ArtifactError, DataError, IndexMismatchError: as for :func:`itemic.pipeline.recommend.recommend_one`.
    """
    from itemic.control.labels import Labels

    if (user is None) == (items is None):
        raise ConfigError("recommend needs a user or a history", "Give one of --user and --history.")
    asked = of_model(Path(folder), dataset) if is_model(folder) else of_run(folder)
    if asked.users is None:
        raise ConfigError(f"{folder} is a model, which knows no labels", "Give --dataset with its items.")
    options, trained, ranks = _options(folder)
    way = mode or ("ranked" if ranks else "hard")
    if way == "ranked" and beams > 1:
        raise ConfigError("ranked lists aren't written", "Leave the beams out, or have the list written.")
    rows = rows_of(asked, user, items or [])
    form = ListForm(options["numbered"], options["separator"])
    index = asked.model.index
    names = index.name_numbers if index.shared else None
    meant = [
        *want.wanted,
        *want.unwanted,
        *(part.label for part in want.shares),
        *(name for _, name in turns),
    ]
    labels = Labels.of(asked.users, _columns(options["columns"], meant, asked.users))
    terms = want.check(labels, rows, names=names)
    shown = rows[-options["max_items"] :]
    notes = []
    if way == "ranked":
        shown = rows
    elif not trained:
        notes = [
            "No task of control taught this model: lists that it writes keep to what is wanted by the grammar alone. "
            "Unwritten ones are made of its ranking."
        ]

    def make(want: Want, terms: Terms) -> tuple[list[int], list[float]]:
        if way == "ranked":
            return _rank(asked, terms, rows, user)
        return _write(
            asked, want, terms, labels, form, shown.tolist(), options["system"], way == "soft", beams
        )

    found, scores = make(want, terms)
    for turn, name in turns:
        want = turned(want, turn, name, labels, found)
        notes.append(
            f"{say_turn(turn, name, want, labels)} Of {len(found)} items {_of(labels, name, found)} were."
        )
        terms = want.check(labels, rows, names=names)
        found, scores = make(want, terms)
    if way == "soft" and not terms.kept_by(found):
        notes.append("The list doesn't keep to what is wanted; one that isn't soft does.")
    ids, titles = index.item_ids, asked.titles
    return Answer(
        user,
        [Item(ids[row], titles[row]) for row in shown.tolist()],
        [
            Ranked(ids[row], titles[row], place, score, index.texts[row])
            for place, (row, score) in enumerate(zip(found, scores, strict=True), 1)
        ],
        notes,
    )


def read_turn(text: str) -> tuple[Turn, str]:
    """What a command says of a list: ``fewer of Drama``, ``more of …``, ``none of …`` or ``only …``.

    Raises:
        ConfigError: it says something else.
    """
    found = re.fullmatch(r"\s*(fewer|more|none|only)\s+(?:of\s+)?(\S.*?)\s*", text)
    if found is None:
        raise ConfigError(
            f"the turn {text!r} can't be read",
            'Write e.g. "fewer of Drama", "more of Drama", "none of Drama" or "only Drama".',
        )
    return found[1], found[2]  # type: ignore[return-value]


def _columns(known: Sequence[str], labels: Sequence[str], dataset: Dataset) -> list[str]:
    """What labels are made of: as was taught, and further columns that are named before a value."""
    from itemic.control.labels import THIRDS

    there = {*dataset.items.columns, *THIRDS}
    named = [label.partition("=")[0] for label in labels if "=" in label]
    return list(dict.fromkeys([*known, *(name for name in named if name in there)]))


def _of(labels: Labels, name: str, rows: Sequence[int]) -> int:
    mask = labels.mask(labels.number(name))
    return sum(bool(mask[row]) for row in rows)


def _options(folder: str | Path) -> tuple[dict[str, Any], bool, bool]:
    """Of the task by which the request is worded; whether there is one, and whether the model learnt to rank."""
    usual = options_of("SFTSeqRec", CONTROL_OPTIONS) | {"system": c.SYSTEM}
    if is_model(folder):
        return usual, True, True
    recipe = open_run(folder).recipe
    usual["system"] = recipe.system
    for task in recipe.tasks:
        if issubclass(CONTROL_OPTIONS.get(task.task, dict), OfHistory):
            ranks = recipe.evaluate.task in {other.task for other in recipe.tasks}
            return usual | task.arguments, True, ranks
    return usual, False, True


def _rank(
    asked: Asked, terms: Terms, rows: npt.NDArray[np.int32], user: str | None
) -> tuple[list[int], list[float]]:
    """The rows of the list that the model's ranking makes, and their log-probabilities in it."""
    from itemic.control.ranked import ranked_lists
    from itemic.data.sequences import Requests

    ranker = ranker_of(asked)
    worth: dict[int, float] = {}

    def among(requests: Requests, k: int, some: Sequence[npt.NDArray[np.int32]]) -> Any:
        items, scores = ranker.rank_among(requests, k, some)
        worth.update(zip(items[0].tolist(), scores[0].tolist(), strict=True))
        return items, scores

    request = Requests(*alone(rows, user), asked.model.index.catalogue)
    found = ranked_lists(among, request, [terms])[0].tolist()
    return found, [worth[row] for row in found]


def _write(
    asked: Asked,
    want: Want,
    terms: Terms,
    labels: Labels,
    form: ListForm,
    history: list[int],
    system: str | None,
    soft: bool,
    beams: int,
) -> tuple[list[int], list[float]]:
    """The rows of the list that the model writes, and the log-probability of each item's tokens."""
    import numpy as np

    from itemic.control.lists import ListGrammar, ListTokens
    from itemic.control.words import say
    from itemic.decode import Sampler, TextSearch
    from itemic.sid.trie import Trie

    model = asked.model
    text = say(want, labels, form=form, names=model.index.texts, history=history)
    head = [] if system is None else [{"role": "system", "content": _spoken(system, model)}]
    prompt = model.chat.prompt_batch([[*head, {"role": "user", "content": text}]], asked.thinking)
    tokens = ListTokens.of(model, form, want.count)
    grammar = ListGrammar(Trie.build(model.item_rows), tokens, None if soft else [terms], most=want.count)
    longest = grammar.most_tokens
    if beams == 1:
        sampler = Sampler(model.lm, max_new_tokens=longest, temperature=0.0, grammar=grammar)
        samples = sampler.sample(prompt)
        tokens_of_list, logs = samples.tokens, samples.model_log_probs
    else:
        best = TextSearch(model.lm, grammar, max_new_tokens=longest, beams=beams).best(prompt)
        tokens_of_list, logs = best.tokens, best.log_probs
    rows = grammar.read(tokens_of_list, np.zeros(1, np.int64))[0].tolist()
    scores, at = [], 0
    for place, row in enumerate(rows):
        at += len(grammar.text[place])
        stop = at + int(model.item_rows.lengths[row])
        scores.append(float(logs[at:stop].sum()))
        at = stop
    return rows, scores


def _spoken(system: str, model: Model) -> str:
    from itemic.tasks.task import spoken_of

    return spoken_of(system, model.index) if system == c.SYSTEM else system
