"""Both phases over sessions of a dataset, with a real encoder: rewards by hand, and a turn that is killed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import itemic
from itemic.errors import ConfigError
from itemic.profile.embedder import Embedder, item_vectors
from itemic.profile.phases import Ground, phases_of
from itemic.profile.rewards import Scorer, SessionScorer
from itemic.profile.session_settings import SessionSettings
from itemic.profile.sessions import Sessions
from itemic.profile.settings import EmbedderStage, RewardSettings
from itemic.profile.turn_settings import TurnSettings, WriterStage
from itemic.profile.turns import SessionProfiles, take_turns
from itemic.profile.words import ProfileWords, WordsSettings
from itemic.profile.writer import Writer
from itemic.sid.text import item_texts
from itemic.tasks.facts import ItemFacts
from tests.profile.test_turns import STAGE, arm
from tests.profile.writers import taught
from tests.sid.encoders.models import bert

TOLD = TurnSettings(iterations=1)


def grounds(writer: Writer) -> tuple[Ground, Ground, list[str]]:
    dataset = itemic.simulate(itemic.SimulatorConfig(users=60, items=40), seed=0).dataset
    sessions = Sessions.of(dataset, SessionSettings(inputs=2))
    words = ProfileWords(
        ItemFacts.of(dataset), WordsSettings(fields="titles", instruction="Had: ", max_tokens=110)
    )
    found = []
    for split in ("train", "valid"):
        own = sessions.split(split)
        found.append(Ground(own, words.prompts(own, writer.chat).tokens))
    return found[0], found[1], item_texts(dataset.items)


def run(start: dict[str, Path], folder: Path, die_at: tuple[str, int] | None = None) -> None:
    torch.set_num_threads(1)
    if die_at is not None:
        arm(*die_at)
    train, valid, texts = grounds(Writer.load(start["writer"]))
    embedder = EmbedderStage.of(
        {"steps": 4, "learning_rate": 1e-3, "checkpoints": {"every": 1}, "validation": {"every": 2}}
    )
    writer = WriterStage.of(STAGE | {"validation": {"every": 2, "requests": 5}})
    both = phases_of(train, texts, embedder=embedder, writer=writer, held=valid, turns=TOLD, count=20)
    take_turns(both, start, folder, settings=TOLD, seed=1)


def begin(folder: Path) -> dict[str, Path]:
    taught().save(folder / "writer")
    Embedder.load(str(bert(folder / "bert"))).save(folder / "embedder")
    return {"writer": folder / "writer", "embedder": folder / "embedder"}


@pytest.fixture(scope="module")
def context() -> Any:
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.profile.test_phases", "torch.utils.tensorboard"])
    return found


def test_a_turn_with_a_real_encoder_killed_in_each_phase(context: Any, tmp_path: Path) -> None:
    start = begin(tmp_path)

    def ended(folder: str, die_at: tuple[str, int] | None) -> int:
        child = context.Process(target=run, args=(start, tmp_path / folder, die_at))
        child.start()
        child.join()
        return int(child.exitcode)

    assert ended("whole", None) == 0
    assert ended("killed", ("update", 2)) < 0
    assert ended("killed", ("update", 4)) < 0
    assert ended("killed", None) == 0
    for name in ("writer", "embedder"):
        whole, killed, first = (
            (folder / "model.safetensors").read_bytes()
            for folder in (
                tmp_path / "whole" / "turn-000" / name,
                tmp_path / "killed" / "turn-000" / name,
                start[name],
            )
        )
        assert whole == killed
        assert whole != first


def test_rewards_are_the_targets_of_the_sessions_own(tmp_path: Path) -> None:
    """NDCG of the target in the whole catalogue, without the items of the session, counted by hand."""
    torch.set_num_threads(1)
    train, _, texts = grounds(taught())
    embedder = Embedder.load(str(bert(tmp_path / "bert")))
    scorer = Scorer(embedder, item_vectors(embedder, texts), RewardSettings())
    profiles, rows = ["likes blue things", "likes red"], np.array([5, 2])
    found = SessionScorer(scorer, train.sessions.targets, train.seen)(profiles, rows)
    items, own = embedder.encode(texts, "item"), embedder.encode(profiles, "profile")
    for number, session in enumerate(rows.tolist()):
        scores = (items @ own[number]).astype(np.float64)
        scores[train.sessions.inputs(session)] = -np.inf
        target = int(train.sessions.targets[session])
        rank = 1 + int((scores > scores[target]).sum())
        assert np.isfinite(scores[target])
        assert found[number] == pytest.approx(1 / np.log2(rank + 1), abs=0.02)
    told = SessionProfiles(np.array([4, 1, 3]), ("a", "", "c"), np.array([True, False, True]))
    written = train.sought.written(told)
    assert list(written.texts) == ["a", "c"]
    assert written.targets.tolist() == train.sessions.targets[[4, 3]].tolist()
    assert written.seen.items.tolist() == [*train.sessions.inputs(4), *train.sessions.inputs(3)]
    with pytest.raises(ConfigError, match="prompts for"):
        Ground(train.sessions, train.prompts.take(np.array([0])))
