"""Rankings, reports and comparisons; the baselines that every model has to beat."""

from __future__ import annotations

from itemic.evaluate.baselines import Popularity, Transitions
from itemic.evaluate.compare import Comparison, Published, compare, difference, slice_table
from itemic.evaluate.ranking import Ranking, RankingArrays, RankingWriter
from itemic.evaluate.recommend import ModelRanker, recommend
from itemic.evaluate.report import Measure, Report, Slice, score
from itemic.evaluate.stream import Ranker, Watch, rank_all

__all__ = [
    "Comparison",
    "Measure",
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
    "compare",
    "difference",
    "rank_all",
    "recommend",
    "score",
    "slice_table",
]
