"""Linear models of all pairs of items, in closed form, of behaviour and of words at once: EASE, and a ridge that knows
what comes next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import lapack

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests, Sequences
from itemic.errors import ConfigError
from itemic.evaluate import counting
from itemic.evaluate.counting import (
    Float32,
    Popularity,
    Ranked,
    count_transitions,
    history_keys,
    recent_weights,
)
from itemic.sid.encoders.lsa import LSAEncoder

MOST_ITEMS = 40_000  # whose weights take 6.4 GB
_ROWS = 1024  # of a matrix of all pairs of items that are looked at at once
Bool = npt.NDArray[np.bool_]


class Linear(ABC):
    """A linear model of all pairs of items, in closed form: what each item of a history says of every other.

    A request's scores are ``w B``, where ``w`` are the shares of its latest items; over ``temperature`` they become
    log-probabilities by a softmax. Without a history popularity speaks. All pairs of items are held, 4 n² bytes; twice
    as much while they are computed.

    Args:
        dataset: its ``train`` and the text of its items; without any text there is behaviour alone.
        text: how much words count beside behaviour; 0 for not at all.
        regularization: ridge.
        decay: weight of each further step back in the history.
        last: how many of the most recent items take part.
        temperature: what scores are divided by.

    Raises:
        ConfigError: numbers that make no sense, or more items than there is room for.
    """

    name = "linear"

    def __init__(
        self,
        dataset: Dataset,
        *,
        text: float = 5.0,
        regularization: float = 80.0,
        decay: float = 0.6,
        last: int = 50,
        temperature: float = 0.003,
    ) -> None:
        if not (0 <= text < np.inf and 0 < regularization < np.inf and 0 < temperature < np.inf):
            raise ConfigError(
                f"{self.name} with text {text}, regularization {regularization}, temperature {temperature}",
                "Give a text of 0 or more, and the others above 0.",
            )
        if last < 1 or not 0 < decay <= 1:
            raise ConfigError(
                f"{self.name} with decay {decay} and last {last}", "Give last from 1 up, and decay in (0, 1]."
            )
        count = len(dataset.item_ids)
        if count > MOST_ITEMS:
            raise ConfigError(
                f"{self.name} holds all pairs of {count:,} items, {4 * count**2 / 1e9:.0f} GB",
                f"Leave it out, or keep the {MOST_ITEMS:,} items with the most interactions (limit_items).",
            )
        self.text, self.regularization = text, regularization
        self.decay, self.last, self.temperature = decay, last, temperature
        self.popularity = Popularity(dataset)
        words = words_of(dataset) if text else sparse.csr_array((count, 0), dtype=np.float32)
        self.weights = self._weights(dataset.train, words * np.float32(text**0.5))

    @abstractmethod
    def _weights(self, train: Sequences, words: sparse.csr_array) -> Float32:
        """``B``, float32 ``[n, n]``."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.weights):,} items, {self.words}>"

    @property
    def words(self) -> str:
        """The settings."""
        return (
            f"text {self.text:g}, regularization {self.regularization:g}, decay {self.decay:g}, last {self.last}, "
            f"temperature {self.temperature:g}"
        )

    @property
    def config(self) -> dict[str, Any]:
        """What a ranking depends on beside the dataset, for resuming."""
        return {"linear": f"{self.name}: {self.words}"}

    def shortened(self, requests: Requests) -> Bool:
        """bool ``[R]``: no history is too long; items before the ``last`` ones have no weight."""
        return self.popularity.shortened(requests)

    def scores(self, requests: Requests) -> Float32:
        """The log-probability of every item, float32 ``[R, n]``; as :meth:`Popularity.scores`."""
        self.popularity.check(requests)
        shares = recent_weights(requests, len(self.weights), self.decay, self.last).astype(np.float32)
        found = np.asarray(shares @ self.weights)
        found /= np.float32(self.temperature)
        found -= found.max(axis=1, keepdims=True, initial=-np.inf)
        found -= np.log(np.exp(found).sum(axis=1, keepdims=True))
        nothing = np.diff(requests.offsets) == 0
        found[nothing] = np.log(self.popularity.share)
        return found

    def rank(self, requests: Requests, k: int, exclude_history: bool = False) -> Ranked:
        """The best ``k`` items of each request; as :meth:`Popularity.rank`."""
        if k < 1:
            raise ConfigError(f"a ranking of {k} items", "Give a k of 1 or more.")
        self.popularity.check(requests)
        count = len(self.weights)
        items = np.full((len(requests), k), -1, np.int32)
        values = np.full((len(requests), k), -np.inf, np.float32)
        step = max(1, counting.CELLS // max(count, 1))
        for start in range(0, len(requests), step):
            part = requests[start : start + step]
            scores = self.scores(part)
            if exclude_history:
                scores.reshape(-1)[history_keys(part, count)] = -np.inf
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            top = np.take_along_axis(scores, order, axis=1)
            rows = slice(start, start + len(part))
            items[rows, : top.shape[1]] = np.where(np.isneginf(top), -1, order)
            values[rows, : top.shape[1]] = top
        return items, values


class Ease(Linear):
    """EASE: each item as a mixture of the others, by who had what and by words, in any order.

    With ``X`` the users and items of training (0 and 1) and ``T`` the items' words (TF-IDF, rows of length 1), the
    weights are those that rebuild both best, each column from the others:

    ``B = argmin ‖X - XB‖² + text ‖Tᵀ - TᵀB‖² + regularization ‖B‖²`` under ``diag(B) = 0``,

    which is ``B = I - P diag(P)⁻¹`` with ``P = (XᵀX + text TTᵀ + regularization I)⁻¹`` (Steck, "Embarrassingly shallow
    autoencoders for sparse data", WWW 2019, equation 8; with items' features as further rows: Jeunen, Van Balen and
    Goethals, "Closed-form models for collaborative filtering with side-information", RecSys 2020, CEASE).
    """

    name = "EASE"

    def _weights(self, train: Sequences, words: sparse.csr_array) -> Float32:
        return item_weights(train, words, self.regularization)


class Ridge(Linear):
    """What follows an item, by a ridge regression from what users had on what they had next, and by words.

    ``B = (XᵀX + text TTᵀ + regularization I)⁻¹ (C + text TTᵀ)``, its diagonal set to 0. ``X`` and ``T`` are those of
    :class:`Ease`, whose normal equations these are with another right side: ``C`` counts what came up to ``window``
    places after an item, ``1/d`` for ``d`` places, as :class:`itemic.evaluate.baselines.Transitions` does, where EASE
    has what was had together. So it knows directions, and items that training hardly saw by their words.

    Args:
        dataset, text, regularization, decay, last, temperature: as for :class:`Linear`.
        window: how far apart two items may stand.

    Raises:
        ConfigError: numbers that make no sense, or more items than there is room for.
    """

    name = "ridge"

    def __init__(self, dataset: Dataset, *, window: int = 5, decay: float = 0.7, **options: Any) -> None:
        if window < 1:
            raise ConfigError(f"{self.name} with window {window}", "Give a window of 1 or more.")
        self.window = window
        super().__init__(dataset, decay=decay, **options)

    @property
    def words(self) -> str:
        return f"window {self.window}, {super().words}"

    def _weights(self, train: Sequences, words: sparse.csr_array) -> Float32:
        return successor_weights(train, words, self.regularization, self.window)


def words_of(dataset: Dataset) -> sparse.csr_array:
    """The items' words, float32 ``[n, terms]``: the TF-IDF of :class:`itemic.sid.encoders.lsa.LSAEncoder`, rows of
    length 1, or of length 0 without any known word."""
    terms = LSAEncoder().learn_terms(dataset.items)
    length = np.sqrt(np.asarray(terms.multiply(terms).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ terms, dtype=np.float32)


def item_weights(train: Sequences, words: sparse.csr_array, regularization: float) -> Float32:
    """``B`` of :class:`Ease`, float32 ``[n, n]``: column ``j`` rebuilds item ``j`` from the others.

    Args:
        train: who had what; twice is once.
        words: float32 ``[n, terms]``, further rows of the items, turned.
        regularization: ridge, above 0.
    """
    gram = _moments(train, words, regularization)
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    if not failed:
        inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise _undetermined(regularization)
    weights: Float32 = inverse.T  # symmetric, so that this is the same matrix with rows side by side
    for start in range(0, len(weights), _ROWS):  # LAPACK fills one triangle
        stop = start + _ROWS
        weights[stop:, start:stop] = weights[start:stop, stop:].T
        block = weights[start:stop, start:stop]
        block[:] = np.triu(block) + np.triu(block, 1).T
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def successor_weights(
    train: Sequences, words: sparse.csr_array, regularization: float, window: int
) -> Float32:
    """``B`` of :class:`Ridge`, float32 ``[n, n]``: row ``i`` is what item ``i`` says of the others.

    Args:
        train: who had what, in order.
        words: as for :func:`item_weights`.
        regularization: ridge, above 0.
        window: how far apart two items may stand.
    """
    followed = _alike(words)
    counts = sparse.coo_array(count_transitions(train, words.shape[0], window))
    followed[counts.coords[0], counts.coords[1]] += counts.data.astype(np.float32)
    factor, failed = lapack.spotrf(_moments(train, words, regularization), lower=1, overwrite_a=1)
    if failed:
        raise _undetermined(regularization)
    solved, _ = lapack.spotrs(factor, followed, lower=1, overwrite_b=1)
    np.fill_diagonal(solved, 0.0)
    return np.ascontiguousarray(solved)


def _alike(words: sparse.csr_array) -> Float32:
    """``words wordsᵀ``, float32 ``[n, n]`` in Fortran's order, in which LAPACK works in place."""
    count, turned = words.shape[0], sparse.csr_array(words.T)
    found = np.zeros((count, count), np.float32, order="F")
    if turned.nnz:
        for start in range(0, count, _ROWS):
            found[:, start : start + _ROWS] = (words[start : start + _ROWS] @ turned).toarray().T
    return found


def _moments(train: Sequences, words: sparse.csr_array, regularization: float) -> Float32:
    """What was had together, words, and the ridge: ``XᵀX + words wordsᵀ + regularization I``."""
    gram, count = _alike(words), words.shape[0]
    user = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    had = sparse.csr_array((np.ones(len(user), np.float32), (user, train.items)), shape=(len(train), count))
    had.data[:] = 1.0
    both = sparse.coo_array(had.T @ had)
    gram[both.coords[0], both.coords[1]] += both.data
    gram[np.diag_indices(count)] += np.float32(regularization)
    return gram


def _undetermined(regularization: float) -> ConfigError:
    return ConfigError(
        f"a regularization of {regularization:g} leaves the items' weights undetermined", "Give a larger one."
    )
