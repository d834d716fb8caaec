"""Task `profile` in a run: trained, evaluated, asked by words and items, against brute force; what words are worth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import polars as pl
import pytest
import torch

import itemic
from itemic.cli.app import call
from itemic.errors import ArtifactError, ConfigError, DataError
from itemic.evaluate.recommend import ModelRanker
from itemic.evaluate.words import latest_of, templated_profiles
from itemic.evaluate.worth import ALONE, POPULAR, TOGETHER, Worth
from itemic.evaluate.worth import WORDS as ONLY
from itemic.metrics import bootstrap
from itemic.model.positions import most_positions
from itemic.pipeline.recommend import recommend_one
from itemic.pipeline.words import evaluate_run_words
from itemic.tasks import make_task
from itemic.tasks.catalogue import Catalogue
from itemic.tasks.described import described, taste_of_rows
from itemic.tasks.fitting import cut_text, fit_profiles
from itemic.tasks.profile import BOTH, WORDS, ProfileNext, Written, facts_of
from itemic.tasks.profiles_file import ToldProfile, profiles_before, read_profiles
from tests.runs import RECIPE

WORDED = (
    RECIPE.replace(
        "  - {task: A, limit: 40}\n",
        "  - {task: profile, max_items: 5, limit: 90}\n"
        "  - {task: profile, source: both, kinds: [profile and history], limit: 30}\n",
    )
    .replace("epochs: 2", "steps: 3")
    .replace("evaluate:\n", "evaluate:\n  task: profile\n  baselines: [popularity]\n")
)
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
    answers = [model.tokenizer.encode(text, add_special_tokens=False) for text in model.index.texts]
    assert len({tuple(answer) for answer in answers}) == len(answers)
    with torch.no_grad():
        logits = model.lm(torch.tensor([prompt + answer for answer in answers])).logits[
            :, len(prompt) - 1 : -1
        ]
    said = logits.float().log_softmax(-1).gather(2, torch.tensor(answers)[..., None])[:, 1:-1, 0].sum(1)
    return sorted(enumerate(said.tolist()), key=lambda one: -one[1])


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
    shutil.copytree(run / "train.all", copy, dirs_exist_ok=True)
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


def told_of(dataset: itemic.Dataset, model: itemic.Model, user: str) -> str:
    """The templated profile of a user's training items, straight from what counts and says it."""
    train, catalogue = dataset.train, Catalogue(model.index, dataset.items)
    own = train[list(train.users).index(user)][-5:]
    return described(taste_of_rows(own, facts_of(catalogue)), crc32(own.tobytes()))


