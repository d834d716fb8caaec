"""Rankings, reports and comparisons; the baselines that every model has to beat.

Each name is imported when it is first used, so that settings are at hand without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itemic.evaluate.baselines import ItemKNN, Popularity, Transitions
    from itemic.evaluate.blend import Blend
    from itemic.evaluate.blend_choice import choose_blend
    from itemic.evaluate.compare import Comparison, Published, compare
    from itemic.evaluate.memory import Memory
    from itemic.evaluate.memory_choice import choose_memory
    from itemic.evaluate.paired import Difference, difference, differences
    from itemic.evaluate.ranking import Ranking, RankingArrays, RankingWriter
    from itemic.evaluate.recommend import ModelRanker, recommend
    from itemic.evaluate.report import Measure, Report, Slice, score
    from itemic.evaluate.settings import MemorySettings, ThinkingSettings
    from itemic.evaluate.stream import Ranker, Watch, rank_all
    from itemic.evaluate.tables import report_table, slice_table
    from itemic.evaluate.thinking import ThinkingRanker

_HOMES = {
    "Blend": "itemic.evaluate.blend",
    "Comparison": "itemic.evaluate.compare",
    "Difference": "itemic.evaluate.paired",
    "ItemKNN": "itemic.evaluate.item_knn",
    "Measure": "itemic.evaluate.report",
    "Memory": "itemic.evaluate.memory",
    "MemorySettings": "itemic.evaluate.settings",
    "ModelRanker": "itemic.evaluate.recommend",
    "Popularity": "itemic.evaluate.baselines",
    "Published": "itemic.evaluate.compare",
    "Ranker": "itemic.evaluate.stream",
    "Ranking": "itemic.evaluate.ranking",
    "RankingArrays": "itemic.evaluate.ranking",
    "RankingWriter": "itemic.evaluate.ranking",
    "Report": "itemic.evaluate.report",
    "Slice": "itemic.evaluate.report",
    "ThinkingRanker": "itemic.evaluate.thinking",
    "ThinkingSettings": "itemic.evaluate.settings",
    "Transitions": "itemic.evaluate.baselines",
    "Watch": "itemic.evaluate.stream",
    "choose_blend": "itemic.evaluate.blend_choice",
    "choose_memory": "itemic.evaluate.memory_choice",
    "compare": "itemic.evaluate.compare",
    "difference": "itemic.evaluate.paired",
    "differences": "itemic.evaluate.paired",
    "rank_all": "itemic.evaluate.stream",
    "recommend": "itemic.evaluate.recommend",
    "report_table": "itemic.evaluate.tables",
    "score": "itemic.evaluate.report",
    "slice_table": "itemic.evaluate.tables",
}

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
    "ThinkingRanker",
    "ThinkingSettings",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
