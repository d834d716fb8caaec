"""Questions to a run that describes users in words, with a writer and an embedder made by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.errors import ArtifactError, ConfigError, DataError
from itemic.pipeline.described import Parts, describe, edit, parts_of
from itemic.profile.embedder import Embedder
from itemic.profile.word_settings import WordsSettings
from itemic.profile.words import ProfileWords
from itemic.profile.writer import Writer
from itemic.recipe import dump_recipe, load_recipe
from itemic.sid.text import item_texts
from itemic.tasks.facts import ItemFacts
from tests.profile.coloured import SHADES, TITLES, parts, shop
from tests.profile.writers import taught
from tests.runs import write_recipe
from tests.sid.encoders.models import bert


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    torch.set_num_threads(1)
    return parts(tmp_path_factory.mktemp("run"))


def with_(run: Parts, **changes: Any) -> Parts:
    return Parts(**({name: getattr(run, name) for name in Parts.__dataclass_fields__} | changes))


def test_a_user_is_described_by_their_latest_items(run: Parts) -> None:
    found = describe(run, user="b", k=4)
    assert [(item.item_id, item.title, item.rating) for item in found.history] == [
        ("i4", "pink soap", 4.0),
        ("i5", "red towel", 4.0),
    ]
    (told,) = found.profiles
    # the model's own generation says the same, behind the prompt as it is put together by hand
    writer = Writer.load(run.writer)
    asked = "Had: Title: pink soap\n\nTitle: red towel"
    prompt: Any = writer.tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    lm: Any = AutoModelForCausalLM.from_pretrained(run.writer)
    tokens = lm.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert told.text == str(writer.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    assert told.text.startswith("likes ")
    assert told.tokens == len(tokens)
    assert told.ended
    # nothing of what was read comes again, and what they had before is marked
    assert not {"i4", "i5"} & {item.item_id for item in told.items}
    assert {item.item_id for item in told.items if item.had} <= {"i1", "i2", "i3"}
    every = describe(run, user="b", k=8).profiles[0].items
    assert {item.item_id for item in every if item.had} == {"i1", "i2", "i3"}
    begun = describe(run, user="b", first=True, k=8)
    assert [item.item_id for item in begun.history] == ["i1", "i2"]
    assert {item.item_id for item in begun.profiles[0].items if item.had} == {"i3", "i4", "i5"}
    assert found.notes == []
    assert "of user b" in str(found)


def test_a_history_instead_of_a_user(run: Parts) -> None:
    found = describe(run, items=["i4", "i5"], k=4)
    assert found.user is None
    assert [item.rating for item in found.history] == [None, None]
    by_user = describe(run, user="b", k=4)
    assert [item.item_id for item in found.profiles[0].items] == [
        item.item_id for item in by_user.profiles[0].items
    ]
    few = describe(run, user="short")
    assert "learnt from 2 items of each user, and here are 1" in few.notes[0]


def test_drawn_profiles_are_the_seeds_own(run: Parts) -> None:
    many = [told.text for told in describe(run, user="c", samples=6, seed=3).profiles]
    assert many == [told.text for told in describe(run, user="c", samples=6, seed=3).profiles]
    assert many[:2] == [told.text for told in describe(run, user="c", samples=2, seed=3).profiles]
    assert many != [told.text for told in describe(run, user="c", samples=6, seed=4).profiles]
    assert len(set(many)) > 1
    with pytest.raises(ConfigError, match="samples"):
        describe(run, user="c", samples=0)


def test_what_can_not_be_asked(run: Parts) -> None:
    both: dict[str, Any] = {"user": "b", "items": ["i1"]}
    for asked in ({}, both):
        with pytest.raises(ConfigError, match="of a user or of a history"):
            describe(run, **asked)
    with pytest.raises(DataError, match="has no user 'shorts'") as error:
        describe(run, user="shorts")
    assert "'short'" in str(error.value.remedy)
    with pytest.raises(DataError, match="no item 'i11'") as error:
        describe(run, items=["i1", "i11"])
    assert "'i1'" in str(error.value.remedy)
    with pytest.raises(DataError, match="history is empty"):
        describe(run, items=[])
    with pytest.raises(ConfigError, match="first items are a user's"):
        describe(run, items=["i1"], first=True)


def test_a_writer_that_never_ends_or_writes_nothing(run: Parts, tmp_path: Path) -> None:
    from itemic.profile.turn_settings import Drawing

    cut = describe(with_(run, drawing=Drawing(max_new_tokens=1)), user="b", k=3).profiles[0]
    assert not cut.ended
    assert "cut off after 1 tokens; judged, it is worth nothing" in cut.notes[-1]
    silent = taught()
    silent.lm.generation_config.eos_token_id = list(range(320))  # whatever it says first is its end
    silent.save(tmp_path / "silent")
    mute = with_(run, writer=tmp_path / "silent")
    told = describe(mute, user="b", k=3).profiles[0]
    assert (told.text, told.items, told.sentences) == ("", [], [])
    assert told.notes == ["The writer wrote nothing, and nothing is found."]
    with pytest.raises(ConfigError, match=r"as it was brings nothing up.*The writer wrote nothing") as error:
        edit(mute, user="b", text="likes blue")
    assert "Give the profile" in str(error.value.remedy)
    assert edit(mute, user="b", profile="likes red", text="likes blue", k=3).items


def test_what_was_cut_of_the_prompt_is_told(run: Parts) -> None:
    def notes(facts: ItemFacts, fields: Any, room: int, *items: str) -> list[str]:
        words = ProfileWords(facts, WordsSettings(fields=fields, instruction="Had: ", max_tokens=room))
        return describe(with_(run, words=words), items=items).notes

    long = ItemFacts.of(shop(description=["ever so long " * 20] * 8))
    row = len(Writer.load(run.writer).prompts([[{"role": "user", "content": "Had: Title: red towel"}]])[0])
    both = ["title", "description"]
    assert notes(long, both, row + 70, "i5")[0].startswith("Descriptions and reviews were cut to 50")
    assert notes(long, both, row + 2, "i5") == ["Descriptions and reviews were left out, to fit the prompt."]
    assert notes(long, "titles", row + 2, "i4", "i5") == [
        "The prompt had no room for the 1 oldest of these items."
    ]


def test_edits(run: Parts) -> None:
    found = edit(run, user="b", text="likes green <b>brush</b>es 🎉", k=4)
    assert found.before.text == describe(run, user="b").profiles[0].text
    assert found.after.text == "likes green brush es 🎉"
    assert [item.item_id for item in found.history] == ["i4", "i5"]
    assert not {"i4", "i5"} & {item.item_id for item in found.items}
    share = next(share for share in found.attributes if share.name == "Green")
    assert share.why == "named now"
    greens = [
        sum(SHADES[int(item.item_id[1:])] == "Green" for item in told.items) / 4
        for told in (found.before, found.after)
    ]
    assert [share.before, share.after] == pytest.approx(greens)
    lists = [[item.item_id for item in told.items] for told in (found.before, found.after)]
    assert {item.item_id for item in found.items if item.what == "came"} == set(lists[1]) - set(lists[0])
    assert {item.item_id for item in found.items if item.what == "went"} == set(lists[0]) - set(lists[1])


def test_edits_of_a_given_profile_need_no_writer(run: Parts, tmp_path: Path) -> None:
    without = with_(run, writer=tmp_path / "none")
    profile = "likes red.\nHas a towel. Wants soap."
    found = edit(without, profile=profile, text="Has a mirror.", sentence=2, k=8)
    assert found.after.text == "likes red.\nHas a mirror. Wants soap."
    assert found.history == []
    assert len(found.after.items) == 8  # nobody's items are left out
    assert {item.title for item in found.after.items} == set(TITLES)
    taken = edit(without, profile=profile, text="", sentence=3)
    assert taken.after.text.strip() == "likes red.\nHas a towel."
    assert [line.what for line in taken.lines] == ["kept", "kept", "gone"]
    with pytest.raises(ConfigError, match="3 sentences, and number 4"):
        edit(without, profile=profile, text="x", sentence=4)
    for wrong in ("", "🎉", "<br>"):
        with pytest.raises(ConfigError, match="no letter and no digit"):
            edit(without, profile=profile, text=wrong)
        with pytest.raises(ConfigError, match="no letter and no digit"):
            edit(without, profile=wrong, text="x")
    with pytest.raises(ConfigError, match="no letter and no digit"):
        edit(without, profile="Likes red.", text="", sentence=1)
    with pytest.raises(ConfigError, match="which profile is edited"):
        edit(without, text="likes red")
    with pytest.raises(ConfigError, match="of a user or of a history"):
        edit(without, text="likes red", user="b", items=["i1"])
    assert edit(
        without, profile="любит мыло", text="好きなもの：赤い石鹸。", user="b", k=2
    ).after.text.startswith("好き")


RECIPE = """\
name: described
data:
  simulate: {users: 60, items: 40, categories: 4, brands: 6, shortest: 4, longest: 8}
