"""What a writer writes, against transformers' own generation and forward passes; and what can't be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import itemic
from itemic.errors import DataError, ModelError
from itemic.forest.rows import TokenRows
from itemic.profile.turn_settings import Drawing
from itemic.profile.writer import Writer
from tests.profile.writers import messages, prompts, taught, untaught


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_most_probable_profiles_are_those_of_generate() -> None:
    writer = taught()
    asked = prompts(writer, 4)
    profiles = writer.write(asked, Drawing(max_new_tokens=12), greedy=True)
    for row in range(4):
        ids = torch.from_numpy(asked[row].astype(np.int64))[None]
        out = writer.lm.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        assert profiles.tokens[row].tolist() == out[0, ids.shape[1] :].tolist()
        text = writer.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert profiles.texts[row] == text.strip()
        assert profiles.texts[row].startswith("likes ")
    assert profiles.ended.all()
    assert not profiles.empty.any()
    assert profiles.usable.all()
    assert all(profiles.tokens[row][-1] in writer.ends for row in range(4))


def test_a_profile_is_its_user_s_and_its_seed_s_alone() -> None:
    writer = taught()
    asked, told = prompts(writer, 5), Drawing(samples=3, max_new_tokens=12, temperature=1.5, top_p=0.95)
    together = writer.write(asked, told, [7, 8, 9, 10, 11])
    alone = writer.write(asked.take(np.array([3])), told, [10])
    assert alone.texts == together.texts[9:12]
    assert len(set(together.texts)) > 3
    np.testing.assert_allclose(
        alone.log_probs,
        together.log_probs[together.tokens.offsets[9] : together.tokens.offsets[12]],
        atol=1e-5,
    )


def test_log_probabilities_are_the_model_s_own() -> None:
    """At temperature 1 without filters, whatever the profiles were drawn by."""
    writer = taught()
    asked = prompts(writer, 2)
    profiles = writer.write(asked, Drawing(samples=2, max_new_tokens=8, temperature=2.0, top_k=20), 3)
    for number in range(4):
        own, before = profiles.tokens[number].tolist(), asked[number // 2].tolist()
        with torch.no_grad():
            logits = writer.lm(torch.tensor([before + own]), use_cache=False).logits[0].log_softmax(-1)
        wanted = [float(logits[len(before) + at - 1, token]) for at, token in enumerate(own)]
        first = profiles.tokens.offsets[number]
        np.testing.assert_allclose(profiles.log_probs[first : first + len(own)], wanted, atol=1e-4)


def test_cut_and_empty_profiles_are_told_apart() -> None:
    writer = taught()
    asked = prompts(writer, 3)
    short = writer.write(asked, Drawing(samples=2, max_new_tokens=2), 0)
    assert not short.ended.any()
    assert not short.usable.any()
    assert all(short.texts)
    begin = int(
        writer.write(asked.take(np.array([0])), Drawing(max_new_tokens=1), greedy=True).tokens.tokens[0]
    )
    silent = taught()
    silent.__dict__["ends"] = (begin,)  # its first word is the end
    nothing = silent.write(asked.take(np.array([0])), Drawing(max_new_tokens=5), greedy=True)
    assert nothing.texts == ("",)
    assert nothing.ended.all()
    assert nothing.empty.all()
    assert not nothing.usable.any()
    assert "1 empty" in repr(nothing)


def test_what_can_t_be_written() -> None:
    writer = taught()
    long = TokenRows.of([[5] * 3, [5] * 40])
    with pytest.raises(DataError, match=r"prompt 1 has .* tokens; with 100 of a profile .* room for 28"):
        writer.write(long, Drawing(max_new_tokens=100))
    assert len(writer.write(prompts(writer, 2).take(np.zeros(0, np.int64)), Drawing(max_new_tokens=4))) == 0
    mute = untaught()
    mute.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="template"):
        mute.prompts(messages(1))


def test_folders_of_writers_and_of_models_that_speak_items(tmp_path: Path) -> None:
    writer = taught()
    writer.save(tmp_path / "plain")
    again = Writer.load(tmp_path / "plain")
    told = Drawing(max_new_tokens=10)
    assert again.write(prompts(again, 2), told, 1).texts == writer.write(prompts(writer, 2), told, 1).texts
    assert again.ends == writer.ends
    assert "Writer qwen3" in repr(again)
    dataset = itemic.simulate(itemic.SimulatorConfig(users=20, items=30), seed=0).dataset
    index = itemic.build_index(dataset, levels=[8, 8])
    itemic.new_model("qwen3-pico", index, ["a shop"], vocab_size=300).save(tmp_path / "items")
    Writer.load(tmp_path / "items").save(tmp_path / "items again")
    assert itemic.Model.load(tmp_path / "items again").index.digest == index.digest
