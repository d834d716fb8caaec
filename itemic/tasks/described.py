"""What a history shows of a taste, counted, and sentences that say it truly, in several wordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from itemic.tasks.facts import ItemFacts

LIKED = 3.0  # stars, at least; what has none counts as liked
MOST = 6  # categories or brands that a profile names
NOTHING = "Nothing is known of this person's taste yet."

# of each thing that a history can show some ways to say it; {what} is what it shows
_WORDINGS: dict[str, tuple[str, ...]] = {
    "categories": (
        "This person likes {what}.",
        "Their taste is for {what}.",
        "They are mostly interested in {what}.",
        "What they look for is {what}.",
    ),
    "favourite": (
        "Most of all they choose {what}.",
        "Their clear favourite is {what}.",
        "Again and again it is {what}.",
    ),
    "brands": (
        "They choose items by {what}.",
        "They trust in {what}.",
        "What they pick is made by {what}.",
    ),
    "loyal": (
        "They come back to {what}.",
        "They are loyal to {what}.",
        "More than once they went for {what}.",
    ),
    "price low": ("They pay little.", "They look for low prices.", "They buy at the cheap end."),
    "price middle": ("They pay middling prices.", "Their prices are in the middle."),
    "price high": ("They pay a lot for it.", "High prices don't put them off.", "They buy at the dear end."),
    "content": ("They are content with what they get.", "They rate highly."),
    "critical": ("They are hard to please.", "They rate strictly."),
    "latest": (
        "Of late they turn to {what}.",
        "Their latest interest is {what}.",
        "Last they went for {what}.",
    ),
}


@dataclass(frozen=True)
class Taste:
    """What a history shows.

    Attributes:
        categories: the finest categories of what was liked, the most frequent first, of equals the earliest.
        brands: its brands, in the same order.
        favourite: the category that more than half of two or more items have, if any.
        loyal: brands that came twice or more.
        latest: categories of the latest liked item that is of another category than the ones before it; else empty.
        price: ``low``, ``middle`` or ``high``; None where nobody knows.
        rating: the mean rating of all items; NaN where there is none.
    """

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    favourite: str | None = None
    loyal: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()
    price: str | None = None
    rating: float = np.nan


def taste_of(items: Sequence[int], ratings: Sequence[float], facts: ItemFacts) -> Taste:
    """What a history shows, counted.

    Items with less than 3 stars are not liked: their categories and brands aren't told, unless nothing is liked.

    Args:
        items: rows, oldest first.
        ratings: of each, NaN where there is none.
        facts: of the catalogue.
    """
    liked = [row for row, stars in zip(items, ratings, strict=True) if not stars < LIKED] or list(items)
    finest = [facts.finest(row) for row in liked]
    categories, brands = _counted(finest), _counted([facts.brands[row]] for row in liked)
    most = next(iter(categories.items()), None)
    earlier = {name for own in finest[:-1] for name in own}
    latest = tuple(name for name in finest[-1] if name not in earlier) if len(liked) > 1 else ()
    known = [stars for stars in ratings if not np.isnan(stars)]
    return Taste(
        categories=tuple(categories)[:MOST],
        brands=tuple(brands)[:MOST],
        favourite=most[0] if most and most[1] > 1 and most[1] * 2 > len(liked) else None,
        loyal=tuple(name for name, count in brands.items() if count > 1)[:MOST],
        latest=latest[:MOST],
        price=facts.price_level(np.asarray(liked, np.int64)),
        rating=float(np.mean(known)) if known else np.nan,
    )


def _counted(names: Iterable[Iterable[str]]) -> dict[str, int]:
    counts = Counter(name for own in names for name in own if name)
    return dict(counts.most_common())  # equals in the order in which they came


def described(taste: Taste, seed: int | Sequence[int] = 0) -> str:
    """A profile that says of a taste what it shows, in wordings drawn by the seed.

    Every category and brand in it is one of the history's, and it has all of them, up to six of each.
    """
    rng = np.random.default_rng(seed)
    said = {
        "categories": _joined(taste.categories),
        "favourite": taste.favourite,
        "brands": _joined(taste.brands),
        "loyal": _joined(taste.loyal),
        "latest": _joined(taste.latest),
        f"price {taste.price}": taste.price,
        "content": "ratings" if taste.rating >= 4 else None,
        "critical": "ratings" if taste.rating < LIKED else None,
    }
    if len(taste.categories) == 1:
        said["favourite"] = None  # it has been said
    if taste.loyal == taste.brands:
        said["brands"] = None
    there = [kind for kind, what in said.items() if what]
    if not there:
        return NOTHING
    first, rest = there[:1], there[1:]
    order = [*first, *(rest[at] for at in rng.permutation(len(rest)))]
    told = []
    for kind in order:
        wordings = _WORDINGS[kind]
        told.append(wordings[int(rng.integers(len(wordings)))].replace("{what}", said[kind] or ""))
    return " ".join(told)


def _joined(names: Sequence[str]) -> str:
    """``("a", "b", "c")`` → ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def taste_of_rows(items: npt.NDArray[np.integer], facts: ItemFacts) -> Taste:
    """The same as :func:`taste_of` where nothing is known of ratings."""
    return taste_of(items.tolist(), [np.nan] * len(items), facts)
