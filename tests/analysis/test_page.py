"""The page of an analysis as text: its parts, its data, and that nobody's text becomes a part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from itemic.analysis import Analysis, Cases
from itemic.analysis.page import libraries, write_page
from itemic.analysis.page.data import Sentence, block
from itemic.analysis.page.libraries import data_grid, embedded, plots
from itemic.errors import ConfigError
from itemic.text import shown
from tests.analysis.pages import HOSTILE, hostile, marketplace, save

Made = tuple[Analysis, Cases]


@dataclass
class Element:
    tag: str
    about: dict[str, str]
    text: list[str] = field(default_factory=list)


class Reader(HTMLParser):
    """All elements of a page, each with the text directly in it."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in ("meta", "input", "br"):
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1].text.append(data)

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]


def read(file: Path) -> Reader:
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def made() -> Made:
    return marketplace()


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return read(save(tmp_path_factory.mktemp("page"), made))


def data_of(page: Reader, name: str = "data") -> Any:
    return json.loads(next("".join(one.text) for one in page.all("script") if one.about.get("id") == name))


def test_everything_that_can_be_used_has_a_name(page: Reader) -> None:
    assert all("caption" in names for names in _tables(page))
    labels = {one.about.get("for") for one in page.all("label")}
    for control in [*page.all("input"), *page.all("select")]:
        about = control.about
        assert (
            {"aria-label", "aria-labelledby"} & set(about)
            or about.get("id") in labels
            or about["name"]
            in (
                "status",
                "slice",
                "category",
                "order",
            )
        ), about
    assert all(one.about.get("scope") in ("col", "row") for one in page.all("th"))
    ids = [one.about["id"] for one in page.elements if "id" in one.about]
    assert len(ids) == len(set(ids))
    assert {one.about["href"].removeprefix("#") for one in page.all("a")} <= set(ids)


def _tables(page: Reader) -> list[list[str]]:
    found: list[list[str]] = []
    for one in page.elements:
        if one.tag == "table":
            found.append([])
        elif found:
            found[-1].append(one.tag)
    return found


def test_figures_stand_in_the_page_itself(made: Made, page: Reader) -> None:
    analysis, _ = made
    told = " ".join(text for one in page.elements if one.tag not in ("script", "style") for text in one.text)
    for cause in analysis.causes:
        assert (cause.title in told) == bool(cause.requests)
        if cause.about != "kind" and cause.requests and cause.lift is not None:
            assert f"{cause.lift.value:.2f} [{cause.lift.low:.2f}, {cause.lift.high:.2f}]" in told
    for parts in analysis.slices.values():
        assert all(part.value in told and f"{part.requests:,}" in told for part in parts)
    assert f"{analysis.bad:,}" in told
    assert all(reason in told for reason in analysis.absent.values())


def test_the_data_hold_each_item_once_and_each_case_whole(made: Made, page: Reader) -> None:
    _, cases = made
    data = data_of(page)
    assert data["items"]["title"] == [item.title for item in cases.items]
    assert data["items"]["codes"] == [item.codes for item in cases.items]
    assert [data["categories"][at] for at in data["items"]["category"]] == [i.category for i in cases.items]
    for name in ("request", "user", "length", "target", "rank", "level", "history", "listed"):
        assert data["cases"][name] == [getattr(case, name) for case in cases.cases]
    names = [cause["name"] for cause in data["causes"]]
    for case, told in zip(cases.cases, data["cases"]["causes"], strict=True):
        assert [names[cause] for cause, *_ in told] == list(case.causes)
        for (cause, *gaps), (name, values) in zip(told, case.causes.items(), strict=True):
            pieces = data["causes"][cause]["says"]
            words = [data["words"][word] for word in gaps] + [""]
            said = "".join(piece + word for piece, word in zip(pieces, words, strict=True))
            assert said == cases.sentences[name].format(**values)


