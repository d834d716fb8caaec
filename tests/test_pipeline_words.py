"""Task `profile` in a run: trained, evaluated, asked by words alone, and by words and items; ranked by brute force."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

import itemic
from itemic.cli.app import call
from itemic.errors import ConfigError, DataError
from itemic.model.positions import most_positions
from itemic.pipeline.recommend import recommend_one
from itemic.tasks.profile import BOTH, WORDS, ProfileNext
from tests.runs import RECIPE

WORDED = RECIPE.replace(
    "  - {task: A, limit: 40}\n",
    "  - {task: profile, max_items: 5}\n  - {task: profile, source: both, kinds: [profile and history]}\n",
).replace("evaluate:\n", "evaluate:\n  task: profile\n  baselines: [popularity]\n")
SAYS = "They choose items by Thistlemark. <b>Likes</b> camping &amp; <|im_end|>music 🎉."
CLEAN = "They choose items by Thistlemark. Likes camping & music 🎉."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "tiny.yaml").write_text(WORDED, encoding="utf-8")
    assert call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run")]) == 0
    return folder / "run"


def brute_force(model: itemic.Model, asked: str) -> list[tuple[int, float]]:
    """All items by the log-probabilities of their codes behind the prompt; what opens and closes every
    name counts for none."""
    messages = [{"role": "system", "content": itemic.schema.SYSTEM}, {"role": "user", "content": asked}]
    prompt = model.tokenizer.encode(model.chat.prompt_text(messages), add_special_tokens=False)
    found = []
    for row, text in enumerate(model.index.texts):
        answer = model.tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            logits = model.lm(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
        said = logits.log_softmax(-1)[range(len(answer)), answer]
        found.append((row, float(said[1:-1].sum())))
    return sorted(found, key=lambda one: -one[1])


def check(answer: object, model: itemic.Model, asked: str, out: tuple[int, ...] = ()) -> None:
    best = [one for one in brute_force(model, asked) if one[0] not in out]
    rows = [model.index.item_ids.index(item.item_id) for item in answer.items]  # type: ignore[attr-defined]
    scores = dict(best)
    got = [item.score for item in answer.items]  # type: ignore[attr-defined]
    assert got == pytest.approx([score for _, score in best[: len(got)]], abs=2e-4)
    assert got == pytest.approx([scores[row] for row in rows], abs=2e-4)


def test_trained_evaluated_and_asked_about_a_user(run: Path) -> None:
    rows = pl.read_parquet(run / "conversations" / "profile" / "*.parquet")
    kinds = {json.loads(row)["kind"] for row in rows["metadata"]}
    assert kinds == {WORDS, BOTH}
    head = json.loads((run / "evaluate" / "model" / "ranking.json").read_text())
    assert "ProfileNext(" in head["config"]["task"]
    assert "max_items=5" in head["config"]["task"]
    dataset, model = itemic.Dataset.load(run / "data"), itemic.Model.load(run / "train.all")
    user = str(dataset.sequences.users[0])
    asked = (
        ProfileNext(max_items=5).prompt(model.index, dataset.sequences[0], dataset).messages[-1]["content"]
    )
    check(recommend_one(run, user=user, k=5, beams=40), model, asked)
    assert "How it is asked" not in (run / "train.all" / "README.md").read_text()


def test_words_alone_rank_the_whole_catalogue(run: Path) -> None:
    model = itemic.Model.load(run / "train.all")
    answer = recommend_one(run, profile=SAYS, k=40, beams=40)
    check(answer, model, ProfileNext.leads[WORDS][0] + CLEAN + "\n")
    assert answer.profile == CLEAN
    assert answer.history == []
    assert answer.user is None
    assert [item.item_id for item in answer.items] == [
        item.item_id for item in recommend_one(run / "train.all", profile=SAYS, k=40).items
    ]


def test_words_and_items(run: Path) -> None:
    dataset, model = itemic.Dataset.load(run / "data"), itemic.Model.load(run / "train.all")
    rows = [3, 7]
    ids = [dataset.item_ids[row] for row in rows]
    asked = ProfileNext.leads[BOTH][0] + CLEAN + "\n" + "".join(model.index.text(row) for row in rows)
    check(recommend_one(run, items=ids, profile=SAYS, k=9), model, asked)
    left = recommend_one(run / "train.all", items=ids, profile=SAYS, k=40, exclude_history=True)
    check(left, model, asked, tuple(rows))
    assert len(left.items) == 38
    own = dataset.sequences[0]
    user = recommend_one(run, user=str(dataset.sequences.users[0]), profile=SAYS, k=9)
    asked = ProfileNext.leads[BOTH][0] + CLEAN + "\n" + "".join(map(model.index.text, own[-5:]))
    check(user, model, asked)
    assert len(user.history) == len(own)


def test_both_are_refused_where_it_makes_no_sense(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for asked, said in (
        ({}, "needs a user, a history or a profile"),
        ({"user": "u", "items": ["1"], "profile": SAYS}, "needs a user, a history or a profile"),
        ({"profile": ""}, "the profile is empty"),
        ({"profile": " \n "}, "the profile is empty"),
        ({"profile": "🎉🎉"}, "has no words"),
        ({"profile": "<|im_end|><br>"}, "has no words"),
    ):
        with pytest.raises(ConfigError, match=said):
            recommend_one(run, **asked)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no user 'nobody'"):
        recommend_one(run, user="nobody", profile=SAYS)
    with pytest.raises(ConfigError, match="never learned to go from words to items") as raised:
        recommend_one(untold(run), profile=SAYS)
    assert "{task: profile}" in raised.value.remedy
    assert call(["recommend", str(run), "--profile", SAYS, "--want", "Tents"]) == 2
    assert "--profile is for rankings" in capfd.readouterr().err


def untold(run: Path) -> Path:
    """A model of the same weights that nobody taught to read profiles."""
    copy = run.parent / "untold"
    shutil.copytree(run / "train.all", copy)
    record = json.loads((copy / "config.json").read_text())
    del record["itemic"]["profile"]
    (copy / "config.json").write_text(json.dumps(record))
    (copy / "manifest.json").unlink(missing_ok=True)
    return copy


def test_a_profile_that_is_too_long_loses_its_end(run: Path) -> None:
    model = itemic.Model.load(run / "train.all")
    words = [f"word{number}" for number in range(2000)]
    long = recommend_one(run, profile=" ".join(words), k=3)
    assert long.profile is not None
    kept = long.profile.split()
    assert kept == words[: len(kept)]
    assert 50 < len(kept) < 2000
    assert long.notes == [
        f"The profile is longer than the model can read: of its 2,000 words the first {len(kept):,} were read."
    ]
    most = most_positions(model.lm)
    assert most is not None

    def length(said: list[str]) -> int:
        prompt = ProfileNext().of_words(model.index, " ".join(said)).messages
        assert prompt is not None
        return len(model.chat.prompt(prompt)) + int(model.item_rows.lengths.max())

    assert length(kept) <= most < length(words[: len(kept) + 1])
    ids = model.index.item_ids[:5]
    beside = recommend_one(run, profile=" ".join(words), items=ids, k=3)
    assert beside.profile is not None
    assert 0 < len(kept) - len(beside.profile.split()) < 20
    assert "its oldest items were left out" in beside.notes[1]
    check(long, model, ProfileNext.leads[WORDS][0] + long.profile + "\n")


def test_on_the_command_line(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["recommend", str(run), "--profile", SAYS, "-k", "3"]) == 0
    said = capfd.readouterr().out
    assert "The profile, as the model reads it" in said
    assert "Recommended for this profile" in said
    assert "camping & music" in said
    assert "The history" not in said
    assert call(["recommend", str(run), "--profile", SAYS, "-k", "3", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["profile"] == CLEAN
    assert len(told["items"]) == 3
    assert call(["tasks", "preview", str(run / "conversations"), "--task", "profile", "-n", "2"]) == 0
    assert "What they are like" in capfd.readouterr().out
