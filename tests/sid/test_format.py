from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.errors import ConfigError
from itemic.sid.format import TOKEN_FORMATS, level_name, token_format

PUBLISHED = {  # as the public systems write them
    "onerec": ((99, 19, 220, 204), "<|sid_begin|><s_a_99><s_b_19><s_c_220><s_d_204><|sid_end|>"),
    "minionerec": ((236, 231, 226), "<a_236><b_231><c_226>"),
    "offset": ((99, 19, 220, 204), "<|sid_start|><|sid_99|><|sid_275|><|sid_732|><|sid_972|><|sid_end|>"),
}


def test_every_format_has_a_published_example() -> None:
    assert PUBLISHED.keys() == TOKEN_FORMATS.keys()
    assert all(name == form.name for name, form in TOKEN_FORMATS.items())


@pytest.mark.parametrize("name", TOKEN_FORMATS)
def test_text_is_the_published_one(name: str) -> None:
    codes, text = PUBLISHED[name]
    sizes = (256,) * len(codes)
    assert TOKEN_FORMATS[name].text(codes, sizes) == text
    assert TOKEN_FORMATS[name].parse(text, sizes) == codes


def test_tokens_stand_in_openonerecs_order() -> None:
    assert token_format("onerec").tokens((2, 1)) == [
        "<s_a_0>",
        "<s_a_1>",
        "<s_b_0>",
        "<|sid_begin|>",
        "<|sid_end|>",
    ]
    assert token_format("minionerec").tokens((1, 2)) == ["<a_0>", "<b_0>", "<b_1>"]
    assert token_format("offset").tokens((2, 1)) == [
        *("<|sid_0|>", "<|sid_1|>", "<|sid_2|>"),
        *("<|sid_start|>", "<|sid_end|>", "<|rec|>"),
    ]


@pytest.mark.parametrize("name", TOKEN_FORMATS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text + text,
        lambda text: text[:-1],
        lambda text: text.replace("1", "01", 1),
        lambda text: text.replace("1", "１", 1),  # a full-width digit
        lambda text: text.replace("1", "-1", 1),
        lambda text: text.replace("1", "300", 1),  # beyond the codes of its level
        lambda text: "",
    ],
)
def test_parsing_is_strict(name: str, spoil: object) -> None:
    form = TOKEN_FORMATS[name]
    sizes = (9, 12, 5)
    text = form.text((1, 11, 2), sizes)
    assert form.parse(text, sizes) == (1, 11, 2)
    assert form.parse(spoil(text), sizes) is None  # type: ignore[operator]


@pytest.mark.parametrize("name", TOKEN_FORMATS)
def test_levels_must_be_all_there_and_in_order(name: str) -> None:
    form = TOKEN_FORMATS[name]
    sizes = (4, 5, 6)
    tokens = [form.code(level, code, sizes) for level, code in enumerate((1, 2, 3))]
    frame = (form.begin or "") + "{}" + (form.end or "")
    assert form.parse(frame.format("".join(tokens)), sizes) == (1, 2, 3)
    assert form.parse(frame.format("".join(tokens[:2])), sizes) is None
    assert form.parse(frame.format("".join(tokens[::-1])), sizes) is None


@st.composite
def code_rows(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes = tuple(draw(st.lists(st.integers(1, 400), min_size=1, max_size=30)))
    return sizes, tuple(draw(st.integers(0, size - 1)) for size in sizes)


@pytest.mark.parametrize("name", TOKEN_FORMATS)
@given(code_rows())
def test_text_and_back(name: str, example: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    sizes, codes = example
    form = TOKEN_FORMATS[name]
    text = form.text(codes, sizes)
    assert form.parse(text, sizes) == codes
    assert list(form.find(f"bought {text}, then {text}!", sizes)) == [
        (7, 7 + len(text), codes),
        (14 + len(text), 14 + 2 * len(text), codes),
    ]
    tokens = form.tokens(sizes)
    assert (
        len(set(tokens))
        == len(tokens)
        == sum(sizes) + sum(t is not None for t in (form.begin, form.end)) + len(form.extra)
    )


def test_level_names_go_on_after_z() -> None:
    assert [level_name(level) for level in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        *("a", "z", "aa", "ab", "az", "ba", "zz", "aaa")
    ]


def test_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="onerec, minionerec, offset"):
        token_format("tiger")