@pytest.mark.parametrize(
    "text", ["none", "{a}", "{a} of {b:,} and {{c}}", "{x:.3f}{x:.0%}", "it's {word!s}", "{a}{a}"]
)
def test_sentences_say_what_format_says(text: str) -> None:
    values = {"a": 3, "b": 12345, "x": 0.12345, "word": "w"}
    sentence = Sentence(text)
    gaps = [*sentence.fill(values), ""]
    assert "".join(p + g for p, g in zip(sentence.pieces, gaps, strict=True)) == text.format(**values)


def test_numbers_without_a_form_are_short() -> None:
    assert Sentence("{x} {nan} {lost}").fill({"x": 1 / 3, "nan": float("nan")}) == ["0.3333", "nan", "?"]


def test_only_our_scripts_may_run(page: Reader) -> None:
    policy = next(one.about["content"] for one in page.all("meta") if one.about.get("http-equiv"))
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    runs = [one for one in page.all("script") if one.about["type"] != "application/json"]
    found = {base64.b64encode(hashlib.sha256("".join(one.text).encode()).digest()).decode() for one in runs}
    assert found == allowed
    assert len(runs) == 3


def test_nobodys_text_becomes_a_part_of_the_page(page: Reader, tmp_path: Path) -> None:
    file = save(tmp_path, hostile())
    told = file.read_text(encoding="utf-8")
    changed = read(file)
    assert {one.tag for one in changed.elements} == {one.tag for one in page.elements}
    assert len(changed.all("script")) == len(page.all("script"))
    assert not any(name.startswith("on") for one in changed.elements for name in one.about)
    assert not {"\x00", "\x07", "\x1b", "\u2028", "\u2029", "\u202e"} & set(_without_libraries(told))
    titles = set(data_of(changed)["items"]["title"])
    assert titles == {shown(text) for text in HOSTILE}
    words = {text for one in changed.elements for text in one.text}
    assert all(shown(text) in words for text in HOSTILE if "\n" not in text)


def _without_libraries(told: str) -> str:
    return re.sub(r'<script type="(?:module|text/plain)".*?</script>', "", told, flags=re.DOTALL)


def test_blocks_of_data_can_stand_in_a_script() -> None:
    value = {"</script>": ["<!--", "&", "\u2028\u2029", "ü", None, 1.5]}
    text = block(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)
    with pytest.raises(ValueError, match="Out of range"):
        block({"x": float("nan")})


def test_scripts_are_kept_from_ending_themselves() -> None:
    text = embedded("a = '</SCRIPT><!-- <script>';\r\nif (a < b) c\r")
    assert text == "a = '\\x3c/SCRIPT>\\x3c!-- \\x3cscript>';\nif (a < b) c\n"
    for library in (data_grid(), plots()):
        assert not re.search(r"<!--|</?script|\r|\x00", library.script, re.IGNORECASE)


def test_libraries_come_with_their_licences(page: Reader) -> None:
    kept = ["".join(one.text) for one in page.all("pre")]
    assert any("MIT License" in text for text in kept)
    assert any(
        "Redistributions in binary form must reproduce the above copyright notice" in text for text in kept
    )
    assert any("jQuery JavaScript Library" in text and "SpryMedia" in text for text in kept)


@pytest.mark.parametrize("package", ["itables", "bokeh"])
def test_a_missing_package_is_told_with_its_extra(
    package: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ConfigError, match=f"the page of an analysis needs {package}") as error:
        write_page(tmp_path / "report.html", *made)
    assert error.value.remedy == 'Install it with `pip install "itemic[analysis]"`.'
    assert not list(tmp_path.iterdir())


def test_a_package_that_carries_something_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_read", lambda package, path: "var x = 1;")
    for library in (data_grid, plots):
        with pytest.raises(ConfigError, match="doesn't carry the JavaScript"):
            library()


def test_analyses_with_next_to_nothing(made: Made, tmp_path: Path) -> None:
    from dataclasses import replace

    analysis, cases = made
    bare = replace(
        analysis, causes=[], pairs=[], levels=[], slices={}, curve=[], metrics={}, beyond={}, absent={}
    )
    none = replace(cases, items=[], cases=[], stated="no cases")
    page = read(save(tmp_path, (bare, none)))
    assert data_of(page)["cases"]["request"] == []
    assert data_of(page, "charts")["charts"] == {}
