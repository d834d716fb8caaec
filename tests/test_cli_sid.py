"""``itemic sid report | compare | convert | export`` on a tiny marketplace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from itemic.cli.app import call
from itemic.data import Dataset
from itemic.sid.index import ItemIndex
from itemic.sid.report import SidReport
from itemic.sid.tokenizer import ItemTokenizer

ITEMS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset ``data`` and the semantic IDs ``index`` that were built for it."""
    folder = tmp_path_factory.mktemp("sid")
    assert (
        call(["data", "simulate", "-o", str(folder / "data"), "-s", "users=40", "-s", f"items={ITEMS}"]) == 0
    )
    build = ["sid", "build", str(folder / "data"), "-o", str(folder / "index"), "--levels", "8,8,8"]
    assert call(build) == 0
    return folder


@pytest.fixture
def tried(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command line; gives status, stdout and stderr (white space collapsed)."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = call([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return status, shown.out, " ".join(shown.err.split())

    return run


def test_report(made: Path, tmp_path: Path, tried: Any) -> None:
    status, out, _ = tried(
        "sid", "report", made / "index", "--data", made / "data", "--html", tmp_path / "r.html"
    )
    assert status == 0
    assert "relative error" in out
    assert "recall of 10 neighbours" in out
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    status, out, _ = tried(
        "sid", "report", made / "index", "--data", made / "data", "--json", "--name", "ours"
    )
    found = SidReport.from_json(json.loads(out))
    index = ItemIndex.load(made / "index")
    assert (found.name, found.digest, found.collisions.items) == ("ours", index.digest, ITEMS)
    tokenizer = ItemTokenizer.load(made / "index")
    vectors = tokenizer.encoder.transform(Dataset.load(made / "data").items)
    spread = np.square(vectors - vectors.mean(axis=0)).sum()
    for level in range(3):
        lost = np.square(vectors - tokenizer.codebooks.rebuild(index.codes[:, : level + 1])).sum()
        assert found.levels[level].error == pytest.approx(lost / spread, abs=1e-3)


def test_a_report_without_a_dataset_or_with_given_vectors(made: Path, tmp_path: Path, tried: Any) -> None:
    status, out, _ = tried("sid", "report", made / "index")
    assert status == 0
    assert "codes used" in out
    assert "recall" not in out
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(ITEMS, 4)))
    status, out, _ = tried("sid", "report", made / "index", "--vectors", tmp_path / "v.npy", "--json")
    found = SidReport.from_json(json.loads(out))
    assert found.neighbours == {"k": 10, "queries": ITEMS}
    assert found.levels[0].error is None  # the codebooks are not for these vectors
    status, out, _ = tried("sid", "report", made / "index", "--data", made / "data", "--no-encode", "--json")
    assert SidReport.from_json(json.loads(out)).neighbours is None


