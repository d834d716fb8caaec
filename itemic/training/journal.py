"""The log of a run: JSON lines, trackers, a bar where somebody looks and plain lines where nobody does.

Every line of ``log.jsonl`` has ``step`` (optimizer steps done) and ``epoch`` (data gone through, in epochs),
and either the numbers of training since the line before:

- ``loss``: mean cross-entropy in nats per weighted token (per row under the ``row`` normalizer);
- ``loss/text``, ``loss/itemic``, ``loss/level 1`` …, ``loss/frame``: the same of text, of the index's tokens, of
  the codes of a level, of what stands around them; ``loss/source C``: of the rows of a source (where there are
  several);
- ``lr``: the learning rate of the last step;
- ``grad_norm``: the mean norm of the gradient before clipping;
- ``tokens``: forest tokens computed since the run began; ``row_tokens``: what the same rows hold without
  sharing;
- ``targets``: weighted tokens learned from since the run began;
- ``tokens_per_second``, ``row_tokens_per_second``: both over wall time, validations and checkpoints left out;
- ``block_fill``: forest tokens by what full blocks would hold, the rest is what packing wastes;
- ``target_share``: weighted tokens by forest tokens;
- ``teraflops``: FLOPs a second of the model's own formulas (:mod:`itemic.training.language.flops`); ``mfu``: their
  share of the device's peak, where the table has the device;
- ``memory_gb``: the most memory in use so far, of the GPU or else of the process;

or those of a validation, whose names begin with ``valid/`` (``valid/hr@10``, ``valid/ndcg@10``: hit rate and
NDCG on the sampled requests; ``valid/seconds``), or ``samples``: prompts with the model's greedy answers and
what it recommends, which trackers show as a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from itemic.artifact import write_text
from itemic.progress import log, progress_bar
from itemic.trackers import Trackers, open_trackers

# told of every line: the stage's name, how far it is on its way (0 to 1), and the line's values
Listener = Callable[[str, float, Mapping[str, Any]], None]
_listeners: list[Listener] = []
LINES = 10  # that a stage shows of its losses at most, and of its validations
READ = ("step", "epoch", "loss", "lr", "tokens_per_second", "memory_gb")
Config = Mapping[str, Any]


class Journal:
    """Where a run's numbers go. Lines later than the step it starts at are removed: they will come again."""

    def __init__(
        self,
        folder: Path | None,
        step: int,
        bar: Any,
        trackers: Trackers | None = None,
        total: int = 0,
        shown: bool = True,
        name: str = "",
    ) -> None:
        self.name = name
        self._bar, self._shown, self._trackers = bar, shown, trackers or Trackers()
        self._total = total
        self._told = dict.fromkeys(("loss", "valid"), self._tenth(step))  # up to where lines were shown
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "log.jsonl"
            _cut(path, step)
            self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """One line; numbers and samples go to the trackers too."""
        line = {"step": step, "epoch": round(epoch, 4), **values}
        if self._file is not None:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        numbers = {
            key if "/" in key else f"train/{key}": value
            for key, value in values.items()
            if isinstance(value, int | float)
        }
        self._trackers.write(step, numbers)
        if samples := values.get("samples"):
            self._trackers.table(step, "samples", list(samples[0]), [list(each.values()) for each in samples])
        kind = "loss" if "loss" in values else "valid"
        bar = sys.stderr.isatty() and kind == "loss"  # which shows the loss anyhow
        if self._shown and not bar and self._tenth(step) > self._told[kind]:
            self._told[kind] = self._tenth(step)
            log.info("%s", _human(line))
        for listener in _listeners:
            listener(self.name, min(step / self._total, 1.0) if self._total else 0.0, values)

    def _tenth(self, step: int) -> int:
        """Which tenth of all steps a step ends; where their number isn't known each counts as one."""
        return step * LINES // self._total if self._total else step

    def show(self, text: str) -> None:
        self._bar.describe(text)

    def advance(self) -> None:
        self._bar.advance()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def journal(
    folder: Path | None,
    name: str,
    step: int,
    total: int,
    *,
    trackers: Sequence[str] = (),
    config: Config | None = None,
    shown: bool = True,
) -> Iterator[Journal]:
    """A journal with a bar of ``total`` steps, ``step`` of them done; trackers are told ``config``. Where it isn't
    ``shown`` there is neither bar nor line."""
    with ExitStack() as stack:
        opened = None
        if folder is not None:
            opened = stack.enter_context(open_trackers(trackers, folder, config, step=step))
        bar = stack.enter_context(progress_bar(name, total, shown))
        bar.advance(step)
        book = Journal(folder, step, bar, opened, total, shown, name)
        try:
            yield book
        finally:
            book.close()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block the listener is told what journals of this process write; what it raises ends the training,
    whose checkpoints stay."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _cut(path: Path, step: int) -> None:
    """Drop lines after ``step``, and a last line that was cut off by a kill."""
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))


def _human(line: dict[str, Any]) -> str:
    """What a person reads of a line; the file and the trackers have the rest."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in line.items()}
    return "  ".join(f"{key} {value}" for key, value in shown.items() if key in READ or "@" in key)
