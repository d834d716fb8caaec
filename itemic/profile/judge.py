"""What profiles are worth beside what they find: pure functions on texts and lists.

Faithfulness, leakage, steerability, consistency, length and reading ease. A mean leaves NaN out, and says of how many
profiles it is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from itemic.errors import DataError
from itemic.metrics import overlap, rbo
from itemic.profile.attributes import Attributes
from itemic.profile.words import sentences

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Rows = npt.NDArray[np.integer] | Sequence[int]

_WORDS = re.compile(r"\w+")
_LATIN = re.compile(r"[a-z]+(?:['’][a-z]+)*", re.IGNORECASE)
_VOWELS = re.compile(r"[aeiouy]+")


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Whether profiles name what their histories support.

    Attributes:
        precision: float64 ``[R]``, of the names in a profile those that the history supports; NaN where it names none.
        recall: float64 ``[R]``, of what there is to name in the history what the profile names; NaN where there is
            nothing.
        named: int64 ``[R]``, how many different names a profile has.
        known: int64 ``[R]``, how many there are to name.
    """

    precision: Float64
    recall: Float64
    named: Int64
    known: Int64


def faithfulness(profiles: Sequence[str], histories: Sequence[Rows], attributes: Attributes) -> Faithfulness:
    """Attribute precision and recall of profiles against their histories' own categories and brands.

    Names are found as :meth:`itemic.profile.attributes.Attributes.find` says: word for word, case-folded, the longest
    first. Precision counts all categories of an item's path as supported; a name that may mean several attributes is
    supported where one of them is. Recall asks for the finest categories and the brands alone, as nobody needs to say
    that frying pans are for the kitchen.

    Args:
        profiles: ``[R]`` texts.
        histories: ``[R]``, item rows of each.
        attributes: of the catalogue.

    Raises:
        DataError: there are not as many histories as profiles.

    Example:
        A history of a tent by Boro (``Outdoors > Camping``) and "Camping gear by Boro, and music." name Camping, Boro
        and, where the catalogue has such a category, Music: precision 2 / 3, recall 2 / 2.
    """
    _alike(profiles, histories, "histories")
    found = np.full((len(profiles), 2), np.nan)
    counts = np.zeros((len(profiles), 2), np.int64)
    for row, (profile, history) in enumerate(zip(profiles, histories, strict=True)):
        rows = np.asarray(history, np.int64).tolist()
        own, wanted = attributes.of_rows(rows), attributes.of_rows(rows, finest=True)
        named = attributes.named(profile)
        counts[row] = len(named), len(wanted)
        if named:
            found[row, 0] = np.mean([bool(each & own) for each in named])
        if wanted:
            found[row, 1] = len(wanted & set().union(*named)) / len(wanted)
    return Faithfulness(found[:, 0], found[:, 1], counts[:, 0], counts[:, 1])


def leakage(profiles: Sequence[str], titles: Sequence[str], known: Sequence[str]) -> Float64:
    """The share of a target's own words that its profile has, float64 ``[R]``; NaN where the target has none.

    A target's own words are those of its title that the history's texts lack, without English stop words
    (scikit-learn's) and single letters or digits. A profile written of the history alone hits them by chance or by
    knowing the world; one that has seen the target has them.

    Args:
        profiles: ``[R]`` texts.
        titles: of the targets.
        known: all that the writer read of each history, such as its prompt.

    Raises:
        DataError: there are not as many of each.

    Example:
        ``leakage(["likes the Alien films"], ["Alien Resurrection"], ["Title: Brazil"])`` is ``[1 / 2]``.
    """
    _alike(profiles, titles, "titles")
    _alike(profiles, known, "texts of histories")
    found = np.full(len(profiles), np.nan)
    for row, (profile, title, text) in enumerate(zip(profiles, titles, known, strict=True)):
        own = {word for word in _folded(title) - ENGLISH_STOP_WORDS if len(word) > 1} - _folded(text)
        if own:
            found[row] = len(own & _folded(profile)) / len(own)
    return found


def _folded(text: str) -> set[str]:
    return set(_WORDS.findall(text.casefold()))


@dataclass(frozen=True, eq=False)
class Steer:
    """What an edit does to lists.

    Attributes:
        before, after: float64 ``[R]``, the share of each list that has the attribute.
        lost: float64 ``[R]``, hits of the target before less those after: 1, 0 or -1; its mean is the recall lost. NaN
            where the target is unknown.
    """

    before: Float64
    after: Float64
    lost: Float64

    @property
    def moved(self) -> Float64:
        """How far each list moves to the attribute, from -1 to 1."""
        return self.after - self.before

    @property
    def closed(self) -> Float64:
        """The same as a share of the way that there was to go; NaN where all had it already."""
        way = 1 - self.before
        return np.where(way > 0, self.moved / np.where(way > 0, way, 1), np.nan)