def test_what_words_are_worth_by_brute_force(run: Path, tmp_path: Path) -> None:
    dataset, model = itemic.Dataset.load(run / "data"), itemic.Model.load(run / "train.all")
    found = evaluate_run_words(run, shown=[2, 0], users=7, k=[3, 10], output=tmp_path / "words")
    requests = dataset.split("test")
    chosen = np.sort(np.random.default_rng([0, 7]).choice(len(requests), 7, replace=False))
    popular = np.bincount(dataset.train.items, minlength=40)
    ranks: dict[tuple[int, str], list[int]] = {}
    for row in chosen.tolist():
        target, user = int(requests.targets[row]), str(requests.users[row])
        listed = "".join(map(model.index.text, requests.history(row)[-2:]))
        told, sequential = told_of(dataset, model, user) + "\n", make_task("C").leads["next"][0]
        for way, asked in {
            (0, ALONE): sequential,
            (2, ALONE): sequential + listed,
            (0, ONLY): ProfileNext.leads[WORDS][0] + told,
            (2, ONLY): ProfileNext.leads[WORDS][0] + told,
            (2, TOGETHER): ProfileNext.leads[BOTH][0] + told + listed,
        }.items():
            places = [item for item, _ in brute_force(model, asked)]
            ranks.setdefault(way, []).append(places.index(target) + 1)
    assert found.requests == 7
    by = {(line.shown, line.way): line for line in found.lines}
    assert list(by) == [(0, POPULAR), (0, ALONE), (0, ONLY), (2, ALONE), (2, ONLY), (2, TOGETHER)]
    for way, own in ranks.items():
        base = np.array(ranks[way[0], ALONE])
        for k in (3, 10):
            place = np.array(own)
            hits, theirs = place <= k, base <= k
            gain = hits / np.log2(place + 1) - theirs / np.log2(base + 1)
            assert by[way].metrics[f"hr@{k}"].value == pytest.approx(hits.mean())
            assert by[way].metrics[f"ndcg@{k}"].value == pytest.approx((hits / np.log2(place + 1)).mean())
            if way[1] == ALONE:
                assert by[way].gains == {}
            else:
                assert by[way].gains[f"hr@{k}"].value == pytest.approx(hits.mean() - theirs.mean())
                assert by[way].gains[f"ndcg@{k}"].value == pytest.approx(gain.mean())
                low, high = bootstrap(gain, 0)
                assert (by[way].gains[f"ndcg@{k}"].low, by[way].gains[f"ndcg@{k}"].high) == pytest.approx(
                    (low, high)
                )
    places = np.argsort(np.argsort(-popular, kind="stable"))[requests.targets[chosen]] + 1
    assert by[0, POPULAR].metrics["hr@10"].value == pytest.approx((places <= 10).mean())
    assert Worth.load(tmp_path / "words" / "test.json") == found
    assert (tmp_path / "words" / "test.md").read_text() == found.markdown()
    assert "an empty history, which training never shows" in found.markdown()
    assert "templated ones of each user's training interactions" in str(found)
    assert [said.split(",")[0] for said in found.verdicts] == ["Without any item", "With the latest 2 items"]

    parts = {file: file.stat().st_mtime_ns for file in (tmp_path / "words").rglob("part-*.parquet")}
    assert len(parts) == 5  # the profile alone is asked once
    next(iter(parts)).unlink()
    again = evaluate_run_words(run, shown=[0, 2], users=7, k=[3, 10], output=tmp_path / "words")
    assert again == found
    assert sum(file.stat().st_mtime_ns == time for file, time in parts.items()) == len(parts) - 1
    with pytest.raises(ArtifactError):
        evaluate_run_words(run, shown=[0], users=6, k=[3, 10], output=tmp_path / "words")


def test_profiles_know_nothing_of_targets(run: Path) -> None:
    dataset, model = itemic.Dataset.load(run / "data"), itemic.Model.load(run / "train.all")
    users = dataset.split("test").users
    told = templated_profiles(ProfileNext(max_items=5), model.index, dataset, users)
    ids, changed = dataset.item_ids, []
    labels = dataset.labels
    for number, item in enumerate(dataset.interactions["item_id"].to_list()):
        changed.append(item if labels[number] == 0 else ids[(ids.index(item) + 11) % 40])
    other = replace(dataset, interactions=dataset.interactions.with_columns(item_id=pl.Series(changed)))
    assert other.split("test").targets.tolist() != dataset.split("test").targets.tolist()
    assert templated_profiles(ProfileNext(max_items=5), model.index, other, users).texts == told.texts
    assert told.texts == {str(user): told_of(dataset, model, str(user)) for user in users}


