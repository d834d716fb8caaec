"""One tiny marketplace, written in every source format, and ways to break each."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

# item 4 truly has an empty title; the title of item 1 carries an entity where the format's sources do
TITLES = {"1": "Comb & Brush", "2": "Crème, 50 ml", "3": "Soap", "4": ""}
SEQUENCES = {"7": ["1", "2", "3", "4"], "8": ["2", "1", "2"], "9": ["3", "4", "1"]}
NUMBER = {"7": 0, "8": 1, "9": 2}
START = 1_400_000_000
CATEGORIES = ["Beauty", "Tapes, Glue & More"]

Sequences = dict[str, list[str]]


def seconds(user: str, position: int) -> int:
    """When a user had the item at a position: rising within the user, interleaved between users."""
    return START + 100 * position + NUMBER[user]


def events() -> list[tuple[str, str, int]]:
    """(user, item, seconds) in an order that is no user's and, for user 7, not the order of time."""
    rows = [
        (user, item, seconds(user, i)) for user, items in SEQUENCES.items() for i, item in enumerate(items)
    ]
    return sorted(rows, key=lambda row: (row[1], row[2]))


def without(*lost: str) -> Sequences:
    """The sequences when items are gone."""
    return {user: [item for item in items if item not in lost] for user, items in SEQUENCES.items()}


@dataclass(frozen=True)
class Fault:
    """A way to break a source.

    Attributes:
        name: what is wrong.
        break_it: does it to the folder.
        kind: under which kind the drop is counted; "unknown item" and "missing title" are gaps of the catalogue, which
            ``missing_text`` is about.
        says: what the error message must name.
        left: the sequences that stay when bad rows are dropped.
        options: for ``read``.
    """

    name: str
    break_it: Callable[[Path], None]
    kind: str
    says: tuple[str, ...]
    left: Sequences
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A format: how to write it, what its files say beside titles, its faults, and the values of further columns."""

    format: str
    write: Callable[[Path], None]
    timed: bool
    categories: list[str]
    faults: tuple[Fault, ...]
    items: dict[str, Any] = field(default_factory=dict)
    interactions: dict[str, Any] = field(default_factory=dict)


def edit_text(name: str, old: str, new: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = read_text(folder / name, encoding)
        assert old in text, (name, old)
        write_text(folder / name, text.replace(old, new, 1), encoding)

    return change


def append(name: str, text: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_text(folder / name, read_text(folder / name, encoding) + text, encoding)

    return change


def read_text(path: Path, encoding: str = "utf-8") -> str:
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode(
        encoding
    )


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode(encoding)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def _lines(rows: list[Any]) -> str:
    return "".join(
        f"{row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)}\n" for row in rows
    )


def write_onerec(folder: Path) -> None:
    items = {
        key: {
            "title": title.replace("&", "&amp;"),
            "description": "",
            "categories": " > ".join(CATEGORIES),
            "sid": f"<|sid_begin|><s_a_{key}><|sid_end|>",
        }
        for key, title in TITLES.items()
    }
    write_text(folder / "Tiny.pretrain.json", json.dumps(items, indent=0))
    rows = [" ".join([user, *items]) for user, items in SEQUENCES.items()]
    write_text(folder / "sequential_data_processed.txt", _lines(rows))


def write_letter(folder: Path) -> None:
    items = {
        key: {"title": title, "description": "", "brand": "Unknown", "categories": ",".join(CATEGORIES)}
        for key, title in TITLES.items()
    }
    write_text(folder / "Tiny.item.json", json.dumps(items, ensure_ascii=False))
    write_text(
        folder / "Tiny.inter.json",
        json.dumps({user: [int(item) for item in items] for user, items in SEQUENCES.items()}),
    )


MINIONEREC_SPLIT = {"7": ["train", "valid", "test"], "8": ["train", "valid"], "9": ["train", "test"]}
MINIONEREC_COLUMNS = [
    "user_id",
    "history_item_title",
    "item_title",
    "history_item_id",
    "item_id",
    "history_item_sid",
    "item_sid",
]


def write_minionerec(folder: Path) -> None:
    items = {
        key: {"title": title, "description": f"['{title}', 'more']", "brand": "", "categories": ""}
        for key, title in TITLES.items()
    }
    write_text(folder / "index" / "Tiny.item.json", json.dumps(items))
    for split in ("train", "valid", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        with (folder / split / "Tiny_5.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(MINIONEREC_COLUMNS)
            for user, sequence in SEQUENCES.items():
                for position, label in enumerate(MINIONEREC_SPLIT[user], 1):
                    if label == split:
                        history, target = sequence[:position], sequence[position]
                        titles = [TITLES[item] for item in history]
                        ids = [int(item) for item in history]
                        table.writerow([user, titles, TITLES[target], ids, target, [], ""])


def write_openonerec(folder: Path) -> None:
    """The split is MINIONEREC_SPLIT; the texts of semantic IDs, which nobody reads here, are made up."""
    rule = {"method": "published", "history": 50, "ratios": [0.8, 0.1, 0.1]}
    write_text(folder / "dataset.split.json", json.dumps({"name": "tiny", "split": rule}))
    items: list[dict[str, Any]] = [
        {
            "item_id": key,
            "title": title,
            "description": "",
            "brand": "",
            "categories": CATEGORIES,
            "price": 1.5,
        }
        for key, title in TITLES.items()
    ]
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    for user, sequence in SEQUENCES.items():
        labels = ["train", *MINIONEREC_SPLIT[user]]
        times = [1000 * seconds(user, i) for i in range(len(sequence))]
        known = labels.count("train")
        about = {"group": f"user:{user}", "order": NUMBER[user]}
        more = {"timestamps": times[:known], "ratings": [4.5] * known}
        rows["train"].append(about | {"items": sequence[:known], "split": "train"} | more)
        for i, split in list(enumerate(labels))[known:]:
            target = {"items": sequence[:i], "split": split, "target": [sequence[i]]}
            rows[split].append(about | target | {"timestamps": [times[i]], "ratings": [4.5]})
    for split, metadata in rows.items():
        write_conversations(folder / f"{split}.parquet", metadata)


def write_conversations(file: Path, metadata: list[Any]) -> None:
    """Rows of plain text with this metadata; a text as it is, anything else as JSON."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in metadata]
    segments = json.dumps([{"type": "text", "text": "<|sid_begin|><s_a_1><|sid_end|>"}])
    table = pl.DataFrame({"metadata": texts}, schema={"metadata": pl.String})
    table.select(
        (file.stem + pl.int_range(pl.len()).cast(pl.String)).alias("uuid"),
        pl.lit("tiny").alias("source"),
        pl.lit(None, pl.String).alias("messages"),
        pl.lit(segments).alias("segments"),
        "metadata",
    ).write_parquet(file)


