"""The prompt that asks for a profile: what a user took, in words, oldest first; and a profile's sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from itemic.errors import ConfigError, DataError
from itemic.forest.rows import TokenRows
from itemic.model.chat import ChatRenderer
from itemic.profile.sessions import Lengths, Sessions
from itemic.profile.word_settings import WordsSettings
from itemic.tasks.conversation import Message
from itemic.tasks.facts import ItemFacts, plain

EMPTY = "(nothing is known of this person yet)"
TITLE = 300  # characters of a title, at most
CUTS = (
    4000,
    2000,
    1000,
    700,
    500,
    350,
    250,
    180,
    120,
    80,
    50,
    30,
    0,
)  # characters of a description or review


@dataclass(frozen=True, eq=False)
class Prompts:
    """What a writer reads of each session.

    Attributes:
        tokens: the prompts as token ids, one row a session.
        texts: the same as what the user says, without the template.
        cut: int64 ``[S]``, to how many characters descriptions and reviews were cut; -1 where they are whole.
        left_out: int64 ``[S]``, how many of the oldest items the prompt has no room for.
    """

    tokens: TokenRows
    texts: list[str]
    cut: npt.NDArray[np.int64]
    left_out: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many tokens each prompt has."""
        return np.diff(self.tokens.offsets)

    def told(self) -> str:
        """What was cut, for a log."""
        return (
            f"{len(self.texts):,} prompts: texts cut in {int((self.cut >= 0).sum()):,}, "
            f"{int(self.left_out.sum()):,} items left out of {int((self.left_out > 0).sum()):,}"
        )


class ProfileWords:
    """Makes prompts of sessions.

    Args:
        facts: of the sessions' catalogue.
        rule: what they say.
    """

    def __init__(self, facts: ItemFacts, rule: WordsSettings | None = None) -> None:
        self.facts, self.rule = facts, rule or WordsSettings()

    def item(self, row: int, rating: float = np.nan, review: str = "", cut: int | None = None) -> str:
        """What is said of one item, a line a field; of what nobody knows nothing is said."""
        facts = self.facts
        known: dict[str, str] = {
            "title": clipped(facts.titles[row], TITLE),
            "average": "" if np.isnan(facts.averages[row]) else f"{facts.averages[row]:.1f} of 5",
            "description": clipped(facts.descriptions[row], cut),
            "brand": facts.brands[row],
            "category": _path(facts, row),
            "price": "" if np.isnan(facts.prices[row]) else f"{facts.prices[row]:.2f}",
            "rating": "" if np.isnan(rating) else f"{rating:g} of 5",
            "review": clipped(plain(review), cut),
        }
        return "\n".join(f"{LABELS[name]}: {known[name]}" for name in self.rule.fields if known[name])

    def text(self, sessions: Sessions, session: int, *, cut: int | None = None, skip: int = 0) -> str:
        """What the user's turn says of one session.

        Args:
            sessions: of the facts' catalogue.
            session: its number.
            cut: to how many characters descriptions and reviews are cut, at a word; None for whole ones.
            skip: how many of the oldest items are left out.
        """
        begin, stop = (int(at) for at in sessions.offsets[session : session + 2])
        items = [
            self.item(int(sessions.items[at]), float(sessions.ratings[at]), sessions.reviews[at], cut)
            for at in range(begin + skip, stop)
        ]
        return self.rule.instruction + ("\n\n".join(item for item in items if item) or EMPTY)

    def messages(self, text: str) -> list[Message]:
        """The conversation that awaits the profile."""
        return [{"role": "user", "content": text}]

    def prompts(self, sessions: Sessions, chat: ChatRenderer) -> Prompts:
        """All prompts, none longer than ``max_tokens``.

        A prompt that is too long has its descriptions and reviews cut, all at once, to 4,000 characters, 2,000, … and
        0 (``CUTS``), until it fits. Where it doesn't fit without them, its oldest items are left out, one by one. Both
        are counted; no session is lost.

        Args:
            sessions: of the facts' catalogue.
            chat: of the writer's tokenizer.

        Raises:
            ConfigError: the instruction and a last item alone are too long for ``max_tokens``.
            DataError: sessions and facts are of different catalogues.
        """
        if len(sessions.items) and int(sessions.items.max()) >= len(self.facts):
            raise DataError(
                f"sessions name item row {int(sessions.items.max())}, and there are facts of {len(self.facts)} items",
                "Make both of the same dataset.",
            )
        count = len(sessions)
        cut, left = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        texts = [self.text(sessions, session) for session in range(count)]
        rows = self._tokens(texts, chat)
        if self.rule.whole:
            return Prompts(_rows(rows), texts, cut, left)
        sizes = np.diff(sessions.offsets)
        long = [session for session in range(count) if len(rows[session]) > self.rule.max_tokens]
        step = 0
        while long:
            for session in long:
                if step < len(CUTS):
                    cut[session] = CUTS[step]
                else:
                    left[session] += 1
                    if left[session] >= max(int(sizes[session]), 1):
                        raise ConfigError(
                            f"max_tokens is {self.rule.max_tokens}, and the instruction with the title of one item of "
                            f"user {sessions.users[session]!r} has {len(rows[session])}",
                            "Give more tokens, fewer fields or a shorter instruction.",
                        )
                texts[session] = self.text(sessions, session, cut=int(cut[session]), skip=int(left[session]))
            for session, row in zip(
                long, self._tokens([texts[session] for session in long], chat), strict=True
            ):
                rows[session] = row
            long = [session for session in long if len(rows[session]) > self.rule.max_tokens]
            step += 1
        return Prompts(_rows(rows), texts, cut, left)

    def _tokens(self, texts: Sequence[str], chat: ChatRenderer) -> list[npt.NDArray[np.int32]]:
        if not texts:
            return []
        rows = chat.prompt_batch([self.messages(text) for text in texts])
        return np.split(rows.tokens, rows.offsets[1:-1])


