"""Rankings, reports and comparisons; the baselines that every model has to beat."""

from __future__ import annotations

from itemic.evaluate.baselines import ItemKNN, Popularity, Transitions
from itemic.evaluate.blend import Blend, choose_blend
from itemic.evaluate.compare import Comparison, Published, compare
from itemic.evaluate.memory import Memory, MemorySettings
from itemic.evaluate.memory_choice import choose_memory
from itemic.evaluate.paired import Difference, difference, differences
from itemic.evaluate.ranking import Ranking, RankingArrays, RankingWriter
from itemic.evaluate.recommend import ModelRanker, recommend
from itemic.evaluate.report import Measure, Report, Slice, score
from itemic.evaluate.stream import Ranker, Watch, rank_all
from itemic.evaluate.tables import report_table, slice_table

__all__ = [
    "Blend",
    "Comparison",
    "Difference",
    "ItemKNN",
    "Measure",
    "Memory",
    "MemorySettings",
    "ModelRanker",
    "Popularity",
    "Published",
    "Ranker",
    "Ranking",
    "RankingArrays",
    "RankingWriter",
    "Report",
    "Slice",
    "Transitions",
    "Watch",
    "choose_blend",
    "choose_memory",
    "compare",
    "difference",
    "differences",
    "rank_all",
    "recommend",
    "report_table",
    "score",
    "slice_table",
]
