"""The data stream alone (reading, tokenising, shuffling, packing) against the model that eats it, in tokens a second.

The conversations are those of task C on Amazon Scientific at every split point, as Parquet files. The stream's clock
starts at its first step, when the processes are up, and what its buffer holds by then is not counted. The model's rate
is what its own training logs on the same stream, first steps left out; it gets all threads. Both are wall time.

    python benchmarks/stream.py [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from common import Row, main, shared_data

import itemic
from itemic.data.dataset import Dataset
from itemic.model import Model
from itemic.sid.index import ItemIndex
from itemic.sid.published import import_index
from itemic.tasks import prompt_words
from itemic.tasks.conversation import Conversations
from itemic.training.language.feed import Feed
from itemic.training.language.rows import training_rows
from itemic.training.language.stage import Stage, StageData
from itemic.training.language.stream import KeptRows
from itemic.training.settings import CheckpointSettings, LogSettings

WORKERS = (0, 1, 2)
DATA = StageData(stream=True, tokens_per_step=16_384, block_tokens=4096, shuffle_buffer=1024)


def prepare(folder: Path, quick: bool) -> tuple[Dataset, ItemIndex, Path]:
    """Conversations in files of 1,000 rows, about as OpenOneRec's are."""
    dataset = itemic.read("letter", shared_data() / "scientific")
    published = sorted((shared_data() / "scientific" / "index").glob("*.index.json"))[0]
    index = import_index(dataset, published, format="minionerec")
    task = {"task": "C", "windows": ["all"]} | ({"limit": 3000} if quick else {})
    table = itemic.build_conversations(dataset, index, [task]).read()
    (folder / "conversations").mkdir()
    for number, part in enumerate(table.iter_slices(1000)):
        part.write_parquet(folder / "conversations" / f"part-{number:05d}.parquet")
    return dataset, index, folder / "conversations"


def model_of(preset: str, dataset: Dataset, index: ItemIndex) -> Model:
    return itemic.new_model(preset, index, dataset.items["title"].to_list(), corpus=prompt_words(), seed=0)


def feed_of(model: Model, conversations: Path, workers: int, epochs: int) -> Feed:
    stage = Stage(epochs=epochs, data=replace(DATA, workers=workers))
    encode = partial(model.chat.encode_table, supervise="all")
    return Feed(conversations, encode, stage, encoder="benchmark")


def stream_rate(feed: Feed) -> tuple[float, float, float]:
    """Row tokens and forest tokens a second, and how full the blocks are."""
    stream = feed.steps()
    next(stream)
    started = time.perf_counter()
    tokens, rows, blocks, seconds = 0, 0, 0, 0.0
    for step in stream:
        tokens, rows, blocks = (
            tokens + step.sizes.tokens,
            rows + step.sizes.counts["row_tokens"],
            blocks + len(step.blocks),
        )
        seconds = time.perf_counter() - started  # here, so that the processes' end isn't measured
    read = feed.lanes.groups.total * int(feed.stage.epochs or 1)
    share = (1 - feed.stage.data.shuffle_buffer / read) / seconds
    return rows * share, tokens * share, tokens / (blocks * feed.stage.data.planned_block)


def model_rate(model: Model, conversations: Path, steps: int) -> tuple[float, float]:
    """Row tokens and forest tokens a second of training."""
    logs, checkpoints = LogSettings(every=steps // 2), CheckpointSettings(every=0)
    stage = Stage(steps=steps, data=DATA, logs=logs, checkpoints=checkpoints)
    with tempfile.TemporaryDirectory() as folder:
        itemic.train(model, conversations, stage=stage, output=folder)
        lines = (Path(folder) / "log.jsonl").read_text("utf-8").splitlines()
    last = json.loads(lines[-1])
    return last["row_tokens_per_second"], last["tokens_per_second"]


def kept_share(feed: Feed, conversations: Path) -> tuple[float, float]:
    """Row tokens per forest token and block fill where all rows are packed at once, for comparison."""
    encode, length = feed.lanes.encode, feed.stage.data.max_length
    rows = training_rows(
        Conversations.open(conversations).read(), encode, encoder="benchmark", max_length=length
    )
    kept = KeptRows(rows, replace(feed.stage, epochs=1))
    found = [step for step, _ in zip(kept.steps(), range(kept.total_steps()), strict=False)]
    tokens = sum(step.sizes.tokens for step in found)
    blocks = sum(len(step.blocks) for step in found)
    return sum(step.sizes.counts["row_tokens"] for step in found) / tokens, tokens / (
        blocks * feed.stage.data.planned_block
    )


def measure(quick: bool) -> list[Row]:
    lines, counts = [], (0, 2) if quick else WORKERS
    with tempfile.TemporaryDirectory() as scratch:
        dataset, index, conversations = prepare(Path(scratch), quick)
        model = model_of("qwen3-pico", dataset, index)
        rates = {}
        for workers in counts:
            feed = feed_of(model, conversations, workers, epochs=2 if quick else 6)
            rates[workers], forest, fill = stream_rate(feed)
            lines.append(_line(f"stream, {workers} processes: row tokens", rates[workers]))
            lines.append(_line(f"stream, {workers} processes: forest tokens", forest))
        share, kept_fill = kept_share(feed, conversations)
        ours = rates[counts[-1]] / forest
        lines.append(
            Row("row tokens per forest token, peer: kept rows", ours, share, "", ours / share, None, None)
        )
        lines.append(Row("block fill, peer: kept rows", fill, kept_fill, "", fill / kept_fill, None, None))
        for preset in ("qwen3-pico",) if quick else ("qwen3-pico", "qwen3-nano"):
            fresh = model_of(preset, dataset, index)
            eaten, _ = model_rate(fresh, conversations, 4 if quick else 30)
            for workers in counts:
                ratio = rates[workers] / eaten
                name = f"stream, {workers} processes, against {preset}'s training"
                lines.append(Row(name, rates[workers], eaten, "tokens/s", ratio, "≥ 10 ×", ratio >= 10))
    return lines


def _line(name: str, value: float) -> Row:
    return Row(name, value, None, "tokens/s", None, None, None)


if __name__ == "__main__":
    main("The data stream alone, Amazon Scientific, task C", measure, __doc__)
