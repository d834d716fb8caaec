"""Telling what a profile brings up and why, and what another one in its place changes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.profile.attributes import Attributes
from itemic.profile.embedder import Embedder
from itemic.profile.find import Float64, Int32, ItemVectors
from itemic.profile.judge import consistency, faithfulness, steerability
from itemic.profile.told import Brought, Change, Edited, Line, Moved, Named, Sentence, Share, Shown, Told, Why
from itemic.profile.words import sentences, why
from itemic.tasks.facts import ItemFacts, plain
from itemic.teacher.rows import ItemRows

MOVED = 5  # attributes that nobody asked for, and whose shares of the lists changed most
_WORD = re.compile(r"\w")


def cleaned(text: str) -> str:
    """A text that somebody typed as plain words, line by line: what looks like HTML or a chat marker goes, as in texts
    of the catalogue; other scripts and emoji stay."""
    return "\n".join(plain(line) for line in text.splitlines()).strip()


def worded(profile: str) -> str:
    """The profile itself, where something can be found with it.

    Raises:
        ConfigError: it has no letter and no digit.
    """
    if _WORD.search(profile) is None:
        raise ConfigError(
            "the profile has no letter and no digit, and nothing is found without words",
            "Say in words what the person likes.",
        )
    return profile


def shown_items(
    ids: Sequence[str], facts: ItemFacts, rows: Int32, ratings: npt.NDArray[np.floating]
) -> list[Shown]:
    """Items of a history as a reader wants to see them; NaN is no rating."""
    return [
        Shown(ids[row], facts.titles[row], None if np.isnan(rating) else float(rating))
        for row, rating in zip(rows.tolist(), ratings, strict=True)
    ]


@dataclass(frozen=True)
class Teller:
    """What it takes to find by profiles, and to say why.

    Attributes:
        ids: of the catalogue's items.
        facts: of the same.
        embedder: encodes profiles.
        vectors: of the items, by that embedder.
        batch_size: texts per forward pass.
    """

    ids: Sequence[str]
    facts: ItemFacts
    embedder: Embedder
    vectors: ItemVectors
    batch_size: int = 32

    @cached_property
    def attributes(self) -> Attributes:
        """Categories and brands of the catalogue."""
        return Attributes.of(self.facts)

    @cached_property
    def place(self) -> dict[str, int]:
        """Rows of the items, by id."""
        return {item: row for row, item in enumerate(self.ids)}

    def tell(
        self,
        text: str,
        history: Int32,
        k: int = 10,
        *,
        had: Int32 | None = None,
        ended: bool = True,
        tokens: int | None = None,
    ) -> Told:
        """What a profile brings up, which of its sentences do so, and what it names.

        A profile without a letter or a digit brings nothing up. One that was cut off is told like any other, and a note
        says that it was.

        Args:
            text: the profile.
            history: rows of the items that it was written of; they aren't found.
            k: how many items; a note says where there are fewer.
            had: rows of all items that the user has had; None for the history alone.
            ended: whether its writer came to an end.
            tokens: how many it wrote.
        """
        vector = self.embedder.encode([text], "profile", batch_size=self.batch_size)
        spoken = bool(vector.any())
        most = min(k, len(self.vectors))
        found = self.vectors.find(vector, k=most, seen=_alike(history, 1), device=self.embedder.device)
        rows = found.items[0][found.items[0] >= 0] if spoken else np.zeros(0, np.int32)
        lines, pulls = self._pulls(text, rows)
        known = set(history.tolist() if had is None else had.tolist())
        items = [
            Brought(
                rank,
                self.ids[row],
                self.facts.titles[row],
                float(found.scores[0, rank - 1]),
                row in known,
                pulls[:, rank - 1].tolist(),
            )
            for rank, row in enumerate(rows.tolist(), 1)
        ]
        brings = pulls.mean(axis=1).tolist() if len(rows) else [None] * len(lines)
        named, missing, precision, recall = self._names(text, history)
        return Told(
            text,
            ended,
            tokens,
            [
                Sentence(at, line, brought)
                for at, (line, brought) in enumerate(zip(lines, brings, strict=True), 1)
            ],
            items,
            named,
            missing,
            precision,
            recall,
            self._notes(text, spoken, ended, tokens, len(rows) < k),
        )

    def _pulls(self, text: str, rows: Int32) -> tuple[list[str], Float64]:
        """The sentences, and of each how much the items' scores fall without it, float64 ``[sentences, items]``."""
        lines = [line.strip() for line in sentences(text)]
        if not len(rows):
            return lines, np.zeros((len(lines), 0))
        items = self.vectors.vectors[rows].astype(np.float64)

        @cache
        def scores(texts: tuple[str, ...]) -> Float64:
            vectors = self.embedder.encode(texts, "profile", batch_size=self.batch_size)
            return np.asarray(vectors.astype(np.float64) @ items.T)

        def of_item(place: int) -> Callable[[Sequence[str]], Float64]:
            return lambda texts: scores(tuple(texts))[:, place]

        falls = [[fall for _, fall in why(text, of_item(place))] for place in range(len(rows))]
        return lines, np.array(falls).T

    def _names(self, text: str, history: Int32) -> tuple[list[Named], list[str], float | None, float | None]:
        attributes = self.attributes
        own = attributes.of_rows(history.tolist())
        wanted = attributes.of_rows(history.tolist(), finest=True)
        found = attributes.named(text)
        named = [
            Named(
                attributes.names[min(meant)],
                " or ".join(sorted({attributes.kinds[number] for number in meant}, reverse=True)),
                bool(meant & own),
            )
            for meant in found
        ]
        missing = sorted(attributes.names[number] for number in wanted.difference(*found))
        judged = faithfulness([text], [history], attributes)
        return named, missing, _known(judged.precision[0]), _known(judged.recall[0])

    def _notes(self, text: str, spoken: bool, ended: bool, tokens: int | None, few: bool) -> list[str]:
        notes = []
        if not text.strip():
            notes.append("The writer wrote nothing, and nothing is found.")
        elif not spoken:
            notes.append("The profile has no letter and no digit, and nothing is found.")
        elif few:
            notes.append("There are no more items to be found.")
        if not ended:
            length = "" if tokens is None else f" after {tokens} tokens"
            notes.append(f"The profile didn't end and was cut off{length}; judged, it is worth nothing.")
        if self.embedder.tokens([text], "profile").cut:
            notes.append(
                f"The embedder reads {self.embedder.max_length} tokens; the end of the profile doesn't count."
            )
        return notes

    # --------------------------------------------------------------------------------------------- edits

    def edit(
        self,
        before: Told,
        text: str,
        history: Int32,
        k: int = 10,
        *,
        had: Int32 | None = None,
        user: str | None = None,
        shown: Sequence[Shown] = (),
        notes: Sequence[str] = (),
    ) -> Edited:
        """What changes with another profile.

        Args:
            before: the profile as it was, with as many items.
            text: the new one.
            history: rows of the items that the first one was written of; neither finds them.
            k: how many items.
            had: as in :meth:`tell`.
            user: whose profile it is.
            shown: what is told of the history.
            notes: what is known already.

        Raises:
            ConfigError: one of the two brings nothing up.
        """
        after = self.tell(text, history, k, had=had)
        for told, what, remedy in (
            (before, "the profile as it was", "Give the profile that it is compared with."),
            (after, "the new profile", "Say in words what the person likes."),
        ):
            if not told.items:
                reason = told.notes[0] if told.notes else "No item is left to be found."
                raise ConfigError(
                    f"{what} brings nothing up, so that there are no lists to compare. {reason}", remedy
                )
        lists = [
            np.array([self.place[item.item_id] for item in told.items], np.int32) for told in (before, after)
        ]
        overlap, rbo = consistency(lists[0][None], lists[1][None], k)
        return Edited(
            user,
            list(shown),
            before,
            after,
            _lines(before.text, text),
            self._moved(before.text, text, lists, history),
            self._shares(before.text, text, lists, k),
            _known(overlap[0]),
            _known(rbo[0]),
            [*notes, *dict.fromkeys([*before.notes, *after.notes])],
        )

    def _moved(self, before: str, after: str, lists: Sequence[Int32], history: Int32) -> list[Moved]:
        """All items of both lists, with their ranks in the whole catalogue under either profile."""
        first, second = (set(rows.tolist()) for rows in lists)
        rows = np.array(list(dict.fromkeys([*lists[1].tolist(), *lists[0].tolist()])), np.int32)
        vectors = self.embedder.encode([before, after], "profile", batch_size=self.batch_size)
        found = self.vectors.find(
            np.repeat(vectors, len(rows), axis=0),
            targets=np.tile(rows, 2),
            seen=_alike(history, 2 * len(rows)),
            device=self.embedder.device,
        )
        ranks = found.ranks.reshape(2, -1).T.tolist()
        items = []
        for row, (old, new) in zip(rows.tolist(), ranks, strict=True):
            if row in first and row in second:
                what: Change = "stayed" if old == new else "moved"
            else:
                what = "came" if row in second else "went"
            items.append(Moved(self.ids[row], self.facts.titles[row], what, old, new))
        return items

    def _shares(self, before: str, after: str, lists: Sequence[Int32], k: int) -> list[Share]:
        """Attributes that one of the profiles names, and those whose shares changed most without being named."""
        attributes = self.attributes
        old, new = (set().union(*attributes.named(text)) for text in (before, after))
        there = attributes.of_rows(np.concatenate(lists).tolist(), finest=True) - (old ^ new)
        numbers = [*sorted(new - old), *sorted(old - new), *sorted(there)]
        if not numbers:
            return []
        count = len(numbers)
        steer = steerability(
            np.repeat(lists[0][None], count, 0),
            np.repeat(lists[1][None], count, 0),
            np.array(numbers, np.int64),
            attributes,
            np.full(count, -1, np.int32),
            k,
        )

        def share(at: int, reason: Why) -> Share:
            number = numbers[at]
            closed = _known(steer.closed[at]) if number in new and number not in old else None
            return Share(
                attributes.names[number],
                attributes.kinds[number],
                reason,
                float(steer.before[at]),
                float(steer.after[at]),
                closed,
            )

        meant = len(new - old)
        dropped = meant + len(old - new)
        moved = [at for at in range(dropped, count) if steer.moved[at]]
        moved.sort(key=lambda at: (-abs(steer.moved[at]), attributes.names[numbers[at]]))
        return [
            *(share(at, "named now") for at in range(meant)),
            *(share(at, "no longer named") for at in range(meant, dropped)),
            *(share(at, "moved") for at in moved[:MOVED]),
        ]


def _lines(before: str, after: str) -> list[Line]:
    old, new = ([line.strip() for line in sentences(text)] for text in (before, after))
    found: list[Line] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [Line(text, "kept") for text in old[a:b]]
        else:
            found += [Line(text, "gone") for text in old[a:b]]
            found += [Line(text, "new") for text in new[c:d]]
    return found


def _alike(history: Int32, count: int) -> ItemRows:
    """The same history for several profiles."""
    rows = np.asarray(history, np.int32)
    return ItemRows(np.tile(rows, count), np.arange(count + 1, dtype=np.int64) * len(rows))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
