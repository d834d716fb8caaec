from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from itemic.data import read
from itemic.errors import ConfigError, DataError, IndexMismatchError
from itemic.sid.codebooks import Codebooks
from itemic.sid.index import ItemIndex
from itemic.sid.published import import_index
from itemic.sid.quantizers import QUANTIZERS
from itemic.sid.report import SidReport, compare, report
from itemic.sid.report.measure import RANKED
from tests.sid.helpers import make_dataset, make_index

PATHS = [["Home", "Kitchen"]] * 3 + [["Home", "Garden"]] * 2 + [["Home"]]
TITLES = ["cup", "cup", "mug & <b>spoon</b>", "hose", "rake </script>", "thing"]
DATA = make_dataset(TITLES, categories=PATHS)
INDEX = make_index([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [0, 1]], (4, 2))
VECTORS = np.array([[1, 0.1], [1, 0.2], [1, 0.4], [0.2, 1], [0.1, 1], [1, 1.4]], np.float32)


class Page(HTMLParser):
    """Checks that tags close, and collects what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):  # those that never close
            self.open.append(tag)
        self.fetched += [str(v) for name, v in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """Of ``<line …/>``."""
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(text: str) -> Page:
    page = Page(text)
    assert page.fetched == []
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http" not in page.text
    assert not re.search(r"\b(nan|inf)\b", text)
    return page


def shown(table: Any) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(table)
    return console.export_text()


def test_codes_alone() -> None:
    made = report(INDEX)
    first, last = made.levels
    assert (first.size, first.used, first.counts) == (4, 2, [4, 2, 0, 0])
    assert first.perplexity == pytest.approx(np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))))
    assert first.max_over_mean == pytest.approx(4 / 1.5)
    assert first.gini == pytest.approx((4 * 3 + 2 * 1) / (4 * 6))
    assert (first.branching.nodes, first.branching.mean, first.branching.histogram) == (
        1,
        2,
        [(1, 1, 0), (2, 2, 1)],
    )
    assert (last.branching.nodes, last.branching.mean, last.branching.single) == (2, 1.5, 0.5)
    assert [(p.length, p.groups, p.largest, p.alone) for p in made.prefixes] == [(1, 2, 4, 0), (2, 3, 2, 0)]
    assert made.prefixes[0].histogram == [(1, 1, 0), (2, 2, 2), (3, 4, 4)]
    assert made.collisions.rate == 0.5
    assert made.collisions.texts is None
    assert (made.neighbours, made.examples, made.depths, made.name) == (None, [], 0, INDEX.digest)
    assert made.crowded is not None
    assert made.crowded.titles == ["item0", "item1"]


def test_with_items() -> None:
    made = report(INDEX, DATA)
    assert (made.collisions.duplicates, made.collisions.collided_by_duplicates) == (2, 2)
    assert made.collisions.duplicate_rate == pytest.approx(1 - 3 / 5)
    assert made.depths == 1  # at depth 1 all items are at home
    short, whole = (prefix.purity[0] for prefix in made.prefixes)
    assert (short.depth, short.items, short.categories) == (2, 5, 2)
    assert (short.purity, whole.purity) == (1, 1)
    assert short.information == pytest.approx(1)
    assert short.chance < 1
    for example in made.examples:
        row = DATA.item_ids.index(example.item)
        for length, step in enumerate(example.steps, 1):
            group = [
                i for i in range(6) if INDEX.codes[i, :length].tolist() == INDEX.codes[row, :length].tolist()
            ]
            assert step.items == len(group) > 1
            clean = {"mug & <b>spoon</b>": "mug & spoon", "rake </script>": "rake"}
            assert set(step.titles) <= {clean.get(TITLES[i], TITLES[i]) for i in group if i != row}
            assert INDEX.text(row).removeprefix("<|sid_begin|>").startswith(step.prefix)
    assert report(INDEX, DATA) == made


def test_with_vectors() -> None:
    books = Codebooks(
        [
            np.array([[1, 0.4], [0.1, 1], [9, 9], [9, 9]], np.float32),
            np.array([[0, 0], [0, 0.3]], np.float32),
        ]
    )
    made = report(INDEX, None, VECTORS, books, neighbours=1)
    assert made.neighbours == {"k": 1, "queries": 6}
    first, last = (prefix.recall for prefix in made.prefixes)
    assert first is not None
    assert last is not None
    assert first.found == 5 / 6  # the last item is nearest to an item of the other group
    assert first.chance == pytest.approx((4 * 3 + 2 * 1) / (6 * 5))
    assert last.ceiling == 1
    rebuilt = books.rebuild(INDEX.codes)
    spread = ((VECTORS - VECTORS.mean(axis=0)) ** 2).sum()
    assert made.levels[1].error == pytest.approx(((VECTORS - rebuilt) ** 2).sum() / spread)
    zero = np.array([[0, 0], *VECTORS[1:]], np.float32)
    found = report(INDEX, None, zero).neighbours
    assert found is not None
    assert found["queries"] == 5
    assert report(INDEX, None, zero * 0).neighbours is None
    assert report(INDEX, None, VECTORS, queries=3).neighbours == {"k": 5, "queries": 3}


def test_errors_are_those_of_the_quantizer() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    maker = QUANTIZERS["rqkmeans"](seed=0)
    codes, books = maker.fit(vectors, [16, 8, 4])
    index = make_index(codes.tolist(), (16, 8, 4))
    found = [level.error for level in report(index, None, vectors, books).levels]
    assert found == pytest.approx(maker.notes["relative_error"], abs=1e-5)
    ranked = make_index(np.column_stack([codes, codes[:, 0] * 0]).tolist(), (16, 8, 4, 1))
    assert [level.error for level in report(ranked, None, vectors, books).levels] == [*found, None]


def test_all_there_is_survives_json_and_shows(tmp_path: Path) -> None:
    made = report(INDEX, DATA, VECTORS, name="ours <1>")
    assert SidReport.from_json(json.loads(json.dumps(made.to_json()))) == made
    made.save(tmp_path / "r.json")
    assert SidReport.load(tmp_path / "r.json") == made
    text = shown(made.table())
    assert "collision rate 50.00%" in text
    assert "recall of 5 neighbours" in text
    page = check_page(made.html())
    assert "ours <1>" in page.text
    assert "mug & spoon" in page.text
    assert "rake" in page.text
    assert page.tags.count("figure") == 7
    (tmp_path / "r.json").write_text('{"name": 1}')
    with pytest.raises(DataError, match="is not a report"):
        SidReport.load(tmp_path / "r.json")
    with pytest.raises(DataError, match="is not a report"):
        SidReport.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize("codes", [[[0]], [[0], [1]], [[3, 0, 0], [3, 0, 0]]])
def test_the_smallest_indexes_have_a_page(codes: list[list[int]]) -> None:
    n, sizes = len(codes), (4,) * len(codes[0])
    data = make_dataset([""] * n)
    made = report(make_index(codes, sizes), data, np.eye(n, 3, dtype=np.float32))
    check_page(made.html())
    check_page(compare([made, made]).html())
    assert shown(made.table())
    assert made.collisions.duplicates == 0  # without any text, nobody can tell


def test_a_level_that_counts_is_told() -> None:
    ranked = ItemIndex(["a"], np.array([[0, 0]]), (1, 1), origin={"collisions": {"policy": "rank"}})
    assert report(ranked).notes == [RANKED]


def test_what_does_not_fit() -> None:
    with pytest.raises(IndexMismatchError, match="does not fit"):
        report(INDEX, make_dataset(["a"]))
    with pytest.raises(DataError, match="5 vectors for an index of 6 items"):
        report(INDEX, None, VECTORS[:5])
    with pytest.raises(DataError, match="NaN"):
        report(INDEX, None, VECTORS * np.nan)
    books = Codebooks([np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32)])
    with pytest.raises(ConfigError, match=r"codebooks of the sizes \[4, 3\]"):
        report(INDEX, None, VECTORS, books)
    with pytest.raises(ConfigError, match="codebooks alone"):
        report(INDEX, None, None, books)
    with pytest.raises(ConfigError, match="codes without items"):
        report(ItemIndex.of_codes((4, 3)))
    with pytest.raises(ConfigError, match="0 neighbours"):
        report(INDEX, None, VECTORS, neighbours=0)


def test_comparisons() -> None:
    unique = make_index([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]], (4, 2))
    both = compare([report(INDEX, DATA, VECTORS, name="small · a"), report(unique, DATA, name="small · b")])
    assert both.names == ["a", "b"]
    assert both.title == "Semantic IDs of small"
    text = shown(both.table())
    assert re.search(r"Collision rate\s+│\s+50.00% │\s+0.00%", text)
    assert "Neighbours kept, level 2" in text
    assert not both.notes
    page = check_page(both.html())
    assert "NMI, category depth 2" in page.text
    assert re.search(r'<td class="best">0.00%</td>', both.html())
    assert not re.search(r'<td class="best">50.00%</td>', both.html())
    same = compare([report(INDEX, name="x"), report(unique, name="x"), report(INDEX, name="x")])
    assert same.names[1] == f"x ({unique.digest[:6]})"
    assert len(set(same.names)) == 3
    other = compare([report(INDEX, DATA), report(make_index([[0]], (1,)))])
    assert "different catalogues (small, an unnamed one)" in other.notes[0]
    check_page(other.html())
    with pytest.raises(ConfigError, match="nothing"):
        compare([])


def test_published_indexes_side_by_side(shared: Path) -> None:
    """Against what the data's own description says of these files."""
    data = read("letter", shared / "scientific")
    names = {"rkmeans_native": 3469, "rqvae_native": 3790, "rkmeans_zcr": 4344}
    folder = shared / "scientific" / "index"
    found = [report(import_index(data, folder / f"{name}.index.json"), data) for name in names]
    assert [made.collisions.sids for made in found] == list(names.values())
    assert found[2].collisions.rate == 0
    assert found[2].crowded is None
    both = compare(found)
    assert both.names == list(names)
    for made in found:
        assert all(0 < prefix.purity[0].chance <= prefix.purity[0].purity for prefix in made.prefixes)
        check_page(made.html())
    check_page(both.html())
