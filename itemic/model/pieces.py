"""Many texts to tokens, fast: cut at added tokens, each distinct piece encoded once.

A tokenizer looks for added tokens first and reads what lies between them one piece at a time. Texts about
items are made of a few thousand item tokens and of phrases that come back in every row, so a table from
pieces to ids does nearly all the work; the tokenizer itself sees each new piece once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from itemic.forest.rows import Int64, TokenRows

PIECE = "<[^<>]+>|[^<]+|<"  # in any text, a token "<…>" without inner angle brackets comes out as one piece
KEPT_PIECES = 200_000
FEW = 32  # below this many texts the table costs more than it saves


class PieceEncoder:
    """A tokenizer without special-token insertion, for one text or for hundreds of thousands."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        bracketed = {i: t for i, t in added.items() if re.fullmatch("<[^<>]+>", t.content)}
        plain = {
            i: t.content
            for i, t in bracketed.items()
            if not (t.lstrip or t.rstrip or t.single_word) and not t.normalized
        }
        strange = any(
            t.single_word or (i not in bracketed and ("<" in t.content or ">" in t.content))
            for i, t in added.items()
        )
        self._seeds = sorted(plain.items())
        self._cuts = bool(plain) and not strange and self._reads_pieces_alone()
        self._reset()

    @cached_property
    def reads_units_alone(self) -> bool:
        """Whether a text that goes on after a line end, or after an added token, is read as it would be alone: not so
        where a blank is put before the first word of a text or before all that follow added tokens."""
        if not self._cuts:
            return False
        pairs = [("assistant\n", "Hello"), ("Hello\n", "e9 x")]
        alone = [self.ids([left, right]) for left, right in pairs]
        together = self.ids([left + right for left, right in pairs])
        return all(a + b == whole for (a, b), whole in zip(alone, together, strict=True))

    def going_on(self, text: str) -> list[int]:
        """Token ids of a text that goes on after other text and merges with nothing of it."""
        anchors = ["\n", ":", *(content for _, content in self._seeds[:1])]
        for before, whole in zip(
            self.ids(anchors), self.ids([anchor + text for anchor in anchors]), strict=True
        ):
            if whole[: len(before)] == before:
                return whole[len(before) :]
        return self.ids([text])[0]

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, straight from the tokenizer."""
        if not texts:
            return []
        found = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return found["input_ids"]  # type: ignore[no-any-return]

    def rows(self, texts: Sequence[str]) -> TokenRows:
        """Token ids of each text; the same as :meth:`ids`."""
        if not self._cuts or len(texts) < FEW:
            return TokenRows.of(self.ids(list(texts)))
        if len(self._table) > KEPT_PIECES:
            self._reset()
        series = pl.Series("text", texts, dtype=pl.String)
        pieces = series.str.extract_all(PIECE)
        counts = pieces.list.len().to_numpy().astype(np.int64)
        flat = pieces.explode().drop_nulls()
        flat, counts = self._whole_where_stray(series, flat, counts)
        slots = self._slots(flat)
        encoded = self._encoded.take(slots)
        ends = np.concatenate([[0], np.cumsum(counts)])
        return TokenRows(encoded.tokens, encoded.offsets[ends])

    def _reset(self) -> None:
        words = [content for _, content in self._seeds]
        self._table = pl.DataFrame({"piece": words, "slot": np.arange(len(words), dtype=np.int64)})
        self._encoded = TokenRows.of([[i] for i, _ in self._seeds])
        self._tokens = pl.DataFrame({"piece": words})

    def _whole_where_stray(self, texts: pl.Series, flat: pl.Series, counts: Int64) -> tuple[pl.Series, Int64]:
        """A ``<`` that begins no token belongs to the words around it: such texts stay in one piece."""
        angled = flat.str.starts_with("<")
        candidates = flat.filter(angled).unique()
        stray = candidates.to_frame("piece").join(self._tokens, on="piece", how="anti")["piece"]
        if stray.is_empty():
            return flat, counts
        owner = np.repeat(np.arange(len(counts)), counts)
        hit = flat.is_in(stray.implode()).to_numpy()
        whole = np.zeros(len(counts), bool)
        whole[owner[hit]] = True
        first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        keep = ~whole[owner]
        keep[first[whole]] = True
        chosen = flat.to_frame("piece").with_columns(whole=pl.Series(whole[owner]), owner=pl.Series(owner))
        chosen = chosen.filter(pl.Series(keep)).with_columns(text=texts.gather(owner[keep]))
        merged = chosen.select(pl.when("whole").then("text").otherwise("piece").alias("piece"))["piece"]
        return merged, np.where(whole, 1, counts)

    def _slots(self, flat: pl.Series) -> Int64:
        """Where each piece stands in the table, after new ones are added."""
        frame = flat.to_frame("piece")
        new = frame.unique().join(self._table, on="piece", how="anti")["piece"].sort()
        if len(new):
            self._encoded = TokenRows.concat([self._encoded, TokenRows.of(self.ids(new.to_list()))])
            slots = np.arange(len(self._table), len(self._table) + len(new), dtype=np.int64)
            self._table = pl.concat([self._table, pl.DataFrame({"piece": new, "slot": slots})])
        joined = frame.join(self._table, on="piece", how="left", maintain_order="left")
        return joined["slot"].to_numpy()

    def _reads_pieces_alone(self) -> bool:
        """Byte-level tokenizers do; those that write a blank before the first word of a text don't."""
        token_id, token = self._seeds[0]
        samples = ["Hello", " Hello world", "\nHello", "e9 x", " ", "A\n\n b "]
        alone = self.ids(samples)
        after = self.ids([token + sample for sample in samples])
        between = self.ids([f"{sample}{token}{sample}" for sample in samples])
        return all(
            b == [token_id, *a] and c == [*a, token_id, *a]
            for a, b, c in zip(alone, after, between, strict=True)
        )
