"""The command line: every command, clean messages, exit statuses, and bad input."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer.main
from safetensors import SafetensorError

from itemic.artifact import read_manifest
from itemic.cli import state
from itemic.cli.app import app, call
from itemic.data import Dataset
from itemic.evaluate.ranking import Ranking
from itemic.sid.index import ItemIndex
from tests.runs import made, start, write_recipe


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    state.verbose = False


@pytest.fixture
def tried(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command line; gives status, stdout and stderr (white space collapsed)."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = call([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return status, shown.out, " ".join(shown.err.split())

    return run


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", commands(typer.main.get_command(app)), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], tried: Any) -> None:
    status, out, _ = tried(*path, "--help")
    assert status == 0
    assert out.startswith("Usage:")
    described = next(line for line in out.splitlines()[1:] if line.strip())
    assert len(described.split()) > 2


def test_usage_errors_are_told_and_exit_with_2(tried: Any) -> None:
    for arguments, message in [
        (["run"], "Missing argument 'RECIPE'"),
        (["rum"], "No such command 'rum'"),
        (["check", "--nope"], "No such option: --nope"),
        (["recommend", "x", "-k", "0"], "-k"),
    ]:
        status, _, err = tried(*arguments)
        assert status == 2
        assert message in err


def test_check_tells_all_five_faults_with_lines(tmp_path: Path, tried: Any) -> None:
    file = write_recipe(
        tmp_path,
        "name: tiny\n"
        "data: {format: leter, path: /nowhere}\n"
        "model: {preset: qwen3-nano, tie: true}\n"
        "tasks: [{task: C}]\n"
        "stages:\n"
        "  - epoch: 3\n"
        "evaluate: {beams: 1}\n",
    )
    status, _, err = tried("check", file)
    assert status == 2
    assert "has 5 faults" in err
    for fault in (
        f"{file}:2: data.format: unknown format 'leter'; did you mean 'letter'?",
        f"{file}:2: data.path: there is nothing at /nowhere",
        f"{file}:3: model.tie: has no meaning beside preset",
        f"{file}:6: stages.0.epoch: unknown key; did you mean 'epochs'?",
        f"{file}:7: evaluate.beams: 1 beams can't rank k = 20 items",
    ):
        assert fault in err


def test_a_fault_of_a_task_s_value_stops_a_run_before_it_starts(tmp_path: Path, tried: Any) -> None:
    file = write_recipe(tmp_path)
    override = ["-s", "tasks.0.templates=99"]
    status, _, err = tried("run", file, "-o", tmp_path / "run", *override)
    assert status == 2
    assert "templates is 99" in err
    assert not (tmp_path / "run").exists()


def test_verbose_shows_the_traceback(tmp_path: Path, tried: Any) -> None:
    status, _, err = tried("--verbose", "check", tmp_path / "no.yaml")
    assert status == 2
    assert "Traceback" in err
    assert "check_recipe" in err


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("itemic.recipe.check_recipe", broken)
    with pytest.raises(ZeroDivisionError):
        call(["check", "x.yaml"])


# ------------------------------------------------------------------------------------------ recommend


def test_recommend_answers_as_the_evaluation_did(finished: Path, tried: Any) -> None:
    """With a request's own history, the answer is the ranking on disk."""
    root = finished / "run"
    dataset = Dataset.load(root / "data")
    requests = dataset.split("test")
    table = pl.read_parquet(sorted((root / "evaluate/model").glob("part-*.parquet")))
    for request in (0, 17, 59):
        history = [dataset.item_ids[row] for row in requests.history(request)]
        status, out, _ = tried("recommend", root, "--history", ",".join(history), "-k", "5", "--json")
        assert status == 0
        answer = json.loads(out)
        assert [item["item_id"] for item in answer["history"]] == history
        assert [item["item_id"] for item in answer["items"]] == table["items"][request].to_list()[:5]
        scores = [item["score"] for item in answer["items"]]
        assert scores == pytest.approx(table["scores"][request].to_list()[:5], abs=1e-4)
        titles = dict(zip(dataset.item_ids, dataset.items["title"], strict=True))
        assert all(item["title"] == titles[item["item_id"]] for item in answer["items"])


