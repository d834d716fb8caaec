"""A comparison as tables: for a screen, for a document, for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from itemic.analysis.comparison.versus import Contrast, Cost, Example, Pair, Versus
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, short
from itemic.screen import Table
from itemic.text import markdown

MARK = "*"
MARKED = f"{MARK} the difference is shown after correction for all slices."


@dataclass(frozen=True)
class Sheet:
    """A table of text, with what to say below it. A row whose first cell is empty belongs to the one above."""

    title: str
    head: list[str]
    rows: list[list[str]]
    below: list[str]

    def table(self) -> Table:
        table = Table(
            title=self.title,
            title_justify="left",
            caption="\n".join(self.below) or None,
            caption_justify="left",
        )
        for number, name in enumerate(self.head):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [f"| {' | '.join(map(markdown, self.head))} |", "|---|" + "---:|" * (len(self.head) - 1)]
        lines += [f"| {' | '.join(map(markdown, row))} |" for row in self.rows]
        return (
            "\n\n".join([f"**{markdown(self.title)}**", "\n".join(lines), *map(markdown, self.below)]) + "\n"
        )


def sheets(versus: Versus) -> list[Sheet]:
    """All tables of a comparison: differences and slices of each pair, cost, and what is beyond accuracy."""
    found = [sheet for pair in versus.pairs for sheet in (_metrics(pair), _slices(pair)) if sheet.rows]
    return [sheet for sheet in (*found, _costs(versus), _beyond(versus)) if sheet.rows]


def document(versus: Versus) -> str:
    """The tables, examples and notes as Markdown."""
    parts = [sheet.markdown() for sheet in sheets(versus)]
    for pair in versus.pairs:
        for title, examples in told(pair):
            lines = [f"- {markdown(line)}" for example in examples for line in described(example, pair)]
            parts.append("\n".join([f"**{markdown(title)}**", "", *lines]) + "\n")
    return "\n".join([*parts, *(markdown(note) + "\n" for note in versus.notes)])


def told(pair: Pair) -> list[tuple[str, list[Example]]]:
    """Wins and losses with their titles, where there are examples."""
    first, second = f"{pair.first} (first)", f"{pair.second} (second)"
    groups = [(pair.wins, first, second, pair.won), (pair.losses, second, first, pair.lost)]
    return [
        (f"{count:,} requests that {one} hits at {pair.k} and {other} doesn't; some of them", examples)
        for count, one, other, examples in groups
        if examples
    ]


def described(example: Example, pair: Pair, longest: int = 10_000) -> list[str]:
    """An example in one line for each of what was asked and what was answered; titles cut to ``longest`` letters."""

    def titles(names: Sequence[str], between: str) -> str:
        cut = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]
        return between.join(cut) or "nothing"

    history, target = titles(example.history, " → "), titles([example.target], "")
    return [
        f"user {example.user}: {history} ⇒ {target}",
        f"{pair.first}, {place(example.first_rank)}: {titles(example.first_listed, ' · ')}",
        f"{pair.second}, {place(example.second_rank)}: {titles(example.second_listed, ' · ')}",
    ]


def last_step(value: str) -> str:
    """The end of a category's path, which tells it apart where space is short."""
    return value.rpartition(" > ")[2]


def place(rank: int) -> str:
    return f"place {rank}" if rank else "not found"


def probability(p: float) -> str:
    """``"<.001"``, ``".012"``, ``"1"``."""
    return "<.001" if p < 0.001 else "1" if p > 0.9995 else short(p, 3)


def costs(cost: Cost) -> list[str]:
    """Tokens, time and parameters as text, empty where not known."""
    seconds = "" if cost.seconds is None else f"{cost.seconds:,.0f}"
    return [_large(cost.tokens), seconds, _large(cost.parameters)]


