"""An embedder and a writer in turns; killed in any phase they end with the weights of a run that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from itemic.errors import ArtifactError
from itemic.profile import turns
from itemic.profile.rollout import ProfileRoller
from itemic.profile.turn_settings import Drawing, TurnSettings, WriterStage
from itemic.profile.turns import EmbedderPhase, WriterPhase, take_turns, write_profiles
from itemic.profile.writer import Writer
from itemic.training import checkpoint
from itemic.training.ranks import Ranks
from tests.profile.bags import Bag, learn_bag, users_of
from tests.profile.writers import prompts, taught

STAGE: dict[str, Any] = {
    "steps": 4,
    "learning_rate": 1e-3,
    "rollout": {"samples": 3, "max_new_tokens": 8, "epochs": 2},
    "objective": {"name": "rebel", "rebel": {"kl": 0.1}},
    "data": {"prompts_per_step": 6},
    "checkpoints": {"every": 1},
    "optimizer": {"ema": 0.5},
    "examples": 0,
}
TOLD = TurnSettings(iterations=2)


def begin(folder: Path) -> dict[str, Path]:
    taught().save(folder / "writer")
    Bag().save(folder / "embedder")
    return {"writer": folder / "writer", "embedder": folder / "embedder"}


def phases(start: Any, told: TurnSettings = TOLD, **keys: Any) -> list[Any]:
    writer = Writer.load(start["writer"])
    asked = prompts(writer, 20)
    return [
        EmbedderPhase(learn_bag, {"steps": 6}, asked, drawing=Drawing(max_new_tokens=8), count=16),
        WriterPhase(WriterStage.of(STAGE | keys), users_of(writer), told),
    ]


def run(start: Any, folder: Path, die_at: tuple[str, int] | None = None, told: TurnSettings = TOLD) -> None:
    torch.set_num_threads(1)
    if die_at is not None:
        arm(*die_at)
    take_turns(phases(start, told), start, folder, settings=told, seed=3)


def arm(where: str, count: int) -> None:
    """Kill this process at the n-th call of something."""
    left = [count]

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    if where == "profiles":  # half of those that an embedder's phase writes are on the disk
        turns.CHUNK = 5
        Writer.write = counted(Writer.write)  # type: ignore[method-assign]
    elif where == "rollout":  # the profiles are written, and not yet learned from
        ProfileRoller._numbers = counted(ProfileRoller._numbers)  # type: ignore[method-assign]
    elif where == "update":
        torch.optim.AdamW.step = counted(torch.optim.AdamW.step)  # type: ignore[method-assign]
    elif where == "record":  # a phase is done, and nobody has noted it
        turns.write_json = counted(turns.write_json)
    else:
        checkpoint._flush = counted(checkpoint._flush)


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.profile.test_turns", "torch.utils.tensorboard"])
    return found


def test_killed_in_every_phase(context: Any, tmp_path: Path) -> None:
    start = begin(tmp_path / "begin")

    def ended(folder: str, die_at: tuple[str, int] | None) -> int:
        child = context.Process(target=run, args=(start, tmp_path / folder, die_at))
        child.start()
        child.join()
        return int(child.exitcode)

    assert ended("whole", None) == 0
    kills = [
        (("profiles", 2), 0),
        (("update", 3), 0),  # the embedder's phase
        (("flush", 5), 0),
        (("record", 0), 0),
        (("rollout", 0), 1),  # the writer's
        (("update", 1), 1),
        (("flush", 4), 1),
        (("record", 0), 1),
        (("profiles", 1), 2),  # the second turn
        (("rollout", 1), 3),
    ]
    noted = tmp_path / "killed" / "turns.json"
    for where, phases_done in kills:
        assert ended("killed", where) == -signal.SIGKILL, where
        done = json.loads(noted.read_text())["done"] if noted.exists() else []
        assert len(done) == phases_done, where
    assert ended("killed", None) == 0
    whole, killed = (
        (
            Bag.load(tmp_path / name / "turn-001" / "embedder"),
            Writer.load(tmp_path / name / "turn-001" / "writer"),
        )
        for name in ("whole", "killed")
    )
    assert torch.equal(whole[0].letters, killed[0].letters)
    mine, theirs = whole[1].lm.state_dict(), killed[1].lm.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    first = Writer.load(start["writer"]).lm.state_dict()
    assert any(not torch.equal(mine[name], first[name]) for name in mine)
    assert not torch.equal(whole[0].letters, Bag().letters)
    record = json.loads((tmp_path / "whole" / "turns.json").read_text())
    assert record["done"] == [f"turn-00{turn}/{name}" for turn in (0, 1) for name in ("embedder", "writer")]
    # of the first turn the record stays and the weights don't
    old = tmp_path / "whole" / "turn-000" / "writer"
    assert (old / "training.json").exists()
    assert not list(old.glob("*.safetensors"))


def test_more_turns_go_on_and_other_settings_are_refused(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    start = begin(tmp_path / "begin")
    one, every = TurnSettings(iterations=1, keep="all"), TurnSettings(iterations=2, keep="all")
    run(start, tmp_path / "steps", told=one)
    run(start, tmp_path / "steps", told=every)
    run(start, tmp_path / "once", told=every)
    found = [
        Writer.load(tmp_path / name / "turn-001" / "writer").lm.state_dict() for name in ("steps", "once")
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    Writer.load(tmp_path / "once" / "turn-000" / "writer")
    with pytest.raises(ArtifactError, match="turns of other settings"):
        take_turns(phases(start, every, learning_rate=1e-2), start, tmp_path / "once", settings=every, seed=3)
    with pytest.raises(ArtifactError, match="turns of other settings"):
        take_turns(phases(start, every), start, tmp_path / "once", settings=every, seed=4)


def test_later_turns_are_kept_near_to_the_first_writer(tmp_path: Path) -> None:
    """The second turn begins away from it, under ``phase`` at its own reference."""
    torch.set_num_threads(1)
    start, apart = begin(tmp_path / "begin"), {}
    for reference in ("first", "phase"):
        told = TurnSettings(iterations=2, reference=reference)  # type: ignore[arg-type]
        take_turns(phases(start, told, logs={"every": 1}), start, tmp_path / reference, settings=told)
        for turn in (0, 1):
            log = (tmp_path / reference / f"turn-00{turn}" / "writer" / "log.jsonl").read_text().splitlines()
            first = next(line for line in map(json.loads, log) if "kl" in line)
            apart[reference, turn] = abs(first["kl"])
    assert apart["first", 0] < 1e-4
    assert apart["phase", 1] < 1e-4
    assert apart["first", 1] > 1e-3


def test_profiles_are_written_once_and_by_all_ranks_alike(tmp_path: Path) -> None:
    writer = taught()
    asked, sessions, told = prompts(writer, 9), np.array([8, 1, 3, 4, 0]), Drawing(max_new_tokens=8)
    file = tmp_path / "profiles.jsonl"
    whole = write_profiles(writer, asked, sessions, told, 5, file)
    assert whole.sessions.tolist() == sessions.tolist()
    assert len(file.read_text().splitlines()) == 6
    lines = file.read_text(encoding="utf-8").split("\n")
    changed = json.dumps(json.loads(lines[1]) | {"text": "kept as it is \u2028 and \x85"}, ensure_ascii=False)
    file.write_text("\n".join([lines[0], changed, lines[2], lines[3][:7]]), encoding="utf-8")
    again = write_profiles(writer, asked, sessions, told, 5, file)
    assert again.texts == ("kept as it is \u2028 and \x85", *whole.texts[1:])

    class Other(Ranks):
        """One of two ranks that share the work, who hears what the other would have said."""

        def gather(self, value: Any) -> list[Any]:
            theirs = write_profiles(writer, asked, sessions[1 - self.rank :: 2], told, 5, tmp_path / "theirs")
            other = [
                {"session": int(session), "text": text, "usable": bool(usable)}
                for session, text, usable in zip(theirs.sessions, theirs.texts, theirs.usable, strict=True)
            ]
            return [value, other] if self.rank == 0 else [other, value]

        def share(self, value: Any) -> Any:
            return value

    both = write_profiles(writer, asked, sessions, told, 5, tmp_path / "two", ranks=Other(rank=0, size=2))
    assert both.digest == whole.digest
    with pytest.raises(ArtifactError, match="another writer"):
        write_profiles(writer, asked, sessions, told, 6, file)
