"""A want in words. Each part of it is a sentence of its own, in one of several wordings.

The sentences say what :class:`itemic.control.want.Want` says and nothing else, from the same value that the grammar is
made from: so what is asked for and what is allowed can't drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from itemic.control.form import ListForm
from itemic.control.labels import Labels
from itemic.control.want import Want
from itemic.errors import ConfigError

Wording = int | np.random.Generator
ARROW: Final = " → "
SPEAKERS = "system\nuser\nassistant\n"  # each after a token of its own
BEGIN_LINES = ("next", "any", "history", "label of")  # kinds of sentences that nothing stands before

# each kind has as many wordings; the first is the one that evaluation asks with
WORDINGS: Final[dict[str, tuple[str, ...]]] = {
    "next": (
        "Recommend {count} to this user.",
        "What could this user take next? Name {count}.",
        "Find {count} that this user would like.",
        "Continue this history with {count}.",
    ),
    "any": (
        "Recommend {count}.",
        "Name {count}.",
        "I am looking for {count}.",
        "Please list {count}.",
    ),
    "history": (
        "The user's items so far, oldest first: {items}",
        "History: {items}",
        "Taken until now, the latest at the end: {items}",
        "What the user had before, in this order: {items}",
    ),
    "wanted": (
        "Each of them must be of {labels}.",
        "Only of {labels}, please.",
        "This time it has to be of {labels}.",
        "All of the list is to be of {labels}.",
    ),
    "unwanted": (
        "None of them may be of {labels}.",
        "But nothing of {labels}, please.",
        "This time nothing is to be of {labels}.",
        "Leave out all that is of {labels}.",
    ),
    "at most": (
        "At most {portion} of them may be of {label}.",
        "No more than {portion} of the list is to be of {label}.",
        "Keep what is of {label} at {portion} or less.",
        "Let {portion} be the upper limit for {label}.",
    ),
    "at least": (
        "At least {portion} of them must be of {label}.",
        "No less than {portion} of the list is to be of {label}.",
        "Keep what is of {label} at {portion} or more.",
        "Let {portion} be the lower limit for {label}.",
    ),
    "about": (
        "About {portion} of them should be of {label}.",
        "Near {portion} of the list is to be of {label}.",
        "Keep what is of {label} at around {portion}.",
        "Let {portion} be the aim for {label}.",
    ),
    "candidates": (
        "Choose among these, the best first: {items}.",
        "Only these can be had: {items}. Begin with the best.",
        "Put the best of these in front: {items}.",
        "These are on offer: {items}. Rank them.",
    ),
    "avoid": (
        "Don't show these: {items}.",
        "These are out: {items}.",
        "I have seen these already: {items}.",
        "Pass over these: {items}.",
    ),
    "numbered": (
        "Number them from 1.",
        "Give each one its number.",
        "Write a numbered list.",
        "The list is to be numbered.",
    ),
    "bare": (
        "Write them without numbers.",
        "Give their names alone.",
        "Write a list without numbers.",
        "The list isn't to be numbered.",
    ),
    "label of": (
        "Name the category of {item}.",
        "Which category has {item}?",
        "Where does {item} belong? Give its category.",
        "Say in one line what {item} is filed under.",
    ),
}


def say(
    want: Want,
    labels: Labels,
    *,
    wording: Wording = 0,
    form: ListForm | None = None,
    names: Sequence[str] | None = None,
    history: Sequence[int] | None = None,
) -> str:
    """A request in words: what is wanted, then the history.

    Args:
        want: what to say.
        labels: of the catalogue; only their names are looked at.
        wording: which of each part's wordings; a generator draws one for each part.
        form: how the list is to be written; None doesn't say.
        names: of all items, by row, as they stand in conversations; needed where items are named.
        history: rows, oldest first; None for a request without one.

    Returns:
        One line, and a second one for the history.

    Raises:
        ConfigError: a label isn't there or is ambiguous.

    Example:
        ``Recommend 4 items to this user. Each of them must be of "Drama" or "Comedy". At most 25 % of them may be of
        "War".``
    """
    parts: list[tuple[str, dict[str, str]]] = [
        ("any" if history is None else "next", {"count": counted(want.count)})
    ]
    if want.wanted:
        parts.append(("wanted", {"labels": _all_of(want.wanted, labels)}))
    if want.unwanted:
        parts.append(("unwanted", {"labels": _any_of(want.unwanted, labels)}))
    for part in want.shares:
        said = {"portion": percent(part.portion), "label": labels.said(labels.number(part.label))}
        parts.append((part.how, said))
    for kind, rows in (("candidates", want.candidates), ("avoid", want.avoid)):
        if rows:
            parts.append((kind, {"items": ", ".join(_names(names)[row] for row in rows)}))
    if form is not None:
        parts.append(("numbered" if form.numbered else "bare", {}))
    text = " ".join(worded(WORDINGS[kind], wording).format(**values) for kind, values in parts)
    if history is None:
        return text
    items = ARROW.join(_names(names)[row] for row in history)
    return f"{text}\n{worded(WORDINGS['history'], wording).format(items=items or 'none')}"


def ask_label(name: str, *, wording: Wording = 0) -> str:
    """A question for an item's finest label, by the item's name: ``Name the category of {Alien}.``"""
    return worded(WORDINGS["label of"], wording).format(item=name)


def control_words(labels: Sequence[Labels] = (), times: int = 20) -> list[str]:
    """All sentences as they stand in prompts, one of every label, a history and who speaks, ``times`` over: text for a
    tokenizer that is trained on the catalogue, so that what all prompts have is a word or two and not letters."""
    some = {"count": counted(10), "portion": percent(0.2), "label": '"a"', "labels": '"a"'}
    some |= {"item": "a", "items": ARROW.join("a" * 10)}
    sentences = [
        f"{'' if kind in BEGIN_LINES else ' '}{text.format(**some)}"
        for kind, wordings in WORDINGS.items()
        for text in wordings
    ]
    named = [f" of {own.said(number)}." for own in labels for number in range(len(own.names))]
    return [*sentences, *named, SPEAKERS] * times


def counted(count: int) -> str:
    """``1 item``, ``7 items``."""
    return f"{count} item" + "s" * (count != 1)


def percent(portion: float) -> str:
    """``.5`` → ``50 %``, with as many digits as it has."""
    return f"{portion * 100:.12g} %"


def worded(some: Sequence[str], wording: Wording) -> str:
    """One of some wordings."""
    return some[wording % len(some) if isinstance(wording, int) else int(wording.integers(len(some)))]


def _any_of(names: Sequence[str], labels: Labels) -> str:
    return " or ".join(labels.said(labels.number(name)) for name in names)


def _all_of(names: Sequence[str], labels: Labels) -> str:
    """Of each column one: ``"Drama" or "Comedy", and of the brand "Nike"``."""
    columns: dict[str, list[str]] = {}
    for name in names:
        columns.setdefault(labels.columns[labels.number(name)], []).append(name)
    return ", and of ".join(_any_of(some, labels) for some in columns.values())


def _names(names: Sequence[str] | None) -> Sequence[str]:
    if names is None:
        raise ConfigError(
            "a request that names items is put into words without their names", "Give names.texts."
        )
    return names
