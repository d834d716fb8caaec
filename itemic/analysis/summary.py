"""An analysis in words: for a console, and as a plain text file."""

from __future__ import annotations

from itemic.analysis.analysis import Analysis, Cause
from itemic.evaluate.report import Measure
from itemic.evaluate.tables import interval, short
from itemic.screen import Table, rendered
from itemic.text import shown

WORDS = {
    "cause": "cause",
    "coincidence": "coincidence: others explain it",
    "spared": "spared",
    "no difference": "no difference",
    "too few": "too few",
    "kind": "",
}


def head_table(analysis: Analysis) -> Table:
    """The figures at each cut."""
    cuts = sorted({int(name.partition("@")[2]) for name in analysis.metrics})
    split = f"{analysis.split} " if analysis.split else ""
    title = f"{analysis.name} on {analysis.dataset} · {analysis.requests:,} {split}requests"
    below = [f"intervals at {analysis.level:.0%}", *analysis.notes]
    table = Table(title=title, title_justify="left", caption="\n".join(below), caption_justify="left")
    table.add_column("")
    for cut in cuts:
        table.add_column(f"@{cut}", justify="right")
    for name in dict.fromkeys(name.partition("@")[0] for name in analysis.metrics):
        table.add_row(name.upper(), *(interval(analysis.metrics[f"{name}@{cut}"]) for cut in cuts))
    return table


def causes_table(analysis: Analysis) -> Table:
    """Patterns that bad and good cases may show, by what is at stake."""
    table = Table(
        title=f"Patterns · {analysis.bad:,} of {analysis.requests:,} cases are bad at {analysis.k}",
        title_justify="left",
    )
    for name in ("", "bad", "good", "lift", "odds", f"HR@{analysis.k}", "others", "at stake", ""):
        table.add_column(name, justify="left" if not name else "right")
    for one in analysis.causes:
        if one.about != "kind" and one.requests:
            cells = (short(one.share_bad, 3), short(one.share_good, 3), _ratio(one.lift), _ratio(one.odds))
            rates = (_value(one.hr), "" if one.hr_rest is None else short(one.hr_rest))
            style = "bold" if one.verdict == "cause" else "dim" if one.verdict == "too few" else None
            table.add_row(one.title, *cells, *rates, f"{one.at_stake:,.0f}", WORDS[one.verdict], style=style)
    return table


def kinds_table(analysis: Analysis) -> Table:
    """Kinds of bad cases. They overlap."""
    table = Table(title=f"Kinds of the {analysis.bad:,} bad cases (they overlap)", title_justify="left")
    for name in ("", "cases", "share", "of those that could be"):
        table.add_column(name, justify="right" if name else "left")
    for one in analysis.causes:
        if one.about == "kind" and one.bad:
            share = short(one.bad / max(analysis.bad, 1), 3)
            table.add_row(one.title, f"{one.bad:,}", share, short(one.share_bad, 3))
    return table


def levels_table(analysis: Analysis) -> Table:
    """Where semantic IDs go wrong."""
    table = Table(title="Levels of the semantic ID", title_justify="left")
    for name in ("level", "reached", "right", "given those before", "guessing", "first wrong here"):
        table.add_column(name, justify="right")
    for one in analysis.levels:
        share = short(one.right / one.reached, 3) if one.reached else ""
        cells = (f"{one.reached:,}", f"{one.right:,}", share, short(one.chance, 3), f"{one.first_wrong:,}")
        table.add_row(str(one.level), *cells)
    return table


def slices_table(analysis: Analysis, most: int = 8) -> Table:
    """How slices fare, the largest ones of each."""
    table = Table(title="Slices", title_justify="left")
    for name in ("", "", "requests", f"HR@{analysis.k}", f"NDCG@{analysis.k}", "bad, against the others"):
        table.add_column(name, justify="right" if name else "left")
    for name, parts in analysis.slices.items():
        for one in parts[:most]:
            ratio = "" if one.lift is None else short(one.lift, 2)
            table.add_row(name, one.value, f"{one.requests:,}", interval(one.hr), interval(one.ndcg), ratio)
        if len(parts) > most:
            table.add_row(name, f"… {len(parts) - most} more", "", "", "", "")
        table.add_section()
    return table


def beyond_table(analysis: Analysis) -> Table:
    """Figures beyond accuracy."""
    table = Table(title="Beyond accuracy", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in analysis.beyond.items():
        table.add_row(name, short(value))
    return table


def pairs_table(analysis: Analysis) -> Table:
    """Patterns that go together."""
    titles = {one.name: one.title for one in analysis.causes}
    table = Table(title="What goes together, among bad cases", title_justify="left")
    for name in ("", "", "both", "as often as by chance, times"):
        table.add_column(name, justify="right" if name else "left")
    for pair in analysis.pairs[:10]:
        table.add_row(titles[pair.first], titles[pair.second], f"{pair.both:,}", short(pair.lift, 1))
    return table


def tables(analysis: Analysis) -> list[Table]:
    """All that there is anything in."""
    found = [head_table(analysis), causes_table(analysis), kinds_table(analysis)]
    if analysis.levels:
        found.append(levels_table(analysis))
    if analysis.pairs:
        found.append(pairs_table(analysis))
    if analysis.beyond:
        found.append(beyond_table(analysis))
    return [*found, slices_table(analysis)]


def summary(analysis: Analysis) -> str:
    """The whole of it as plain text, with what each pattern means."""
    lines = [
        f"Why {analysis.name} fails: {analysis.bad:,} of {analysis.requests:,} requests lack their target "
    ]
    lines[0] += f"among the first {analysis.k} items."
    lines += [_said(one) for one in analysis.causes if one.verdict == "cause"]
    meant = [f"{one.title} ({one.name}): {one.definition}" for one in analysis.causes if one.requests]
    left = [f"{name}: not looked for; {why}." for name, why in analysis.absent.items()]
    parts = ["\n".join(lines), rendered(*tables(analysis)), "What the patterns mean", "\n".join(meant + left)]
    return shown("\n\n".join(parts), lines=True) + "\n"


def _said(one: Cause) -> str:
    rest = "" if one.hr_rest is None else f", the others {short(one.hr_rest)}"
    return (
        f"- {one.title}: {one.bad:,} bad cases ({one.share_bad:.1%} of them, {one.share_good:.1%} of the good ones). "
        f"They hit at {_value(one.hr)}{rest}: about {one.at_stake:,.0f} hits."
    )


def _ratio(measure: Measure | None) -> str:
    if measure is None:
        return ""
    return f"{short(measure.value, 2)} [{_end(measure.low)}, {_end(measure.high)}]"


def _end(value: float) -> str:
    return short(value, 2) if value < 1000 else "∞"


def _value(measure: Measure | None) -> str:
    return "" if measure is None else short(measure.value)