def test_a_model_s_own_folder_answers_as_its_run_does(finished: Path, tried: Any) -> None:
    root = finished / "run"
    dataset = Dataset.load(root / "data")
    user = str(dataset.sequences.users[5])
    history = ",".join(dataset.item_ids[row] for row in dataset.sequences[5])
    asked = ["-k", "5", "--beams", "20", "--json"]
    answers = []
    for arguments in (
        [root, "--user", user],
        [root / "train.all", "--user", user, "--dataset", root / "data"],
        [root / "train.all", "--history", history],
    ):
        status, out, _ = tried("recommend", *arguments, *asked)
        assert status == 0
        answers.append(json.loads(out) | {"user": None})
    assert answers[0] == answers[1] == answers[2]
    status, _, err = tried("recommend", root / "train.all", "--user", user)
    assert status == 2
    assert "is a model, which knows no users" in err


def test_recommend_for_a_user_shows_history_and_ranking(finished: Path, tried: Any) -> None:
    root = finished / "run"
    sequences = Dataset.load(root / "data").sequences
    user = str(sequences.users[3])
    status, out, _ = tried("recommend", root, "--user", user, "-k", "4")
    assert status == 0
    assert f"History of user {user}" in out
    ids = Dataset.load(root / "data").item_ids
    assert all(ids[row] in out for row in sequences[3])
    status, out, _ = tried("recommend", root, "--user", user, "-k", "4", "--exclude-history", "--json")
    answer = json.loads(out)
    assert len(answer["items"]) == 4
    known = {item["item_id"] for item in answer["history"]}
    assert not known & {item["item_id"] for item in answer["items"]}


def test_recommend_refuses_what_it_can_t_answer(finished: Path, tmp_path: Path, tried: Any) -> None:
    root = finished / "run"
    for arguments, message in [
        (["--user", "nobody"], "has no user 'nobody'"),
        (["--history", "OUT000001,XYZ9"], "has no item 'XYZ9'"),
        ([], "needs a user, a history or a profile"),
        (["--user", "u01", "--history", "a"], "needs a user, a history or a profile"),
    ]:
        status, _, err = tried("recommend", root, *arguments)
        assert status == 2
        assert message in err
        assert "→" in err
    status, _, err = tried("recommend", tmp_path, "--user", "u01")
    assert status == 2
    assert "is neither the folder of a run nor a model's" in err


def test_an_index_of_another_digest_is_refused(copied: Path, tried: Any) -> None:
    """The model's own sid/ is exchanged for an index that is whole, but another one."""
    sid = copied / "run" / "train.all" / "sid"
    index = ItemIndex.load(sid)
    other = ItemIndex(index.item_ids, index.codes[::-1], index.sizes, index.format)
    shutil.rmtree(sid)
    other.save(sid)
    status, _, err = tried("recommend", copied / "run", "--user", "u01")
    assert status == 2
    assert f"the model was made for item index {index.digest}, not for {other.digest}" in err


# ----------------------------------------------------------------------------------- one room at a time


