"""The contract of every quantizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemic.errors import ConfigError, DataError
from itemic.sid.codebooks import Codebooks
from itemic.sid.quantizers import QUANTIZERS, Quantizer


@dataclass(frozen=True)
class Differs:
    """Where a quantizer can't keep a line of the contract, and what it promises instead.

    Attributes:
        options: quicker ones for the tests.
        assigns: ``Codebooks.assign`` gives the codes of ``fit``.
        draws: another seed gives other codes.
        exact: vectors are rebuilt exactly where there are fewer of them than codes.
        error: else, the relative error that may be left of 10 vectors with 64 codes a level.
        shrinks: the error of three levels against that of one is less than this.
        merges: equal vectors share all their codes.
        used: codes used per level by 10 vectors, 30 times each, with 32 codes a level.
    """

    options: dict[str, Any] = field(default_factory=dict)
    assigns: bool = True
    draws: bool = True
    exact: bool = True
    error: float = 0.0
    shrinks: float = 0.5
    merges: bool = True
    used: tuple[int, ...] | None = (10, 1)


DIFFERS = {
    # sizes come first: equal vectors are parted, and all codes hold items
    "balanced": Differs(assigns=False, merges=False, used=(32, 32)),
    # networks are smooth, so nothing is rebuilt exactly; the decoder learns from sums of all levels
    "rqvae": Differs(
        options={"hidden": (32,), "latent": 16, "steps": 200, "batch_size": 256, "lr": 3e-3},
        exact=False,
        error=0.2,
        shrinks=0.9,
        used=None,
    ),
    "rqkmeans+": Differs(options={"hidden": (32,), "steps": 40, "batch_size": 256}),
    # a fixed grid, without any random draw
    "rfsq": Differs(draws=False, exact=False, error=0.6, used=None),
    # every level sees dimensions of its own
    "opq": Differs(used=(10, 10)),
    "opq-residual": Differs(used=None),
}


def differs(name: str) -> Differs:
    return DIFFERS.get(name, Differs())


def make(name: str, **options: Any) -> Quantizer:
    return QUANTIZERS[name](**{**differs(name).options, **options})


def clouds(n: int, d: int, groups: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, d))
    return (centres[rng.integers(groups, size=n)] + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


X = clouds(600, 12, 20)


def rebuilt(codes: np.ndarray, books: Codebooks) -> np.ndarray:
    return books.rebuild(codes)


def test_balanced_goes_by_two_names() -> None:
    assert [name for name, maker in QUANTIZERS.items() if maker.name != name] == ["constrained"]
    assert QUANTIZERS["constrained"] is QUANTIZERS["balanced"]


@pytest.mark.parametrize("name", [name for name, maker in QUANTIZERS.items() if maker.name == name])
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
        assert (books.assign(X) == codes).all() or not differs(name).assigns
        books.save(tmp_path / "books.safetensors")
        again = Codebooks.load(tmp_path / "books.safetensors")
        assert (again.assign(X) == books.assign(X)).all()
        assert (again.latent(X) == books.latent(X)).all()
        assert (again.rebuild(codes) == books.rebuild(codes)).all()

    def test_every_level_lessens_the_error(self, name: str) -> None:
        codes, books = make(name).fit(X, (16, 16, 16))
        errors = [float(((X - rebuilt(codes[:, :stop], books)) ** 2).sum()) for stop in (1, 2, 3)]
        assert errors == sorted(errors, reverse=True)
        assert errors[2] < differs(name).shrinks * errors[0]

    def test_the_same_seed_gives_the_same_codes(self, name: str) -> None:
        first, second, other = (make(name, seed=seed).fit(X, (16, 16))[0] for seed in (1, 1, 2))
        assert (first == second).all()
        assert (first != other).any() == differs(name).draws

    def test_the_input_is_left_alone(self, name: str) -> None:
        before = X.copy()
        make(name).fit(X, (16, 16))
        assert (before == X).all()

    def test_notes_are_those_of_the_codes(self, name: str) -> None:
        quantizer = make(name)
        codes, books = quantizer.fit(X, (16, 16))
        assert quantizer.notes["codes_used"] == [len(set(code.tolist())) for code in codes.T]
        total = ((X - X.mean(axis=0)) ** 2).sum()
        for stop, noted in enumerate(quantizer.notes["relative_error"], start=1):
            error = ((X - rebuilt(codes[:, :stop], books)) ** 2).sum() / total
            assert noted == pytest.approx(error, abs=2e-5)

    def test_assign_is_a_search_level_by_level(self, name: str) -> None:
        _, books = make(name).fit(X, (16, 16))
        residual = books.latent(X).astype(np.float64)
        codes = books.assign(X)
        for level, book in enumerate(books.books):
            distance = ((residual[:, None] - book) ** 2).sum(axis=2)
            found = distance[np.arange(len(X)), codes[:, level]]
            np.testing.assert_allclose(found, distance.min(axis=1), rtol=1e-4, atol=1e-4)
            residual -= book[codes[:, level]]

    def test_rows_by_themselves_get_the_same_codes(self, name: str) -> None:
        _, books = make(name).fit(X, (16, 16))
        assert (books.assign(X[40:60]) == books.assign(X)[40:60]).all()

    def test_a_memory_map(self, name: str, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", X)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert (make(name).fit(mapped, (16, 16))[0] == make(name).fit(X, (16, 16))[0]).all()

    def test_learning_from_some_of_the_rows(self, name: str) -> None:
        quantizer = make(name, rows_per_code=20)  # 320 of 600
        codes, books = quantizer.fit(X, (16, 16))
        assert codes.shape == (600, 2)
        assert ((X - rebuilt(codes, books)) ** 2).sum() < 0.7 * ((X - X.mean(axis=0)) ** 2).sum()

    def test_one_item(self, name: str) -> None:
        codes, books = make(name).fit(X[:1], (4, 4))
        assert codes.shape == (1, 2)
        np.testing.assert_allclose(rebuilt(codes, books), X[:1], atol=1e-5)

    def test_fewer_distinct_vectors_than_codes(self, name: str) -> None:
        table = np.repeat(X[:10], 30, axis=0)
        quantizer = make(name)
        codes, books = quantizer.fit(table, (32, 32))
        expected = differs(name)
        if expected.used is not None:
            assert quantizer.notes["codes_used"] == list(expected.used)
        if expected.merges:
            assert len(np.unique(codes, axis=0)) == 10
        if expected.merges and expected.exact:
            np.testing.assert_allclose(rebuilt(codes, books), table, atol=1e-4)
        assert (books.assign(table) == codes).all() or not expected.assigns

    def test_fewer_items_than_codes(self, name: str) -> None:
        codes, books = make(name).fit(X[:10], (64, 64))
        if differs(name).exact:
            np.testing.assert_allclose(rebuilt(codes, books), X[:10], atol=1e-4)
        error = ((X[:10] - rebuilt(codes, books)) ** 2).sum() / ((X[:10] - X[:10].mean(axis=0)) ** 2).sum()
        assert error <= differs(name).error + 1e-6
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
        assert len(np.unique(same, axis=0)) == 1 or not differs(name).merges

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
