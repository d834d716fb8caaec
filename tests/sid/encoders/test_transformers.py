"""Pooling and padding against a computation by hand, one text at a time; what a broken or odd model says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from itemic.errors import ConfigError, DataError, ModelError
from itemic.sid.encoders.transformers import TransformersEncoder
from itemic.sid.text import item_texts
from tests.sid.encoders import models
from tests.sid.encoders.cases import ITEMS, Site
from tests.sid.helpers import make_dataset

SOME = make_dataset(
    ["red soap", "a very long title of a blue towel and a mirror", "x", "green"], brands=["", "9", "", ""]
).items
Pool = Callable[[torch.Tensor], torch.Tensor]
POOLS: dict[str, Pool] = {
    "mean": lambda states: states.mean(dim=0),
    "last": lambda states: states[-1],
    "cls": lambda states: states[0],
}


def by_hand(folder: Path, texts: list[str], pooling: str) -> np.ndarray:
    """One text at a time: no padding, no mask."""
    tokenizer, lm = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    lm = lm.get_encoder() if lm.config.is_encoder_decoder else lm
    rows = []
    with torch.no_grad():
        for text in texts:
            states = lm(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
            rows.append(POOLS[pooling](states).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, site: Site) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("padding")
    return {
        "bert": site.bert,
        "qwen3": site.qwen3,
        "qwen3, left": models.qwen3(root / "left", models.byte_level("left")),
        "qwen3, no padding token": models.qwen3(root / "none", models.byte_level("left", None)),
        "gpt2, left, no padding token": models.gpt2(root / "gpt2", models.byte_level("left", None)),
        "t5": models.t5(root / "t5"),
    }


@pytest.mark.parametrize("pooling", POOLS)
@pytest.mark.parametrize(
    "model", ["bert", "qwen3", "qwen3, left", "qwen3, no padding token", "gpt2, left, no padding token", "t5"]
)
def test_batches_are_what_single_texts_are(folders: dict[str, Path], model: str, pooling: str) -> None:
    options: dict[str, Any] = {"model": str(folders[model]), "pooling": pooling, "normalize": False}
    expected = by_hand(folders[model], item_texts(SOME), pooling)
    for batch_size in (1, 3, 32):
        vectors = TransformersEncoder(**options, batch_size=batch_size).fit_transform(SOME)
        np.testing.assert_allclose(vectors, expected, atol=2e-5)


def test_instruction_fields_and_length(site: Site) -> None:
    encoder = TransformersEncoder(
        model=str(site.bert), instruction="red towel ", fields=["brand", "title"], normalize=False
    )
    texts = ["red towel " + text for text in item_texts(SOME, ["brand", "title"])]
    np.testing.assert_allclose(encoder.fit_transform(SOME), by_hand(site.bert, texts, "mean"), atol=2e-5)
    assert texts[1].startswith("red towel Brand: 9\nTitle: a very")


def test_long_texts_are_cut_and_counted(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="itemic"):
        short = TransformersEncoder(model=str(site.bert), max_length=4, normalize=False).fit_transform(SOME)
    assert "4 of 4 texts were cut to 4 tokens" in caplog.text
    np.testing.assert_allclose(short[0], by_hand(site.bert, ["Title:"], "mean")[0], atol=2e-5)
    with pytest.raises(ConfigError, match=r"max_length is 65, and model .* takes 64 tokens"):
        TransformersEncoder(model=str(site.bert), max_length=65).fit_transform(SOME)


def test_leading_dimensions(site: Site) -> None:
    full = TransformersEncoder(model=str(site.bert), normalize=False).fit_transform(SOME)[:, :10]
    cut = TransformersEncoder(model=str(site.bert), dims=10).fit_transform(SOME)
    np.testing.assert_allclose(cut, full / np.linalg.norm(full, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(ConfigError, match=r"dims is 65, and model .* gives 64"):
        TransformersEncoder(model=str(site.bert), dims=65).fit_transform(SOME)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_and_comparable(site: Site, dtype: str) -> None:
    half = TransformersEncoder(model=str(site.bert), dtype=dtype)
    full = TransformersEncoder(model=str(site.bert))
    vectors = half.fit_transform(ITEMS)
    assert vectors.dtype == np.float32
    assert ((vectors * full.fit_transform(ITEMS)).sum(axis=1) > 0.999).all()
    assert not (vectors == full.fit_transform(ITEMS)).all()
    assert half.identity == full.identity


def altered(site: Site, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    """A copy of the BERT with other weights."""
    shutil.copytree(site.bert, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_values_too_large_for_float16_are_told_with_row_and_item(site: Site, tmp_path: Path) -> None:
    def blow_up(tensors: dict[str, torch.Tensor]) -> None:
        tensors["encoder.layer.1.output.LayerNorm.weight"][:] = 6e4

    model = altered(site, tmp_path / "large", blow_up)
    assert np.isfinite(TransformersEncoder(model=model, dtype="bfloat16").fit_transform(SOME)).all()
    with pytest.raises(DataError, match=r"NaN or infinite .*row 1 \(item 'item1'\)") as caught:
        TransformersEncoder(model=model, dtype="float16").fit_transform(SOME)
    assert not torch.is_inference_mode_enabled()
    assert "use dtype float32 or bfloat16" in caught.value.remedy


def test_one_broken_word_names_its_item(site: Site, tmp_path: Path) -> None:
    word = AutoTokenizer.from_pretrained(site.bert).convert_tokens_to_ids("green")

    def break_word(tensors: dict[str, torch.Tensor]) -> None:
        tensors["embeddings.word_embeddings.weight"][word] = torch.nan

    model = altered(site, tmp_path / "nan", break_word)
    with pytest.raises(DataError, match=r"for 1 of 4 texts of a batch, first for row 3 \(item 'item3'\)"):
        TransformersEncoder(model=model).fit_transform(SOME)


def test_lacking_weights_are_refused_but_for_bert_s_pooler(site: Site, tmp_path: Path) -> None:
    model = altered(site, tmp_path / "pooler", lambda tensors: tensors.pop("pooler.dense.weight"))
    assert TransformersEncoder(model=model).fit_transform(SOME).shape == (4, 64)
    model = altered(site, tmp_path / "less", lambda tensors: tensors.pop("encoder.layer.0.output.dense.bias"))
    with pytest.raises(ModelError, match=r"lacks 1 weights, first encoder\.layer\.0\.output\.dense\.bias"):
        TransformersEncoder(model=model).fit_transform(SOME)


def test_a_name_that_is_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="'nobody/nothing' is no folder here"):
        TransformersEncoder(model="nobody/nothing").fit_transform(SOME)


def test_a_name_on_the_hub_is_the_folder_that_was_downloaded(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "models--some--bert"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    (root / "snapshots").mkdir()
    (root / "snapshots" / ("0" * 40)).symlink_to(site.bert)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    named, local = TransformersEncoder(model="some/bert"), TransformersEncoder(model=str(site.bert))
    assert (named.fit_transform(SOME) == local.fit_transform(SOME)).all()
    assert named.identity == local.identity | {"model": "some/bert"}


def test_broken_folders(site: Site, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no weights in safetensors"):
        TransformersEncoder(model=str(tmp_path)).fit_transform(SOME)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="is no safetensors file"):
        TransformersEncoder(model=str(tmp_path)).fit_transform(SOME)
    model = Path(shutil.copytree(site.bert, tmp_path / "bert"))
    for file in model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        TransformersEncoder(model=str(model)).fit_transform(SOME)


def test_identity_sees_weights_and_settings_but_not_the_place(site: Site, tmp_path: Path) -> None:
    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            tensor += 1e-3

    shutil.copytree(site.bert, tmp_path / "bert")
    first = TransformersEncoder(model=str(tmp_path / "bert")).identity
    assert first == TransformersEncoder(model=str(site.bert)).identity
    other = TransformersEncoder(model=altered(site, tmp_path / "again" / "bert", nudge)).identity
    assert {key for key in first if first[key] != other[key]} == {"digest"}
    config = tmp_path / "bert" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-3}))
    assert TransformersEncoder(model=str(tmp_path / "bert")).identity["digest"] != first["digest"]
    for key, value in {"pooling": "cls", "instruction": "x", "dims": 3, "normalize": False}.items():
        changed = TransformersEncoder(model=str(site.bert), **{key: value}).identity
        assert {key for key in first if first[key] != changed[key]} == {key}


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "max"},
        {"dtype": "int8"},
        {"batch_size": 0},
        {"max_length": 0},
        {"dims": 0},
        {"fields": []},
        {"fields": "title"},
        {"model": ""},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TransformersEncoder(**{"model": "some", **options})


def test_a_device_that_is_not_there(site: Site) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' can't be used"):
        TransformersEncoder(model=str(site.bert), device="cuda:99").fit_transform(SOME)


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", POOLS)
def test_the_gpu_gives_what_the_cpu_gives(site: Site, pooling: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cpu, gpu = (
        TransformersEncoder(model=str(site.qwen3), pooling=pooling, device=device).fit_transform(ITEMS)
        for device in ("cpu", "auto")
    )
    np.testing.assert_allclose(gpu, cpu, atol=1e-3)


def test_no_mean_is_known_for_a_new_item_without_text(site: Site) -> None:
    encoder = TransformersEncoder(model=str(site.bert))
    with pytest.raises(ConfigError, match="item 'item0' has no text"):
        encoder.transform(make_dataset([""]).items)
    assert encoder.transform(SOME).shape == (4, 64)
