"""LangPTune's published layout: a table of items and tables of sessions, as Parquet or as Hugging Face's arrow folders.

Source: the data scripts of https://github.com/ZhaolinGao/LangPTune, which name the columns
(``tokenize_for_gemma_mxbai.py``, ``reprocess_data.py``), and the tables that its README points to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from transformers import PreTrainedTokenizerBase

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.settings import SplitRule
from itemic.errors import ConfigError, DataError
from itemic.profile.sessions import Sessions
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords, Prompts

INDEX, TEXT, TOKENS = "index", "item_descriptions", "item_description_tokens"
IN, OUT, PROMPT, REFERENCE = "in_sess_item_idxs", "out_sess_item_idxs", "sess_descriptions", "ref_responses"
DENSE_IN, DENSE_OUT = "dense_in_sesses", "dense_out_sesses"
PROMPT_TOKENS, REFERENCE_TOKENS = (
    "sess_description_",
    "ref_response_",
)  # and the name of the tokenizer's model
SPLITS = {"train": c.TRAIN, "val": c.VALID, "test": c.TEST}
ALIASES = {"validation": "val", "valid": "val"}
BATCH = 256

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")
_LINE = re.compile(r"^(Title|Description|Brand|Category|Price|Average rating): ?", re.MULTILINE)
_AVERAGE = re.compile(r"\(average rating: [^()]*\) ?")
_SAID = re.compile(
    r"\n(?:Review from the user: \(rating: (?P<theirs>[\d.]+)\) ?"
    r"|This person's rating: (?P<ours>[\d.]+) of 5(?:\nThis person's review: )?)"
)


@dataclass(frozen=True, eq=False)
class Layout:
    """The published tables.

    Attributes:
        items: ``index``, ``item_descriptions`` and ``item_description_tokens``; a row's number is the item's.
        sessions: under ``train``, ``val`` and ``test`` tables with ``in_sess_item_idxs``, ``out_sess_item_idxs`` (lists
            of item numbers), ``sess_descriptions`` (the prompt, with its chat markers), ``ref_responses`` (the text of
            the last item shown) and the token ids of both, in columns named for the models that read them. The dense
            columns, of a number for each item, say nothing more and aren't kept.
    """

    items: pl.DataFrame
    sessions: dict[str, pl.DataFrame]

    @classmethod
    def read(cls, items: str | Path, sessions: str | Path) -> Layout:
        """Read both tables.

        Args:
            items: a Parquet file, a folder of them, or a folder that ``datasets`` saved.
            sessions: the same; a split's files are named for it, or lie in a folder with ``dataset_dict.json``.

        Raises:
            DataError: a file is missing or broken, or a table lacks a column, names items that aren't there, or its
                sessions don't fit their items.
        """
        parts = _files(Path(items))
        table = pl.concat([_table(file, None) for files in parts.values() for file in files])
        _need(table, (INDEX, TEXT, TOKENS), items)
        numbers = table[INDEX].cast(pl.Int64).to_list()
        if len(set(numbers)) != len(numbers):
            raise DataError(f"{items} has an item number twice", "Give the items' table alone.")
        row = {number: place for place, number in enumerate(numbers)}
        found = {}
        for split, files in _files(Path(sessions)).items():
            name = ALIASES.get(split, split)
            if name not in SPLITS:
                raise DataError(f"{sessions} has a split {split!r}", "Name splits train, val and test.")
            read = pl.concat([_table(file, (DENSE_IN, DENSE_OUT)) for file in files])
            _need(read, (IN, OUT, PROMPT, REFERENCE), f"{sessions}, split {split}")
            for prefix in (PROMPT_TOKENS, REFERENCE_TOKENS):
                named(read, prefix, f"{sessions}, split {split}")
            found[name] = read.with_columns(
                _renumbered(read[column], row, f"{sessions}, split {split}") for column in (IN, OUT)
            )
        return cls(table.with_columns(pl.Series(INDEX, range(len(table)), dtype=pl.Int64)), found)

    def dataset(self, name: str = "langptune") -> Dataset:
        """The sessions as a dataset under the published split: each is a user of its own, ``val-12``.

        Titles, categories, brands and prices are what the items' texts say under these labels. Ratings and reviews are
        read from the prompts, where an item's text stands there word for word; the others have none, and ``notes``
        counts them. Sessions of it under ``split: dataset`` are the published ones.
        """
        texts = self.items[TEXT].to_list()
        told = [_fields(text) for text in texts]
        items = pl.DataFrame(
            {
                c.ITEM_ID: [f"item-{row}" for row in range(len(texts))],
                c.TITLE: [each.get("Title", "") for each in told],
                c.DESCRIPTION: [_AVERAGE.sub("", each.get("Description", ""), count=1) for each in told],
                c.BRAND: [each.get("Brand", "") for each in told],
                c.CATEGORIES: pl.Series(
                    [_path(each.get("Category", "")) for each in told], dtype=pl.List(pl.String)
                ),
                c.PRICE: pl.Series([_number(each.get("Price", "")) for each in told], dtype=pl.Float64),
            }
        )
        events: list[tuple[str, int, float | None, str, str]] = []
        unread = without = 0
        for split, table in self.sessions.items():
            for number, (shown, out, prompt) in enumerate(table.select(IN, OUT, PROMPT).iter_rows()):
                user, said = f"{split}-{number}", _said(prompt, [texts[row] for row in shown])
                unread += sum(rating is None for rating, _ in said)
                events += [
                    (user, row, rating, review, c.TRAIN)
                    for row, (rating, review) in zip(shown, said, strict=True)
                ]
                target = next((row for row in out if row not in shown), None)
                if target is None:
                    without += 1
                else:
                    events.append((user, target, None, "", SPLITS[split]))
        table = pl.DataFrame(
            {
                c.USER_ID: [event[0] for event in events],
                c.ITEM_ID: [f"item-{event[1]}" for event in events],
                c.TIMESTAMP: pl.Series([None] * len(events), dtype=pl.Int64),
                c.RATING: pl.Series([event[2] for event in events], dtype=pl.Float32),
                c.SPLIT: [event[4] for event in events],
                c.REVIEW: [event[3] for event in events],
            }
        )
        notes = {"inputs without a rating in the prompt": unread, "sessions without a target": without}
        return Dataset(items, table, name, SplitRule("published", history=None), notes)


def write_layout(
    folder: str | Path,
    sessions: Sessions,
    words: ProfileWords,
    prompts: Prompts,
    *,
    writer: PreTrainedTokenizerBase,
    embedder: PreTrainedTokenizerBase,
    names: tuple[str, str] = ("llama", "mxbai"),
    form: Literal["parquet", "arrow"] = "parquet",
    max_tokens: tuple[int, int] = (1024, 512),
    dense: bool = True,
) -> list[str]:
    """Write sessions in the published layout, to ``items/`` and ``sessions/`` in a folder.

    Tokens are padded as the public code wants them: prompts on the left, texts of items on the right.

    Args:
        folder: is made.
        sessions: all of them; each split becomes one.
        words: that made the prompts. An item's text is what they say of it, without the user's rating and review.
        prompts: of the sessions, by the writer's tokenizer.
        writer: tokenizer that the prompts are for.
        embedder: tokenizer of the model that reads items.
        names: of both models, in the names of columns.
        form: ``parquet``, or ``arrow`` for folders as ``datasets.load_from_disk`` reads them.
        max_tokens: the length of prompts and of items' texts, in tokens.
        dense: with the columns of a number for each item, which the public code needs.

    Returns:
        What these files can't hold, in words.

    Raises:
        ConfigError: a tokenizer can't pad, a prompt is too long, or prompts are of other sessions.
    """
    if len(prompts.texts) != len(sessions):
        raise ConfigError(
            f"{len(prompts.texts)} prompts for {len(sessions)} sessions", "Give those of these sessions."
        )
    if len(prompts.texts) and (longest := int(prompts.lengths.max())) > max_tokens[0]:
        raise ConfigError(
            f"a prompt has {longest} tokens, more than {max_tokens[0]}", "Cut prompts to that length."
        )
    pads = [tokenizer.pad_token_id for tokenizer in (writer, embedder)]
    if None in pads:
        raise ConfigError("a tokenizer has no padding token", "Set its pad_token.")
    fields = tuple(name for name in words.rule.fields if name not in ("rating", "review"))
    if not fields:
        raise ConfigError("the words say nothing of items", "Give fields such as title and category.")
    facts = words.facts
    about = ProfileWords(facts, WordsSettings(fields=fields))
    texts = [about.item(row) for row in range(len(facts))]
    whole = embedder(texts, truncation=True, max_length=max_tokens[1])["input_ids"] if texts else []
    long = sum(len(row) > max_tokens[1] for row in embedder(texts)["input_ids"]) if texts else 0
    tokens = [[*row, *[pads[1]] * (max_tokens[1] - len(row))] for row in whole]
    root = Path(folder)
    items = pa.table(
        {INDEX: list(range(len(texts))), TEXT: texts, TOKENS: pa.array(tokens, pa.list_(pa.int64()))}
    )
    _write(root / "items", {"train": iter([items])}, form, alone=True)

    def batches(split: str) -> Iterator[pa.Table]:
        own = np.flatnonzero(sessions.labels == c.SPLITS.index(SPLITS[split]))
        for start in range(0, max(len(own), 1), BATCH):
            yield _batch(own[start : start + BATCH], start)

    def _batch(own: npt.NDArray[np.int64], start: int) -> pa.Table:
        ids = pa.list_(pa.int64())
        shown = [sessions.inputs(session).tolist() for session in own]
        targets = [[int(sessions.targets[session])] for session in own]
        last = [rows[-1] if rows else None for rows in shown]
        read = [prompts.tokens[session].tolist() for session in own]
        columns: dict[str, Any] = {
            IN: pa.array(shown, ids),
            OUT: pa.array(targets, ids),
            PROMPT: pa.array([writer.decode(row) for row in read], pa.string()),
            PROMPT_TOKENS + names[0]: pa.array(
                [[*[pads[0]] * (max_tokens[0] - len(row)), *row] for row in read], ids
            ),
            REFERENCE: pa.array(["" if row is None else texts[row] for row in last], pa.string()),
            REFERENCE_TOKENS + names[1]: pa.array(
                [[pads[1]] * max_tokens[1] if row is None else tokens[row] for row in last], ids
            ),
            INDEX: pa.array(range(start, start + len(own)), pa.int64()),
        }
        for name, rows in ((DENSE_IN, shown), (DENSE_OUT, targets)) if dense else ():
            marks = np.zeros((len(rows), len(texts)))
            for place, there in enumerate(rows):
                marks[place, there] = 1
            columns[name] = pa.array(list(marks), pa.list_(pa.float64()))
        return pa.table(columns)

    _write(root / "sessions", {split: batches(split) for split in SPLITS}, form, alone=False)
    lost = ["user ids", "times", "ratings and reviews but in the prompts' words"]
    return lost + ([f"the ends of {long} items' texts, longer than {max_tokens[1]} tokens"] if long else [])


# --------------------------------------------------------------------------------------------------- files


def named(table: pl.DataFrame, prefix: str, where: str) -> str:
    """The column with token ids, whatever model it is named for (``sess_description_gemma``, ``…_llama``).

    Raises:
        DataError: there is none, or more than one.
    """
    found = [name for name in table.columns if name.startswith(prefix)]
    if len(found) != 1:
        raise DataError(
            f"{where} has {len(found)} columns {prefix}…",
            f"Give it one, such as {prefix}llama or {prefix}mxbai.",
        )
    return found[0]


def _files(path: Path) -> dict[str, list[Path]]:
    """The files of each split, in order."""
    if path.is_file():
        return {path.stem if path.stem in {*SPLITS, *ALIASES} else "train": [path]}
    if not path.is_dir():
        raise DataError(f"there is no {path}", "Give a Parquet file or a folder of the published layout.")
    if (path / "dataset_dict.json").is_file():
        splits = _json(path / "dataset_dict.json").get("splits", [])
        return {split: _saved(path / split) for split in splits}
    if (path / "state.json").is_file():
        return {"train": _saved(path)}
    found: dict[str, list[Path]] = {}
    for file in sorted([*path.glob("*.parquet"), *(path / "data").glob("*.parquet")]):
        shard = _SHARD.fullmatch(file.stem)
        found.setdefault(shard[1] if shard else file.stem, []).append(file)
    if not found:
        raise DataError(
            f"{path} has no Parquet files, no dataset_dict.json and no state.json",
            "Give a folder of the published layout.",
        )
    if len(found) == 1 and not {*found} & {*SPLITS, *ALIASES}:
        return {"train": next(iter(found.values()))}
    return found


def _saved(folder: Path) -> list[Path]:
    listed = _json(folder / "state.json").get("_data_files", [])
    files = [folder / str(each.get("filename")) for each in listed]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        told = f"{missing[0]}, which its state.json names" if missing else f"any arrow file in {folder}"
        raise DataError(f"there isn't {told}", "Save the dataset again, or fetch all of its files.")
    return files


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} can't be read: {error}", "Fetch or save it again.") from error


def _table(file: Path, without: Sequence[str] | None) -> pl.DataFrame:
    """A file as a table, without some columns; the dense ones are read in small parts and dropped at once."""
    drop = set(without or ())
    try:
        if file.suffix == ".parquet":
            names = [name for name in pa.parquet.read_schema(file).names if name not in drop]
            return pl.from_arrow(pa.parquet.read_table(file, columns=names))  # type: ignore[return-value]
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            schema = stream.schema
            keep = [place for place, name in enumerate(schema.names) if name not in drop]
            parts = [batch.select(keep) for batch in stream]
            whole = pa.Table.from_batches(parts, pa.schema([schema.field(place) for place in keep]))
            return pl.from_arrow(whole, rechunk=True)  # type: ignore[return-value]
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file} can't be read: {error}", "Fetch or save it again.") from error


def _need(table: pl.DataFrame, columns: Sequence[str], where: str | Path) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"{where} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}",
            "Give the table of LangPTune's layout.",
        )


def _renumbered(column: pl.Series, row: dict[int, int], where: str) -> pl.Series:
    """Item numbers as rows of the items' table."""
    lists = column.cast(pl.List(pl.Int64)).to_list()
    for session, own in enumerate(lists):
        unknown = next((number for number in own or () if number not in row), None)
        if unknown is not None or own is None:
            raise DataError(
                f"{where}: session {session} names item {unknown}, which is not in the items' table",
                "Give the items' table that these sessions were made with.",
            )
    return pl.Series(column.name, [[row[number] for number in own] for own in lists], dtype=pl.List(pl.Int64))


