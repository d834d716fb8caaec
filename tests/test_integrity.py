"""A damaged artifact is noticed: a flipped byte, a missing file, one too many; what was built on it is built again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from itemic.artifact import MANIFEST, Manifest, building, damage, read_manifest
from itemic.cli.app import call
from itemic.data import Dataset
from itemic.errors import ArtifactError
from itemic.integrity import FileFault, file_faults, record_files
from itemic.pipeline import Run, verify_folder
from itemic.progress import log_to
from itemic.recipe import load_recipe
from itemic.sid.index import ItemIndex
from tests.runs import STEPS, made, weights


def flip(file: Path, place: int = -20) -> None:
    """Turn one bit, and leave size and time of change as they are."""
    data, times = bytearray(file.read_bytes()), file.stat()
    data[place] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def content(file: Path) -> object:
    """Of safetensors the numbers alone: their head's order is by chance."""
    if file.suffix != ".safetensors":
        return file.read_bytes()
    return {name: values.tobytes() for name, values in load_file(file).items()}


def again(folder: Path, *arguments: str) -> int:
    return call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run"), *arguments])


def changed(before: dict[str, str], root: Path) -> list[str]:
    return [step for step, moment in made(root).items() if before.get(step) != moment]


def test_a_record_has_size_and_sha256(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b").write_bytes(b"two")
    (tmp_path / "apart").mkdir()
    for name in ("a", ".hidden", "left out", "apart/c"):
        (tmp_path / name).write_bytes(b"")
    assert record_files(tmp_path, without=["left out", "apart"]) == {
        "a": [0, hashlib.sha256(b"").hexdigest()],
        "below/b": [3, hashlib.sha256(b"two").hexdigest()],
    }


def test_each_kind_of_fault(tmp_path: Path) -> None:
    for name in ("same", "flipped", "longer", "gone"):
        (tmp_path / name).write_text(f"the text of {name}")
    records = record_files(tmp_path)
    assert file_faults(tmp_path, records) == []
    flip(tmp_path / "flipped", 0)
    (tmp_path / "longer").write_text("the text of longer and more")
    (tmp_path / "gone").unlink()
    (tmp_path / "new").write_text("")
    assert file_faults(tmp_path, records) == [
        FileFault("flipped", "changed"),
        FileFault("gone", "missing"),
        FileFault("longer", "changed"),
        FileFault("new", "added"),
    ]


def test_a_finished_folder_records_what_it_holds(tmp_path: Path) -> None:
    with building(tmp_path / "a", Manifest("index", {}, {})) as out:
        (out / "file").write_text("x")
    found = read_manifest(tmp_path / "a")
    assert found is not None
    assert found.files == {"file": [1, hashlib.sha256(b"x").hexdigest()]}
    assert damage(tmp_path / "a") == []
    assert damage(tmp_path) == []  # no manifest, nothing to compare with


def test_what_trackers_write_late_is_no_damage(tmp_path: Path) -> None:
    from itemic.trackers import TRACKERS

    made = tmp_path / "made"
    with building(made, Manifest("thing", {}, {})) as folder:
        (folder / "kept.txt").write_text("a")
        for name in TRACKERS:
            (folder / name).mkdir()
            (folder / name / "events").write_text("begun")
    for name in TRACKERS:
        (made / name / "events").write_text("begun, and flushed at the end")
    assert damage(made) == []


def test_every_step_of_a_run_holds(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["check", str(finished / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", f"{step}:"] for step in STEPS]
    for held in verify_folder(finished / "run"):
        files = [path for path in (finished / "run" / held.name).rglob("*") if path.is_file()]
        assert held.files == len(files) - 1
        assert held.size == sum(path.stat().st_size for path in files if path.name != MANIFEST)


FILES = {
    "weights": ("train.all/model.safetensors", ["train.all", "evaluate", "report"], "report"),
    "Parquet": ("data/interactions.parquet", ["data", "index", "conversations"], "conversations"),
    "codebooks": ("index/codebooks.safetensors", ["index", "conversations"], "conversations"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_flipped_byte_is_found_and_mended(
    kind: str, copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, redone, until = FILES[kind]
    step, _, file = name.partition("/")
    root, before = copied / "run", made(copied / "run")
    whole = content(root / name)
    flip(root / name)
    assert call(["check", str(root)]) == 1
    told = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert f"DAMAGED  {step}: {file} was changed" in told
    assert sum(line.startswith("DAMAGED") for line in told) == 1

    assert again(copied, "--until", until, "--no-rebuild") == 2
    assert f"{root / step} is damaged: {file} was changed" in capfd.readouterr().err
    assert changed(before, root) == []

    assert again(copied, "--until", until) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert changed(before, root) == redone
    assert f"{step}: starts (damaged: {file} was changed)" in said
    assert f"{redone[1]}: starts (made from {step}, which was damaged)" in said
    assert content(root / name) == whole
    assert all(held.ok for held in verify_folder(root))


def test_a_step_is_never_built_on_one_that_is_kept_damaged(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, before = copied / "run", made(copied / "run")
    (root / "train.all" / "model.safetensors").unlink()
    assert again(copied, "--from", "evaluate") == 2
    error = capfd.readouterr().err
    assert "train.all is damaged: model.safetensors is missing" in error
    assert "Run without --from" in error
    assert changed(before, root) == []


def test_a_long_comparison_is_told(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.of(load_recipe(finished / "tiny.yaml"), finished / "run")
    with log_to(tmp_path / "log"):
        run.plan()
        assert not (tmp_path / "log").read_text()
        monkeypatch.setattr("itemic.pipeline.plan.LARGE", 1000)
        run.plan()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("0.0 GB of finished steps are read and compared first")


def test_an_added_file_is_told_and_harms_nothing(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = copied / "run"
    before = weights(root)
    (root / "train.all" / "notes.txt").write_text("mine")
    assert call(["check", str(root)]) == 0
    assert "train.all: notes.txt was added" in capfd.readouterr().out
    plan = Run.of(load_recipe(copied / "tiny.yaml"), root).plan()
    assert {planned.step.name: planned.reason for planned in plan if "added" in planned.reason} == {
        "train.all": "up to date (notes.txt was added)"
    }
    assert not any(planned.run for planned in plan)
    assert weights(root) == before


def test_loading_by_hand_notices(copied: Path) -> None:
    flip(copied / "run" / "data" / "items.parquet")
    with pytest.raises(ArtifactError, match=r"data is damaged: items\.parquet was changed"):
        Dataset.load(copied / "run" / "data")
    flip(copied / "run" / "index" / "codebooks.safetensors")
    with pytest.raises(ArtifactError, match=r"index is damaged: codebooks\.safetensors was changed"):
        ItemIndex.load(copied / "run" / "index")


def test_other_folders(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of a command, an unfinished run, and what is neither."""
    model = copied / "run" / "train.all"
    flip(model / "tokenizer.json")
    assert call(["check", str(model), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["ok"]) == ("train.all", False)
    assert found["faults"] == [{"file": "tokenizer.json", "problem": "changed"}]
    (copied / "run" / "report").rename(tmp_path / "report")
    assert str(verify_folder(copied / "run")[-1]).strip() == "-  report: not made yet"
    (tmp_path / "empty").mkdir()
    assert call(["check", str(tmp_path / "empty")]) == 2
    assert "nothing to compare it with" in capsys.readouterr().err
