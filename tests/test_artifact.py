"""Artifacts: whole or not at all, with reasons, one holder at a time."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from itemic import artifact
from itemic.artifact import (
    FINGERPRINT,
    MANIFEST,
    Manifest,
    begun,
    building,
    digest_files,
    digest_of,
    locked,
    read_manifest,
    recover,
    staleness,
    write_json,
)
from itemic.errors import ArtifactError, DataError

MADE = Manifest("index", {"levels": [4, 4], "encoder": "lsa"}, {"data": "aa"}, seed=1)


def make(folder: Path, manifest: Manifest = MADE, text: str = "x") -> None:
    with building(folder, manifest) as out:
        (out / "file").write_text(text)


def interrupt(folder: Path, error: BaseException) -> None:
    """A build that ends halfway."""
    with building(folder, MADE) as out:
        (out / "part").write_text("1")
        raise error


def test_a_finished_block_is_committed_with_its_manifest(tmp_path: Path) -> None:
    with building(tmp_path / "a", MADE) as out:
        assert not (tmp_path / "a").exists()
        (out / "file").write_text("x")
        MADE.notes["rows"] = 3
    found = read_manifest(tmp_path / "a")
    MADE.notes.clear()
    assert found is not None
    assert (found.kind, found.config, found.inputs, found.seed) == (
        "index",
        {"levels": [4, 4], "encoder": "lsa"},
        {"data": "aa"},
        1,
    )
    assert found.notes == {"rows": 3}
    assert found.created.endswith("Z")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["file", MANIFEST]


def test_an_error_leaves_the_old_artifact_as_it_was(tmp_path: Path) -> None:
    make(tmp_path / "a", text="old")
    with pytest.raises(RuntimeError, match="halfway"):
        interrupt(tmp_path / "a", RuntimeError("halfway"))
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert staleness(tmp_path / "a", MADE) is None


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (MADE, None),
        (replace(MADE, kind="data"), "holds a index, not a data"),
        (replace(MADE, seed=2), "seed was 1, now 2"),
        (replace(MADE, inputs={"data": "bb"}), "input data changed"),
        (replace(MADE, inputs={"data": "aa", "more": "cc"}), "input more changed"),
        (replace(MADE, config={"levels": [4, 4]}), 'encoder was "lsa", now null'),
        (replace(MADE, config={"levels": [4, 8], "encoder": "lsa"}), "levels was [4, 4], now [4, 8]"),
        (replace(MADE, versions={"torch": "0"}, seconds=9.0, notes={"a": 1}), None),
    ],
)
def test_staleness_says_why(tmp_path: Path, expected: Manifest, reason: str | None) -> None:
    make(tmp_path / "a")
    assert staleness(tmp_path / "a", expected) == reason


def test_nothing_built_is_stale(tmp_path: Path) -> None:
    assert staleness(tmp_path / "a", MADE) == "not built yet"


def test_equal_makings_have_equal_digests() -> None:
    assert MADE.digest == replace(MADE, notes={"x": 1}, created="now", versions={"a": "1"}).digest
    for other in (
        replace(MADE, kind="data"),
        replace(MADE, seed=2),
        replace(MADE, inputs={"data": "bb"}),
        replace(MADE, config={"levels": [4]}),
    ):
        assert other.digest != MADE.digest
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})


def test_an_interrupted_build_is_handed_back_to_the_same_manifest_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path / "a", KeyboardInterrupt())
    assert begun(tmp_path / "a", MADE)
    assert not begun(tmp_path / "a", replace(MADE, seed=2))
    with building(tmp_path / "a", MADE) as out:
        assert (out / "part").read_text() == "1"
        (out / "part").write_text("2")
    assert (tmp_path / "a" / "part").read_text() == "2"

    for manifest, resume in ((replace(MADE, seed=2), True), (MADE, False)):
        with pytest.raises(KeyboardInterrupt):
            interrupt(tmp_path / "b", KeyboardInterrupt())
        with building(tmp_path / "b", manifest, resume=resume) as out:
            assert not (out / "part").exists()


GROWN = replace(MADE, config=MADE.config | {"rounds": 3})


def rounds(count: int) -> Manifest:
    return replace(GROWN, config=GROWN.config | {"rounds": count})


def test_what_only_goes_further_begins_with_what_is_there(tmp_path: Path) -> None:
    folder, nested = tmp_path / "a", f"inner/{MANIFEST}"
    with building(folder, rounds(2)) as out:
        (out / "inner").mkdir()
        (out / nested).write_text("of something else")
    assert begun(folder, GROWN) is None
    assert begun(folder, GROWN, "rounds") == folder
    with building(folder, GROWN, grows="rounds") as out:
        assert not (out / MANIFEST).exists()
        assert (out / nested).read_text() == "of something else"
        assert read_manifest(folder) is not None  # the old one stands until the new one does
    assert staleness(folder, GROWN) is None
    assert (folder / nested).is_file()
    assert begun(folder, rounds(2), "rounds") is None  # fewer is something else
    with building(folder, rounds(2), grows="rounds") as out:
        assert not list(out.glob("inner"))


def test_an_interrupted_build_goes_further_too(tmp_path: Path) -> None:
    def stopped() -> None:
        with building(tmp_path / "a", rounds(1), grows="rounds") as out:
            (out / "part").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with building(tmp_path / "a", GROWN, grows="rounds") as out:
        assert (out / "part").read_text() == "1"


def test_what_is_damaged_is_not_begun_with(tmp_path: Path) -> None:
    make(tmp_path / "a", rounds(2))
    (tmp_path / "a" / "file").write_text("y")
    assert begun(tmp_path / "a", GROWN, "rounds") is None
    with building(tmp_path / "a", GROWN, grows="rounds") as out:
        assert sorted(path.name for path in out.iterdir()) == [FINGERPRINT]


def test_a_stranger_s_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="not made by itemic"), building(tmp_path / "a", MADE):
        pass
    assert (tmp_path / "a" / "letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")
    assert staleness(tmp_path / "empty", MADE) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from itemic import artifact
from itemic.artifact import Manifest, building

moment = int(sys.argv[2])
count = 0

def die(name):
    original = getattr(Path, name)
    def step(self, *args, **options):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **options)
    setattr(Path, name, step)

manifest = Manifest("index", {}, {}, seed=2)
with building(sys.argv[1], manifest) as out:
    (out / "file").write_text("new")
    for name in ("replace", "unlink", "open"):
        die(name)
"""


