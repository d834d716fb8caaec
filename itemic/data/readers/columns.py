"""Which column of a table plays which part: named by options, or told from the names that are usual."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from itemic import schema as c
from itemic.errors import ConfigError, DataError

USER: Final = "user"
ITEM: Final = "item"
EVENT_ROLES: Final = (USER, ITEM, c.TIMESTAMP, c.RATING, c.REVIEW)
ITEM_ROLES: Final = (ITEM, c.TITLE, c.DESCRIPTION, c.BRAND, c.CATEGORIES, c.TAGS, c.PRICE)
# role → groups of usual names, as `plain` writes them; the first group that fits counts
USUAL: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    USER: (
        ("userid", "user", "uid", "userno", "username"),
        ("customerid", "customer", "custid", "reviewerid", "visitorid", "visitor", "clientid", "memberid"),
        ("member", "client", "buyerid", "buyer", "accountid", "account", "profileid", "personid", "viewerid"),
        ("sessionid", "session", "cookieid", "deviceid"),
    ),
    ITEM: (
        ("itemid", "item", "iid", "itemno"),
        ("parentasin",),
        ("productid", "product", "asin", "sku", "articleid", "article", "movieid", "movie", "bookid", "isbn"),
        ("book", "trackid", "track", "songid", "song", "artistid", "videoid", "video", "newsid", "gameid"),
        ("productcode", "stockcode", "gmapid", "businessid", "recipeid", "animeid", "appid", "contentid"),
    ),
    c.TIMESTAMP: (
        ("timestamp", "ts", "unixtime", "unixtimestamp", "eventtime", "timestampms", "unixreviewtime"),
        ("time", "datetime", "eventtimestamp", "eventdate", "createdat", "created", "ratedat", "reviewtime"),
        ("date", "when", "day", "orderdate", "orderedat", "purchasedate", "invoicedate", "tdat", "visitdate"),
    ),
    c.RATING: (("rating", "ratings", "overall"), ("score", "stars", "star", "starrating", "rate")),
    c.REVIEW: (("review", "reviewtext", "reviewbody"), ("text", "comment")),
    c.TITLE: (
        ("title", "itemtitle", "itemname", "productname", "producttitle", "movietitle", "booktitle"),
        ("name", "prodname", "trackname", "songname", "articletitle", "headline", "label"),
    ),
    c.DESCRIPTION: (
        ("description", "desc", "itemdescription", "productdescription", "detaildesc"),
        ("overview", "about", "abstract", "plot", "body"),
    ),
    c.BRAND: (("brand", "brandname"), ("store", "manufacturer", "vendor", "maker", "publisher")),
    c.CATEGORIES: (
        ("categories", "categorypath", "categorypaths"),
        ("category", "categoryname", "class"),
        ("maincategory", "department", "departmentname", "producttype", "producttypename"),
    ),
    c.TAGS: (("tags",), ("genres", "genre", "keywords", "labels", "tag")),
    c.PRICE: (("price",), ("listprice", "unitprice", "saleprice", "currentprice")),
}
Names = Mapping[
    str, str | bool | None
]  # role → column that an option names; False for none, None for a guess
_ID_ALONE: Final = "id"  # says "item" in a table of items and nothing anywhere else


def plain(name: str) -> str:
    """``"User-ID"`` → ``"userid"``; RecBole's ``"user_id:token"`` loses its type."""
    return re.sub(r"[^a-z0-9]", "", name.partition(":")[0].lower())


def is_id(name: str) -> bool:
    """Whether a column is called just "id"."""
    return plain(name) == _ID_ALONE


def is_usual(name: str) -> bool:
    """Whether a column's name tells its part in a table."""
    return any(plain(name) in group for groups in USUAL.values() for group in groups)


@dataclass(frozen=True)
class Columns:
    """Who plays which part in one table.

    Attributes:
        named: role → column.
        guessed: the roles that were told from the names of the columns.
        others: the columns without a part.
    """

    named: Mapping[str, str]
    guessed: tuple[str, ...]
    others: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"{role} = {column}" for role, column in self.named.items())


def choose_columns(
    header: Sequence[str],
    roles: Sequence[str],
    given: Names,
    where: str,
    *,
    like: str | None = None,
) -> Columns:
    """Find the columns of ``roles`` in a table.

    Args:
        header: the table's columns.
        roles: the parts to fill; those that no column fits are left out.
        given: role → column that an option names, False for none, None or no entry for a guess.
        where: the table's name for messages.
        like: what the table of interactions calls the item, which is the item's column here too where it is there.

    Raises:
        ConfigError: an option names a column that the table lacks.
        DataError: two columns fit a role equally well.
    """
    named: dict[str, str] = {}
    guessed = []
    for role in roles:
        option = given.get(role)
        if option is False:
            continue
        if isinstance(option, str):
            named[role] = _named(header, option, role, where)
        elif role == ITEM and like in header:
            named[role] = str(like)
        elif found := _guess(
            header, role, where, taken=[*named.values(), *_strings(given)], alone=USER not in roles
        ):
            named[role] = found
            guessed.append(role)
    return Columns(named, tuple(guessed), tuple(name for name in header if name not in named.values()))


def fits(header: Sequence[str], roles: Iterable[str], given: Names) -> bool:
    """Whether a table has a column for each of some roles."""
    return all(
        given[role] in header
        if given.get(role)
        else any(plain(name) in group for group in USUAL[role] for name in header)
        for role in roles
    )


def _strings(given: Names) -> list[str]:
    return [value for value in given.values() if isinstance(value, str)]


def _named(header: Sequence[str], option: str, role: str, where: str) -> str:
    if option not in header:
        raise ConfigError(
            f"{where} lacks the column {option!r} that {role} names; it has {', '.join(header) or 'none'}",
            f"Set {role} to one of these.",
        )
    return option


def _guess(header: Sequence[str], role: str, where: str, taken: Sequence[str], *, alone: bool) -> str | None:
    groups = (*USUAL[role], (_ID_ALONE,)) if role == ITEM and alone else USUAL[role]
    for group in groups:
        found = [name for name in header if plain(name) in group and name not in taken]
        if len(found) > 1:
            raise DataError(
                f"{where} has several columns that may be the {role}: {', '.join(found)}",
                f"Name the right one with the option {'items_key' if alone and role == ITEM else role}.",
            )
        if found:
            return found[0]
    return None