def steerability(
    before: Int32, after: Int32, wanted: Int64, attributes: Attributes, targets: Int32, k: int = 10
) -> Steer:
    """How far lists move to an attribute that an edit of the profile asks for, and what recall that costs.

    Args:
        before: int32 ``[R, K]``, item rows, best first, found by the profiles; -1 is padding.
        after: int32 ``[R, K']``, found by the edited ones.
        wanted: int64 ``[R]``, the attribute that each edit asks for.
        attributes: of the catalogue.
        targets: int32 ``[R]``, the items to be found; -1 where unknown.
        k: how many places count. A shorter list's share is of what it has; of an empty one it is 0.

    Raises:
        DataError: there are not as many of each.

    Example:
        With items 2 and 3 for camping, lists ``[[0, 2]]`` and ``[[2, 3]]``, target 0 and k = 2: before 1/2, after 1,
        moved 1/2, closed 1, lost 1.
    """
    for other, what in ((after, "lists after the edit"), (wanted, "attributes"), (targets, "targets")):
        _alike(before, other, what)
    masks = {int(number): attributes.has(int(number)) for number in np.unique(wanted)}
    shares = []
    for lists in (before, after):
        cut = np.asarray(lists)[:, :k]
        there = cut >= 0
        marks = [masks[int(number)][np.maximum(own, 0)] for number, own in zip(wanted, cut, strict=True)]
        hits = (np.array(marks, bool).reshape(cut.shape) & there).sum(axis=1)
        shares.append(hits / np.maximum(there.sum(axis=1), 1))
    hit = [(np.asarray(lists)[:, :k] == targets[:, None]).any(axis=1) for lists in (before, after)]
    lost = np.where(targets >= 0, hit[0].astype(np.float64) - hit[1], np.nan)
    return Steer(*(np.asarray(share, np.float64) for share in shares), lost)


def consistency(first: Int32, second: Int32, k: int = 10, p: float = 0.9) -> tuple[Float64, Float64]:
    """How alike the lists of two profiles of one user are: their overlap and rank-biased overlap, float64 ``[R]`` each.

    Args:
        first: int32 ``[R, K]``, item rows, best first; -1 is padding.
        second: int32 ``[R, K']``, of the same users.
        k: how many places count.
        p: see :func:`itemic.metrics.rbo`.

    Example:
        ``consistency([[1, 2]], [[2, 1]], k=2)`` is ``([1.0], [0.9])``.
    """
    return overlap(first, second, k), rbo(first, second, p, k)


@dataclass(frozen=True)
class Reading:
    """How long a text is and how easily it reads.

    Attributes:
        words: how many it has, in any script that parts words by blanks.
        sentences: how many.
        ease: Flesch's reading ease, about 0 (very hard) to 100 (very easy); NaN without English letters.
    """

    words: int
    sentences: int
    ease: float


def reading(profile: str) -> Reading:
    """Length and reading ease of a profile.

    Formula: ``206.835 - 1.015 · words / sentences - 84.6 · syllables / words``, over the words in Latin letters,
    meant for English. Syllables are counted by rule: groups of vowels, less a silent e at the end (but not after l
    behind a consonant, as in table), one at least.

    Source: Flesch, "A new readability yardstick", Journal of Applied Psychology 32(3), 1948.

    Example:
        "The cat sat on the mat." has 6 words of a syllable each in one sentence: ``206.835 - 6.09 - 84.6 = 116.145``.
    """
    lines = [line for line in sentences(profile) if _WORDS.search(line)]
    latin = _LATIN.findall(profile)
    ease = np.nan
    if latin:
        syllables = sum(map(count_syllables, latin))
        ease = 206.835 - 1.015 * len(latin) / max(len(lines), 1) - 84.6 * syllables / len(latin)
    return Reading(len(_WORDS.findall(profile)), len(lines), float(ease))


def count_syllables(word: str) -> int:
    """Syllables of an English word by rule: ``table`` 2, ``make`` 1, ``idea`` 2 (truly 3), ``rhythm`` 1 (truly 2)."""
    low = word.casefold()
    count = len(_VOWELS.findall(low))
    silent = re.search(r"[^aeiouy]e$", low) and not re.search(r"[^aeiouyl]le$", low)
    return max(1, count - bool(silent))


def _alike(profiles: Sequence[object] | Int32, others: object, what: str) -> None:
    count = len(others)  # type: ignore[arg-type]
    if count != len(profiles):
        raise DataError(
            f"{count} {what} beside {len(profiles)} profiles or lists", "Give one for each of the same users."
        )
