"""What pages are made of: tables, and charts with their legends."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One figure of a table; ``aside`` stands in brackets after it, ``best`` makes it bold."""

    text: str
    aside: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One row of a table; ``start`` draws a rule above it."""

    name: str
    cells: list[Cell]
    start: bool = False


@dataclass(frozen=True)
class Grid:
    head: list[str]
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a line, or a filled box where ``opacity`` is given."""

    name: str
    colour: int = 1
    dash: str = ""
    opacity: float | None = None


@dataclass(frozen=True)
class Figure:
    """A chart (an SVG element as :mod:`itemic.page.svg` draws it) with what a reader needs to understand it."""

    title: str
    text: str
    svg: str
    legend: list[Key] = field(default_factory=list)
