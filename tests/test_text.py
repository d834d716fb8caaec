"""Text of others: visible control codes, Markdown and labels that read as the text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from itemic.text import code_span, markdown, plot_label, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[bold]x[/bold] [/]", "[bold]x[/bold] [/]"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\tb\nc\r", "a␉b␊c␍"),
        ("\u202eright to left\u2066", "\\u202eright to left\\u2066"),
        ("\x7f\x85\u2028\ud800", "\\u007f\\u0085\\u2028\\ud800"),
        ("naïve 日本語 שלום 👩\u200d🔬", "naïve 日本語 שלום 👩\u200d🔬"),
    ],
)
def test_control_codes_are_visible_and_all_else_is_as_it_was(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_line_feeds_may_pass_and_json_stays_the_same_json() -> None:
    assert shown("a\n\x1bb", lines=True) == "a\n␛b"
    value = {"title": "\x1b \x7f \u202e \n"}
    text = json.dumps(value, indent=1, ensure_ascii=False)
    assert "\u202e" in text
    assert json.loads(shown(text, lines=True)) == value


def test_markdown_has_no_character_left_that_means_something() -> None:
    assert markdown("[x](y) | <b> *a* `c` _d_ e_f") == r"[x\](y) \| \<b\> \*a\* \`c\` \_d\_ e_f"
    assert markdown("# two\nlines &amp; more, [.1, .2] & 3") == r"\# two␊lines \&amp; more, [.1, .2] & 3"


def test_a_code_span_holds_backticks() -> None:
    assert code_span("a<b>") == "`a<b>`"
    assert code_span("`x`` y") == "``` `x`` y ```"


def test_a_label_is_no_formula() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    text = figure.text(0.5, 0.5, plot_label(r"from $5 \frac to $10"))
    figure.canvas.draw()  # a formula would not parse
    assert not text.get_usetex()
    assert text._preprocess_math(text.get_text()) == (r"from $5 \frac to $10", False)  # type: ignore[attr-defined]


def test_a_page_shows_text_as_it_is(tmp_path: Path) -> None:
    from itemic.page import Cell, Grid, Row, render
    from itemic.page.svg import Line, count_axis, line_chart

    title = '<script>alert("1")</script>\x1b[31m\u202e'
    template = tmp_path / "page.html"
    template.write_text(
        '{% extends "base.html" %}{% block body %}{{ grid(table) }}{{ svg | safe }}{% endblock %}'
    )
    axis = count_axis(title, 3)
    svg = line_chart(title, [Line(title, [(1, 2)])], axis, axis)
    page = render(template, title=title, table=Grid(["", title], [Row(title, [Cell(title, title)])]), svg=svg)

    class Reader(HTMLParser):
        texts: list[str] = []  # noqa: RUF012
        tags: set[str] = set()  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.add(tag)

        def handle_data(self, data: str) -> None:
            self.texts.append(data)

    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert sum('<script>alert("1")</script>␛[31m\\u202e' in text for text in reader.texts) == 8
    assert not {"\x1b", "\u202e"} & set(page)