def test_the_rooms_one_by_one_make_what_a_run_makes(finished: Path, tmp_path: Path, tried: Any) -> None:
    """simulate → sid build → tasks build → validate → model new, then the same digests as in the run."""
    root = finished / "run"
    options = {"users": 60, "items": 40, "categories": 4, "brands": 6, "shortest": 4, "longest": 8}
    pairs = [part for key, value in options.items() for part in ("-s", f"{key}={value}")]
    status, out, _ = tried("data", "simulate", "-o", tmp_path / "data", *pairs)
    assert status == 0
    assert "best reachable on test: hr@1" in out
    mine, theirs = Dataset.load(tmp_path / "data"), Dataset.load(root / "data")
    assert mine.items.equals(theirs.items)
    assert mine.interactions.equals(theirs.interactions)

    assert tried("sid", "build", tmp_path / "data", "-o", tmp_path / "index", "--levels", "8,8")[0] == 0
    assert ItemIndex.load(tmp_path / "index").digest == ItemIndex.load(root / "index").digest
    status, out, _ = tried("sid", "show", tmp_path / "index", "--item", mine.item_ids[5], "--json")
    assert json.loads(out)["shown"] == {mine.item_ids[5]: ItemIndex.load(root / "index").text(5)}

    data = ["--dataset", tmp_path / "data", "--index", tmp_path / "index"]
    chosen = ["-t", "A", "-t", "C", "--limit", "30"]
    status, out, _ = tried("tasks", "build", tmp_path / "data", *data[2:], "-o", tmp_path / "rows", *chosen)
    assert status == 0
    assert out.splitlines()[-2:] == ["A: 30", "C: 30"]
    assert tried("tasks", "validate", tmp_path / "rows", *data)[0] == 0
    status, out, _ = tried("tasks", "preview", tmp_path / "rows", "-n", "2", "--index", tmp_path / "index")
    assert status == 0
    assert out.count("assistant") == 2

    shape = ["-s", "hidden_size=32", "-s", "layers=1", "-s", "intermediate_size=32"]
    made_of = ["--vocab-size", "400", "-o", tmp_path / "model"]
    assert tried("model", "new", "qwen3-pico", *data, *made_of, *shape)[0] == 0
    manifest = read_manifest(tmp_path / "model")
    assert manifest is not None
    assert set(manifest.inputs) == {"index", "dataset"}
    status, out, _ = tried("model", "show", tmp_path / "model", "--json")
    about = json.loads(out)
    assert about["kind"] == "qwen3"
    assert about["index"] == ItemIndex.load(root / "index").digest
    assert about["item_tokens"][1] - about["item_tokens"][0] >= 18

    assert (
        tried("model", "expand", tmp_path / "model", "--index", tmp_path / "index", "-o", tmp_path / "more")[
            0
        ]
        == 0
    )


def test_describe_and_plot(finished: Path, tmp_path: Path, tried: Any) -> None:
    status, out, _ = tried("data", "describe", finished / "run", "--json", "--plot", tmp_path / "plot.png")
    assert status == 0
    assert json.loads(out)["users"] == 60
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = tried("data", "describe", finished / "run" / "data")
    assert status == 0
    assert "60" in out


def test_score_and_compare(finished: Path, tmp_path: Path, tried: Any) -> None:
    root = finished / "run"
    for name in ("model", "popularity"):
        ranking = root / "evaluate" / name
        arguments = ["--dataset", root, "-k", "5,10", "-o", tmp_path / f"{name}.json", "--json"]
        status, out, _ = tried("evaluate", "score", ranking, *arguments)
        assert status == 0
        expected = json.loads((root / "report" / f"{name}.json").read_text())
        assert json.loads(out)["item"] == expected["item"]
    status, out, _ = tried("compare", tmp_path / "model.json", tmp_path / "popularity.json", "--markdown")
    assert status == 0
    assert "| popularity |" in out
    assert "give the folders of rankings or runs" in out
    status, out, _ = tried("compare", root, root / "report/popularity.json", root / "evaluate/transitions")
    assert status == 0
    assert "run minus popularity, paired by request" in out
    assert "run minus transitions, paired by request" in out
    saved = json.loads((root / "report" / "comparison.json").read_text())["differences"]
    status, out, _ = tried("compare", root, root / "evaluate" / "popularity", "-k", "5,10", "--json")
    assert json.loads(out)["differences"][0]["metrics"] == saved[0]["metrics"]
    status, _, err = tried("compare", root / "nothing")
    assert status == 2
    assert "there is nothing at" in err
    assert tried("evaluate", "score", root / "evaluate" / "model", "--dataset", root, "-k", "5")[0] == 0
    status, _, err = tried("evaluate", "score", root / "evaluate" / "model", "-k", "five")
    assert status == 2
    assert "Write numbers with commas" in err


