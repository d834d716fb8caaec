"""Why a run's rankings fail, or those of any other system whose items and requests are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from itemic import schema as c
from itemic.errors import ConfigError, DataError
from itemic.pipeline.recommend import open_run
from itemic.pipeline.steps import last_stage, task_of
from itemic.pipeline.work import TRAINED

if TYPE_CHECKING:
    from itemic.analysis import Analysis, Evidence, Found, Thresholds
    from itemic.analysis.evidence import Int32
    from itemic.data.dataset import Dataset
    from itemic.evaluate.ranking import Ranking
    from itemic.sid.names import ItemNames

EVALUATE = "evaluate"


@dataclass(frozen=True)
class Source:
    """What is analysed.

    Attributes:
        ranking: whose lists.
        dataset: whose requests.
        names: what the items are called; None where nothing says.
        run: the folder of the run; None for a ranking of its own.
    """

    ranking: Ranking
    dataset: Dataset
    names: ItemNames | None
    run: Path | None


def source_of(
    path: str | Path,
    *,
    ranker: str = TRAINED,
    dataset: str | Path | None = None,
    index: str | Path | None = None,
    split: str = c.TEST,
) -> Source:
    """Find what a path names.

    Args:
        path: a run's folder, a ranking's, or a table of recommendations that another system made.
        ranker: of a run: ``model``, a baseline, or another folder below ``evaluate``.
        dataset: of a ranking or table: its dataset, or a run's folder that has it.
        index: of a ranking or table: its index, or a run's or a model's folder that has it; None for none.
        split: of a table: whose requests it answers.

    Raises:
        DataError: it is nothing of these, or there is no such ranker.
        ConfigError: a ranking or table without a dataset.
    """
    from itemic.data import Dataset
    from itemic.evaluate.ranking import HEAD, Ranking
    from itemic.sid.kinds import load_names

    root = Path(path)
    if (root / EVALUATE).is_dir():
        rankers = sorted(each.parent.name for each in (root / EVALUATE).glob(f"*/{HEAD}"))
        if ranker not in rankers:
            raise DataError(
                f"{root} has no ranking {ranker!r}", f"It has {', '.join(rankers) or 'none yet'}."
            )
        data = Dataset.load(root / "data")
        return Source(Ranking.load(root / EVALUATE / ranker), data, load_names(root / "index"), root)
    if dataset is None:
        raise ConfigError(
            f"{root} is not the folder of a run", "Give --dataset with whose requests it answers."
        )
    data = Dataset.load(_inside(Path(dataset), "data"))
    if root.is_dir():
        ranking = Ranking.load(root)
    else:
        from itemic.evaluate.foreign import read_recommendations

        ranking = read_recommendations(root, data, split)
    return Source(
        ranking, data, None if index is None else load_names(_inside(Path(index), "index", "sid")), None
    )


def analyze_source(
    source: Source,
    *,
    k: int = 10,
    thresholds: Thresholds | None = None,
    detectors: Sequence[str] | None = None,
    tables: Sequence[str | Path] = (),
    ask_model: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Evidence, Analysis, dict[str, Found]]:
    """Gather the evidence, ask the model where that is wanted, and analyse.

    Args:
        source: what to look at.
        k: how many places count as shown.
        thresholds: where patterns begin.
        detectors: names of those to ask; None for all.
        tables: files to slice by.
        seed: of samples and intervals.
        level: of the intervals.
        ask_model: for how many bad cases the model is asked what it thinks of the target itself; 0 for none.

    Raises:
        ConfigError: the model is to be asked, and the ranking isn't that of a run's model.
    """
    from itemic.analysis import analyze, gather
    from itemic.analysis.beyond import beyond

    evidence = gather(source.ranking, source.dataset, k=k, codes=_codes(source), excluded=_excluded(source))
    if ask_model:
        evidence = _with_model(source, evidence, ask_model, seed)
    analysis, found = analyze(
        evidence, thresholds, detectors=detectors, tables=tables, seed=seed, level=level
    )
    return evidence, replace(analysis, beyond=beyond(evidence)), found


def _inside(folder: Path, *names: str) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def _codes(source: Source) -> Int32 | None:
    from itemic.sid.index import ItemIndex

    names = source.names
    if names is None:
        return None
    names.check_dataset(source.dataset)
    return names.codes if isinstance(names, ItemIndex) else None


def _excluded(source: Source) -> bool | None:
    if source.run is None:
        return None
    return open_run(source.run).recipe.evaluate.exclude_history


def _with_model(source: Source, evidence: Evidence, most: int, seed: int) -> Evidence:
    from itemic.analysis.forced import force
    from itemic.pipeline.rankings import Rankers

    if source.run is None or source.ranking.folder.name != TRAINED:
        raise ConfigError(
            f"the lists in {source.ranking.folder} are not those of a run's model",
            "Ask the model about a run's own ranking: leave --ranker away.",
        )
    job = open_run(source.run)
    task = task_of(job.recipe, job.recipe.evaluate.task)
    model = Rankers(last_stage(job.recipe), task, job, source.dataset).model
    return replace(evidence, forced=force(model, evidence, most, seed))