@pytest.mark.parametrize("before", [True, False])
def test_sigkill_during_the_commit_leaves_old_or_new_but_never_half(tmp_path: Path, before: bool) -> None:
    """Killed before each single file operation of the commit."""
    outcomes = []
    for moment in range(1, 20):
        folder = tmp_path / f"run{moment}" / "a"
        if before:
            make(folder, text="old")
        code = [sys.executable, "-c", KILLED, str(folder), str(moment)]
        status = subprocess.run(
            code, check=False, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        ).returncode
        recover(folder)
        found = read_manifest(folder)
        if found is None:
            assert not before
            assert not folder.exists()
        else:
            text = (folder / "file").read_text()
            assert text == ("new" if found.seed == 2 else "old")
            assert not (folder / FINGERPRINT).exists()
        outcomes.append(None if found is None else found.seed)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert outcomes[-1] == 2
    assert outcomes[0] == (1 if before else None)
    assert len(outcomes) > 4


def test_a_second_holder_is_refused_at_once(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        code = "import sys; from itemic.artifact import locked\nwith locked(sys.argv[1]): print('held')"
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
        assert other.returncode != 0
        assert "another run is working on" in other.stderr
        assert "held" not in other.stdout
    with locked(tmp_path / "run"):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from itemic.artifact import locked\n"
        "with locked(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    with locked(tmp_path / "run"):
        pass


def test_a_broken_manifest_is_an_error_that_names_it(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / MANIFEST).write_text('{"kind": "index"')
    with pytest.raises(ArtifactError, match=r"manifest\.json is not a manifest"):
        read_manifest(tmp_path / "a")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "x.json", {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "x.json", {"a": 2})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_digests_see_names_and_bytes(tmp_path: Path) -> None:
    for name, files in {
        "one": {"a": "1", "b": "2"},
        "same": {"a": "1", "b": "2"},
        "renamed": {"a": "1", "c": "2"},
        "swapped": {"a": "2", "b": "1"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    digests = {path.name: digest_files(path) for path in tmp_path.iterdir()}
    assert digests["one"] == digests["same"]
    assert len({digests["one"], digests["renamed"], digests["swapped"]}) == 3


def test_errors_cross_process_borders() -> None:
    error = pickle.loads(pickle.dumps(DataError("broken line 3", "Mend it.")))
    assert isinstance(error, DataError)
    assert (error.message, error.remedy) == ("broken line 3", "Mend it.")
    assert str(error) == "broken line 3\n  → Mend it."