def test_rank_is_what_a_run_ranks(finished: Path, tmp_path: Path, tried: Any) -> None:
    root, made = finished / "run", tmp_path / "ranking"
    asked = [
        "evaluate",
        "rank",
        root / "train.all",
        "--dataset",
        root,
        "-o",
        made,
        "--beams",
        "20",
        "-k",
        "10",
    ]
    options = ["--task", "C", "-s", "windows=[all]"]
    status, out, _ = tried(*asked, *options)
    assert status == 0
    assert "60 requests" in out
    mine, theirs = (
        pl.concat([pl.read_parquet(part) for part in sorted(folder.glob("part-*.parquet"))])
        for folder in (made, root / "evaluate" / "model")
    )
    assert mine.equals(theirs)
    assert Ranking.load(made).head.name == "train.all"
    status, _, err = tried(*asked, *options, "--split", "valid")  # that folder holds the test split's
    assert status == 2
    assert str(made) in err
    assert tried(*asked[:-6], "-o", tmp_path / "other", *options, "--split", "validation")[0] == 2
    assert tried(*asked[:-6], "-o", tmp_path / "other", "-s", "window=none")[0] == 2
    assert not (tmp_path / "other").exists()


def test_another_catalogue_is_never_ranked_or_scored(finished: Path, tmp_path: Path, tried: Any) -> None:
    """The same source under another k-core has other items: both digests are named, and nothing is written."""
    root, other = finished / "run", tmp_path / "other"
    arguments = ["-s", "users=60", "-s", "items=40", "-s", "categories=4", "-s", "brands=6"]
    assert tried("data", "simulate", "-o", other, *arguments, "-s", "longest=12", "--seed", "3")[0] == 0
    mine, theirs = Dataset.load(root / "data"), Dataset.load(other)
    assert mine.catalogue != theirs.catalogue
    rank = ["evaluate", "rank", root / "train.all", "--dataset", other, "-o", tmp_path / "ranking"]
    for asked in (
        [*rank, "--beams", "20", "-k", "10"],
        ["evaluate", "score", root / "evaluate" / "model", "--dataset", other, "-k", "5,10"],
        ["recommend", root / "train.all", "--user", "u01", "--dataset", other],
    ):
        status, _, err = tried(*asked)
        assert status == 2, asked
        assert mine.catalogue in err, asked
        assert theirs.catalogue in err, asked
    assert not (tmp_path / "ranking").exists()


def test_validate_exits_with_1_on_faults(finished: Path, tmp_path: Path, tried: Any) -> None:
    root = finished / "run"
    file = next((root / "conversations").rglob("*.parquet"))
    rows = pl.read_parquet(file)
    pl.concat([rows, rows.head(1)]).write_parquet(tmp_path / "twice.parquet")
    data = ["--dataset", root, "--index", root]
    status, out, _ = tried("tasks", "validate", tmp_path / "twice.parquet", *data, "--json")
    assert status == 1
    assert json.loads(out)["counts"]["uuid"] == 1
    assert tried("tasks", "validate", file, *data)[0] == 0


def test_import_detects_filters_and_splits(tmp_path: Path, tried: Any) -> None:
    raw = _letter(tmp_path / "raw")
    arguments = ["-f", "user_k_core=3", "--split", "leave-last-out", "--history", "7"]
    assert tried("data", "import", raw, "-o", tmp_path / "data", *arguments)[0] == 0
    dataset = Dataset.load(tmp_path / "data")
    assert len(dataset.sequences) == 2
    assert (dataset.rule.method, dataset.rule.history) == ("leave-last-out", 7)
    manifest = read_manifest(tmp_path / "data")
    assert manifest is not None
    assert manifest.config["filters"] == {"user_k_core": 3}
    status, _, err = tried("data", "import", raw, "-o", tmp_path / "data2", "-f", "user_core=3")
    assert status == 2
    assert "did you mean 'user_k_core'" in err
    assert not (tmp_path / "data2").exists()


