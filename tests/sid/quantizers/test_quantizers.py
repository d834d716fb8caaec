"""The contract of every quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemic.errors import ConfigError, DataError
from itemic.sid.codebooks import Codebooks
from itemic.sid.quantizers import QUANTIZERS, Quantizer


def make(name: str, **options: Any) -> Quantizer:
    return QUANTIZERS[name](**options)


def clouds(n: int, d: int, groups: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, d))
    return (centres[rng.integers(groups, size=n)] + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


X = clouds(600, 12, 20)


def rebuilt(codes: np.ndarray, books: Codebooks) -> np.ndarray:
    return books.rebuild(codes)


@pytest.mark.parametrize("name", QUANTIZERS)
class TestContract:
    @pytest.mark.parametrize("levels", [(16,), (8, 8, 8), (20, 5, 3, 2), (1, 7)])
    def test_shapes_and_ranges(self, name: str, levels: tuple[int, ...]) -> None:
        codes, books = make(name).fit(X, levels)
        assert codes.dtype == np.int32
        assert codes.shape == (600, len(levels))
        assert (codes.min(axis=0) >= 0).all()
        assert (codes.max(axis=0) < levels).all()
        assert books.sizes == levels
        assert books.width == 12
        assert all(book.dtype == np.float32 for book in books.books)
        assert all(np.isfinite(book).all() for book in books.books)

    def test_assign_gives_the_codes_of_fit(self, name: str, tmp_path: Path) -> None:
        quantizer = make(name)
        codes, books = quantizer.fit(X, (16, 16, 16))
        assert (books.assign(X) == codes).all()
        books.save(tmp_path / "books.safetensors")
        again = Codebooks.load(tmp_path / "books.safetensors")
        assert (again.assign(X) == codes).all()
        assert (again.rebuild(codes) == books.rebuild(codes)).all()

    def test_every_level_lessens_the_error(self, name: str) -> None:
        codes, books = make(name).fit(X, (16, 16, 16))
        errors = [float(((X - rebuilt(codes[:, :stop], books)) ** 2).sum()) for stop in (1, 2, 3)]
        assert errors == sorted(errors, reverse=True)
        assert errors[2] < 0.5 * errors[0]

    def test_the_same_seed_gives_the_same_codes(self, name: str) -> None:
        first, second, other = (make(name, seed=seed).fit(X, (16, 16))[0] for seed in (1, 1, 2))
        assert (first == second).all()
        assert (first != other).any()

    def test_the_input_is_left_alone(self, name: str) -> None:
        before = X.copy()
        make(name).fit(X, (16, 16))
        assert (before == X).all()

    def test_one_item(self, name: str) -> None:
        codes, books = make(name).fit(X[:1], (4, 4))
        assert codes.shape == (1, 2)
        np.testing.assert_allclose(rebuilt(codes, books), X[:1], atol=1e-5)

    def test_fewer_distinct_vectors_than_codes(self, name: str) -> None:
        table = np.repeat(X[:10], 30, axis=0)
        quantizer = make(name)
        codes, books = quantizer.fit(table, (32, 32))
        np.testing.assert_allclose(rebuilt(codes, books), table, atol=1e-4)
        assert quantizer.notes["codes_used"] == [10, 1]
        assert len(np.unique(codes, axis=0)) == 10
        assert (books.assign(table) == codes).all()

    def test_fewer_items_than_codes(self, name: str) -> None:
        codes, books = make(name).fit(X[:10], (64, 64))
        np.testing.assert_allclose(rebuilt(codes, books), X[:10], atol=1e-4)
        assert len(np.unique(codes, axis=0)) == 10

    def test_constant_columns(self, name: str) -> None:
        table = X.copy()
        table[:, 3] = 1000.0
        plain, _ = make(name).fit(np.delete(table, 3, axis=1), (16, 16))
        codes, books = make(name).fit(table, (16, 16))
        assert np.isfinite(rebuilt(codes, books)).all()
        error = ((table - rebuilt(codes, books)) ** 2).sum()
        assert error < 0.5 * ((table - table.mean(axis=0)) ** 2).sum()
        assert len(np.unique(codes, axis=0)) > 0.8 * len(np.unique(plain, axis=0))
        same, _ = make(name).fit(np.ones((50, 3)), (4, 4))
        assert len(np.unique(same, axis=0)) == 1

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_broken_rows_are_named(self, name: str, value: float) -> None:
        table = X.copy()
        table[[5, 77], 2] = value
        quantizer = make(name)
        with pytest.raises(DataError, match="in 2 rows, first 5, 77"):
            quantizer.fit(table, (4,))
        with pytest.raises(DataError, match="in 2 rows"):
            make(name).fit(X, (4,))[1].assign(table)

    def test_arguments_that_cannot_work(self, name: str) -> None:
        for levels in ((), (4, 0)):
            with pytest.raises(ConfigError, match="levels"):
                make(name).fit(X, levels)
        with pytest.raises(DataError, match="shape"):
            make(name).fit(np.zeros((0, 3)), (4,))
        with pytest.raises(ConfigError, match="12 dimensions"):
            make(name).fit(X[:, :5], (4,))[1].assign(X)