def _rows(rows: Sequence[npt.NDArray[np.int32]]) -> TokenRows:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return TokenRows(np.concatenate([np.zeros(0, np.int32), *rows]), offsets.astype(np.int64))


LABELS: dict[str, str] = {
    "title": "Title",
    "average": "Average rating",
    "description": "Description",
    "brand": "Brand",
    "category": "Category",
    "price": "Price",
    "rating": "This person's rating",
    "review": "This person's review",
}


def _path(facts: ItemFacts, row: int) -> str:
    own = facts.categories[row]
    return (" > " if facts.leaves[row] == 1 else ", ").join(own)


def clipped(text: str, most: int | None) -> str:
    """At most so many characters, cut between words where there is a gap; None for all of them."""
    if most is None or len(text) <= most:
        return text
    return re.sub(r"\s+\S*$", "", text[: most + 1])[:most]


def tokens_of(tokenizer: PreTrainedTokenizerBase) -> Lengths:
    """How many tokens texts have, without special ones: for the length filters of sessions."""

    def lengths(texts: Sequence[str]) -> npt.NDArray[np.int64]:
        if not len(texts):
            return np.zeros(0, np.int64)
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return np.fromiter(map(len, rows), np.int64, len(rows))

    return lengths


# ----------------------------------------------------------------------------------------- a profile's sentences

_ENDS = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n)\s*")
_SHORT = re.compile(r"(?:^|[\s(])(?:[A-Z]|e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|St|No|Jr|Sr|Inc|Co|Ltd)\.$")


def sentences(profile: str) -> list[str]:
    """A profile's sentences, or lines; joined they are the profile, blanks behind each among them.

    A sentence ends at ``.``, ``!``, ``?`` or ``…`` before a blank, at ``。！？`` anywhere, or at a line's end. A point
    after an initial or a common abbreviation (``e.g.``, ``Dr.``, ``Co.``) ends none.
    """
    found: list[str] = []
    start = 0
    for end in _ENDS.finditer(profile):
        said = profile[start : end.end()]
        if "\n" not in end[0] and _SHORT.search(said.rstrip()):
            continue
        if said.strip() or found:
            found.append(said)
            start = end.end()
    if profile[start:]:
        found.append(profile[start:])
    return found


def edited(profile: str, sentence: int, text: str = "") -> str:
    """The profile with another text in the place of one of its sentences; without it where the text is empty.

    Raises:
        ConfigError: there is no such sentence.
    """
    own = sentences(profile)
    if not 0 <= sentence < len(own):
        raise ConfigError(
            f"the profile has {len(own)} sentences, and number {sentence + 1} is to be changed",
            "Name one of them.",
        )
    last = own[sentence]
    blank = last[len(last.rstrip()) :]
    own[sentence] = text.strip() + blank if text.strip() else ""
    return "".join(own)


def why(profile: str, score: Callable[[Sequence[str]], npt.ArrayLike]) -> list[tuple[str, float]]:
    """Why a profile finds an item: each sentence, and how much the score falls without it.

    Args:
        profile: at least one sentence.
        score: of profiles, such as the similarity to an item; called once, with the profile and with each shorter one.
    """
    own = sentences(profile)
    values = np.asarray(
        score([profile, *(edited(profile, number) for number in range(len(own)))]), np.float64
    )
    return [(said.strip(), float(values[0] - value)) for said, value in zip(own, values[1:], strict=True)]
