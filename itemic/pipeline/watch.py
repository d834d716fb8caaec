"""An evaluation seen from outside: its numbers, table and samples in the trackers, its answers in the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from itemic.pipeline.step import Job
from itemic.progress import log
from itemic.recipe.trackers import evaluation_trackers
from itemic.trackers import Trackers, open_trackers

if TYPE_CHECKING:
    from itemic.data.dataset import Dataset
    from itemic.data.sequences import Requests
    from itemic.evaluate.compare import Comparison
    from itemic.evaluate.ranking import Ranking
    from itemic.evaluate.report import Report
    from itemic.evaluate.stream import Watch

STEP = "evaluate"  # whose run the trackers show


@dataclass(frozen=True)
class Watching:
    """A ranking that is watched."""

    job: Job
    requests: Requests
    names: Sequence[str]
    trackers: Trackers

    @property
    def watch(self) -> Watch:
        """What :func:`itemic.evaluate.stream.rank_all` tells on its way."""
        from itemic.evaluate.predictions import answers
        from itemic.evaluate.stream import Watch

        split = self.job.recipe.evaluate.split

        def interim(done: int, numbers: Mapping[str, float]) -> None:
            self.trackers.write(done, {f"{split} so far/{key}": value for key, value in numbers.items()})

        def answered(requests: Requests, items: object, scores: object) -> None:
            for text in answers(requests, items, scores, self.names):  # type: ignore[arg-type]
                log.info("%s", text)

        return Watch(interim, answered if self.job.recipe.evaluate.verbose else None)

    def samples(self, ranking: Ranking) -> None:
        """Some requests with titles, as a table of the trackers."""
        from itemic.evaluate.predictions import SAMPLE_COLUMNS, sample_predictions

        rows = sample_predictions(ranking, self.requests, self.names, self.job.recipe.evaluate.samples)
        self.trackers.table(len(self.requests), "predictions", SAMPLE_COLUMNS, rows)


@contextmanager
def watching(job: Job, dataset: Dataset, requests: Requests) -> Iterator[Watching]:
    """Watch the step ``evaluate``."""
    from itemic.data.names import names_of

    config = job.recipe.evaluate.model_dump(mode="json", exclude={"published", "trackers"})
    with open_trackers(evaluation_trackers(job.recipe), job.output, config) as trackers:
        yield Watching(job, requests, names_of(dataset.items), trackers)


def publish(job: Job, reports: Sequence[Report], table: Comparison) -> None:
    """The final numbers of the model with their intervals, and the table with baselines, into the same run."""
    model = reports[0]
    numbers = {f"{model.split}/{key}": measure.value for key, measure in model.item.items()}
    for key, measure in model.item.items():
        numbers |= {f"{model.split}/{key} low": measure.low, f"{model.split}/{key} high": measure.high}
    numbers |= {f"{model.split}/{key}": value for key, value in model.exposure.items()}
    names, run = evaluation_trackers(job.recipe), job.made(STEP)
    with open_trackers(names, job.output, run=run) as trackers:
        trackers.write(model.requests, numbers)
        trackers.table(model.requests, "comparison", ["", *table.columns], table.cells())
