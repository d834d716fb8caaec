"""What the sequential teacher says to 100,000 control requests: histories, categories, shares, in process.

Seconds of the processor, over all its threads: others on the machine do not count.

    python benchmarks/control_labels.py [--quick]
"""

from __future__ import annotations

import time

import numpy as np
from common import Row, main

from itemic.control.labelling import Labeller
from itemic.control.labels import Labels
from itemic.control.want import PartOf, Want
from itemic.data.sequences import Requests
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.teacher.settings import SASRecSettings
from itemic.teacher.teacher import SHAPE, Teacher

SECONDS = 60.0
HOW = ("at most", "at least", "about")


def measure(quick: bool = False) -> list[Row]:
    count = 2_000 if quick else 100_000
    data = simulate(SimulatorConfig(users=3000, items=3000), 0).dataset
    labels = Labels.of(data)
    shape = {key: getattr(SASRecSettings(), key) for key in SHAPE} | {"inner": 256}
    teacher = Teacher.new(data.item_ids, shape)
    teacher.model.share.fill_(1 / len(data.item_ids))
    rng = np.random.default_rng(0)
    train = data.train
    user = rng.integers(len(train), size=count)
    histories = [train[u][:-1][-10:] for u in user.tolist()]
    first = np.array([train[u][-1] for u in user.tolist()], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in histories])]).astype(np.int64)
    requests = Requests(train.users[user], offsets, np.concatenate(histories), first, teacher.catalogue)
    rows: list[Row] = []
    for name in ("a category or none", "shares"):
        start = time.process_time()
        wants = []
        for number in range(count):
            label = labels.names[int(rng.integers(len(labels)))]
            size = int(rng.integers(1, 11))
            if name == "shares":
                part = PartOf(label, HOW[number % 3], int(rng.integers(0, 11)) / 10)
                wants.append(Want(count=10, shares=(part,)))
            elif number % 3 == 0:
                wants.append(Want(count=size))
            else:
                wants.append(Want(count=size, **{("wanted", "unwanted")[number % 3 - 1]: (label,)}))
        found = Labeller(teacher, labels, names=None, shorter=True)(requests, wants, first=first)
        seconds = (time.process_time() - start) * 100_000 / count
        assert all(
            terms.kept_by(items)
            for terms, items in zip(found.terms[::97], found.items[::97], strict=True)
            if terms is not None
        )
        told = f"100,000 requests of {name}, {len(data.item_ids):,} items"
        rows.append(Row(told, seconds, None, "CPU s", None, "≤ 60 s", seconds <= SECONDS))
    return rows


if __name__ == "__main__":
    main("Labels of control samples", measure, __doc__)
