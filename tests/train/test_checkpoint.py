from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from itemic.errors import ArtifactError
from itemic.train.checkpoint import Checkpoints, random_state, restore_random_state


def tensors(value: float, size: int = 4) -> dict[str, dict[str, torch.Tensor]]:
    return {"weights": {"w": torch.full((size,), value)}, "optimizer": {"w.step": torch.tensor(3.0)}}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    box = Checkpoints(tmp_path)
    box.save(7, tensors(1.5), {"place": {"step": 7}})
    found = box.latest()
    assert found is not None
    assert found.step == 7
    assert found.state["place"] == {"step": 7}
    assert torch.equal(found.tensors["weights"]["w"], torch.full((4,), 1.5))
    assert found.tensors["optimizer"]["w.step"].shape == ()


def test_a_view_of_a_larger_matrix_is_saved_as_what_it_shows(tmp_path: Path) -> None:
    matrix = torch.arange(20.0).view(10, 2)
    box = Checkpoints(tmp_path)
    box.save(1, {"weights": {"rows": matrix[4:6]}}, {})
    assert torch.equal(box.load(1).tensors["weights"]["rows"], matrix[4:6])


@pytest.mark.parametrize("harm", ["cut", "alter", "remove", "state"])
def test_a_damaged_checkpoint_is_passed_over_by_name(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    box = Checkpoints(tmp_path)
    box.save(1, tensors(1.0), {})
    box.save(2, tensors(2.0), {})
    file = box.path(2) / ("state.json" if harm == "state" else "weights.safetensors")
    data = bytearray(file.read_bytes())
    if harm == "remove":
        file.unlink()
    elif harm == "alter":
        data[-1] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING, "itemic"):
        found = box.latest()
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text


def test_prune_keeps_the_newest_and_what_they_need(tmp_path: Path) -> None:
    box = Checkpoints(tmp_path)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 6)):
        box.save(step, tensors(step), {}, needs=[best])
    (tmp_path / ".step-00000009.partial").mkdir()
    box.prune(2)
    assert box.steps() == [4, 5, 6]
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_the_earlier_checkpoint(small_disk: Path) -> None:
    box = Checkpoints(small_disk)
    box.save(1, tensors(1.0, 100_000), {})
    with pytest.raises(ArtifactError, match=r"disk is full; the checkpoint of step 1 is intact"):
        box.save(2, tensors(2.0, 400_000), {})
    found = box.latest()
    assert found is not None
    assert found.step == 1
    assert not list(small_disk.glob(".*"))
    box.save(2, tensors(2.0, 100_000), {})  # smaller, it fits: nothing of the failed one is in the way
    assert box.steps() == [1, 2]


def test_random_states_come_back() -> None:
    state = random_state()
    legacy = np.random  # the global generator is what other libraries draw from
    first = (random.random(), legacy.rand(), torch.rand(2).tolist())
    restore_random_state(state)
    assert (random.random(), legacy.rand(), torch.rand(2).tolist()) == first
