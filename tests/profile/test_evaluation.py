"""A test of profiles against numpy and scikit-learn, killed and gone on with, and with all that can be wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import ndcg_score

from itemic import schema as c
from itemic.errors import ArtifactError, ConfigError, DataError, IndexMismatchError
from itemic.evaluate.compare import Published
from itemic.profile import answers
from itemic.profile.baselines import COUNTERS, LANGPTUNE, history_texts, random_lists, training_alone
from itemic.profile.embedder import Embedder
from itemic.profile.evaluation import TEACHER, ProfileAsking
from itemic.profile.evaluation_settings import ProfileTests
from itemic.profile.results import ProfileResults
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.settings import EmbedderSettings
from itemic.profile.words import EMPTY
from itemic.profile.writer import Writer
from itemic.sid.text import item_texts
from itemic.teacher.teacher import Teacher
from tests.profile.tested import asking, models, mute, shop
from tests.sid.encoders.models import qwen3
from tests.teacher.helpers import tiny

Folders = dict[str, dict[str, Path]]
PAPERS = (*LANGPTUNE, Published("they", {"ndcg@5": 0.25}, "a paper"))
FIRST = "trained writer, trained embedder"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    torch.set_num_threads(1)
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> tuple[ProfileAsking, ProfileResults]:
    own = asking(folders, tmp_path_factory.mktemp("whole"), published=PAPERS, title="A shop")
    return own, own.evaluate()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def told(own: ProfileAsking) -> list[dict[str, Any]]:
    return lines(Path(own.output) / "answers.jsonl")


def brute(own: ProfileAsking, embedder: Embedder, texts: list[str], at: int) -> np.ndarray[Any, Any]:
    """All scores of the text of one session, its items at the very end."""
    items = embedder.encode(list(own.item_texts), "item").astype(np.float64)
    scores = items @ embedder.encode([texts[at]], "profile")[0].astype(np.float64)
    scores[own.asked.inputs(at)] = -np.inf
    return np.asarray(scores)


@pytest.mark.parametrize(("writer", "embedder"), [("trained", "trained"), ("untrained", "untrained")])
def test_profiles_find_what_a_full_sort_finds(
    whole: tuple[ProfileAsking, ProfileResults], folders: Folders, writer: str, embedder: str
) -> None:
    own, results = whole
    row = f"{writer} writer, {embedder} embedder"
    encoder = Embedder.load(str(folders["embedders"][embedder]))
    kept = lines(Path(own.output) / f"profiles-{writer}.jsonl")[1:]
    texts = [line["texts"][0] for line in kept]
    gains, hits, failed = [], [], 0
    for at, line in enumerate(told(own)):
        target = int(own.asked.targets[at])
        assert line["target"] == f"i{target}"
        assert line["profiles"][writer] == texts[at]
        if not kept[at]["ended"][0] or not any(map(str.isalnum, texts[at])):
            failed += 1
            assert line["ranks"][row] == 0
            gains.append(0.0)
            hits.append(0.0)
            continue
        scores = brute(own, encoder, texts, at)
        order = np.lexsort((np.arange(len(scores)), -scores)).tolist()
        assert line["ranks"][row] == order.index(target) + 1
        if row == FIRST:
            assert line["found"] == [f"i{item}" for item in order[:5]]
        truth = np.zeros((1, len(scores)))
        truth[0, target] = 1
        low = np.where(np.isneginf(scores), -9.0, scores)
        gains.append(float(ndcg_score(truth, -np.argsort(order)[None].astype(float), k=5)))
        assert (order.index(target) == 0) == (low.argmax() == target)
        hits.append(float(target in order[:5]))
    # whoever failed stays in the denominator
    assert results.measure(row, "ndcg@5").value == pytest.approx(np.mean(gains))
    assert results.measure(row, "recall@5").value == pytest.approx(np.mean(hits))
    assert results.measure(row, "precision@5").value == pytest.approx(np.mean(hits) / 5)
    assert results.failures.get(row, 0) == failed
    assert len(gains) == results.sessions == 20
    if writer == "untrained":
        assert failed > 0
        assert any(f"of 20 profiles {failed} didn't end" in note for note in results.comparison.notes)


def test_the_raw_history_is_ranked_by_the_embedder_alone(
    whole: tuple[ProfileAsking, ProfileResults], folders: Folders
) -> None:
    own, _ = whole
    for name in ("trained", "untrained"):
        encoder = Embedder.load(str(folders["embedders"][name]))
        titles = own.words.facts.titles
        texts = [
            "\n\n".join(f"Title: {titles[row]}" for row in own.asked.inputs(at)[::-1]) for at in range(20)
        ]
        assert history_texts(own.asked, own.words.facts, "titles", encoder) == (texts, 0)
        for at, line in enumerate(told(own)):
            scores, target = brute(own, encoder, texts, at), int(own.asked.targets[at])
            better = (scores > scores[target]) | (
                (scores == scores[target]) & (np.arange(len(scores)) < target)
            )
            assert line["ranks"][f"titles of the history, {name} embedder"] == better.sum() + 1


def test_rows_and_what_is_said_of_them(whole: tuple[ProfileAsking, ProfileResults]) -> None:
    own, results = whole
    rows = [row.name for row in results.comparison.rows]
    assert rows[:4] == [
        f"{writer} writer, {embedder} embedder"
        for writer in ("trained", "untrained")
        for embedder in ("trained", "untrained")
    ]
    assert rows[4:8] == [
        f"{form}, {embedder} embedder"
        for embedder in ("trained", "untrained")
        for form in ("titles of the history", "titles and metadata")
    ]
    assert rows[8:11] == ["transitions", "popularity", "random"]
    assert rows[11:] == ["they (other data)"]  # who published nothing at these cuts has no row
    assert results.measure("they (other data)", "ndcg@5").value == 0.25
    assert FIRST in results.comparison.verdict
    assert {found.second for found in results.comparison.differences} == set(rows[1:11])
    for found in results.comparison.differences:
        means = [results.measure(name, "ndcg@5").value for name in (FIRST, found.second)]
        assert found.metrics["ndcg@5"].value == pytest.approx(means[0] - means[1])
    assert "Other data: a paper." in results.markdown()
    count = len(own.sessions.split("test"))
    assert f"20 of {count} sessions of test, drawn by the seed." in results.comparison.notes


def test_nobody_finds_the_items_of_a_session(
    whole: tuple[ProfileAsking, ProfileResults],
) -> None:
    own, _ = whole
    root = Path(own.output)
    files = sorted(root.glob("lists-*.jsonl"))
    assert (
        len(files) == 2 * 4 + 4
    )  # both embedders: two writers, two histories; edits and second profiles by one
    for file in files:
        for at, line in enumerate(lines(file)[1:]):
            assert not set(line["items"]) & set(own.asked.inputs(at).tolist())
    for at, row in enumerate(random_lists(own.requests, 18, 20, seed=1)):
        assert sorted(row) == sorted(set(range(20)) - set(own.asked.inputs(at).tolist()))
    assert not (root / "vectors").exists()


def test_results_are_kept_and_read(whole: tuple[ProfileAsking, ProfileResults], tmp_path: Path) -> None:
    _, results = whole
    results.save(tmp_path / "new", "profiles")
    again = ProfileResults.load(tmp_path / "new" / "profiles.json")
    assert again == results
    text = (tmp_path / "new" / "profiles.md").read_text()
    assert text == again.markdown()
    assert "| attribute recall |" in text
    assert "RECALL@2" in str(results)
    assert "trained" in str(results)
    (tmp_path / "odd.json").write_text('{"rows": []}')
    with pytest.raises(ArtifactError, match="holds no results of profiles"):
        ProfileResults.load(tmp_path / "odd.json")
    with pytest.raises(ConfigError, match="no ndcg@7 of 'popularity'"):
        results.measure("popularity", "ndcg@7")


def test_the_same_again_and_other_seeds(
    whole: tuple[ProfileAsking, ProfileResults], folders: Folders, tmp_path: Path
) -> None:
    own, results = whole
    again = asking(folders, tmp_path / "again", published=PAPERS, title="A shop")
    assert again.evaluate() == results
    assert told(again) == told(own)
    # what is there already is taken, and what is another's refused
    before = {file: file.read_bytes() for file in (tmp_path / "again").glob("*.jsonl")}
    assert again.evaluate() == results
    assert before == {file: file.read_bytes() for file in (tmp_path / "again").glob("*.jsonl")}
    with pytest.raises(ArtifactError, match="answers of another model, to other sessions"):
        asking(folders, tmp_path / "again", seed=1).evaluate()
    swapped = folders | {"embedders": {"trained": folders["embedders"]["untrained"]}}
    with pytest.raises(ArtifactError, match=r"lists-trained-trained\.jsonl holds answers of another"):
        asking(swapped, tmp_path / "again").evaluate()
    other = asking(folders, tmp_path / "other", seed=1)
    assert other.numbers.tolist() != own.numbers.tolist()


# --------------------------------------------------------------------------- killed


def run(folders: Folders, output: Path, die_at: tuple[str, int] | None = None) -> None:
    torch.set_num_threads(1)
    answers.CHUNK = 6
    if die_at is not None:
        arm(*die_at)
    asking(folders, output).evaluate().save(output, "results")


def arm(where: str, count: int) -> None:
    """Kill this process at the n-th call of something."""
    left, owner = [count], Writer if where == "write" else Embedder
    real = getattr(owner, "write" if where == "write" else "encode")

    def counted(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, "write" if where == "write" else "encode", counted)


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.profile.test_evaluation"])
    return found


def test_killed_and_gone_on_with(context: Any, folders: Folders, tmp_path: Path) -> None:
    def ended(folder: str, die_at: tuple[str, int] | None) -> int:
        child = context.Process(target=run, args=(folders, tmp_path / folder, die_at))
        child.start()
        child.join()
        return int(child.exitcode)

    assert ended("whole", None) == 0
    # while the first writes, the second, while the first embedder searches
    for where, files in ((("write", 2), 1), (("write", 3), 2), (("encode", 9), 5)):
        assert ended("killed", where) == -signal.SIGKILL
        assert len(list((tmp_path / "killed").glob("*.jsonl"))) == files
    half = tmp_path / "killed" / "profiles-trained.jsonl"
    assert len(lines(half)) == 21
    newest = max((tmp_path / "killed").glob("lists-*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    with newest.open("a") as stream:
        stream.write('{"session": 3, "ra')  # a line that was being written
    assert ended("killed", None) == 0
    names = sorted(file.name for file in (tmp_path / "whole").glob("*.*"))
    assert names == sorted(file.name for file in (tmp_path / "killed").glob("*.*"))
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


# ----------------------------------------------------------------- training alone counts


def test_counting_reads_training_alone() -> None:
    dataset = shop()
    sessions = Sessions.of(dataset, SessionSettings(inputs=2, ratios=(0.5, 0.1, 0.4)))
    alone = training_alone(dataset, sessions)
    assert len(alone.train.items) == sessions.training.sum() < len(dataset.interactions)
    ends = int(dataset.interactions[c.TIMESTAMP].to_numpy()[sessions.training].max())
    assert alone.interactions[c.TIMESTAMP].max() == ends
    assert ends < sessions.split("test").times.min()  # type: ignore[union-attr]
    np.testing.assert_array_equal(alone.train.items, dataset.sequences.items[sessions.training])
    with pytest.raises(DataError, match="another catalogue"):
        training_alone(shop(users=20), sessions)


def test_another_future_changes_no_counts(folders: Folders, tmp_path: Path) -> None:
    """All that happens after training is of one item: popularity and transitions give the same lists."""
    dataset = shop()
    own = asking(folders, tmp_path / "a", dataset, {"users": None})
    mine, training = dataset.interactions[c.ITEM_ID], own.sessions.training
    flood = [item if was else "i7" for item, was in zip(mine, training, strict=True)]
    other = shop()
    object.__setattr__(other, "interactions", dataset.interactions.with_columns(pl.Series(c.ITEM_ID, flood)))
    requests = own.requests
    for name in ("transitions", "popularity"):
        lists = [
            COUNTERS[name](training_alone(data, own.sessions)).rank(requests, 5, exclude_history=True)[0]
            for data in (dataset, other)
        ]
        np.testing.assert_array_equal(lists[0], lists[1])


def test_the_teacher_answers_too_and_is_told_on(folders: Folders, tmp_path: Path) -> None:
    own = asking(folders, tmp_path / "out", tests={"judge": False}, teacher=tmp_path / "teacher")
    teacher = tiny(20, own.dataset.item_ids)
    teacher.save(tmp_path / "teacher")
    results = own.evaluate()
    lists = Teacher.load(tmp_path / "teacher").rank(own.requests, 5, exclude_history=True)[0]
    hits = (lists == own.asked.targets[:, None]).any(axis=1)
    assert results.measure(TEACHER, "recall@5").value == pytest.approx(hits.mean())
    assert results.judged == []
    assert results.judged_table() is None
    ahead = int(((own.dataset.labels == 0) & ~own.sessions.training).sum())
    assert any(f"{TEACHER}: it learned from {ahead} inter" in note for note in results.comparison.notes)
    own.teacher_training = own.sessions.training
    assert not any("it learned from" in note for note in own.evaluate().comparison.notes)
    tiny(20, [f"x{row}" for row in range(20)]).save(tmp_path / "teacher")
    with pytest.raises(IndexMismatchError):
        own.evaluate()


# ---------------------------------------------------------------------------- bad input


def test_a_writer_that_says_nothing(folders: Folders, tmp_path: Path) -> None:
    own = asking(folders | {"writers": {"mute": mute(tmp_path / "mute")}}, tmp_path / "out")
    results = own.evaluate()
    row = results.comparison.rows[0]
    assert row.name == "mute writer, trained embedder"
    assert all(measure.value == 0 for measure in row.metrics.values())
    assert results.failures[row.name] == 20
    assert any("0 didn't end and 20 say nothing" in note for note in results.comparison.notes)
    judged = results.judged[0]
    assert judged.measures["empty"].value == judged.measures["ended"].value == 1
    assert set(judged.measures) == {"ended", "empty", "tokens"}  # nothing else can be said of nothing
    assert judged.counts["attribute precision"] == 0
    assert results.measure("popularity", "recall@5").value > 0


def test_people_without_a_history(folders: Folders, tmp_path: Path) -> None:
    own = asking(folders, tmp_path / "out", latest=0, tests={"drawing": {"samples": 1, "max_new_tokens": 8}})
    results = own.evaluate()
    prompts = own.words.prompts(own.asked, Writer.load(folders["writers"]["trained"]).chat)
    assert set(prompts.texts) == {f"had {EMPTY}"}
    row = "titles of the history, trained embedder"
    assert results.failures[row] == 20
    assert results.measure(row, "recall@5").value == 0
    assert any("20 have no words, and count as 0" in note for note in results.comparison.notes)
    judged = results.judged[0]
    assert judged.counts["attribute recall"] == 0  # there is nothing to name
    assert "overlap@5" not in judged.counts  # of one profile each
    assert results.measure("popularity", "recall@5").value > 0


def test_equal_and_silent_items(folders: Folders, tmp_path: Path) -> None:
    titles = ["blue soap"] * 3 + [f"red soap {row}" for row in range(16)] + ["…"]
    dataset = shop(
        title=titles, description=[""] * 20, categories=pl.Series([[]] * 20, dtype=pl.List(pl.String))
    )
    own = asking(folders, tmp_path / "out", dataset)
    own.item_texts = [*item_texts(dataset.items)[:-1], "…"]
    results = own.evaluate()
    notes = results.comparison.notes
    assert any(note.startswith("1 items have a text without words") for note in notes)
    assert any(note.startswith("2 items share their text with an earlier one") for note in notes)
    for line in lines(tmp_path / "out" / "lists-trained-trained.jsonl")[1:]:
        assert 19 not in line["items"]
        twins = [item for item in line["items"] if item in (0, 1, 2)]
        assert twins == sorted(twins)
    assert any("no category that a profile doesn't name" in note for note in notes)
    assert "moved" not in results.judged[0].measures


def test_reviews_in_other_scripts(folders: Folders, tmp_path: Path) -> None:
    review = "<b>мыло</b> &amp; 石鹸 🎉<br>" + "soap " * 400
    embedder, folder = Embedder.load(str(qwen3(tmp_path / "qwen3"))), tmp_path / "longer"
    embedder.max_length = embedder.lm.config.max_position_embeddings = 500
    embedder.save(folder)
    reader = EmbedderSettings(model=str(folder))
    keys: Any = {"embedders": {"long": reader}, "writers": {"trained": folders["writers"]["trained"]}}
    own = asking(folders, tmp_path / "out", shop(reviews=review), **keys)
    assert own.evaluate().failures.keys() <= {"trained writer, long embedder"}
    facts = own.words.facts
    texts, cut = history_texts(own.asked, facts, "paper", embedder)
    assert cut == 0
    assert all(text.count("Title: ") == text.count("review: мыло & 石鹸 🎉 soap") == 2 for text in texts)
    lengths = embedder.tokens(texts, "profile").rows.lengths
    assert 300 < lengths.max() < 500
    assert history_texts(own.asked.take([3]), facts, "paper", embedder)[0] == texts[3:4]
    # where not even the rest fits the latest item comes first
    small = Embedder.load(EmbedderSettings(model=str(folder), max_length=30))
    texts, cut = history_texts(own.asked, facts, "paper", small)
    assert cut == 20
    assert all(
        text.startswith(f"Title: {facts.titles[own.asked.inputs(at)[-1]]}\n") for at, text in enumerate(texts)
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"writers": {}}, "no writer or no embedder"),
        ({"writers": {"a/b": Path("x")}}, "'a/b' can't be a name"),
        ({"tests": {"k": (5, 21)}}, "lists of 21 of 20 items"),
    ],
)
def test_what_cannot_be_asked(folders: Folders, tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        asking(folders, tmp_path, **wrong)


def test_texts_of_other_items(folders: Folders, tmp_path: Path) -> None:
    own = asking(folders, tmp_path)
    with pytest.raises(ConfigError, match="1 texts and facts of 20 for 20 items"):
        replace(own, item_texts=["one"])


def test_sessions_of_another_dataset_or_split(folders: Folders, tmp_path: Path) -> None:
    own = asking(folders, tmp_path)
    own.dataset = shop(users=30)
    with pytest.raises(DataError, match="sessions of a dataset of 240 interactions"):
        own.evaluate()
    own = asking(folders, tmp_path)
    own.sessions = own.sessions.split("train")
    with pytest.raises(DataError, match="no session is of the split test"):
        own.evaluate()


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": []},
        {"k": [10, 5]},
        {"users": 0},
        {"histories": ["titles", "titles"]},
        {"histories": ["reviews"]},
        {"baselines": ["bm25"]},
        {"wish": "likes"},
        {"wish": "{} and {}"},
        {"level": 1.0},
        {"drawing": {"samples": 0}},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="ProfileTests"):
        ProfileTests(**wrong)