def test_written_profiles_are_those_of_training(run: Path, tmp_path: Path) -> None:
    dataset = itemic.Dataset.load(run / "data")
    train, ids, whole = dataset.train, dataset.item_ids, dataset.sequences
    lines = []
    for at, user in enumerate(train.users[:6]):
        lines.append({"user": user, "profile": f"Early <b>{at}</b>.", "items": [ids[train[at][0]]]})
        late = [ids[row] for row in whole[at]] if at == 0 else [ids[row] for row in train[at]]
        lines.append({"user": user, "profiles": {"trained": f"Late {at}.", "other": "no"}, "items": late})
    lines.append({"user": train.users[6], "profile": "Nobody says."})
    file = tmp_path / "told.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    written, notes = profiles_before(read_profiles(file), dataset)
    assert written.texts == {
        str(user): "Nobody says." if at == 6 else "Early <b>0</b>." if at == 0 else f"Late {at}."
        for at, user in enumerate(train.users[:7])
    }
    assert len(notes) == 2
    assert notes[0].startswith("1 profiles are left out")
    assert notes[1].startswith("1 profiles don't say")
    found = evaluate_run_words(run, shown=[1], profiles=file, k=[10], output=tmp_path / "words")
    assert found.requests == 7
    assert [(line.shown, line.way) for line in found.lines] == [(1, ALONE), (1, ONLY), (1, TOGETHER)]
    assert any("requests of users without a profile are left out" in note for note in found.notes)
    for bad in ("[1]", "{}", '{"user": "a", "profile": 3}', "no"):
        file.write_text('{"user": "a", "profile": "b"}\n' + bad, encoding="utf-8")
        with pytest.raises(DataError, match="line 2, holds no profile"):
            read_profiles(file)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no profiles"):
        read_profiles(file)
    with pytest.raises(DataError, match="can't be read"):
        read_profiles(tmp_path / "nothing")
    with pytest.raises(DataError, match="no profile is left"):
        profiles_before([ToldProfile("nobody", "Likes tea.", ("x",))], dataset)
    file.write_text('{"user": "stranger", "profile": "b"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="none of the users of test"):
        evaluate_run_words(run, profiles=file, output=tmp_path / "none")


def test_words_on_the_command_line(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["evaluate", "words", str(run), "--shown", "0,1", "--users", "5", "-k", "5,10"]
    assert call([*asked, "-o", str(tmp_path / "a"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["requests"] == 5
    assert [line["shown"] for line in told["lines"]] == [0, 0, 0, 1, 1, 1]
    model = ["evaluate", "words", str(run / "train.all"), "--task", "C", *asked[3:]]
    assert call([*model, "--dataset", str(run / "data"), "-o", str(tmp_path / "b"), "--json"]) == 0
    same = json.loads(capfd.readouterr().out)
    assert [line["metrics"] for line in same["lines"]] == [line["metrics"] for line in told["lines"]]
    for wrong, said in (
        ([*asked[:3], "--shown", "1,x"], "--shown is '1,x'"),
        ([*asked[:3], "--shown", "1,1"], "shown is"),
        ([*asked[:3], "--task", "A"], "doesn't ask by items alone"),
        ([*model], "knows no users"),
        ([*model, "--dataset", str(run / "data")], "no place for tables"),
        ([*model[:3], "--dataset", str(run / "data"), "-o", str(tmp_path / "c")], "Give --task"),
        (
            ["evaluate", "words", str(untold(run)), *model[3:], "--dataset", str(run / "data"), "-o", "c"],
            "never",
        ),
    ):
        assert call(wrong) == 2
        assert said in capfd.readouterr().err


def test_one_profile_too_long_is_not_in_the_way_of_others(run: Path) -> None:
    dataset, model = itemic.Dataset.load(run / "data"), itemic.Model.load(run / "train.all")
    whole = dataset.split("test")[:4]
    users = [str(user) for user in whole.users]
    texts = dict.fromkeys(users, "Likes tea.") | {users[1]: "Likes tea " * 900, users[3]: "茶" * 4000}
    task = ProfileNext().knowing(Written(texts), WORDS)
    nothing = latest_of(whole, 0)
    assert len(nothing.items) == 0
    ranker = ModelRanker(model, task=task, beams=40)
    items, _ = ranker.rank(nothing, 3)
    assert (items >= 0).all(axis=1).tolist() == [True, False, True, False]
    assert ranker.shortened(nothing).tolist() == [False, True, False, True]
    alone = ModelRanker(model, task=task, beams=40).rank(nothing[:1], 3)[0]
    assert items[0].tolist() == alone[0].tolist()

    fitted, cut = fit_profiles(ranker.asker, task, nothing)
    assert cut == [users[1], users[3]]
    assert [fitted.written.texts[users[row]] for row in (0, 2)] == ["Likes tea."] * 2
    assert (
        fitted.written.texts[users[1]].split()
        == (["Likes", "tea"] * 900)[: len(fitted.written.texts[users[1]].split())]
    )
    assert 0 < len(fitted.written.texts[users[3]]) < 4000
    assert (ModelRanker(model, task=fitted, beams=40).rank(nothing, 3)[0] >= 0).all()
    again, none = fit_profiles(ranker.asker, fitted, nothing)
    assert (again, none) == (fitted, [])
    twice = nothing.take(np.array([1, 1]))  # beside more items there is less room; one profile fits both
    both = ProfileNext().knowing(Written(texts), BOTH)
    beside, cut = fit_profiles(ranker.asker, both, whole.take(np.array([1, 1])))
    assert cut == [users[1]]
    assert len(beside.written.texts[users[1]]) < len(
        fit_profiles(ranker.asker, task, twice)[0].written.texts[users[1]]
    )


def test_cutting_at_words() -> None:
    assert [cut_text("ab cd  ef", length) for length in range(10)] == [
        "", "a", "ab", "ab", "ab", "ab cd", "ab cd", "ab cd", "ab cd", "ab cd  ef"
    ]  # fmt: skip
    assert cut_text("茶茶茶", 2) == "茶茶"
