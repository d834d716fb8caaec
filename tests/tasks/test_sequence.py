"""Task sequence: how histories are cut into segments."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.tasks import make_task
from tests.tasks.helpers import make_dataset, make_index


def slow_segments(items: list[int], size: int, overlap: int) -> list[list[int]]:
    """Segments from the end of a history backwards, each sharing ``overlap`` items with the next."""
    segments, stop = [], len(items)
    while True:
        segments.insert(0, items[max(stop - size, 0) : stop])
        if stop - size <= 0:
            return segments
        stop -= size - overlap


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=12), min_size=1, max_size=4),
    st.integers(2, 6),
    st.data(),
)
def test_segments_cover_the_history(users: list[list[int]], size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    dataset = make_dataset({str(number): items for number, items in enumerate(users)})
    index = make_index()
    rows = make_task("sequence", max_items=size, overlap=overlap).build(dataset, index)
    found = [json.loads(segments)[0]["text"] for segments in rows[c.SEGMENTS]]
    wanted = []
    for user in range(len(dataset.train)):
        own = []
        for segment in slow_segments(dataset.train[user].tolist(), size, overlap):
            text = "".join(index.text(item) for item in segment)
            if text not in own:
                own.append(text)
        wanted += own
    assert sorted(found) == sorted(wanted)


def test_overlap_must_leave_room() -> None:
    with pytest.raises(ConfigError, match="overlap is 3"):
        make_task("sequence", max_items=3, overlap=3)
