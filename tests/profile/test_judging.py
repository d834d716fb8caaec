"""Who is steered to what, what is judged of profiles, both by hand; and figures of a table by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from itemic.errors import ArtifactError
from itemic.evaluate.compare import Published
from itemic.profile.attributes import Attributes
from itemic.profile.judging import NOBODY, Told, edits, judged, wishes
from itemic.profile.lines import grown
from itemic.profile.results import compared, judgement, precision
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.tasks.facts import ItemFacts
from tests.profile.people import people, walk

# Pan Pot | Tent Stove | Pen Ink | Drum Lute, each pair of a category, the last two of one each
DATA = people({"a": walk([0, 1, 2], 0), "b": walk([2, 3, 4], 10), "c": walk([4, 5, 7], 20)})
SESSIONS = Sessions.of(DATA, SessionSettings(inputs=2, ratios=(1.0, 0.0, 0.0)))
FACTS = ItemFacts.of(DATA)
ATTRIBUTES = Attributes.of(FACTS)
ALL = np.ones(8, np.bool_)


def test_wishes_are_what_a_profile_does_not_name() -> None:
    fine = np.array([True, True, False])
    seen = set()
    for seed in range(40):
        texts = ["Cookware and camping.", "Kitchen, outdoors, office, music!", "Music"]
        found = wishes(texts, fine, SESSIONS, ATTRIBUTES, ALL, 1, seed)
        names = [None if n == NOBODY else ATTRIBUTES.names[n] for n in found]
        assert names[2] is None
        assert names[0] in {"Office", "Writing", "Outdoors", "Music", "Percussion", "Strings"}
        # b had all that is for camping, and c isn't asked
        assert names[1] in {"Cookware", "Writing", "Percussion", "Strings"}
        assert all(ATTRIBUTES.kinds[n] == "category" for n in found if n != NOBODY)
        seen.add(names[0])
    assert len(seen) == 6
    two = wishes(["Office", "", ""], np.array([True, False, False]), SESSIONS, ATTRIBUTES, ALL, 2, 0)
    # of two items that a hadn't: camping's and outdoors', writing's, music's
    assert ATTRIBUTES.names[two[0]] in {"Outdoors", "Camping", "Writing", "Music"}
    none = wishes(["", "", ""], ~fine | True, SESSIONS, ATTRIBUTES, ~ALL, 1, 0)
    assert none.tolist() == [NOBODY] * 3


def test_two_writers_are_mostly_asked_for_the_same() -> None:
    one, other = (
        wishes([text] * 3, np.ones(3, np.bool_), SESSIONS, ATTRIBUTES, ALL, 1, 5) for text in ("x", "Strings")
    )
    strings = ATTRIBUTES.numbers("Strings")[0]
    assert ((one == other) | (one == strings)).all()
    assert strings not in other


def test_edits_stand_in_front() -> None:
    camping = ATTRIBUTES.numbers("Camping")[0]
    found = edits(["likes {pans}", "x"], np.array([camping, NOBODY]), ATTRIBUTES, "Wants {}.")
    assert found == ["Wants Camping.\nlikes {pans}", ""]


def told(first: list[str], second: list[str], ended: list[list[bool]]) -> Told:
    lengths = [[len(text) for text in own] for own in (first, second)]
    prompts = ["Title: Pan\n\nTitle: Pot", "Title: Tent\n\nTitle: Stove", "Title: Pen\n\nTitle: Ink"]
    return Told([first, second], np.array(ended), np.array(lengths), prompts)


def test_judged_by_hand() -> None:
    own = told(
        ["Alba cookware, and a Tent. Music!", "camping", "Pens"],
        ["Alba", "…", "Pens"],
        [[True, True, False], [True] * 3],
    )
    assert own.usable.tolist() == [[True, True, False], [True, False, True]]
    camping = ATTRIBUTES.numbers("Camping")[0]
    lists = {
        "first": np.array([[4, 2], [0, 1], [-1, -1]], np.int32),
        "edited": np.array([[3, 4], [0, 1], [-1, -1]], np.int32),
        "second": np.array([[2, 4], [0, 1], [3, 6]], np.int32),
    }
    found = judged(own, SESSIONS, FACTS, ATTRIBUTES, lists, np.array([camping, NOBODY, NOBODY]), 2)
    nan = np.nan
    expected: dict[str, list[float]] = {
        "attribute precision": [2 / 3, 1, nan],  # Alba and cookware are the history's, music isn't
        "attribute recall": [1, 1 / 2, nan],  # b had camping of Boro
        "leakage": [1, 0, nan],  # the tent is a's target, the pen b's
        "moved": [0, nan, nan],  # 1 of 2, and 1 of 2
        "closed": [0, nan, nan],
        "recall lost": [1, nan, nan],  # the tent was there before
        "words": [6, 1, nan],
        "sentences": [2, 1, nan],
        "overlap@2": [1, nan, nan],
        "rank-biased overlap": [0.9, nan, nan],
        "ended": [1, 1, 0],
        "empty": [0, 0, 0],
        "tokens": [33, 7, 4],
    }
    assert set(found) == {*expected, "reading ease"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)
    line = judgement("w", found, np.arange(3))
    assert line.counts["attribute precision"] == 2
    assert line.measures["attribute precision"].value == pytest.approx(5 / 6)
    assert line.measures["ended"].value == pytest.approx(2 / 3)
    del lists["second"]
    alone = judged(own, SESSIONS, FACTS, ATTRIBUTES, lists, np.full(3, NOBODY), 2)
    assert not {"overlap@2", "rank-biased overlap"} & set(alone)
    assert "moved" not in judgement("w", alone, np.arange(3)).measures


def test_a_table_by_hand() -> None:
    ranks = {"profiles": np.array([1, 3, 0, 12]), "popularity": np.array([0, 5, 1, 2])}
    users = np.array([0, 0, 1, 2])
    table = compared(
        ranks,
        users,
        (5, 10),
        title="T",
        notes=["n"],
        published=[Published("they", {"ndcg@10": 0.5}, "a paper")],
    )
    means = {name: own.value for name, own in table.rows[0].metrics.items()}
    assert means == pytest.approx(
        {
            "recall@5": 2 / 4,
            "recall@10": 2 / 4,
            "precision@5": 2 / 4 / 5,
            "precision@10": 2 / 4 / 10,
            "mrr@5": (1 + 1 / 3) / 4,
            "mrr@10": (1 + 1 / 3) / 4,
            "ndcg@5": (1 + 1 / 2) / 4,
            "ndcg@10": (1 + 1 / 2) / 4,
        }
    )
    assert [row.name for row in table.rows] == ["profiles", "popularity", "they (other data)"]
    assert table.columns == list(means)
    (found,) = table.differences
    log = np.log2
    theirs = (1 / log(6) + 1 + 1 / log(3)) / 4
    assert found.metrics["ndcg@10"].value == pytest.approx(1.5 / 4 - theirs)
    assert found.metrics["recall@10"].value == pytest.approx(-1 / 4)
    assert table.verdict.startswith("* profiles is level with popularity on NDCG@10")
    assert table.notes == ["n", "Other data: a paper."]
    assert table.title == "T · 4 sessions, intervals at 95%"
    assert precision(np.array([1, 3, 0]), 2).tolist() == [0.5, 0, 0]


def test_whole_users_are_resampled() -> None:
    """Two users with ten sessions each, all of one found and none of the other's: few units, a wide interval."""
    ranks = {"a": np.repeat([1, 0], 10)}
    by_user = compared(ranks, np.repeat([0, 1], 10), (5,)).rows[0].metrics["recall@5"]
    by_session = compared(ranks, np.arange(20), (5,)).rows[0].metrics["recall@5"]
    assert (by_user.low, by_user.high) == (0, 1)
    assert 0.2 < by_session.low < by_session.high < 0.8


def test_lines_grow_by_whole_chunks(tmp_path: Path) -> None:
    file, made = tmp_path / "a" / "x.jsonl", []

    def make(start: int, stop: int) -> list[dict[str, object]]:
        made.append((start, stop))
        return [{"n": n, "text": "a\u2028b\x85"} for n in range(start, stop)]

    def grow(head: dict[str, object] | None = None) -> list[dict[str, object]]:
        return grown(file, head or {"a": 1}, 7, make, chunk=3, what="things of others")

    whole = grow()
    assert [line["n"] for line in whole] == list(range(7))
    assert made == [(0, 3), (3, 6), (6, 7)]
    text = file.read_text(encoding="utf-8")
    made.clear()
    assert grow() == whole
    assert made == []
    for kept, begin in ((text[:-3], 6), ("\n".join(text.split("\n")[:6]) + "\n", 3), (text[:4], 0)):
        file.write_text(kept, encoding="utf-8")
        made.clear()
        assert grow() == whole
        assert made[0][0] == begin
        assert file.read_text(encoding="utf-8") == text
    with pytest.raises(ArtifactError, match="holds things of others"):
        grow({"a": 2})
    file.write_text("no json\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match="is damaged"):
        grow()
