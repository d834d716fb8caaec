"""Advice on a screen, and what a person says to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import yaml

from itemic.advise.advice import Advice
from itemic.advise.patch import Change, flow, plain, possible
from itemic.advise.rules import RULES
from itemic.recipe import Recipe
from itemic.recipe.source import show

Say = Callable[[str], None]
Ask = Callable[[str, str], str]  # a question and what is meant by an empty answer


def words_of(one: Advice) -> str:
    """An advice as lines of text, for a screen with or without colours."""
    lines = [f"{one.strategy}: {one.title}"]
    lines += [f"  found   {text}" for text in one.evidence]
    lines += [f"  why     {one.why}"]
    for change in one.changes:
        lines += [f"  change  {change.words}", f"          {change.reason}"]
    lines += [f"  not     {text}" for text in one.left_out]
    lines += [f"  costs   {one.cost}"]
    return "\n".join(lines)


def rules_text() -> str:
    """What each strategy reads, when it speaks, what it changes, why, and what that costs."""
    told = []
    for rule in RULES.values():
        lines = [f"{rule.name}: {rule.title}", f"  reads    {', '.join(rule.reads)}"]
        lines += [f"  speaks   where {rule.threshold}", f"  changes  {rule.changes}"]
        told.append("\n".join([*lines, f"  why      {rule.why}", f"  costs    {rule.costs}"]))
    return "\n\n".join(told)


def ask_about(say: Say, ask: Ask) -> Callable[[Advice, Recipe], Advice | None]:
    """Somebody who shows each advice and asks: keep, skip, or edit its values.

    Args:
        say: shows lines.
        ask: asks a question; hands back the answer.
    """

    def decide(one: Advice, recipe: Recipe) -> Advice | None:
        say("")
        say(words_of(one))
        while True:
            answer = ask("keep, skip or edit", "keep").strip().lower()
            if answer in ("k", "keep"):
                return one
            if answer in ("s", "skip"):
                return None
            if answer in ("e", "edit"):
                changes = [_edited(change, recipe, say, ask) for change in one.changes]
                return replace(one, changes=changes)
            say(f"{answer!r} is none of these: k(eep), s(kip), e(dit)")

    return decide


def _edited(change: Change, recipe: Recipe, say: Say, ask: Ask) -> Change:
    """The change with another value, asked until it fits the recipe; shares of sources are told apart by their key."""
    while True:
        text = ask(show(change.path), flow(change.value))
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            say(f"not valid YAML: {getattr(error, 'problem', error)}")
            continue
        edited = replace(change, value=value)
        _, told = possible(plain(recipe), [edited]) if value != change.value else ([], [])
        if not told:
            return edited
        say(told[0])


def summary(taken: Sequence[Advice]) -> str:
    """What is changed, a line a key."""
    return "\n".join(f"  {change.words}" for one in taken for change in one.changes)
