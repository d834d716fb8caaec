"""Checks of conversations: form, roles, semantic IDs, lengths, duplicates, balance, leakage. Part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.progress import track
from itemic.sid.index import ItemIndex
from itemic.sid.names import ItemNames
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.conversation import Conversations
from itemic.tasks.leakage import LISTS, HeldOut, find_leaks
from itemic.tasks.next_title import NEXT_TITLE
from itemic.tasks.report import Balance, Fault, ValidationReport
from itemic.tasks.turns import TEXT, Turns, take_apart

ROLE_ORDER = rf"^(?:(?:system,)?user,assistant(?:,user,assistant)*|{TEXT}(?:,{TEXT})*)$"
MIN_ROWS_FOR_BALANCE = 100
THOUGHTS = rf"(?s)^\s*{c.THINK_START}.*?{c.THINK_END}"  # what an answer may begin with


def validate(
    conversations: Conversations | pl.DataFrame | pl.LazyFrame | str | Path,
    dataset: Dataset,
    index: ItemNames,
    *,
    max_chars: int = 20_000,
    max_target_share: float = 0.5,
    listed: int = 10,
) -> ValidationReport:
    """Check conversations against the dataset and the index they were made for.

    Args:
        conversations: whatever :meth:`Conversations.open` takes.
        dataset: tells what is held out.
        index: tells which semantic IDs there are.
        max_chars: the longest row, in characters over all its turns.
        max_target_share: the largest share of a source's targets that one item may have; sources with fewer
            than 100 targets aren't judged.
        listed: how many faults of each check are kept in full.

    Raises:
        DataError: a file can't be read, or lacks columns.
        IndexMismatchError: the index belongs to another dataset.
    """
    index.check_dataset(dataset)
    checker = _Checker(dataset, index, max_chars, listed)
    source = Conversations.open(conversations)
    for part, frame in track(source.frames(), "validation", total=max(1, len(source.parts))):
        checker.check(part, frame)
    checker.check_balance(max_target_share)
    return checker.report


class _Checker:
    """The checks, and what they remember from part to part: hashes of rows, counts of targets."""

    def __init__(self, dataset: Dataset, index: ItemNames, max_chars: int, listed: int) -> None:
        self.report = ValidationReport()
        self.index = index
        self.max_chars = max_chars
        self.listed = listed
        self.held = HeldOut.of(dataset, index)
        self.patterns = index.patterns
        self.sids = pl.DataFrame({"sid": index.texts, "y": index.name_numbers}).unique("sid")
        self.items = pl.DataFrame(
            {"target": index.item_ids, "number": index.name_numbers, "item": np.arange(len(index))}
        )
        self.prefixes = _known_prefixes(index)
        self.seen: dict[str, set[int]] = {"uuid": set(), "duplicate": set()}
        self.targets: dict[str, npt.NDArray[np.int64]] = {}

    def check(self, part: str, frame: pl.DataFrame) -> None:
        self.part, self.uuids = part, frame["uuid"]
        self.report.rows += len(frame)
        for source, count in frame["source"].value_counts().iter_rows():
            self.report.sources[str(source)] += count
        nameless = frame.with_row_index("row").filter(pl.any_horizontal(pl.col("uuid", "source").is_null()))
        self._add("uuid", nameless["row"], "uuid or source is missing")
        self._add_repeated("uuid", frame["uuid"], "the uuid was there before")
        parts = take_apart(frame)
        for row, fault in parts.broken:
            self._add("form", [row], fault)
        self._check_turns(parts)
        spoken = self._check_sids(parts)
        rows = self._check_targets(parts)
        group = parts.rows.select(pl.col("row").cast(pl.UInt32), "group")
        content = frame.with_row_index("row").join(group, on="row", how="left", maintain_order="left")
        said = content.select("source", "group", pl.coalesce("messages", "segments")).to_struct()
        self._add_repeated("duplicate", said, "an equal row of the same group was there before")
        for row, detail in find_leaks(rows, spoken, self.held).iter_rows():
            self._add("leakage", [row], detail)

    def _check_turns(self, parts: Turns) -> None:
        by_row = parts.turns.group_by("row", maintain_order=True).agg(
            roles=pl.col("role").fill_null("?").str.join(","),
            empty=(pl.col("text").fill_null("").str.strip_chars() == "").any(),
            chars=pl.col("text").str.len_chars().sum(),
        )
        silent = parts.rows.join(by_row, on="row", how="anti")
        self._add("empty", silent["row"], "it has no turns")
        unordered = by_row.filter(~pl.col("roles").str.contains(ROLE_ORDER))
        for row, roles in unordered.select("row", "roles").iter_rows():
            self._add("roles", [row], f"its roles are {roles}")
        self._add("empty", by_row.filter("empty")["row"], "a turn is empty")
        long = by_row.filter(pl.col("chars") > self.max_chars)
        for row, chars in long.select("row", "chars").iter_rows():
            self._add("length", [row], f"it has {chars:,} characters, more than {self.max_chars:,}")

    def _check_sids(self, parts: Turns) -> pl.DataFrame:
        """The known semantic IDs of all turns in order, as ``row`` and ``y``; other ones are faults."""
        found = parts.turns.select("row", sid=pl.col("text").str.extract_all(self.patterns.name))
        found = found.explode("sid", empty_as_null=False).filter(pl.col("sid").is_not_null())
        known = found.join(self.sids, on="sid", how="left", maintain_order="left")
        for row, sid in known.filter(pl.col("y").is_null()).select("row", "sid").iter_rows():
            self._add("sid", [row], f"{sid} is no item's")
        rest = parts.turns.with_columns(pl.col("text").str.replace_all(self.patterns.name, "\n"))
        rest = rest.filter(pl.col("text").str.contains(self.patterns.token))
        if len(rest):
            self._check_rest(rest.join(parts.rows.select("row", "task"), on="row", how="left"))
        return known.filter(pl.col("y").is_not_null()).select("row", "y")

    def _check_rest(self, rest: pl.DataFrame) -> None:
        """Tokens outside whole semantic IDs are fine as prefixes that task D asks about, broken elsewhere."""
        asked = (pl.col("task").eq_missing("D")) & (pl.col("role") == "user")
        if self.patterns.prefix is not None:
            prefix = rest.filter(asked).select("row", p=pl.col("text").str.extract_all(self.patterns.prefix))
            prefix = prefix.explode("p", empty_as_null=False).filter(
                ~pl.col("p").is_in(self.prefixes.implode())
            )
            self._add("sid", prefix["row"], "a prefix is that of no item")
            bare = pl.col("text").str.replace_all(self.patterns.prefix, "\n")
            rest = rest.with_columns(text=pl.when(asked).then(bare).otherwise("text"))
        broken = rest.filter(pl.col("text").str.contains(self.patterns.token))
        token_of = broken.select("row", pl.col("text").str.extract(f"({self.patterns.token})"))
        for row, token in token_of.iter_rows():
            self._add("sid", [row], f"{token} stands outside a whole {self.index.word}")

    def _check_targets(self, parts: Turns) -> pl.DataFrame:
        """The rows with ``targets`` as semantic ID numbers; counts targets for the balance."""
        named = parts.rows.select("row", "source", "target").explode("target", empty_as_null=False)
        named = named.filter(pl.col("target").is_not_null()).join(
            self.items, on="target", how="left", maintain_order="left"
        )
        for row, target in named.filter(pl.col("item").is_null()).select("row", "target").iter_rows():
            self._add("target", [row], f"target {target!r} is no item of the dataset")
        named = named.filter(pl.col("item").is_not_null())
        for (source,), rows in named.group_by("source"):
            counts = np.bincount(rows["item"].to_numpy(), minlength=len(self.index))
            before = self.targets.get(str(source), np.zeros(len(self.index), np.int64))
            self.targets[str(source)] = before + counts
        answers = (
            parts.turns.group_by("row", maintain_order=True).last().filter(pl.col("role") == "assistant")
        )
        single = named.group_by("row").agg(pl.col("number").first(), pl.len()).filter(pl.col("len") == 1)
        thoughtless = pl.col("text").str.replace(THOUGHTS, "").str.strip_chars()
        listed = pl.col("task").fill_null("").str.starts_with(LISTS)
        in_words = parts.rows.filter(pl.col("kind").eq_missing(NEXT_TITLE) | listed)
        asked = answers.join(single, on="row").join(in_words, on="row", how="anti")
        asked = asked.with_columns(sid=thoughtless)
        wrong = asked.join(self.sids, on="sid", how="left").filter(~pl.col("y").eq_missing(pl.col("number")))
        self._add("target", wrong["row"].sort(), f"the answer is not the target's {self.index.word}")
        targets = named.group_by("row").agg(targets=pl.col("number"))
        return parts.rows.drop("target").join(targets, on="row", how="left")

    def check_balance(self, most: float) -> None:
        for source, counts in sorted(self.targets.items()):
            total, items = int(counts.sum()), int((counts > 0).sum())
            top = int(counts.argmax())
            shares = counts[counts > 0] / total
            entropy = -float((shares * np.log(shares)).sum())
            evenness = entropy / np.log(items) if items > 1 else 0.0
            share = float(counts[top] / total)
            name = self.index.item_ids[top]
            self.report.balance[source] = Balance(total, items, name, share, float(evenness))
            if total >= MIN_ROWS_FOR_BALANCE and share > most:
                self.report.counts["balance"] += 1
                detail = f"item {name!r} is {share:.1%} of all targets, more than {most:.0%}"
                self.report.faults.append(Fault("balance", f"source {source}", -1, None, detail))

    def _add_repeated(self, check: str, values: pl.Series, detail: str) -> None:
        seen = self.seen[check]
        rows = []
        known = values.is_not_null().to_list()
        for row, value in enumerate(values.hash().to_list()):
            if not known[row]:
                continue
            if value in seen:
                rows.append(row)
            seen.add(value)
        self._add(check, rows, detail)

    def _add(self, check: str, rows: Any, detail: str) -> None:
        for row in rows:
            self.report.counts[check] += 1
            if self.report.counts[check] <= self.listed:
                self.report.faults.append(Fault(check, self.part, row, self.uuids[row], detail))


def _known_prefixes(index: ItemNames) -> pl.Series:
    """The texts of all proper prefixes of the items' semantic IDs."""
    if not isinstance(index, ItemIndex):
        return pl.Series([], dtype=pl.String)
    catalogue = Catalogue(index)
    texts = [catalogue.prefixes(depth).unique() for depth in range(1, index.levels)]
    return pl.concat(texts) if texts else pl.Series([], dtype=pl.String)
