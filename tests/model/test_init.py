from __future__ import annotations

import numpy as np
import pytest
import torch

from itemic.model import init
from itemic.model.tokenizer import train_tokenizer
from tests.model.helpers import catalogue
from tests.sid.helpers import make_index


def correlated(count: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator)
    return torch.randn(count, width, generator=generator) @ mix + torch.arange(width) * 0.3


def test_moments_equal_numpys() -> None:
    old = correlated(init.CHUNK + 50, 5)
    mean, covariance = init.moments(old)
    assert np.allclose(mean, old.double().numpy().mean(0))
    assert np.allclose(covariance, np.cov(old.double().numpy().T))


def test_samples_have_mean_and_covariance_of_the_old_rows() -> None:
    old = correlated(400, 6)
    rows = init.sample_like(old, 40_000, torch.Generator().manual_seed(1))
    expected = np.cov(old.numpy().T)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((np.cov(rows.numpy().T) - expected) / scale).max() < 0.05
    assert torch.allclose(rows.mean(0), old.mean(0), atol=0.1)


def test_samples_of_fewer_rows_than_dimensions_stay_in_their_span() -> None:
    old = correlated(4, 10)
    rows = init.sample_like(old, 20, torch.Generator().manual_seed(1))
    span = torch.linalg.svd(old - old.mean(0)).Vh[:3]
    outside = (rows - old.mean(0)) - (rows - old.mean(0)) @ span.T @ span
    assert outside.abs().max() < 1e-3


def test_text_mixing_equals_counting_by_hand() -> None:
    texts = ["rose oil", "", *catalogue(4)]
    index = make_index([[0, 0], [0, 1], [1, 1], [1, 0], [2, 2], [2, 2]], (4, 3))
    tokenizer = train_tokenizer(catalogue(50), vocab_size=330)
    mixing = init.text_mixing(index, texts, tokenizer, 320).toarray()
    shares = np.zeros((6, 320))
    for row, text in enumerate(texts):
        ids = [i for i in tokenizer.encode(text) if i < 320]
        for i in ids:
            shares[row, i] += 1 / len(ids)
    assert np.allclose(mixing[0], shares[0])  # item 1 has no text
    assert np.allclose(mixing[1], shares[2:4].mean(0))
    assert not mixing[3].any()  # nobody carries code 3
    assert np.allclose(mixing[4], shares[[0, 3]].mean(0))
    assert not mixing[7:].any()  # begin and end


def test_rows_from_meanings_keep_differences_and_take_the_old_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(500, 16, generator=generator) * 0.2 + 1
    meanings = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32) * 1e-3 + 7
    meanings[4] = 0  # nothing known
    spare = init.sample_like(old, 12, generator)
    rows = init.from_meanings((8, 3), meanings, old, spare)
    used = [0, 1, 2, 3, 5, 6, 7]
    assert torch.equal(rows[[4, 11]], spare[[4, 11]])
    assert rows[used].std().item() == pytest.approx(0.2, rel=0.15)
    assert rows[used].mean().item() == pytest.approx(1, abs=0.05)
    ours = torch.corrcoef(rows[used] - rows[used].mean(0))
    theirs = np.corrcoef(meanings[used] - meanings[used].mean(0))
    assert np.corrcoef(ours.numpy().ravel(), theirs.ravel())[0, 1] > 0.95


def test_a_level_of_one_meaning_falls_back_to_samples() -> None:
    old = correlated(50, 4)
    spare = init.sample_like(old, 3, torch.Generator().manual_seed(0))
    rows = init.from_meanings((3,), np.ones((3, 4), np.float32), old, spare)
    assert torch.equal(rows, spare)


def test_projection_keeps_directions() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    vectors[1] = vectors[0] * 2
    flat = init.project(vectors, 256, seed=5)
    cosine = flat @ flat.T / np.outer(np.linalg.norm(flat, axis=1), np.linalg.norm(flat, axis=1))
    real = vectors @ vectors.T / np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(vectors, axis=1))
    assert cosine[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.abs(cosine - real).max() < 0.35
    assert np.array_equal(flat, init.project(vectors, 256, seed=5))
