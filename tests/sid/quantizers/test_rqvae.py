from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from itemic.errors import ConfigError
from itemic.sid.codebooks import Codebooks
from itemic.sid.quantizers import QUANTIZERS
from itemic.sid.quantizers.autoencoder import Autoencoder, Schedule, _Level
from itemic.sid.quantizers.balanced import Balanced
from itemic.sid.quantizers.rqvae import RQVAE, RQKMeansPlus
from tests.sid.quantizers.test_quantizers import clouds

X = clouds(600, 12, 20)
SMALL: dict[str, Any] = {"hidden": (32,), "latent": 8, "steps": 100, "batch_size": 256, "lr": 3e-3}


def test_the_space_is_the_network_that_was_trained() -> None:
    draws = torch.Generator().manual_seed(0)
    for skip in (False, True):
        model = Autoencoder([12, 20, 12], skip=skip, draws=draws, device=torch.device("cpu"))
        for tensor in model.parameters():
            tensor.data += 0.1 * torch.randn(tensor.shape, generator=draws)
        space = model.space(X.mean(axis=0), 2.0)
        inside = model.encode(torch.from_numpy((X - X.mean(axis=0)) / 2))
        np.testing.assert_allclose(space.to_latent(X), inside.detach().numpy(), rtol=1e-4, atol=1e-4)
        outside = model.decode(inside).detach().numpy() * 2 + X.mean(axis=0)
        np.testing.assert_allclose(space.from_latent(inside.detach().numpy()), outside, rtol=1e-4, atol=1e-4)


def test_a_curved_sheet_is_rebuilt_better_than_by_a_flat_one() -> None:
    """Vectors on a curved line in 12 dimensions: one latent dimension is enough, as PCA's is not."""
    t = np.linspace(-3, 3, 1000)[:, None]
    x = np.sin(t * np.linspace(0.3, 1.5, 12) + np.arange(12)).astype(np.float32)
    quantizer = RQVAE(**{**SMALL, "latent": 1, "hidden": (64, 64), "steps": 600})
    quantizer.fit(x, (64,))
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    assert quantizer.notes["relative_error"][0] < 0.7 * (1 - values[0] / values.sum())


def nearest_error(books: Codebooks) -> float:
    """What the nearest codes leave of X, as a share of its variance."""
    left = X - books.rebuild(books.assign(X))
    return float((left**2).sum() / ((X - X.mean(axis=0)) ** 2).sum())


def test_plus_begins_with_balanced_books_and_is_never_worse() -> None:
    began, refined = Balanced(), RQKMeansPlus(hidden=(32,), steps=150, batch_size=256, lr=1e-3)
    _, even = began.fit(X, (16, 16))
    _, after = refined.fit(X, (16, 16))
    assert nearest_error(after) < nearest_error(even)
    start = RQKMeansPlus(hidden=(32,), steps=1, lr=1e-12)
    _, first = start.fit(X, (16, 16))
    assert nearest_error(first) == pytest.approx(nearest_error(even), rel=0.02)


def test_plus_takes_rows_as_its_distances_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemic.sid.quantizers.rqvae.DISTANCES", 16 * 100)
    codes, _ = RQKMeansPlus(hidden=(8,), steps=5, batch_size=64).fit(X, (16, 16))
    assert len(codes) == len(X)
    assert len(np.unique(codes[:, 0])) > 10


@pytest.mark.parametrize(
    "options", [{"codebook": "ema"}, {"sinkhorn": 0.05}, {"usage_weight": 0.1}, {"dead_share": 0.0}]
)
@pytest.mark.parametrize("name", ["rqvae", "rqkmeans+"])
def test_ways_to_train(name: str, options: dict[str, Any]) -> None:
    small = SMALL if name == "rqvae" else {key: SMALL[key] for key in ("hidden", "steps", "batch_size")}
    quantizer = QUANTIZERS[name](**{**small, **options})
    codes, books = quantizer.fit(X, (16, 16))
    assert (books.assign(X) == codes).all()
    assert quantizer.notes["relative_error"][-1] < 0.5


def level(codes: int, **options: Any) -> tuple[_Level, torch.Generator]:
    draws = torch.Generator().manual_seed(0)
    model = Autoencoder([4, 4], skip=True, draws=draws, device=torch.device("cpu"))
    model.books = [torch.randn(codes, 4, generator=draws)]
    return _Level(model, 0, Schedule(10, 200, 1e-3, 0.25, **options)), draws


def test_dead_codes_begin_anew() -> None:
    one, draws = level(4, dead_share=0.5)
    one.book[3] = 100.0
    rows = torch.randn(200, 4, generator=draws)
    for _ in range(100):
        one.choose(rows, 0.0)
        one.after_step(True, draws)
    assert one.book[3].abs().max() < 10
    assert (rows == one.book[3]).all(dim=1).any()


def test_moving_means_reach_the_means() -> None:
    one, draws = level(3, codebook="ema")
    rows = torch.randn(300, 4, generator=draws)
    for _ in range(1500):
        one.choose(rows, 0.0)
        one.after_step(False, draws)
    for code in one.codes.unique():
        torch.testing.assert_close(one.book[code], rows[one.codes == code].mean(dim=0), rtol=1e-3, atol=1e-3)


def test_sinkhorn_spreads_a_crowded_batch() -> None:
    one, draws = level(8)
    one.book[0] = 0.0
    one.book[1:] += 3.0
    rows = 0.3 * torch.randn(200, 4, generator=draws)
    one.choose(rows, 0.0)
    crowded = torch.bincount(one.codes, minlength=8).max()
    one.choose(rows, 0.05)
    assert torch.bincount(one.codes, minlength=8).max() < crowded / 2


def test_missing_entropy() -> None:
    one, _ = level(4)
    one.book[:] = torch.eye(4)
    even = one.missing_entropy(torch.eye(4))
    uneven = one.missing_entropy(torch.eye(4)[[0, 0, 0, 1]])
    assert 0 <= float(even) < 1e-5
    assert float(uneven) > 0.05


@pytest.mark.parametrize("options", [{"latent": 0}, {"hidden": (8, 0)}, {"beta": -1.0}, {"codebook": "x"}])
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RQVAE(**options)
