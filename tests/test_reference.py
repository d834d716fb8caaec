"""docs/reference.md says what the code says, and says of everything what it means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from itemic.data.readers import READERS
from itemic.recipe.schema import Recipe
from itemic.settings import keys_of
from itemic.sid.encoders import ENCODERS
from itemic.sid.quantizers import QUANTIZERS
from itemic.training.language.stage import Stage

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS / "tools"))
    import reference

    return reference


def test_the_page_is_what_the_code_says(tools: Any) -> None:
    assert (DOCS / "reference.md").read_text("utf-8") == tools.page(), "run `make reference`"


def test_every_key_says_what_it_means(tools: Any) -> None:
    assert not tools.unexplained()


def keys(table: Any) -> Iterator[str]:
    """All keys of a recipe, by way of its sections."""
    yield from keys_of(table)
    found = table.model_fields if issubclass(table, BaseModel) else table.__pydantic_fields__
    for kind in (field.annotation for field in found.values()):
        for each in (kind, *get_args(kind)):
            if isinstance(each, type) and (issubclass(each, BaseModel) or is_dataclass(each)):
                yield from keys(each)


def test_the_page_has_every_key_and_every_part(tools: Any) -> None:
    page = tools.page()
    for key in [*keys(Recipe), *(key.rpartition(".")[2] for key in Stage().flat())]:
        assert f"\n| `{key}` | " in page, key
    for name in [*READERS, *ENCODERS, *QUANTIZERS]:
        assert f"\n### `{name}`\n" in page


def test_meanings_are_read_from_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "tools"))
    from meanings import meanings, options_of

    def base(*, size: int = 3, name: str | None = None) -> None:
        """Do it.

        Args:
            size: of ``all`` of it, on
                two lines, see :func:`x.y`.
            name: as :class:`a.B` has names.

        Returns:
            size: nothing.
        """

    class Other:
        """As well.

        Args:
            size, name: as in ``base``.
        """

    for each in (base, Other):
        each.__module__ = "itemic.none"
    said = {"size": "of `all` of it, on two lines.", "name": "as `B` has names."}
    assert meanings(base, {}) == said
    assert meanings(Other, {"base": base}) == said
    rows = [(row.name, row.kind, row.default) for row in options_of(base)]
    assert rows == [("size", "whole number", "`3`"), ("name", "text or none", "none")]
