"""What goes to a screen: tables whose cells are text and never markup."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich import table
from rich.console import Console, RenderableType
from rich.text import Text

from itemic.text import shown

WIDE = 150  # columns where nobody's screen says how many


def plain(text: str, style: str = "") -> Text:
    """The text for rich as it is, on as many lines as it has; control codes are made visible."""
    return Text(shown(text, lines=True), style=style)


class Table(table.Table):
    """rich's table, to which every string is text: brackets are printed, nothing is a tag or an emoji."""

    def __init__(self, *headers: str, title: str | None = None, caption: str | None = None, **options: Any):
        super().__init__(
            *headers,
            title=None if title is None else plain(title, "table.title"),
            caption=None if caption is None else plain(caption, "table.caption"),
            **options,
        )

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:
        super().add_column(_cell(header), *arguments, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(None if cell is None else _cell(cell) for cell in cells), **options)


def _cell(cell: RenderableType) -> RenderableType:
    return Text(shown(cell)) if isinstance(cell, str) else cell


def rendered(*parts: RenderableType, width: int = WIDE) -> str:
    """Tables as plain text of at most ``width`` columns, for ``print``."""
    screen = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
    with screen.capture() as captured:
        for part in parts:
            screen.print(part)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
