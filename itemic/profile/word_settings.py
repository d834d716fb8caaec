"""How a history is told to a writer: a small table, importable without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, field_validator

from itemic.settings import Count, Listed, Switch, Text, settings, wrong

Field = Literal["title", "average", "description", "brand", "category", "price", "rating", "review"]
FORMS: dict[str, tuple[Field, ...]] = {  # what each item is shown by
    "paper": ("title", "average", "description", "category", "price", "rating", "review"),
    "facts": ("title", "brand", "category", "price", "rating"),
    "titles": ("title",),
}
INSTRUCTION = (
    "Below is what one person has chosen, the oldest first and the latest last, with what is known of each item and "
    "what the person said about it. Write a detailed profile of this person's taste: what they like, what they don't, "
    "and what they look for. Write about the person in general; don't list the items.\n\n"
)


def _form(value: object) -> object:
    return FORMS.get(value, value) if isinstance(value, str) else value


@settings(frozen=True)
class WordsSettings:
    """How a history is told.

    Attributes:
        fields: what is said of each item, in this order; or ``paper`` for what LangPTune's prompt has (title, average
            rating, description, category, price, the user's rating and review), ``facts`` (no long texts), ``titles``.
        instruction: what stands before the history.
        max_tokens: the longest prompt, with the chat template's own tokens; what is longer is cut
            (:meth:`itemic.profile.words.ProfileWords.prompts` says how).
        whole: cut nothing; prompts may be longer then, for :meth:`itemic.profile.sessions.Sessions.within` to leave
            out, as LangPTune does.
    """

    fields: Annotated[tuple[Field, ...], Listed, BeforeValidator(_form)] = FORMS["paper"]
    instruction: Text = INSTRUCTION
    max_tokens: Count = 1024
    whole: Switch = False

    @field_validator("fields")
    @classmethod
    def _some_once(cls, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        if not fields or len(set(fields)) < len(fields):
            raise wrong(f"is {list(fields)}; name some fields, each once, or paper, facts or titles", fields)
        return fields