def edit_metadata(name: str, change: Callable[[list[Any]], None]) -> Callable[[Path], None]:
    """Change the metadata of a file of conversations: a list of the rows' objects."""

    def apply(folder: Path) -> None:
        found = [json.loads(text) for text in pl.read_parquet(folder / name)["metadata"]]
        change(found)
        write_conversations(folder / name, found)

    return apply


def edit_parquet(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        change(pl.read_parquet(folder / name)).write_parquet(folder / name)

    return apply


def write_movielens_csv(folder: Path) -> None:
    rows = [f"{user},{item},4.5,{time}" for user, item, time in events()]
    write_text(folder / "ratings.csv", _lines(["userId,movieId,rating,timestamp", *rows]))
    movies = [f'{key},"{title}","{"|".join(CATEGORIES)}"' for key, title in TITLES.items()]
    write_text(folder / "movies.csv", _lines(["movieId,title,genres", *movies]))


def write_movielens_dat(folder: Path) -> None:
    rows = [f"{user}::{item}::4.5::{time}" for user, item, time in events()]
    write_text(folder / "ratings.dat", _lines(rows), "latin-1")
    movies = [f"{key}::{title}::{'|'.join(CATEGORIES)}" for key, title in TITLES.items()]
    write_text(folder / "movies.dat", _lines(movies), "latin-1")


def write_amazon_2014(folder: Path) -> None:
    reviews: list[Any] = [
        {"reviewerID": user, "asin": item, "overall": 4.5, "unixReviewTime": time, "helpful": [0, 1]}
        | {"reviewText": "Good.\nVery.", "summary": "good"}
        for user, item, time in events()
    ]
    write_text(folder / "reviews_Tiny_5.json.gz", _lines(reviews))
    metas = [
        {
            "asin": key,
            "title": title.replace("&", "&amp;"),
            "categories": [["Beauty"], CATEGORIES],
            "price": 1.5,
            "salesRank": {"Beauty": 12},
        }
        for key, title in TITLES.items()
    ]
    write_text(folder / "meta_Tiny.json.gz", _lines([repr(meta) for meta in metas]))


def write_amazon_2018(folder: Path) -> None:
    reviews: list[Any] = [
        {
            "overall": 4.5,
            "verified": True,
            "reviewerID": user,
            "asin": item,
            "unixReviewTime": time,
            "reviewText": "ok",
        }
        for user, item, time in events()
    ]
    write_text(folder / "Tiny_5.json.gz", _lines(reviews))
    metas: list[Any] = [
        {"category": CATEGORIES, "description": ["<b>a</b>", "b"], "title": title, "brand": "", "asin": key}
        | {"price": "$1,299.50 - $1,400", "main_cat": "All Beauty", "rank": ">#1,234 in Beauty (See top)"}
        for key, title in TITLES.items()
    ]
    write_text(folder / "meta_Tiny.json.gz", _lines(metas))


def write_amazon_2023(folder: Path) -> None:
    reviews: list[Any] = [
        {
            "rating": 4.5,
            "title": "t",
            "asin": "variant",
            "parent_asin": item,
            "user_id": user,
            "timestamp": time * 1000,
            "text": "fine",
        }
        for user, item, time in events()
    ]
    write_text(folder / "Tiny.jsonl.gz", _lines(reviews))
    metas: list[Any] = [
        {
            "title": title,
            "features": ["f"],
            "description": [],
            "store": "S",
            "price": None,
            "main_category": "All Beauty",
            "average_rating": 4.4,
            "rating_number": 7,
            "categories": CATEGORIES,
            "parent_asin": key,
        }
        for key, title in TITLES.items()
    ]
    write_text(folder / "meta_Tiny.jsonl.gz", _lines(metas))


def write_recbole(folder: Path) -> None:
    rows = [f"{user}\t{item}\t4.5\t{time}.0" for user, item, time in events()]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    write_text(folder / "tiny.inter", _lines([header, *rows]))
    names = ", ".join(f"'{name}'" for name in CATEGORIES)
    items = [f"{key}\t{title}\t{names}" for key, title in TITLES.items()]
    write_text(folder / "tiny.item", _lines(["item_id:token\ttitle:token_seq\tcategories:token_seq", *items]))


def reclm_gen_files() -> dict[str, dict[str, Any]]:
    """By the name of a file what it holds; user 9 has no candidates."""
    items = list(TITLES)
    titles = {key: title.replace("&", "&amp;") for key, title in TITLES.items()}
    return {
        "sequential": dict(SEQUENCES),
        "meta": {
            key: {"title": title, "shelf": "A 1", "stock": 3, "also_buy": ["1"]}
            for key, title in titles.items()
        },
        "category": {", ".join(CATEGORIES): items, CATEGORIES[0]: items, "Nothing": []},
        "ranking_candidate": {"7": ["2", "1"], "8": ["4", "3"]},
    }


def write_reclm_gen(folder: Path) -> None:
    for name, content in reclm_gen_files().items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


def write_reclm_gen_json(folder: Path) -> None:
    for name, content in reclm_gen_files().items():
        write_text(folder / f"{name}.json", json.dumps(content, ensure_ascii=False))


def edit_pickle(name: str, change: Callable[[dict[Any, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = pickle.loads((folder / name).read_bytes())
        change(content)
        (folder / name).write_bytes(pickle.dumps(content))

    return apply


def write_table(folder: Path) -> None:
    rows = [f'"{user}";{item};4,5;{time}' for user, item, time in events()]
    write_text(folder / "events.csv", _lines(["userId;itemId;rating;time", *rows]))
    items = [f'{key};"{title}";{" > ".join(CATEGORIES)}' for key, title in TITLES.items()]
    write_text(folder / "items.csv", _lines(["item-id;name;category", *items]))


def write_table_lines(folder: Path) -> None:
    rows: list[Any] = [
        {"session": user, "product": int(item), "stars": 4.5, "ts": time * 1000}
        for user, item, time in events()
    ]
    write_text(folder / "clicks.jsonl.gz", _lines(rows))
    items: list[Any] = [
        {"id": key, "title": title, "categories": CATEGORIES} for key, title in TITLES.items()
    ]
    write_text(folder / "items.jsonl", _lines(items))


def _json_key(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return apply


def in_time_order(name: str, late: str) -> Callable[[Path], None]:
    """Sort a file's lines by the time they name and put one more, too late, at the end."""

    def change(folder: Path) -> None:
        lines = read_text(folder / name).splitlines()
        lines.sort(key=lambda line: max((int(number) for number in re.findall(r"\d{10,}", line)), default=0))
        write_text(folder / name, _lines([*lines, late]))

    return change


ONEREC = Case(
    "onerec-think",
    write_onerec,
    False,
    CATEGORIES,
    (
        Fault(
            "unknown item",
            edit_text("sequential_data_processed.txt", "8 2 1", "8 2 99 1"),
            "unknown item",
            ("sequential_data_processed.txt, line 2", "'99'", "'8'"),
            SEQUENCES,
        ),
        Fault(
            "user without items",
            edit_text("sequential_data_processed.txt", "8 2 1 2", "8"),
            "empty sequence",
            ("line 2", "'8'"),
            {"7": SEQUENCES["7"], "9": SEQUENCES["9"]},
        ),
        Fault(
            "user twice",
            append("sequential_data_processed.txt", "7 3 3\n"),
            "duplicate user",
            ("line 4", "'7'"),
            SEQUENCES,
        ),
        Fault(
            "no title",
            _json_key("Tiny.pretrain.json", lambda items: items["3"].pop("title")),
            "missing title",
            ("Tiny.pretrain.json", "'3'"),
            without("3"),
        ),
        Fault(
            "item twice",
            edit_text("Tiny.pretrain.json", '"2": {', '"1": {"title": "no"}, "2": {'),
            "duplicate item",
            ("Tiny.pretrain.json", "'1'"),
            SEQUENCES,
        ),
    ),
)
LETTER = Case(
    "letter",
    write_letter,
    False,
    CATEGORIES,
    (
        Fault(
            "unknown item",
            edit_text("Tiny.inter.json", "[2, 1, 2]", "[2, 99, 1, 2]"),
            "unknown item",
            ("Tiny.inter.json", "'99'", "user '8'"),
            SEQUENCES,
        ),
        Fault(
            "broken sequence",
            edit_text("Tiny.inter.json", "[2, 1, 2]", '"2 1 2"'),
            "broken sequence",
            ("Tiny.inter.json", "'8'"),
            {"7": SEQUENCES["7"], "9": SEQUENCES["9"]},
        ),
        Fault(
            "empty sequence",
            edit_text("Tiny.inter.json", "[2, 1, 2]", "[]"),
            "empty sequence",
            ("Tiny.inter.json", "'8'"),
            {"7": SEQUENCES["7"], "9": SEQUENCES["9"]},
        ),
        Fault(
            "user twice",
            edit_text("Tiny.inter.json", '"9":', '"7": [1], "9":'),
            "duplicate user",
            ("Tiny.inter.json", "'7'"),
            SEQUENCES,
        ),
        Fault(
            "no title",
            _json_key("Tiny.item.json", lambda items: items["3"].pop("title")),
            "missing title",
            ("Tiny.item.json", "'3'"),
            without("3"),
        ),
        Fault(
            "item twice",
            edit_text("Tiny.item.json", '"2": {', '"1": {"title": "no"}, "2": {'),
            "duplicate item",
            ("Tiny.item.json", "'1'"),
            SEQUENCES,
        ),
        Fault(
            "broken item",
            _json_key("Tiny.item.json", lambda items: items.update({"3": "Soap"})),
            "broken item",
            ("Tiny.item.json", "'3'"),
            SEQUENCES,
        ),
    ),
)
MINIONEREC = Case(
    "minionerec",
    write_minionerec,
    False,
    [],
    (
        Fault(
            "unknown item",
            edit_text("valid/Tiny_5.csv", "2,[],", "99,[],"),
            "unknown item",
            ("valid/Tiny_5.csv, line 3", "'99'", "user '8'"),
            SEQUENCES | {"8": ["2", "1"]},
        ),
        Fault(
            "code in place of a list",
            edit_text("valid/Tiny_5.csv", '"[2, 1]"', "\"__import__('os').getcwd()\""),
            "broken line",
            ("valid/Tiny_5.csv, line 3", "history_item_id"),
            SEQUENCES | {"8": ["2", "1"]},
        ),
        Fault(
            "unordered",
            edit_text("test/Tiny_5.csv", '"[1, 2, 3]"', '"[2, 1, 3]"'),
            "unordered time",
            ("test/Tiny_5.csv, line 2", "'7'"),
            SEQUENCES | {"7": ["1", "2", "3"]},
        ),
        Fault(
            "short line",
            append("test/Tiny_5.csv", "9,1\n"),
            "broken line",
            ("test/Tiny_5.csv, line 4",),
            SEQUENCES,
        ),
        Fault(
            "no title",
            _json_key("index/Tiny.item.json", lambda items: items["3"].pop("title")),
            "missing title",
            ("Tiny.item.json", "'3'"),
            without("3"),
        ),
    ),
)
OPENONEREC_LEFT = SEQUENCES | {"8": ["2", "1"]}  # without the row that most faults are in


def _of_user_8(name: str, kind: str, says: str, **changes: Any) -> Fault:
    """The request of user 8, its metadata changed; a value of None takes the key out."""

    def change(rows: list[Any]) -> None:
        (i,) = (i for i, row in enumerate(rows) if row["group"] == "user:8")
        rows[i] = {key: value for key, value in (rows[i] | changes).items() if value is not None}

    place = "valid.parquet, line 2"
    return Fault(name, edit_metadata("valid.parquet", change), kind, (place, says), OPENONEREC_LEFT)


OPENONEREC = Case(
    "openonerec",
    write_openonerec,
    True,
    CATEGORIES,
    (
        _of_user_8("unknown item", "unknown item", "user '8' has item '99'", target=["99"]),
        _of_user_8("no group", "broken line", "lacks the key 'group'", group=None),
        _of_user_8("no order", "broken line", "lacks the key 'order'", order=None),
        _of_user_8("no target", "broken line", "lacks the key 'target'", target=None),
        _of_user_8("group of something else", "broken line", "group is 'item:8'", group="item:8"),
        _of_user_8("order of a text", "broken line", "order is '1'", order="1"),
        _of_user_8("row of another file", "broken line", "split is 'test'", split="test"),
        _of_user_8("number in place of an id", "broken line", "items is [2, '1']", items=[2, "1"]),
        _of_user_8("two targets", "broken line", "target is ['1', '2']", target=["1", "2"]),
        _of_user_8("half a character", "broken line", "surrogate", target=["\ud800"]),
        _of_user_8("time too many", "broken line", "timestamps is [1, 2]", timestamps=[1, 2]),
        _of_user_8("time in words", "broken line", "timestamps has 'soon'", timestamps=["soon"]),
        _of_user_8("rating in words", "broken line", "ratings has 'good'", ratings=["good"]),
        _of_user_8("opening of a longer history", "broken line", "as there is 'opening'", opening="valid"),
        _of_user_8("unknown opening", "broken line", "opening is 'train'", opening="train", items=["2"]),
        _of_user_8("other history", "broken sequence", "does not continue user '8'", items=["1", "2"]),
        Fault(
            "no JSON",
            edit_metadata("valid.parquet", lambda rows: rows.__setitem__(1, '{"group": ')),
            "broken line",
            ("valid.parquet, line 2", "metadata is no JSON"),
            OPENONEREC_LEFT,
        ),
        Fault(
            "no object",
            edit_metadata("valid.parquet", lambda rows: rows.__setitem__(1, "[1, 2]")),
            "broken line",
            ("valid.parquet, line 2", "metadata holds no JSON object"),
            OPENONEREC_LEFT,
        ),
        Fault(
            "no metadata",
            edit_parquet(
                "valid.parquet",
                lambda rows: rows.with_columns(
                    pl.when(pl.int_range(pl.len()) != 1).then("metadata").alias("metadata")
                ),
            ),
            "broken line",
            ("valid.parquet, line 2", "metadata is no JSON"),
            OPENONEREC_LEFT,
        ),
        Fault(
            "user twice",
            edit_metadata("train.parquet", lambda rows: rows.append(rows[0])),
            "duplicate user",
            ("train.parquet, line 4", "'7'"),
            SEQUENCES,
        ),
        Fault(
            "user without items",
            edit_metadata(
                "train.parquet",
                lambda rows: rows.append({"group": "user:1", "order": 3, "split": "train", "items": []}),
            ),
            "empty sequence",
            ("train.parquet, line 4", "'1'"),
            SEQUENCES,
        ),
        Fault(
            "user without a training row",
            edit_metadata("valid.parquet", lambda rows: rows.append(rows[0] | {"group": "user:1"})),
            "broken sequence",
            ("valid.parquet, line 3", "user '1' has no earlier row"),
            SEQUENCES,
        ),
        Fault(
            "no title",
            edit_parquet(
                "items.parquet",
                lambda items: items.with_columns(
                    pl.when(pl.col("item_id") != "3").then("title").alias("title")
                ),
            ),
            "missing title",
            ("items.parquet, line 3", "'3'"),
            without("3"),
        ),
        Fault(
            "item twice",
            edit_parquet("items.parquet", lambda items: pl.concat([items, items[2]])),
            "duplicate item",
            ("items.parquet, line 5", "'3'"),
            SEQUENCES,
        ),
        Fault(
            "item without id",
            edit_parquet(
                "items.parquet", lambda items: pl.concat([items, items[2].with_columns(item_id=pl.lit(""))])
            ),
            "missing item id",
            ("items.parquet, line 5",),
            SEQUENCES,
        ),
    ),
    {"price": 1.5},
)
MOVIELENS_CSV = Case(
    "movielens",
    write_movielens_csv,
    True,
    CATEGORIES,
    (
        Fault(
            "unknown item",
            append("ratings.csv", f"8,99,3,{START + 999}\n"),
            "unknown item",
            ("ratings.csv, line 12", "'99'", "'8'"),
            SEQUENCES,
        ),
        Fault(
            "no time",
            append("ratings.csv", "8,1,3,soon\n"),
            "broken line",
            ("ratings.csv, line 12", "timestamp", "'soon'"),
            SEQUENCES,
        ),
        Fault(
            "short line",
            append("ratings.csv", "8,1\n\n"),
            "broken line",
            ("ratings.csv, line 12", "2 fields"),
            SEQUENCES,
        ),
        Fault(
            "not UTF-8",
            append("ratings.csv", "8,\xff,3,1\n", "latin-1"),
            "broken line",
            ("ratings.csv, line 12",),
            SEQUENCES,
        ),
        Fault(
            "item twice",
            append("movies.csv", "3,Sope,Horror\n"),
            "duplicate item",
            ("movies.csv, line 6", "'3'"),
            SEQUENCES,
        ),
        Fault(
            "movie without title",
            edit_text("movies.csv", '3,"Soap",', "3,"),
            "broken line",
            ("movies.csv, line 4",),
            SEQUENCES,
        ),
        Fault(
            "unordered",
            in_time_order("ratings.csv", f"9,2,3,{START}"),
            "unordered time",
            ("ratings.csv, line 12", "'9'"),
            SEQUENCES,
            {"promise_order": True},
        ),
    ),
    {"tags": CATEGORIES},
)
MOVIELENS_DAT = Case(
    "movielens",
    write_movielens_dat,
    True,
    CATEGORIES,
    (
        Fault(
            "unknown item",
            append("ratings.dat", f"8::99::3::{START + 999}\n"),
            "unknown item",
            ("ratings.dat, line 11", "'99'", "'8'"),
            SEQUENCES,
        ),
        Fault(
            "short line",
            append("ratings.dat", "8::1::2\n"),
            "broken line",
            ("ratings.dat, line 11", "3 fields"),
            SEQUENCES,
        ),
        Fault(
            "movie without genres",
            edit_text("movies.dat", "3::Soap::Beauty", "3::Soap", "latin-1"),
            "broken line",
            ("movies.dat, line 3", "2 fields"),
            SEQUENCES,
        ),
    ),
    {"tags": CATEGORIES},
)


def _amazon(reviews: str, meta: str, user: str, item: str, time: str, scale: int) -> tuple[Fault, ...]:
    def review(who: str, what: str, when: Any) -> Callable[[Path], None]:
        return append(reviews, json.dumps({user: who, item: what, time: when}) + "\n")

    def untitle(folder: Path) -> None:
        lines = read_text(folder / meta).splitlines()
        write_text(
            folder / meta,
            _lines(
                [
                    line.replace('"title"', '"t"').replace("'title'", "'t'") if "Soap" in line else line
                    for line in lines
                ]
            ),
        )

    late = (START + 1) * scale
    return (
        Fault(
            "unknown item",
            review("8", "99", late + 999 * scale),
            "unknown item",
            (f"{reviews}, line 11", "'99'", "'8'"),
            SEQUENCES,
        ),
        Fault(
            "broken line",
            append(reviews, f'{{"{user}": "8", "{item}": \n'),
            "broken line",
            (f"{reviews}, line 11",),
            SEQUENCES,
        ),
        Fault(
            "not an object", append(reviews, "[1, 2]\n"), "broken line", (f"{reviews}, line 11",), SEQUENCES
        ),
        Fault("no user", review("", "1", late), "broken line", (f"{reviews}, line 11", user), SEQUENCES),
        Fault("no number", review("8", "1", "soon"), "broken line", (f"{reviews}, line 11",), SEQUENCES),
        Fault(
            "code in place of data",
            append(reviews, "__import__('os').getcwd()\n"),
            "broken line",
            (f"{reviews}, line 11",),
            SEQUENCES,
        ),
        Fault("no title", untitle, "missing title", (f"{meta}, line 3", "'3'"), without("3")),
        Fault(
            "item twice",
            append(meta, json.dumps({item: "3", "title": "Sope"}) + "\n"),
            "duplicate item",
            (f"{meta}, line 5", "'3'"),
            SEQUENCES,
        ),
        Fault(
            "broken item",
            append(meta, "{'asin': '5', 'title': open('x')}\n"),
            "broken line",
            (f"{meta}, line 5",),
            SEQUENCES,
        ),
        Fault(
            "unordered",
            in_time_order(reviews, json.dumps({user: "9", item: "2", time: START * scale})),
            "unordered time",
            (f"{reviews}, line 11", "'9'"),
            SEQUENCES,
            {"promise_order": True},
        ),
    )


AMAZON_2014 = Case(
    "amazon-2014",
    write_amazon_2014,
    True,
    CATEGORIES,
    _amazon("reviews_Tiny_5.json.gz", "meta_Tiny.json.gz", "reviewerID", "asin", "unixReviewTime", 1),
    {"price": 1.5, "main_category": "Beauty", "sales_rank": 12},
    {"review": "Good.\nVery.", "summary": "good"},
)
AMAZON_2018 = Case(
    "amazon-2018",
    write_amazon_2018,
    True,
    CATEGORIES,
    _amazon("Tiny_5.json.gz", "meta_Tiny.json.gz", "reviewerID", "asin", "unixReviewTime", 1),
    {"price": 1299.5, "main_category": "All Beauty", "sales_rank": 1234},
    {"review": "ok"},
)
AMAZON_2023 = Case(
    "amazon-2023",
    write_amazon_2023,
    True,
    CATEGORIES,
    _amazon("Tiny.jsonl.gz", "meta_Tiny.jsonl.gz", "user_id", "parent_asin", "timestamp", 1000),
    {"main_category": "All Beauty", "average_rating": 4.4, "rating_number": 7},
    {"review": "fine", "summary": "t"},
)
RECBOLE = Case(
    "recbole",
    write_recbole,
    True,
    CATEGORIES,
    (
        Fault(
            "unknown item",
            append("tiny.inter", f"8\t99\t3\t{START + 999}\n"),
            "unknown item",
            ("tiny.inter, line 12", "'99'", "'8'"),
            SEQUENCES,
        ),
        Fault(
            "long line",
            append("tiny.inter", "8\t1\t2\t3\t4\n"),
            "broken line",
            ("tiny.inter, line 12", "5 fields"),
            SEQUENCES,
        ),
        Fault(
            "short item",
            edit_text("tiny.item", "3\tSoap\t", "3\t"),
            "broken line",
            ("tiny.item, line 4", "2 fields"),
            SEQUENCES,
        ),
        Fault(
            "unordered",
            in_time_order("tiny.inter", f"9\t2\t3\t{START}.0"),
            "unordered time",
            ("tiny.inter, line 12", "'9'"),
            SEQUENCES,
            {"promise_order": True},
        ),
    ),
)
TABLE = Case(
    "table",
    write_table,
    True,
    CATEGORIES,
    (
        Fault(
            "unknown item",
            append("events.csv", f"8;99;3;{START + 999}\n"),
            "unknown item",
            ("events.csv, line 12", "'99'", "'8'"),
            SEQUENCES,
        ),
        Fault(
            "no user",
            append("events.csv", f" ;1;3;{START}\n"),
            "missing user",
            ("events.csv, line 12", "userId"),
            SEQUENCES,
        ),
        Fault(
            "no time",
            append("events.csv", "8;1;3;soon\n"),
            "bad time",
            ("events.csv, line 12", "time", "'soon'"),
            SEQUENCES,
        ),
        Fault(
            "no number",
            append("events.csv", f"8;1;good;{START}\n"),
            "bad rating",
            ("events.csv, line 12", "rating", "'good'"),
            SEQUENCES,
        ),
        Fault(
            "short line",
            append("events.csv", "\n8;1\n"),
            "broken line",
            ("events.csv, line 13", "2 fields"),
            SEQUENCES,
        ),
        Fault(
            "long line after a title on two lines",
            edit_text("items.csv", '3;"Soap";Beauty > Tapes, Glue & More', '3;"So\nap";a;b'),
            "broken line",
            ("items.csv, line 4", "4 fields"),
            SEQUENCES,
        ),
        Fault(
            "not UTF-8",
            append("events.csv", f"\xff;3;3;{START}\n", "latin-1"),
            "broken line",
            ("events.csv, line 12", "utf-8"),
            SEQUENCES,
        ),
        Fault(
            "item without id",
            append("items.csv", ";Sope;Horror\n"),
            "missing item id",
            ("items.csv, line 6",),
            SEQUENCES,
        ),
        Fault(
            "item twice",
            append("items.csv", "3;Sope;Horror\n"),
            "duplicate item",
            ("items.csv, line 6", "'3'"),
            SEQUENCES,
        ),
        Fault(
            "no title",
            edit_text("items.csv", '"Soap"', ""),
            "missing title",
            ("items.csv, line 4", "'3'"),
            without("3"),
        ),
        Fault(
            "unordered",
            in_time_order("events.csv", f"9;2;3;{START}"),
            "unordered time",
            ("events.csv, line 12", "'9'"),
            SEQUENCES,
            {"promise_order": True},
        ),
    ),
)
TABLE_LINES = Case(
    "table",
    write_table_lines,
    True,
    CATEGORIES,
    (
        Fault(
            "broken line",
            append("clicks.jsonl.gz", '{"session": "8", "product": \n'),
            "broken line",
            ("clicks.jsonl.gz, line 11",),
            SEQUENCES,
        ),
        Fault(
            "not an object",
            append("clicks.jsonl.gz", "[1, 2]\n"),
            "broken line",
            ("clicks.jsonl.gz, line 11", "object"),
            SEQUENCES,
        ),
        Fault(
            "no time",
            append("clicks.jsonl.gz", '{"session": "8", "product": 1}\n'),
            "bad time",
            ("clicks.jsonl.gz, line 11", "ts"),
            SEQUENCES,
        ),
        Fault(
            "item twice",
            append("items.jsonl", '{"id": 3, "title": "Sope"}\n'),
            "duplicate item",
            ("items.jsonl, line 5", "'3'"),
            SEQUENCES,
        ),
    ),
)


def _reclm_gen_faults(
    ending: str, edit: Callable[[str, Callable[[dict[Any, Any]], object]], Callable[[Path], None]]
) -> tuple[Fault, ...]:
    sequences, items, filed, ranked = (
        f"{name}.{ending}" for name in ("sequential", "meta", "category", "ranking_candidate")
    )
    without_8 = {"7": SEQUENCES["7"], "9": SEQUENCES["9"]}
    return (
        Fault(
            "unknown item",
            edit(sequences, lambda users: users.update({"8": ["2", "99", "1", "2"]})),
            "unknown item",
            (sequences, "'99'", "user '8'"),
            SEQUENCES,
        ),
        Fault(
            "broken sequence",
            edit(sequences, lambda users: users.update({"8": "2 1 2"})),
            "broken sequence",
            (sequences, "'8'"),
            without_8,
        ),
        Fault(
            "empty sequence",
            edit(sequences, lambda users: users.update({"8": []})),
            "empty sequence",
            (sequences, "'8'"),
            without_8,
        ),
        Fault(
            "no title",
            edit(items, lambda found: found["3"].pop("title")),
            "missing title",
            (items, "'3'"),
            without("3"),
        ),
        Fault(
            "broken item",
            edit(items, lambda found: found.update({"3": "Soap"})),
            "broken item",
            (items, "'3'"),
            SEQUENCES,
        ),
        Fault(
            "unknown item in a category",
            edit(filed, lambda found: found.update({"More": ["1", "98"]})),
            "unknown item in category",
            (filed, "'More'", "'98'"),
            SEQUENCES,
        ),
        Fault(
            "broken category",
            edit(filed, lambda found: found.update({"More": "1, 2"})),
            "broken category",
            (filed, "'More'"),
            SEQUENCES,
        ),
        Fault(
            "unknown candidate",
            edit(ranked, lambda found: found.update({"7": ["2", "98"]})),
            "unknown item in candidates",
            (ranked, "'7'", "'98'"),
            SEQUENCES,
        ),
        Fault(
            "candidate twice",
            edit(ranked, lambda found: found.update({"7": ["2", "1", "2"]})),
            "repeated item in candidates",
            (ranked, "'7'"),
            SEQUENCES,
        ),
    )


_RECLM_GEN_FURTHER = {"shelf": "A 1", "stock": 3}
RECLM_GEN = Case(
    "reclm-gen",
    write_reclm_gen,
    False,
    CATEGORIES,
    (
        *_reclm_gen_faults("pickle", edit_pickle),
        Fault(
            "user twice",
            edit_pickle("sequential.pickle", lambda users: users.update({7: ["1"]})),
            "duplicate user",
            ("sequential.pickle", "'7'"),
            SEQUENCES,
        ),
        Fault(
            "no key",
            edit_pickle("sequential.pickle", lambda users: users.update({None: ["1"]})),
            "broken key",
            ("sequential.pickle", "None"),
            SEQUENCES,
        ),
    ),
    _RECLM_GEN_FURTHER,
)
RECLM_GEN_JSON = Case(
    "reclm-gen",
    write_reclm_gen_json,
    False,
    CATEGORIES,
    (
        *_reclm_gen_faults("json", _json_key),
        Fault(
            "item twice",
            edit_text("meta.json", '"2": {', '"1": {"title": "no"}, "2": {'),
            "duplicate item",
            ("meta.json", "'1'"),
            SEQUENCES,
        ),
    ),
    _RECLM_GEN_FURTHER,
)
CASES = {
    "onerec-think": ONEREC,
    "openonerec": OPENONEREC,
    "letter": LETTER,
    "minionerec": MINIONEREC,
    "movielens-csv": MOVIELENS_CSV,
    "movielens-dat": MOVIELENS_DAT,
    "amazon-2014": AMAZON_2014,
    "amazon-2018": AMAZON_2018,
    "amazon-2023": AMAZON_2023,
    "recbole": RECBOLE,
    "reclm-gen": RECLM_GEN,
    "reclm-gen-json": RECLM_GEN_JSON,
    "table": TABLE,
    "table-lines": TABLE_LINES,
}