def test_compare_takes_folders_reports_and_files(made: Path, tmp_path: Path, tried: Any) -> None:
    assert tried("sid", "export", made / "index", tmp_path / "o.index.json", "--as", "letter")[0] == 0
    status, out, _ = tried(
        "sid", "report", made / "index", "--data", made / "data", "--json", "--name", "saved"
    )
    (tmp_path / "r.json").write_text(out, encoding="utf-8")
    sources = [made / "index", tmp_path / "r.json", tmp_path / "o.index.json"]
    page = tmp_path / "c.html"
    status, out, _ = tried("sid", "compare", *sources, "--data", made / "data", "--html", page, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["names"][1:] == ["saved", "o"]
    built, saved, imported = (SidReport.from_json(part) for part in found["reports"])
    assert built.levels == saved.levels
    assert built.prefixes == saved.prefixes == imported.prefixes
    assert built.levels[0].error is not None
    assert imported.levels[0].error is None  # it names no encoder, so whose codebooks would it be
    assert "saved" in page.read_text(encoding="utf-8")
    status, out, _ = tried("sid", "compare", made / "index", tmp_path / "r.json")
    assert "Collision rate" in out


@pytest.mark.parametrize("form", ["minionerec", "offset"])
def test_convert_keeps_the_bundle(made: Path, tmp_path: Path, form: str, tried: Any) -> None:
    status, out, _ = tried("sid", "convert", made / "index", tmp_path / "out", "--format", form)
    assert status == 0
    old, new = ItemTokenizer.load(made / "index"), ItemTokenizer.load(tmp_path / "out")
    assert new.index.format == form
    assert new.index.digest in out
    assert np.array_equal(new.index.codes, old.index.codes)
    assert all(np.array_equal(a, b) for a, b in zip(new.codebooks.books, old.codebooks.books, strict=True))
    assert new.encoder.identity == old.encoder.identity
    assert tried("sid", "convert", tmp_path / "out", tmp_path / "back", "--format", "onerec")[0] == 0
    assert ItemIndex.load(tmp_path / "back").digest == old.index.digest


@pytest.mark.parametrize(
    ("name", "file"), [("letter", "a.json"), ("onerec-think", "b.json"), ("openonerec", "c.parquet")]
)
def test_what_export_writes_import_reads(
    made: Path, tmp_path: Path, name: str, file: str, tried: Any
) -> None:
    arguments = ["sid", "export", made / "index", tmp_path / file, "--as", name, "--data", made / "data"]
    status, out, _ = tried(*arguments)
    assert status == 0
    assert f"wrote {ITEMS} semantic IDs" in out
    build = ["sid", "build", made / "data", "-o", tmp_path / "again", "--import", tmp_path / file]
    assert tried(*build)[0] == 0
    again, old = ItemIndex.load(tmp_path / "again"), ItemIndex.load(made / "index")
    assert np.array_equal(again.codes, old.codes)


def test_an_index_in_a_run_finds_its_dataset(made: Path, tmp_path: Path, tried: Any) -> None:
    (tmp_path / "run").mkdir()
    for part in ("data", "index"):
        (tmp_path / "run" / part).symlink_to(made / part)
    status, out, _ = tried("sid", "report", tmp_path / "run", "--no-encode", "--json")
    assert status == 0
    assert json.loads(out)["dataset"] is not None


def test_bad_input_is_told(made: Path, tmp_path: Path, tried: Any) -> None:
    (tmp_path / "v.npy").write_text("no array")
    np.save(tmp_path / "few.npy", np.ones((3, 2)))
    (tmp_path / "broken.json").write_text("{")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    (tmp_path / "o.json").write_text('{"1": ["<a_1>"]}')
    index, data = made / "index", made / "data"
    for arguments, message in [
        (["report", tmp_path / "nowhere"], "is not an item index"),
        (["report", index, "--vectors", tmp_path / "v.npy"], "v.npy holds no vectors"),
        (["report", index, "--vectors", tmp_path / "nowhere.npy"], "nowhere.npy holds no vectors"),
        (["report", index, "--vectors", tmp_path / "few.npy"], f"3 vectors for an index of {ITEMS} items"),
        (["compare"], "Missing argument"),
        (["compare", tmp_path / "o.json"], "Give their dataset with --data"),
        (["compare", tmp_path / "broken.json", "--data", data], "can't be read as semantic IDs"),
        (["compare", tmp_path / "t.parquet", "--data", data], "can't be read as a table"),
        (["compare", tmp_path / "o.json", "--data", data], f"no semantic ID for {ITEMS} items"),
        (["convert", index, tmp_path / "out", "--format", "nope"], "unknown token format 'nope'"),
        (["export", index, tmp_path / "x.json", "--as", "nope"], "unknown export 'nope'"),
        (["export", index, tmp_path / "x.json", "--as", "onerec-think"], "Give the dataset as well"),
    ]:
        status, _, err = tried("sid", *arguments)
        assert status == 2, arguments
        assert message in err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x.json").exists()


def test_a_dataset_is_exported_with_its_semantic_ids(made: Path, tmp_path: Path, tried: Any) -> None:
    export = ("data", "export", made / "data", "--format")
    status, out, _ = tried(*export, "minionerec", "-o", tmp_path / "Shop", "--index", made / "index")
    assert (status, out.splitlines()[1:]) == (0, ["not in these files: times; ratings"])
    data = Dataset.load(made / "data")
    status, out, _ = tried(
        "data", "import", tmp_path / "Shop", "-o", tmp_path / "again", "--split", "published"
    )
    assert status == 0
    again = Dataset.load(tmp_path / "again")
    assert again.items.equals(data.items)
    assert len(again.split("test")) == len(data.split("test"))


def test_an_export_for_openonerec_is_imported_as_the_same_dataset(
    made: Path, tmp_path: Path, tried: Any
) -> None:
    export = ("data", "export", made / "data", "--format", "openonerec", "--index", made / "index")
    status, out, _ = tried(*export, "-o", tmp_path / "Shop")
    assert (status, len(out.splitlines())) == (0, 1)  # where it is, and nothing that is lost
    status, _, _ = tried("data", "import", tmp_path / "Shop", "-o", tmp_path / "again")
    data, again = Dataset.load(made / "data"), Dataset.load(tmp_path / "again")
    assert (status, again.rule) == (0, data.rule)
    assert again.items.equals(data.items)
    assert again.interactions.equals(data.interactions)


def test_an_export_that_fails_leaves_nothing(made: Path, tmp_path: Path, tried: Any) -> None:
    export = ("data", "export", made / "data", "-o", tmp_path / "Shop", "--format")
    status, _, err = tried(*export, "openonerec")
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert "Give the dataset's index" in err
    status, _, err = tried(*export, "sqlite")
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert "minionerec, letter" in err


def test_vectors_are_written_and_built_from_again(made: Path, tmp_path: Path, tried: Any) -> None:
    status, out, _ = tried("sid", "embed", made / "data", "-o", tmp_path / "vectors")
    (file,) = (tmp_path / "vectors").glob("*.emb-lsa.npy")
    assert (status, np.load(file).dtype) == (0, np.float32)
    assert f"{file}: {ITEMS} vectors" in out
    build = ("sid", "build", made / "data", "-o", tmp_path / "again", "--levels", "8,8,8")
    path = ("--encoder", "precomputed", "--encoder-option", f"path={file}")
    assert tried(*build, *path)[0] == 0
    assert ItemIndex.load(tmp_path / "again").digest == ItemIndex.load(made / "index").digest
