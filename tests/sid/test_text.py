from __future__ import annotations

import pytest

from itemic.errors import ConfigError
from itemic.sid.text import clean, field_texts, item_texts
from tests.sid.helpers import make_dataset


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("Bath &amp; Body", "Bath & Body"),
        ("Bath &amp;amp; Body&#39;s", "Bath & Body's"),
        ("<p>Soft<br/>and  <b>warm</b></p>\n\t!", "Soft and warm !"),
        ("a &lt;b&gt;bold&lt;/b&gt; word", "a bold word"),
        ("for ages < 3 and > 5", "for ages < 3 and > 5"),
        ("size <3 & >5", "size <3 & >5"),
        ("", ""),
    ],
)
def test_clean(raw: str, plain: str) -> None:
    assert clean(raw) == plain


def test_item_texts_say_what_is_there() -> None:
    items = make_dataset(
        ["Soap &amp; Co", ""],
        brands=["", "Acme"],
        categories=[["Beauty", "Bath"], []],
        descriptions=["", "<i>x</i>"],
    ).items
    assert item_texts(items) == ["Title: Soap & Co\nCategories: Beauty > Bath", "Brand: Acme\nDescription: x"]
    assert item_texts(items, ["brand"]) == ["", "Brand: Acme"]
    assert field_texts(items, "categories") == ["Beauty > Bath", ""]


def test_unknown_fields_are_refused() -> None:
    items = make_dataset(["a"]).items
    with pytest.raises(ConfigError, match="no text field 'price'"):
        item_texts(items, ["price"])
    with pytest.raises(ConfigError, match="no column 'brand'"):
        field_texts(items.drop("brand"), "brand")
    with pytest.raises(ConfigError, match="no text field is named"):
        item_texts(items, [])
