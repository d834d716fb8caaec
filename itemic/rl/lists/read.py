"""From the tokens of lists to their items, the tokens that end them, and what was chosen from what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.control.lists import ListGrammar
from itemic.control.parse import parse
from itemic.control.terms import Terms
from itemic.forest.rows import TokenRows
from itemic.model.model import Model
from itemic.rl.groups import ANYTHING

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Read:
    """``B`` lists of ``T`` tokens together.

    Attributes:
        items: int32 rows of each, -1 for an entry that names no item.
        ends: int64 of each, the place in its list of the token that ends each entry.
        choice: bool ``[T]``, whether there was anything to choose.
        node: int64 ``[T]``, a row of ``sets``; :data:`itemic.rl.groups.ANYTHING` where any token might have come.
        sets: what choices were made from; None where nobody asked.
    """

    items: list[Int32]
    ends: list[Int64]
    choice: Bool
    node: Int64
    sets: TokenRows | None


def read_written(grammar: ListGrammar, written: TokenRows, requests: Int64, *, legal: bool) -> Read:
    """Lists that were written under a grammar, which goes through all of them side by side once more.

    Args:
        grammar: theirs.
        written: without the prompts.
        requests: int64 ``[B]``, whose each is.
        legal: whether what choices were made from is wanted.
    """
    total, lengths = len(written.tokens), written.lengths
    choice, node = np.zeros(total, np.bool_), np.full(total, ANYTHING, np.int64)
    known: dict[bytes, int] = {}
    sets: list[list[int]] = []
    ends: list[list[int]] = [[] for _ in range(len(written))]
    going, states = np.arange(len(written)), grammar.states(requests)
    for depth in range(int(lengths.max(initial=0))):
        still = np.flatnonzero(lengths[going] > depth)
        if len(still) < len(going):
            going, states = going[still], states.take(still)
        at = written.offsets[:-1][going] + depth
        allowed = states.allowed(slice(0, len(going)))
        order = np.lexsort((allowed.token, allowed.row))
        row, token = allowed.row[order], allowed.token[order].astype(np.int32)
        edges = np.searchsorted(row, np.arange(len(going) + 1))
        several = np.flatnonzero(np.diff(edges) > 1)
        choice[at[several]] = True
        if legal:
            for place in several.tolist():
                own = token[edges[place] : edges[place + 1]]
                key = own.tobytes()
                if key not in known:
                    known[key] = len(sets)
                    sets.append(own.tolist())
                node[at[place]] = known[key]
        before = states.number.copy()
        states.step(written.tokens[at].astype(np.int64))
        for place in np.flatnonzero(states.number > before).tolist():
            ends[going[place]].append(depth)
    found = grammar.read(written, requests)
    return Read(
        found,
        [np.array(own[: len(rows)], np.int64) for own, rows in zip(ends, found, strict=True)],
        choice,
        node,
        TokenRows.of(sets or [[0]]) if legal else None,
    )


def read_free(model: Model, written: TokenRows, form: object, stop: int, terms: Sequence[Terms]) -> Read:
    """Lists that were written without a grammar: their text is read, and each entry ends with the token that completes
    its text.

    Args:
        model: its tokenizer and index.
        written: without the prompts.
        form: how a list is written.
        stop: the token that ends an answer.
        terms: of each, which say what is meant where items share a name.
    """
    items, ends = [], []
    for number in range(len(written)):
        tokens = written[number].tolist()
        if tokens and tokens[-1] == stop:
            tokens = tokens[:-1]
        text = str(model.tokenizer.decode(tokens))
        found = parse(text, model.index, form, meant=terms[number].rows)  # type: ignore[arg-type]
        items.append(found.items)
        ends.append(_ends(model, tokens, text, found.entries, len(written[number])))
    total = len(written.tokens)
    return Read(items, ends, np.ones(total, np.bool_), np.full(total, ANYTHING, np.int64), None)


def _ends(model: Model, tokens: list[int], text: str, entries: Sequence[str], length: int) -> Int64:
    """The token with which the text of each entry is complete."""
    whole = model.tokenizer.batch_decode([tokens[: count + 1] for count in range(len(tokens))])
    written = np.array([len(part) for part in whole], np.int64)
    found, at = [], 0
    for entry in entries:
        inside = entry.strip("{}")  # marks that parsing has put around a bare title
        place, own = text.find(entry, at), entry
        if place < 0:
            place, own = text.find(inside, at), inside
        if place >= 0:
            at = place + len(own)
        found.append(min(int(np.searchsorted(written, at)), length - 1))
    return np.array(found, np.int64)
