"""A report on semantic IDs: what was found, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from itemic.screen import Table, rendered
from itemic.sid.report.page import report_page
from itemic.sid.report.records import SidFindings
from itemic.sid.report.table import report_table


@dataclass(frozen=True, repr=False)
class SidReport(SidFindings):
    """The quality of semantic IDs, for the console and as a page; its fields are those of what was found."""

    def __str__(self) -> str:
        return rendered(self.table())

    def table(self) -> Table:
        """For the console."""
        return report_table(self)

    def html(self) -> str:
        """One page that needs nothing else: no scripts, fonts or pictures from elsewhere."""
        return report_page(self)
