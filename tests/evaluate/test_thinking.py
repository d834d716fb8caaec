"""Rankings behind thoughts, against all items under all thoughts by plain forward passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.data.settings import SimulatorConfig
from itemic.data.simulator import simulate
from itemic.decode import BeamSearch, FreeText, Sampler, ThoughtSearch
from itemic.errors import ArtifactError, ConfigError
from itemic.evaluate import ModelRanker, Ranking, ThinkingRanker, ThinkingSettings, rank_all
from itemic.evaluate.thinking import read_thoughts, seed_of, thoughts_note
from itemic.forest.rows import TokenRows
from itemic.model import Model, new_model
from itemic.model.expand import expand
from itemic.model.think import thought_tokens
from itemic.sid.index import ItemIndex
from itemic.sid.trie import Trie
from itemic.tasks.asking import ask_alike
from tests.model.helpers import family_folder

TINY = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 32}
ITEMS = 30
TOLD = ThinkingSettings(count=3, max_tokens=5)
BREAK = "\n\n"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    config = SimulatorConfig(users=30, items=ITEMS, categories=6, brands=6, shortest=4, longest=8)
    return simulate(config, seed=0).dataset


@pytest.fixture(scope="module")
def index(dataset: Dataset) -> ItemIndex:
    rows = np.arange(ITEMS)
    codes = np.stack([rows % 4, rows // 4 % 4, rows // 16], axis=1).astype(np.int32)
    return ItemIndex(dataset.item_ids, codes, (4, 4, 2))


@pytest.fixture(scope="module")
def model(dataset: Dataset, index: ItemIndex) -> Model:
    """A model that ends a thought now and then."""
    titles = dataset.items["title"].to_list()
    found = new_model("qwen3-pico", index, titles, seed=0, vocab_size=400, **TINY)  # type: ignore[arg-type]
    marks = thought_tokens(found)
    with torch.no_grad():
        for weight in found.lm.parameters():
            if weight.ndim == 2:
                weight *= 5  # else all thoughts lead to the same
        head = found.lm.get_output_embeddings().weight
        asked = torch.tensor([plain_prompt(found, dataset.split("test"), 0)])
        hidden = found.lm.base_model(asked).last_hidden_state[0, -1]
        head[marks.end] = 6 * hidden / hidden.square().sum()
    return found


def plain_prompt(model: Model, requests: Requests, request: int) -> list[int]:
    """A request's prompt up to where a thought begins, by the template alone."""
    ranker = ModelRanker(model, task="C")
    (prompt,) = ranker.task.prompts(model.index, requests[request : request + 1])
    assert prompt.messages is not None
    text = model.tokenizer.apply_chat_template(
        [dict(turn) for turn in prompt.messages],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    return list(model.tokenizer.encode(f"{text}<think>\n", add_special_tokens=False))


def plain_scores(model: Model, before: list[int]) -> np.ndarray:
    """log P of each item's codes behind some tokens, a forward pass each."""
    found = []
    for row in range(ITEMS):
        answer = model.item_rows[row].astype(np.int64)
        with torch.no_grad():
            logits = model.lm(torch.tensor([before + answer.tolist()])).logits[0].log_softmax(-1)
        codes = np.arange(1, len(answer) - 1)  # begin and end tell no items apart
        found.append(float(logits[len(before) - 1 + codes, answer[codes]].sum()))
    return np.array(found)


@pytest.mark.parametrize("merge", ["mass", "best"])
def test_scores_are_those_of_all_items_behind_all_thoughts(
    model: Model, dataset: Dataset, merge: str
) -> None:
    """The thoughts are drawn once more by a sampler of the test's own; then everything is enumerated."""
    test, end = dataset.split("test")[:4], thought_tokens(model).end
    told = ThinkingSettings(TOLD.count, TOLD.max_tokens, 0.8, 0.9, merge)  # type: ignore[arg-type]
    ranker = ThinkingRanker(ModelRanker(model, task="C", beams=ITEMS + 5), told, seed=7)
    found = ranker.consider(test, ITEMS)
    prompts = [plain_prompt(model, test, request) for request in range(4)]
    sampler = Sampler(model.lm, max_new_tokens=5, temperature=0.8, top_p=0.9, grammar=FreeText(end))
    seeds = [seed_of(7, str(user)) for user in test.users]
    drawn = sampler.sample(TokenRows.of(prompts), told.count, seeds=seeds).tokens
    behind = model.tokenizer.encode(BREAK, add_special_tokens=False)
    cuts = []
    for request, prompt in enumerate(prompts):
        thoughts = [drawn[number].tolist() for number in range(3 * request, 3 * request + 3)]
        cuts += [thought[-1] != end for thought in thoughts]
        whole = [thought if thought[-1] == end else [*thought, end] for thought in thoughts]
        each = np.array([plain_scores(model, [*prompt, *thought, *behind]) for thought in whole])
        merged = each.max(0) if merge == "best" else np.logaddexp.reduce(each, axis=0) - np.log(3)
        order = np.argsort(-merged, kind="stable")
        np.testing.assert_allclose(found.scores[request], merged[order], atol=1e-3)
        np.testing.assert_allclose(merged[found.items[request]], merged[order], atol=1e-3)
        of_item = each[found.behind[request], found.items[request]]
        np.testing.assert_allclose(of_item, each.max(0)[found.items[request]], atol=1e-3)
        said = [model.tokenizer.decode(thought[:-1]).strip() for thought in whole]
        assert [thought.text for thought in found.thoughts[request]] == said
        assert [thought.tokens for thought in found.thoughts[request]] == [len(own) - 1 for own in whole]
        assert [thought.cut for thought in found.thoughts[request]] == cuts[-3:]
    assert 0 < sum(cuts) < len(cuts)
    assert len(set(found.behind.ravel().tolist())) > 1


def test_with_few_beams_it_is_the_search_behind_thoughts(model: Model, dataset: Dataset) -> None:
    """All beams of all thoughts are candidates, however short the list is."""
    test = dataset.split("test")[:5]
    exclude = [test.history(request) for request in range(5)]
    ranker = ThinkingRanker(ModelRanker(model, task="C", beams=6), TOLD)
    items, scores = ranker.rank(test, 4, exclude_history=True)
    marks = thought_tokens(model)
    search = ThoughtSearch(
        Sampler(model.lm, max_new_tokens=5, grammar=FreeText(marks.end)),
        BeamSearch(model.lm, Trie.build(model.item_rows), beams=6),
        end=[marks.end],
        behind=model.tokenizer.encode(BREAK, add_special_tokens=False),
    )
    prompts = TokenRows.of([plain_prompt(model, test, request) for request in range(5)])
    seeds = [seed_of(0, str(user)) for user in test.users]
    found = search.rank(prompts, 3, k=6, seeds=seeds, exclude=exclude)
    assert (items == found.items[:, :4]).all()
    np.testing.assert_allclose(scores, found.scores[:, :4], atol=1e-4)
    assert not any(np.isin(row, own).any() for row, own in zip(items, exclude, strict=True))


def test_what_is_drawn_depends_on_user_and_prompt_alone(model: Model, dataset: Dataset) -> None:
    test = dataset.split("test")[:6]
    ranker = ThinkingRanker(ModelRanker(model, task="C", beams=8), TOLD)
    whole = ranker.consider(test, 5)
    backwards = ranker.consider(test.take(np.arange(5, -1, -1)), 5)
    assert backwards.thoughts[::-1] == whole.thoughts
    np.testing.assert_allclose(backwards.scores[::-1], whole.scores, atol=1e-4)
    alone = ThinkingRanker(ModelRanker(model, task="C", beams=8, batch_size=1), TOLD)
    assert alone.consider(test[2:3], 5).thoughts == whole.thoughts[2:3]
    same = test.take(np.zeros(6, np.int64))
    twins = Requests(test.users, same.offsets, same.items, same.targets, same.catalogue)
    assert len({tuple(thoughts) for thoughts in ranker.consider(twins, 5).thoughts}) > 1
    other = ThinkingRanker(ModelRanker(model, task="C", beams=8), TOLD, seed=1)
    assert other.consider(test, 5).thoughts != whole.thoughts


def test_a_killed_ranking_goes_on_with_the_same_result(
    model: Model, dataset: Dataset, tmp_path: Path
) -> None:
    test = dataset.split("test")

    def ranked(folder: Path, stop_at: int = -1, seed: int = 0) -> Ranking:
        ranker = ThinkingRanker(ModelRanker(model, task="C", beams=8), TOLD, seed=seed)
        keep = ranker.keeping(folder)

        def beside(part: int) -> None:
            keep(part)
            if part == stop_at:
                raise KeyboardInterrupt  # the thoughts are there, the part isn't

        return rank_all(
            ranker,
            test,
            dataset.item_ids,
            k=5,
            output=folder,
            part_size=8,
            config=ranker.config,
            beside=beside,
        )

    whole = ranked(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ranked(tmp_path / "killed", stop_at=2)
    killed = Ranking.load(tmp_path / "killed")
    assert killed.missing == [2, 3]
    again = ranked(tmp_path / "killed")
    for one, two in zip(whole.tables(), again.tables(), strict=True):
        assert one.drop("scores").equals(two.drop("scores"))
    thoughts = read_thoughts(tmp_path / "whole")
    assert thoughts.equals(read_thoughts(tmp_path / "killed"))
    assert thoughts["user_id"].to_list() == test.users.tolist()
    assert not list((tmp_path / "killed").glob(".*"))
    found = ThinkingRanker(ModelRanker(model, task="C", beams=8), TOLD).consider(test[:3], 5)
    assert thoughts["thoughts"][1].to_list() == [thought.text for thought in found.thoughts[1]]
    assert thoughts["behind"][1].to_list() == found.behind[1].tolist()
    cut = sum(thoughts["cut"].explode())
    note = thoughts_note("it", TOLD, thoughts)
    assert f"{cut} of {3 * len(test)} thoughts" in note
    with pytest.raises(ArtifactError, match="another config"):
        ranked(tmp_path / "whole", seed=1)
    with pytest.raises(ArtifactError, match="holds no thoughts"):
        read_thoughts(tmp_path)


def test_all_ways_to_ask_see_the_same_histories(
    model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of few positions: what thoughts leave no room for the others aren't shown either."""
    test = dataset.split("test")[:12]
    plain = ModelRanker(model, task="C", beams=5).ask(test)
    longest = int(plain.prompts.lengths.max())
    answer = int(model.item_rows.lengths.max())
    monkeypatch.setattr(model.lm.config, "max_position_embeddings", longest + answer)
    off = ModelRanker(model, task="C", beams=5)
    assert not off.shortened(test).any()
    alone = off.config
    empty, own = off.asking("empty", "empty"), ThinkingRanker(off, TOLD)
    short = own.shortened(test)
    assert 0 < short.sum() < len(test)
    assert not off.ask(test[:4]).shortened.any()
    ask_alike([off.asker, empty.asker, own.asker])
    found = off.config
    assert found != alone
    part = test[:12]  # other requests, as far as what is kept goes
    asked = [off.ask(part), empty.ask(part), own.asker.ask(part)]
    begin = model.item_tokens.start + model.index.tokens.index(str(model.index.token_format.begin))
    for each in asked:
        assert (each.rows == asked[0].rows).all()
        assert (each.shortened == short).all()
        shown = [(each.prompts[row] == begin).sum() for row in range(len(each.prompts))]
        assert shown == [(asked[2].prompts[row] == begin).sum() for row in range(len(each.prompts))]
    for row, length in enumerate(np.diff(test.offsets).tolist()):
        shown = int((asked[0].prompts[row] == begin).sum())
        assert (shown < length) == short[row]
    assert own.rank(part, 5)[0].shape == (12, 5)


def test_what_cannot_think_is_refused(
    model: Model, dataset: Dataset, index: ItemIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="task sequence asks in plain texts"):
        ThinkingRanker(ModelRanker(model, task="sequence"))
    unthinking = expand(family_folder(tmp_path, "llama"), index)
    with pytest.raises(ConfigError, match="no token </think>") as caught:
        ThinkingRanker(ModelRanker(unthinking, task="C"))
    assert "Qwen3" in str(caught.value)
    for options in ({"count": 0}, {"top_p": 0.0}, {"merge": "mean"}, {"temperature": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            ThinkingSettings(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="k is 9 with 8 beams"):
        ThinkingRanker(ModelRanker(model, task="C", beams=8), TOLD).rank(dataset.split("test")[:1], 9)
    monkeypatch.setattr(model.lm.config, "max_position_embeddings", 70)
    with pytest.raises(ConfigError, match="leave no room for a prompt in the 70 positions"):
        ThinkingRanker(ModelRanker(model, task="C"), ThinkingSettings())


def test_who_cannot_be_asked_has_no_thoughts(
    model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thoughts leave room, but for no prompt: nothing is recommended, and nothing said of thoughts."""
    test = dataset.split("test")[:2]
    monkeypatch.setattr(model.lm.config, "max_position_embeddings", 30)
    ranker = ThinkingRanker(ModelRanker(model, task="C", beams=5), TOLD)
    found = ranker.consider(test, 5)
    assert found.thoughts == [[], []]
    assert (found.items == -1).all()
    assert ranker.shortened(test).all()
    table = found.table(test.users)
    assert table["behind"].to_list() == [[], []]
    assert table.schema["tokens"] == pl.List(pl.Int32)
    assert "no request could be asked" in thoughts_note("it", TOLD, table)
