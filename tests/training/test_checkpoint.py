from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from itemic.errors import ArtifactError
from itemic.training.checkpoint import Checkpoints, random_state, restore_random_state


def tensors(value: float, size: int = 4) -> dict[str, dict[str, torch.Tensor]]:
    return {"weights": {"w": torch.full((size,), value)}, "optimizer": {"w.step": torch.tensor(3.0)}}


def save(box: Checkpoints, step: int, *args: Any, **options: Any) -> None:
    box.save(step, *args, **options)
    box.finish()


def shard(box: Checkpoints, step: int) -> Path:
    (file,) = box.path(step).glob("*.safetensors")
    return file


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    box = Checkpoints(tmp_path)
    save(box, 7, tensors(1.5), {"place": {"step": 7}})
    assert box.latest() == 7
    found = box.load(7)
    assert found.state["place"] == {"step": 7}
    assert torch.equal(found.tensors["weights"]["w"], torch.full((4,), 1.5))
    assert found.tensors["optimizer"]["w.step"].shape == ()


def test_a_shard_is_plain_safetensors(tmp_path: Path) -> None:
    box = Checkpoints(tmp_path)
    save(box, 1, tensors(2.5), {})
    assert load_file(shard(box, 1))["weights/w"].tolist() == [2.5] * 4
    names = {path.suffix for path in box.path(1).iterdir()}
    assert names == {".safetensors", ".json"}  # nothing that has to be unpickled


def test_every_type_comes_back(tmp_path: Path) -> None:
    made = {
        "a": torch.arange(6, dtype=torch.uint8).view(2, 3),
        "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "c": torch.tensor(2**40, dtype=torch.int64),
        "d": torch.randn(3, 2, dtype=torch.float64).T,
    }
    box = Checkpoints(tmp_path)
    save(box, 1, {"optimizer": made}, {})
    found = box.load(1).tensors["optimizer"]
    assert {name: each.dtype for name, each in found.items()} == {
        name: each.dtype for name, each in made.items()
    }
    assert all(torch.equal(found[name], made[name]) for name in made)


def test_the_moment_of_the_call_is_what_is_saved(tmp_path: Path) -> None:
    weight = torch.zeros(200_000)
    box = Checkpoints(tmp_path)
    box.save(1, {"weights": {"w": weight}}, {})
    weight.fill_(1.0)  # training goes on while the file is written
    box.finish()
    assert not box.load(1).tensors["weights"]["w"].any()


def test_a_view_of_a_larger_matrix_is_saved_as_what_it_shows(tmp_path: Path) -> None:
    matrix = torch.arange(20.0).view(10, 2)
    box = Checkpoints(tmp_path)
    save(box, 1, {"weights": {"rows": matrix[4:6]}}, {})
    assert torch.equal(box.load(1).tensors["weights"]["rows"], matrix[4:6])


@pytest.mark.parametrize("harm", ["cut", "alter", "remove", "state"])
def test_a_damaged_checkpoint_is_passed_over_by_name(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    box = Checkpoints(tmp_path)
    save(box, 1, tensors(1.0), {})
    save(box, 2, tensors(2.0), {})
    file = box.path(2) / "state.json" if harm == "state" else shard(box, 2)
    data = bytearray(file.read_bytes())
    if harm == "remove":
        file.unlink()
    elif harm == "alter":
        data[-1] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING, "itemic"):
        assert box.latest() == 1
    assert "step-00000002" in caplog.text
    with pytest.raises(ArtifactError, match=r"step-00000002") as caught:
        box.load(2)
    assert "step-00000001 is the one before" in caught.value.remedy
    if harm in ("cut", "alter"):
        assert file.name in caught.value.message


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    box = Checkpoints(tmp_path)
    save(box, 1, tensors(1.0), {})
    with pytest.raises(ArtifactError, match=r"nothing for weights/other"):
        box.read(1, {"weights": {"other": torch.zeros(4)}})
    with pytest.raises(ArtifactError, match=r"shape \(4,\) for weights/w, .* \(3,\)"):
        box.read(1, {"weights": {"w": torch.zeros(3)}})


def test_prune_keeps_the_newest_and_what_they_need(tmp_path: Path) -> None:
    box = Checkpoints(tmp_path)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 6)):
        save(box, step, tensors(step), {}, needs=[best])
    (tmp_path / ".step-00000009.partial").mkdir()
    box.prune(2)
    assert box.steps() == [4, 5, 6]
    assert not list(tmp_path.glob(".*"))
    save(box, 7, tensors(7), {}, needs=[7], keep=1)
    assert box.steps() == [7]


def test_a_full_disk_leaves_the_earlier_checkpoint(small_disk: Path) -> None:
    box = Checkpoints(small_disk)
    save(box, 1, tensors(1.0, 100_000), {})
    box.save(2, tensors(2.0, 400_000), {})
    with pytest.raises(ArtifactError, match=r"disk is full; the checkpoint of step 1 is intact"):
        box.finish()
    assert box.latest() == 1
    assert not list(small_disk.glob(".*"))
    save(box, 2, tensors(2.0, 100_000), {})  # smaller, it fits: nothing of the failed one is in the way
    assert box.steps() == [1, 2]


def test_a_failed_write_is_told_at_the_next_save(small_disk: Path) -> None:
    box = Checkpoints(small_disk)
    box.save(1, tensors(2.0, 900_000), {})
    with pytest.raises(ArtifactError, match=r"disk is full; there is no earlier checkpoint"):
        box.save(2, tensors(1.0), {})


def test_another_error_is_not_hidden_by_a_failed_write(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Checkpoints(small_disk)

    def interrupted() -> None:
        with box.open():
            box.save(1, tensors(2.0, 900_000), {})
            raise KeyboardInterrupt

    with caplog.at_level(logging.ERROR, "itemic"), pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "the disk is full" in caplog.text


def test_random_states_come_back() -> None:
    state = random_state()
    legacy = np.random  # the global generator is what other libraries draw from
    first = (random.random(), legacy.rand(), torch.rand(2).tolist())
    restore_random_state(state)
    assert (random.random(), legacy.rand(), torch.rand(2).tolist()) == first
