"""itemic turns a catalogue and an interaction log into a language model that recommends.

    dataset = itemic.read("onerec-think", "data/beauty")  # or itemic.dataset(interactions, items)
    index = itemic.build_index(dataset, encoder="lsa", quantizer="rqkmeans", levels=[256] * 4)
    model = itemic.new_model("qwen3-nano", index)
    conversations = itemic.build_conversations(dataset, index, tasks=[{"task": "C"}])
    model = itemic.train(model, conversations, stage={"epochs": 3}, dataset=dataset)
    ranking = itemic.recommend(model, dataset.split("test"), beams=50)
    report = itemic.score(ranking, k=[1, 5, 10, 20])

Importing the package is instant: each name is imported from its room when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itemic.analysis.analysis import Analysis
    from itemic.analysis.causes import analyze
    from itemic.analysis.evidence import gather
    from itemic.data.dataset import Dataset
    from itemic.data.filters import apply_filters
    from itemic.data.frames import dataset
    from itemic.data.readers import read
    from itemic.data.settings import FilterRule, SimulatorConfig, SplitRule
    from itemic.data.simulator import simulate
    from itemic.errors import ItemicError
    from itemic.evaluate.baselines import ItemKNN, Popularity, Transitions
    from itemic.evaluate.blend import Blend
    from itemic.evaluate.compare import compare
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.recommend import recommend
    from itemic.evaluate.report import score
    from itemic.evaluate.stream import rank_all
    from itemic.model.build import new_model
    from itemic.model.expand import expand
    from itemic.model.model import Model
    from itemic.pipeline.run import Run
    from itemic.recipe.check import load_recipe
    from itemic.rl.run import Knows, train_rl
    from itemic.rl.settings import RLStage
    from itemic.sid.build import build_index, build_tokenizer, encode_items
    from itemic.sid.export import export_dataset
    from itemic.sid.index import ItemIndex
    from itemic.sid.published import import_index
    from itemic.sid.titles import TitleNames
    from itemic.sid.tokenizer import ItemTokenizer
    from itemic.tasks.build import build_conversations
    from itemic.teacher.run import train_teacher
    from itemic.teacher.teacher import Teacher
    from itemic.training.language.run import train
    from itemic.training.language.stage import Stage

_HOMES = {
    "Analysis": "itemic.analysis.analysis",
    "Blend": "itemic.evaluate.blend",
    "Dataset": "itemic.data.dataset",
    "FilterRule": "itemic.data.settings",
    "ItemIndex": "itemic.sid.index",
    "ItemKNN": "itemic.evaluate.item_knn",
    "ItemTokenizer": "itemic.sid.tokenizer",
    "ItemicError": "itemic.errors",
    "Knows": "itemic.rl.run",
    "Model": "itemic.model.model",
    "Popularity": "itemic.evaluate.baselines",
    "RLStage": "itemic.rl.settings",
    "Ranking": "itemic.evaluate.ranking",
    "Run": "itemic.pipeline.run",
    "SimulatorConfig": "itemic.data.settings",
    "SplitRule": "itemic.data.settings",
    "Stage": "itemic.training.language.stage",
    "TitleNames": "itemic.sid.titles",
    "Teacher": "itemic.teacher.teacher",
    "Transitions": "itemic.evaluate.baselines",
    "analyze": "itemic.analysis.causes",
    "apply_filters": "itemic.data.filters",
    "build_conversations": "itemic.tasks.build",
    "build_index": "itemic.sid.build",
    "build_tokenizer": "itemic.sid.build",
    "compare": "itemic.evaluate.compare",
    "encode_items": "itemic.sid.build",
    "dataset": "itemic.data.frames",
    "expand": "itemic.model.expand",
    "export_dataset": "itemic.sid.export",
    "gather": "itemic.analysis.evidence",
    "import_index": "itemic.sid.published",
    "load_recipe": "itemic.recipe.check",
    "new_model": "itemic.model.build",
    "rank_all": "itemic.evaluate.stream",
    "read": "itemic.data.readers",
    "recommend": "itemic.evaluate.recommend",
    "score": "itemic.evaluate.report",
    "simulate": "itemic.data.simulator",
    "train": "itemic.training.language.run",
    "train_rl": "itemic.rl.run",
    "train_teacher": "itemic.teacher.run",
}

__all__ = [
    "Analysis",
    "Blend",
    "Dataset",
    "FilterRule",
    "ItemIndex",
    "ItemKNN",
    "ItemTokenizer",
    "ItemicError",
    "Knows",
    "Model",
    "Popularity",
    "RLStage",
    "Ranking",
    "Run",
    "SimulatorConfig",
    "SplitRule",
    "Stage",
    "Teacher",
    "TitleNames",
    "Transitions",
    "analyze",
    "apply_filters",
    "build_conversations",
    "build_index",
    "build_tokenizer",
    "compare",
    "dataset",
    "encode_items",
    "expand",
    "export_dataset",
    "gather",
    "import_index",
    "load_recipe",
    "new_model",
    "rank_all",
    "read",
    "recommend",
    "score",
    "simulate",
    "train",
    "train_rl",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
