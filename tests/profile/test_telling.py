"""What is told of a profile, against every score counted one by one and names read by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from itemic.errors import ArtifactError, ConfigError, DataError
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.telling import Teller, cleaned, worded
from itemic.profile.turns import latest
from itemic.screen import rendered
from tests.profile.coloured import RULE, TITLES, scores, shop, teller

PROFILE = "Likes Red soap by Alba. Has a blue towel. Plays the lute."
HISTORY = np.array([0, 3], np.int32)  # red soap by Alba, white mirror by Boro


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Teller:
    torch.set_num_threads(1)
    return teller(tmp_path_factory.mktemp("teller"), shop())


def test_items_and_the_sentences_that_pull_them_up(made: Teller) -> None:
    told = made.tell(PROFILE, HISTORY, 4, had=np.array([0, 3, 6], np.int32))
    whole = scores(made, [PROFILE], HISTORY.tolist())[0]
    best = np.argsort(-whole, kind="stable")[:4]
    assert [item.item_id for item in told.items] == [f"i{row}" for row in best]
    assert [item.title for item in told.items] == [TITLES[row] for row in best]
    assert [item.score for item in told.items] == pytest.approx(whole[best], abs=1e-6)
    assert [item.had for item in told.items] == [bool(row == 6) for row in best]
    lines = ["Likes Red soap by Alba.", "Has a blue towel.", "Plays the lute."]
    assert [line.text for line in told.sentences] == lines
    without = [" ".join(line for line in lines if line != left) for left in lines]
    falls = whole[best] - scores(made, without, [])[:, best]
    for at, item in enumerate(told.items):
        assert item.pulls == pytest.approx(falls[:, at], abs=1e-6)
        most = int(falls[:, at].argmax())
        assert item.by == (most + 1 if falls[most, at] > 0 else None)
    assert [line.brings for line in told.sentences] == pytest.approx(falls.mean(axis=1), abs=1e-6)
    assert told.notes == []


def test_names_are_held_against_the_history(made: Teller) -> None:
    told = made.tell(PROFILE, HISTORY, 3)
    assert [(name.name, name.kind, name.supported) for name in told.named] == [
        ("Red", "category", True),
        ("Alba", "brand", True),
        ("Blue", "category", False),
    ]
    assert told.missing == ["Boro", "White"]
    assert told.precision == pytest.approx(2 / 3)
    assert told.recall == pytest.approx(2 / 4)
    nothing = made.tell("Likes it quiet.", HISTORY, 3)
    assert (nothing.named, nothing.precision, nothing.recall) == ([], None, 0.0)
    assert "has it, not named" in rendered(*nothing.tables())


def test_an_edit_tells_what_came_went_and_moved(made: Teller) -> None:
    new = "Likes Green brushes. Has a blue towel. Plays the lute."
    before = made.tell(PROFILE, HISTORY, 3)
    found = made.edit(before, new, HISTORY, 3, user="a", notes=["read"])
    both = scores(made, [PROFILE, new], HISTORY.tolist())
    order = np.argsort(-both, axis=1, kind="stable")
    lists = [order[0, :3].tolist(), order[1, :3].tolist()]
    place = {row: (order[0].tolist().index(row) + 1, order[1].tolist().index(row) + 1) for row in range(8)}
    assert lists[0] != lists[1]
    assert [int(item.item_id[1:]) for item in found.items] == list(dict.fromkeys(lists[1] + lists[0]))
    for item in found.items:
        row = int(item.item_id[1:])
        assert (item.before, item.after) == place[row]
        expected = {
            (True, True): "stayed" if item.before == item.after else "moved",
            (False, True): "came",
            (True, False): "went",
        }[row in lists[0], row in lists[1]]
        assert item.what == expected
    shared = len(set(lists[0]) & set(lists[1]))
    assert found.overlap == pytest.approx(shared / 3)
    assert found.rbo is not None
    assert 0 <= found.rbo < 1
    assert [(line.text, line.what) for line in found.lines] == [
        ("Likes Red soap by Alba.", "gone"),
        ("Likes Green brushes.", "new"),
        ("Has a blue towel.", "kept"),
        ("Plays the lute.", "kept"),
    ]
    told = {(share.name, share.why): share for share in found.attributes}
    green = [sum(TITLES[row] in ("green brush", "twin") for row in rows) / 3 for rows in lists]
    share = told["Green", "named now"]
    assert [share.before, share.after] == pytest.approx(green)
    assert share.closed == pytest.approx((green[1] - green[0]) / (1 - green[0]))
    assert told["Red", "no longer named"].closed is None
    assert ("Alba", "no longer named") in told
    assert ("Blue", "named now") not in told  # both name it
    for name, why in told:
        assert why != "moved" or told[name, why].before != told[name, why].after
    assert found.notes == ["read"]
    assert json.loads(json.dumps(found.to_json()))["items"][0]["what"] == found.items[0].what
    text = str(found)
    assert "Likes Green brushes." in text
    assert f"overlap {found.overlap:.2f}" in text


def test_the_same_profile_changes_nothing(made: Teller) -> None:
    found = made.edit(made.tell(PROFILE, HISTORY, 3), PROFILE, HISTORY, 3)
    assert {item.what for item in found.items} == {"stayed"}
    assert found.overlap == 1
    assert found.rbo == pytest.approx(1)
    assert found.attributes == []
    assert {line.what for line in found.lines} == {"kept"}


def test_what_says_nothing_brings_nothing_up(made: Teller) -> None:
    for text, said in (("", "wrote nothing"), ("🎉 … 🎉", "no letter and no digit")):
        told = made.tell(text, HISTORY, 3, ended=False, tokens=8)
        assert told.items == []
        assert said in told.notes[0]
        assert "cut off after 8 tokens" in told.notes[1]
        assert [line.brings for line in told.sentences] == [None] * len(told.sentences)
        assert told.tables()
    with pytest.raises(ConfigError, match=r"the profile as it was brings nothing up.*wrote nothing"):
        made.edit(made.tell("", HISTORY, 3), PROFILE, HISTORY, 3)
    with pytest.raises(ConfigError, match="the new profile brings nothing up"):
        made.edit(made.tell(PROFILE, HISTORY, 3), "!", HISTORY, 3)


def test_a_profile_longer_than_the_embedder_reads_is_told(made: Teller) -> None:
    told = made.tell("Likes soap. " * 40, HISTORY, 2)
    assert "reads 64 tokens" in told.notes[0]
    assert told.sentences[-1].brings == pytest.approx(0, abs=1e-6)
    assert len(made.tell(PROFILE, HISTORY, 8).items) == 6  # the history's two aren't found
    assert made.tell(PROFILE, HISTORY, 8).notes == ["There are no more items to be found."]
    assert len(made.tell(PROFILE, HISTORY, 9).items) == 6


def test_typed_text_is_plain_words() -> None:
    html = "Likes <b>tents</b> &amp; stoves.<br>\n<script>alert(1)</script>Not  pens <|im_end|>\n\n"
    assert worded(cleaned(html)) == "Likes tents & stoves.\nNot pens"
    for text in ("好きなもの：赤い石鹸。🎉", "любит мыло 👩‍🔬", "يحب الصابون"):
        assert worded(cleaned(text)) == text
    for text in ("", " \n ", "🎉", "<br>", "<|im_end|>", "…!"):
        with pytest.raises(ConfigError, match="no letter and no digit"):
            worded(cleaned(text))


def test_a_users_session_as_it_is_now() -> None:
    dataset = shop()
    sessions = Sessions.of(dataset, RULE)
    users = dataset.sequences.users.tolist()
    now = sessions.of_user(dataset, users.index("b"), RULE)
    assert (now.items.tolist(), now.ratings.tolist(), now.reviews.to_list()) == ([4, 5], [4, 4], ["fine"] * 2)
    assert now.targets.tolist() == [-1]
    assert now.users.tolist() == ["b"]
    begun = sessions.of_user(dataset, users.index("b"), RULE, first=True)
    assert begun.items.tolist() == sessions.inputs(sessions.users.tolist().index("b")).tolist() == [1, 2]
    few = sessions.of_user(dataset, users.index("short"), RULE)
    assert few.items.tolist() == [3]
    assert np.isnan(few.ratings).all()
    strict = SessionSettings(inputs=2, shortest_review=2)
    with pytest.raises(DataError, match=r"user 'short' has no history.*review shorter than 2"):
        sessions.of_user(dataset, users.index("short"), strict)


def test_the_latest_models_of_turns(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model that was trained in turns"):
        latest(tmp_path)
    file = tmp_path / "turns.json"
    done = [f"turn-00{turn}/{name}" for turn in (0, 1) for name in ("embedder", "writer")][:3]
    file.write_text(json.dumps({"identity": {}, "done": done}))
    assert latest(tmp_path) == {
        "embedder": tmp_path / "turn-001/embedder",
        "writer": tmp_path / "turn-000/writer",
    }
    file.write_text(json.dumps({"identity": {}, "done": []}))
    with pytest.raises(ArtifactError, match="no model"):
        latest(tmp_path)
    for damaged in ("{", "[]", "{}"):
        file.write_text(damaged)
        with pytest.raises(ArtifactError, match="is damaged"):
            latest(tmp_path)
