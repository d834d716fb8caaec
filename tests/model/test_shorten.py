from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic.forest.rows import TokenRows
from itemic.model import Model
from itemic.model.expand import expand
from itemic.model.shorten import HistoryMarks, shorten_histories
from tests.model.helpers import catalogue, family_folder, small_index

MARKS = HistoryMarks(np.array([1], np.int32), np.array([9], np.int32))


def shorten_one(row: list[int], weights: list[float], limit: int) -> tuple[list[int], int]:
    """The same for one row, item by item."""
    walls = {at for at, token in enumerate(row) if token == 9}
    walls |= {at for at, weight in enumerate(weights) if weight and not any(weights[:at])}
    starts = [at for at, token in enumerate(row) if token == 1]
    run: list[int] = []
    for at in starts:
        if run and any(run[-1] < wall <= at for wall in walls):
            if len(run) > 1:
                break
            run = []
        run.append(at)
    for removed, at in enumerate(run):
        if len(row) > limit and removed and len(row) - (at - run[0]) <= limit:
            return row[: run[0]] + row[at:], removed
    return row, 0


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([1, 1, 2, 3, 9]), st.sampled_from([0, 0, 1])), max_size=14),
        max_size=5,
    ),
    st.integers(1, 10),
)
@settings(max_examples=300, deadline=None)
def test_like_row_by_row(lists: list[list[tuple[int, int]]], limit: int) -> None:
    tokens = [[token for token, _ in row] for row in lists]
    weights = [[float(weight) for _, weight in row] for row in lists]
    rows, removed = shorten_histories(TokenRows.of(tokens, weights), limit, MARKS)
    expected = [shorten_one(*pair, limit) for pair in zip(tokens, weights, strict=True)]
    assert [(rows[i].tolist(), int(removed[i])) for i in range(len(rows))] == expected
    assert rows.weights is not None
    assert len(rows.weights) == len(rows.tokens)
    plain, _ = shorten_histories(TokenRows.of(tokens), limit, MARKS)
    assert plain.weights is None


def test_weights_stay_with_their_tokens() -> None:
    row = [7, 1, 2, 1, 3, 1, 4, 9, 1, 5, 9]
    weights = [0, 0, 0, 0, 0, 0, 0, 0, 1.0, 0.5, 0.25]
    rows, removed = shorten_histories(TokenRows.of([[5], row], [[1.0], weights]), 9, MARKS)
    assert rows[1].tolist() == [7, 1, 3, 1, 4, 9, 1, 5, 9]
    assert removed.tolist() == [0, 1]
    assert rows.weights is not None
    assert rows.weights.tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0.5, 0.25]


@pytest.mark.parametrize("form", ["onerec", "minionerec"])
@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma"])
@pytest.mark.parametrize("supervise", ["all", "itemic", "everything"])
def test_the_tokens_of_a_shorter_history(family: str, form: str, supervise: str, tmp_path: Path) -> None:
    model: Model = expand(family_folder(tmp_path, family), small_index(form=form))
    titles = catalogue(12)
    lines = [f"{model.index.text(row)} {title}" for row, title in enumerate(titles)]

    def talk(items: list[str]) -> list[dict[str, str]]:
        ask = "What is next?\n" + "\n".join(items)
        return [{"role": "user", "content": ask}, {"role": "assistant", "content": model.index.text(20)}]

    def encoded(first: int) -> TokenRows:
        return model.chat.encode_batch([talk(lines[first:])], supervise=supervise)

    lengths = [len(encoded(first).tokens) for first in range(12)]
    for first in (1, 5, 11):
        for limit in (lengths[first], lengths[first - 1] - 1):
            rows, removed = shorten_histories(encoded(0), limit, model.history_marks)
            assert removed.tolist() == [first]
            expected = encoded(first)
            assert rows.tokens.tolist() == expected.tokens.tolist()
            assert rows.weights is not None
            assert expected.weights is not None
            assert rows.weights.tolist() == expected.weights.tolist()
    rows, removed = shorten_histories(encoded(0), lengths[11] - 1, model.history_marks)
    assert removed.tolist() == [0]  # the last item stays, so it can't be made to fit
    assert len(rows.tokens) == lengths[0]


def test_prompts_and_plain_texts(tmp_path: Path) -> None:
    model = expand(family_folder(tmp_path, "qwen3"), small_index())
    items = "".join(model.index.text(row) for row in range(9))
    latest = "".join(model.index.text(row) for row in range(6, 9))
    for encode in (
        lambda text: model.chat.prompt_batch([[{"role": "user", "content": "Next?\n" + text}]]),
        lambda text: model.chat.encode_segments([text]),
    ):
        expected = encode(latest)
        rows, removed = shorten_histories(encode(items), len(expected.tokens), model.history_marks)
        assert (removed.tolist(), rows.tokens.tolist()) == ([6], expected.tokens.tolist())