def test_somebody_s_folder_is_not_overwritten(tmp_path: Path, tried: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    status, _, err = tried("data", "import", _letter(tmp_path / "raw"), "-o", tmp_path / "mine")
    assert status == 2
    assert "was not made by itemic" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


# ------------------------------------------------------------------------------------------- bad input


def _letter(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    users = {"u1": list("abcd"), "u2": list("badc"), "u3": list("ab")} | changes
    (folder / "X.inter.json").write_text(json.dumps(users))
    (folder / "X.item.json").write_text(json.dumps({item: {"title": f"thing {item}"} for item in "abcd"}))
    return folder


def refused(tried: Any, raw: Path, output: Path, *words: str, options: tuple[str, ...] = ()) -> None:
    """The import fails with these words and a remedy, and leaves nothing behind."""
    status, _, err = tried("data", "import", raw, "-o", output, *options)
    assert status == 2, err
    for word in words:
        assert word in err
    assert "→" in err
    assert not output.exists()
    assert not output.with_name(output.name + ".partial").exists()


def test_a_truncated_gzip(tmp_path: Path, tried: Any) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    review = {"reviewerID": "u", "asin": "a", "overall": 5.0, "unixReviewTime": 1}
    lines = "\n".join(json.dumps(review | {"reviewerID": f"u{i}"}) for i in range(5000))
    packed = gzip.compress(lines.encode())
    (raw / "X.json.gz").write_bytes(packed[: len(packed) // 2])
    meta = {"asin": "a", "title": "thing", "category": ["c"]}
    (raw / "meta_X.json.gz").write_bytes(gzip.compress(json.dumps(meta).encode()))
    refused(tried, raw, tmp_path / "data", "X.json.gz")


def test_a_csv_with_a_missing_column(tmp_path: Path, tried: Any) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "ratings.csv").write_text("userId,movieId,rating\n1,1,4.0\n")
    (raw / "movies.csv").write_text("movieId,title,genres\n1,Heat (1995),Crime\n")
    refused(tried, raw, tmp_path / "data", "ratings.csv", "timestamp")


def test_an_item_that_is_not_in_the_catalogue(tmp_path: Path, tried: Any) -> None:
    raw = _letter(tmp_path / "raw", u9=["a", "zz", "b"])
    strict = ["data", "import", raw, "-o", tmp_path / "data", "--missing-text", "error"]
    status, _, err = tried(*strict)
    assert status == 2
    assert "X.inter.json" in err
    assert "'zz'" in err
    assert not (tmp_path / "data").exists()
    assert tried(*strict[:-2])[0] == 0
    assert "zz" in Dataset.load(tmp_path / "data").item_ids
    status, _, err = tried(*strict[:-2], "-s", "missing_text=drop")
    assert status == 2
    assert "--missing-text" in err


def test_a_folder_of_no_known_format(tmp_path: Path, tried: Any) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("hello")
    refused(tried, tmp_path / "raw", tmp_path / "data", "no known format")


def test_a_model_of_an_unsupported_kind(finished: Path, tmp_path: Path, tried: Any) -> None:
    base = tmp_path / "bert"
    base.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 8, "vocab_size": 9}
    (base / "config.json").write_text(json.dumps(config))
    arguments = ["--index", finished / "run" / "index", "-o", tmp_path / "model"]
    status, _, err = tried("model", "expand", base, *arguments)
    assert status == 2
    assert "bert" in err
    assert "→" in err
    assert not (tmp_path / "model").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_while_a_checkpoint_is_written(copied: Path, small_disk: Path) -> None:
    root = small_disk / "run"
    shutil.copytree(copied / "run", root, ignore=shutil.ignore_patterns("evaluate", "report", "train.all"))
    before = made(root)
    free = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(b"\0" * (free.f_bavail * free.f_frsize - 200_000))
    line = ["run", copied / "tiny.yaml", "-o", root, "--until", "train.all"]
    first = start(*line)
    _, err = first.communicate(timeout=240)
    assert first.returncode == 2, err
    assert "the disk is full" in " ".join(err.split())
    assert "→" in err
    assert made(root) == before
    assert not list((root / "train.all.partial" / "checkpoints").glob("step-*"))

    (small_disk / "ballast").unlink()
    second = start(*line)
    _, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert (root / "train.all" / "model.safetensors").read_bytes() == (
        copied / "run" / "train.all" / "model.safetensors"
    ).read_bytes()


def test_a_full_disk_inside_a_library_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """safetensors has an error of its own for it."""

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("itemic.recipe.check_recipe", full)
    assert call(["check", "x.yaml"]) == 2
    assert "the disk is full" in capsys.readouterr().err