def _write(root: Path, tables: dict[str, Iterator[pa.Table]], form: str, *, alone: bool) -> None:
    """Tables of splits, part by part; ``alone`` is one without splits."""
    root.mkdir(parents=True, exist_ok=True)
    for split, parts in tables.items():
        first = next(parts)
        if form == "parquet":
            with pa.parquet.ParquetWriter(root / f"{split}-00000-of-00001.parquet", first.schema) as out:
                for part in _chain(first, parts):
                    out.write_table(part)
            continue
        if form != "arrow":
            raise ConfigError(f"unknown form {form!r}", "Use parquet or arrow.")
        folder = root if alone else root / split
        folder.mkdir(exist_ok=True)
        info = {"features": {field.name: _feature(field.type) for field in first.schema}}
        schema = first.schema.with_metadata({"huggingface": json.dumps({"info": info})})
        name = "data-00000-of-00001.arrow"
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
            for part in _chain(first, parts):
                stream.write_table(part.cast(schema))
        (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
        state: dict[str, Any] = {
            "_data_files": [{"filename": name}],
            "_fingerprint": "0" * 16,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    if form == "arrow" and not alone:
        (root / "dataset_dict.json").write_text(json.dumps({"splits": list(tables)}), encoding="utf-8")


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type as ``datasets`` writes it."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "length": -1, "_type": "Sequence"}
    names = {pa.int64(): "int64", pa.float64(): "float64", pa.string(): "string"}
    return {"dtype": names[kind], "_type": "Value"}


# --------------------------------------------------------------------------------------------------- texts


def _fields(text: str) -> dict[str, str]:
    """What stands behind each label of an item's text; a label counts once, the first time."""
    marks: list[tuple[str, int, int]] = []
    for mark in _LINE.finditer(text):
        if mark[1] not in {label for label, *_ in marks}:
            marks.append((mark[1], mark.start(), mark.end()))
    ends = [start for _, start, _ in marks[1:]] + [len(text)]
    return {label: text[begin:end].strip() for (label, _, begin), end in zip(marks, ends, strict=True)}


def _path(text: str) -> list[str]:
    if text.startswith("[") and text.endswith("]"):
        return [name for name in re.findall(r"['\"](.*?)['\"](?=\s*[,\]])", text) if name]
    return [name.strip() for name in text.split(" > ") if name.strip()]


def _number(text: str) -> float | None:
    found = re.fullmatch(r"\$?\s*(\d+(?:\.\d+)?)", text.replace(",", ""))
    return float(found[1]) if found else None


def _said(prompt: str, texts: Sequence[str]) -> list[tuple[float | None, str]]:
    """Rating and review of each item that a prompt shows; None where its text isn't there."""
    found: list[tuple[float | None, str]] = []
    places, at = [], 0
    for text in texts:
        place = prompt.find(text, at)
        places.append(place)
        at = place + len(text) if place >= 0 else at
    for number, (text, place) in enumerate(zip(texts, places, strict=True)):
        said = _SAID.match(prompt, place + len(text)) if place >= 0 else None
        if said is None:
            found.append((None, ""))
            continue
        later = next((other for other in places[number + 1 :] if other >= 0), None)
        review = prompt[said.end() : later].strip()
        if later is None:  # what the template closes the user's turn with
            review = re.split(r"<end_of_turn>|<\|eot_id\|>|<\|im_end\|>", review, maxsplit=1)[0].strip()
        found.append((float(said["theirs"] or said["ours"]), review))
    return found