def _metrics(pair: Pair) -> Sheet:
    exact = any(one.mcnemar for one in pair.metrics)
    head = ["", pair.first, pair.second, "difference", "p", "corrected", "verdict"]
    rows = [
        [
            one.metric.upper(),
            short(one.first),
            short(one.second),
            _difference(one),
            probability(one.gain.p),
            probability(one.corrected),
            one.verdict,
            *([_exact(one)] if exact else []),
        ]
        for one in pair.metrics
    ]
    hits = f"At {pair.k} {pair.first} alone hits {pair.wins:,} requests, {pair.second} alone {pair.losses:,}"
    alike = [f"{name.partition('@')[0]} {value:.2f}" for name, value in pair.agreement.items()]
    lists = f"; their lists: {', '.join(alike)}" if alike else ""
    if max(pair.seeds) > 1:
        hits += " (under the first seed of each)"
    seeds = f" · {pair.seeds[0]} and {pair.seeds[1]} seeds" if max(pair.seeds) > 1 else ""
    return Sheet(
        f"{pair.first} minus {pair.second}, paired by request{seeds}",
        [*head, "McNemar: alone, p"] if exact else head,
        rows,
        [*(one.words for one in pair.metrics if one.verdict == "no difference shown"), f"{hits}{lists}."],
    )


def _slices(pair: Pair) -> Sheet:
    columns = list(dict.fromkeys(part.metric for parts in pair.slices.values() for part in parts))
    rows = []
    for name, parts in pair.slices.items():
        values = list(dict.fromkeys(part.value for part in parts))
        for value in values:
            found = {part.metric: part for part in parts if part.value == value}
            one = next(iter(found.values()))
            cells = []
            for column in columns:
                gain, mark = found[column].gain, found[column].verdict != "no difference shown"
                cells.append(
                    f"{interval(Measure(gain.value, gain.low, gain.high))}{' ' + MARK if mark else ''}"
                )
            rows.append([f"{name}: {last_step(value)}", f"{one.requests:,}", *cells])
    title = f"{pair.first} minus {pair.second}, by slice"
    return Sheet(title, ["", "requests", *(column.upper() for column in columns)], rows, [MARKED])


def _costs(versus: Versus) -> Sheet:
    main = list(versus.standings[0].metrics)[-1]
    if versus.pairs:
        mains = [name for name in versus.standings[0].metrics if name.endswith(f"@{versus.pairs[0].k}")]
        main = mains[-1] if mains else main
    rows = [
        [one.name, str(one.seeds), interval(one.metrics[main]), *costs(one.cost)]
        for one in versus.standings
        if one.cost != Cost()
    ]
    head = ["", "seeds", main.upper(), "tokens trained on", "seconds of training", "parameters"]
    return Sheet("Cost beside quality", head, rows, ["Of one seed: means, where there are several."])


def _beyond(versus: Versus) -> Sheet:
    figures = list(dict.fromkeys(name for one in versus.standings for name in one.beyond))
    rows = [[name, *(_figure(one.beyond.get(name)) for one in versus.standings)] for name in figures]
    stable = list(dict.fromkeys(name for one in versus.standings for name in one.stability))
    rows += [
        [f"{name} between seeds", *(_figure(one.stability.get(name)) for one in versus.standings)]
        for name in stable
    ]
    return Sheet("Beyond accuracy", ["", *(one.name for one in versus.standings)], rows, [])


def _difference(one: Contrast) -> str:
    return interval(Measure(one.gain.value, one.gain.low, one.gain.high))


def _exact(one: Contrast) -> str:
    found = one.mcnemar
    return "" if found is None else f"{found.only_first:,} : {found.only_second:,}, {probability(found.p)}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.1f}"
        if abs(value) >= 10
        else short(value)
        if abs(value) >= 0.001 or not value
        else f"{value:.2g}"
    )


def _large(count: int | None) -> str:
    if count is None:
        return ""
    for power, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= power:
            return f"{count / power:.3g} {unit}"
    return str(count)


def screen(versus: Versus) -> Sequence[Table]:
    """The tables for the console."""
    return [sheet.table() for sheet in sheets(versus)]
