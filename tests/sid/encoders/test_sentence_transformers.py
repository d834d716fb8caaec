"""Against sentence-transformers' own ``encode``, for a folder that it saved."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from itemic.errors import ConfigError, ModelError
from itemic.sid.encoders.sentence_transformers import SentenceTransformersEncoder
from itemic.sid.encoders.transformers import TransformersEncoder
from itemic.sid.text import item_texts
from tests.sid.encoders.cases import ITEMS, Site

library = pytest.importorskip("sentence_transformers", reason="sentence-transformers isn't installed")


def own(site: Site, **options: object) -> np.ndarray:
    model = library.SentenceTransformer(str(site.sentence_model), device="cpu")
    return model.encode(item_texts(ITEMS), show_progress_bar=False, **options)


def test_vectors_are_those_of_the_library(site: Site) -> None:
    vectors = SentenceTransformersEncoder(model=str(site.sentence_model), batch_size=7).fit_transform(ITEMS)
    np.testing.assert_allclose(vectors, own(site), atol=1e-5)


def test_our_own_pooling_gives_the_same(site: Site) -> None:
    vectors = TransformersEncoder(model=str(site.sentence_model)).fit_transform(ITEMS)
    np.testing.assert_allclose(vectors, own(site), atol=1e-5)


def test_prompts_by_name_and_by_text(site: Site) -> None:
    named = SentenceTransformersEncoder(model=str(site.sentence_model), prompt="document")
    given = SentenceTransformersEncoder(model=str(site.sentence_model), instruction="towel: ")
    expected = own(site, prompt_name="document")
    np.testing.assert_allclose(named.fit_transform(ITEMS), expected, atol=1e-5)
    np.testing.assert_allclose(given.fit_transform(ITEMS), expected, atol=1e-5)
    assert np.abs(expected - own(site)).max() > 0.01
    with pytest.raises(ConfigError, match=r"no prompt 'poem'"):
        SentenceTransformersEncoder(model=str(site.sentence_model), prompt="poem").fit_transform(ITEMS)
    with pytest.raises(ConfigError, match="both an instruction and a prompt"):
        SentenceTransformersEncoder(model="some", prompt="document", instruction="x")


def test_length_dims_and_half_precision(site: Site) -> None:
    short = SentenceTransformersEncoder(
        model=str(site.sentence_model), max_length=4, dims=16, dtype="bfloat16"
    )
    vectors = short.fit_transform(ITEMS)
    assert vectors.shape == (60, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, vectors[:1].repeat(60, axis=0), atol=1e-2)  # all begin with "Title:"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_broken_folder(site: Site, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((site.bert / "model.safetensors").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((site.bert / "tokenizer.json").read_bytes())
    (tmp_path / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "nowhere.Model"}]')
    with pytest.raises(ModelError, match="can't be loaded"):
        SentenceTransformersEncoder(model=str(tmp_path)).fit_transform(ITEMS)


def test_without_the_library_the_extra_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match="needs the package") as caught:
        SentenceTransformersEncoder(model=str(site.bert)).fit_transform(ITEMS)
    assert "itemic[sentence-transformers]" in caught.value.remedy