profile:
  sessions: {inputs: 2}
  words: {fields: titles, instruction: "Had: ", max_tokens: 110}
  writer: {base: FOLDER/writer}
  embedder: {model: FOLDER/bert, fields: [title]}
  turns:
    iterations: 1
    count: 10
    embedder: {steps: 1}
    writer:
      steps: 1
      rollout: {samples: 2, max_new_tokens: 8, epochs: 1}
      data: {prompts_per_step: 2}
  evaluate: {drawing: {max_new_tokens: 8}}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ran")
    taught().save(folder / "writer")
    bert(folder / "bert")
    file = write_recipe(folder, RECIPE.replace("FOLDER", str(folder)))
    assert call(["run", str(file), "-o", str(folder / "run"), "--until", "turns"]) == 0
    return folder / "run"


def test_commands_ask_the_models_that_were_trained(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Dataset.load(ran / "data")
    user = str(data.sequences.users[7])
    capsys.readouterr()
    assert call(["profile", "write", str(ran), "--user", user, "-k", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    shown = data.sequences[7][-2:].tolist()
    assert [item["item_id"] for item in told["history"]] == [data.item_ids[row] for row in shown]
    (profile,) = told["profiles"]
    embedder = Embedder.load(ran / "turns" / "turn-000" / "embedder")
    items = embedder.encode(item_texts(data.items, ["title"]), "item").astype(np.float64)
    scores = items @ embedder.encode([profile["text"]], "profile")[0].astype(np.float64)
    scores[shown] = -np.inf
    best = np.argsort(-scores, kind="stable")[:5]
    assert [item["item_id"] for item in profile["items"]] == [data.item_ids[row] for row in best]
    kept = ran / "profile" / "vectors" / "vectors.npy"
    assert np.load(kept) == pytest.approx(items, abs=1e-6)
    asked = ["profile", "edit", str(ran), "--user", user, "--profile", "likes red", "-k", "5"]
    file = ran.parent / "new.txt"
    file.write_text("\ufefflikes blue", encoding="utf-8")
    assert call([*asked, "--text-file", str(file)]) == 0
    shown_text = capsys.readouterr().out
    assert "likes blue" in shown_text
    assert "overlap" in shown_text
    assert call([*asked, "--text", "likes blue", "--json"]) == 0
    edited = json.loads(capsys.readouterr().out)
    assert edited["before"]["text"] == "likes red"
    assert len(edited["after"]["items"]) == 5
    assert call(["profile", "write", str(ran), "--history", f"{data.item_ids[0]}, {data.item_ids[1]}"]) == 0
    assert "Profile" in capsys.readouterr().out
    assert call([*asked]) == 2
    assert "--text-file" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe\x00")
    assert call([*asked, "--text-file", str(file)]) == 2
    assert "no text in UTF-8" in capsys.readouterr().err
    assert call([*asked, "--text-file", str(ran / "none.txt")]) == 2


def test_profiles_are_tested_by_command(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    asked = ["profile", "evaluate", str(ran), "--users", "4", "-k", "2,7", "-s", "judge=false"]
    folder = ran.parent / "tested"
    assert call([*asked, "--split", "valid", "--output", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sessions"] == 4
    assert told["judged"] == []
    assert told["settings"]["k"] == [2, 7]
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == told
    assert {f"recall@{cut}" for cut in (2, 7)} <= set(told["comparison"]["columns"])
    assert call([*asked, "--split", "valid", "--output", str(folder)]) == 0
    assert "random" in capsys.readouterr().out
    assert call([*asked[:3], "-k", "7,2"]) == 2
    assert "rising cuts" in capsys.readouterr().err
    assert call([*asked[:3], "--split", "later"]) == 2
    assert "later" in capsys.readouterr().err


def test_runs_that_can_not_be_asked(ran: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not the folder of a run"):
        parts_of(tmp_path)
    recipe = (ran / "recipe.yaml").read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    with pytest.raises(ArtifactError, match="data is missing"):
        parts_of(tmp_path)
    shutil.copytree(ran / "data", tmp_path / "data")
    with pytest.raises(ArtifactError, match="writer is missing"):
        parts_of(tmp_path)
    for name in ("writer", "embedder"):
        (tmp_path / name).mkdir()
    with pytest.raises(ArtifactError, match="turns is missing"):
        parts_of(tmp_path)
    (tmp_path / "turns").mkdir()
    with pytest.raises(ArtifactError, match="no model that was trained in turns"):
        parts_of(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    items = load_recipe(write_recipe(other))
    (other / "recipe.yaml").write_text(dump_recipe(items), encoding="utf-8")
    with pytest.raises(ArtifactError, match="no section profile"):
        parts_of(other)
