from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from itemic import schema as c
from itemic.errors import ConfigError
from itemic.tasks import Conversations, build_conversations, preview
from itemic.tasks.preview import sample
from tests.tasks.helpers import small


def test_a_preview_shows_rows_whole_and_says_the_same_again() -> None:
    dataset, index = small()
    built = build_conversations(dataset, index, [{"task": "A"}, {"task": "C"}, {"task": "sequence"}])
    shown = []
    for _ in range(2):
        console = Console(width=300, record=True, file=StringIO())
        console.print(preview(built, 6, seed=2, index=index))
        shown.append(console.export_text())
    assert shown[0] == shown[1]
    for row in sample(built, 6, 2):
        assert row.uuid in shown[0]
    assert shown[0].count("─╮") == 6


def test_a_sample_is_of_one_task_and_does_not_depend_on_parts() -> None:
    dataset, index = small()
    table = build_conversations(dataset, index, [{"task": "A"}, {"task": "C", "source": "mine"}]).read()
    rows = sample(Conversations.open(table), 5, 1, "C")
    assert {row.metadata["task"] for row in rows} == {"C"}
    assert sample(Conversations.open(table), 5, 1, "mine") == rows
    order = {name: place for place, name in enumerate(table[c.UUID])}
    assert [order[row.uuid] for row in rows] == sorted(order[row.uuid] for row in rows)
    assert len(sample(Conversations.open(table), 10**6, 1)) == len(table)
    with pytest.raises(ConfigError, match="no conversation of task 'Z'"):
        preview(table, 2, task="Z")
