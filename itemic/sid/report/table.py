"""A report on a console."""

from __future__ import annotations

from itemic.screen import Table
from itemic.sid.report.records import SidFindings


def report_table(report: SidFindings) -> Table:
    """One column a level, one row a figure; collisions and notes below."""
    sizes = " × ".join(str(size) for size in report.sizes)
    table = Table(
        title=f"{report.name} · {sizes}", caption="\n".join(_caption(report)), caption_justify="left"
    )
    table.add_column("")
    for level in range(len(report.levels)):
        table.add_column(f"level {level + 1}", justify="right")
    levels, prefixes = report.levels, report.prefixes
    table.add_row("codes used", *(f"{level.used:,} of {level.size:,}" for level in levels))
    table.add_row("perplexity", *(f"{level.perplexity:,.1f}" for level in levels))
    table.add_row("Gini of usage", *(f"{level.gini:.3f}" for level in levels))
    table.add_row("largest over mean", *(f"{level.max_over_mean:.2f}" for level in levels))
    if any(level.error is not None for level in levels):
        table.add_row("relative error", *(share(level.error) for level in levels))
    table.add_section()
    table.add_row("branching, mean", *(f"{level.branching.mean:,.2f}" for level in levels))
    table.add_row("branching, largest", *(f"{level.branching.largest:,}" for level in levels))
    table.add_row("only one code follows", *(f"{level.branching.single:.1%}" for level in levels))
    table.add_section()
    table.add_row("prefixes of this length", *(f"{prefix.groups:,}" for prefix in prefixes))
    table.add_row("largest group", *(f"{prefix.largest:,}" for prefix in prefixes))
    for depth in range(report.depths):
        found = [prefix.purity[depth] for prefix in prefixes]
        label = f"purity, category depth {found[0].depth}"
        table.add_row(label, *(f"{part.purity:.3f} ({part.chance:.3f})" for part in found))
        table.add_row("  NMI", *(f"{part.information:.3f} ({part.information_chance:.3f})" for part in found))
    if report.neighbours:
        found_at = [prefix.recall for prefix in prefixes]
        cells = (f"{part.found:.3f} ({part.chance:.3f})" if part else "" for part in found_at)
        table.add_row(f"recall of {report.neighbours['k']} neighbours", *cells)
    return table


def share(value: float | None) -> str:
    """A share with four decimals, nothing where it is unknown."""
    return "" if value is None else f"{value:.4f}"


def _caption(report: SidFindings) -> list[str]:
    found = report.collisions
    lines = [
        f"{found.items:,} items, {found.sids:,} semantic IDs: collision rate {found.rate:.2%}, "
        f"{found.collided:,} items share theirs, {found.largest:,} at most"
    ]
    if found.texts is not None:
        lines.append(
            f"{found.duplicates:,} items have the text of another one; collision rate without them "
            f"{found.duplicate_rate:.2%}; {found.collided_by_duplicates:,} items collide with duplicates alone"
        )
    if report.depths or report.neighbours:
        lines.append("In brackets: random groups of the same sizes.")
    return lines + report.notes
