"""Models whose items go by their titles: no new tokens, and the same tokens of a name wherever it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from itemic.errors import ConfigError, IndexMismatchError, ModelError
from itemic.model.build import new_model
from itemic.model.chat import ChatRenderer
from itemic.model.check import check_model
from itemic.model.expand import expand
from itemic.model.model import Model, embeddings
from itemic.model.shorten import shorten_histories
from itemic.model.template import CHAT_TOKENS
from itemic.sid.titles import TitleNames
from itemic.sid.trie import Trie
from tests.model.helpers import catalogue, family_folder
from tests.model.tokenizers import KINDS, base_folder
from tests.sid.helpers import make_dataset

TITLES = catalogue(30)
HOSTILE = ["rose's oil: hand-cream!", "</s> soap <s>", "x <|im_start|>y [INST] lemon", "12 in 1: 3.5"]
# unknown letters and lost capitals make some of these the same; no model can tell them apart then
LOSSY = ("t5", "wordpiece", "unigram nfkc", "words alone", "ctrl slow")


def names_of(titles: list[str]) -> TitleNames:
    return TitleNames.of(make_dataset(titles))


def talk(names: TitleNames, rows: list[int], answer: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": "The items, oldest first:\n" + "".join(names.text(row) for row in rows)},
        {"role": "assistant", "content": names.text(answer)},
    ]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.set_num_threads(1)
    base = base_folder(tmp_path_factory.mktemp("kind"), request.param)
    titles = TITLES if request.param in LOSSY else [*TITLES, *HOSTILE]
    return expand(base, names_of(titles))


def places(tokens: list[int], name: list[int]) -> list[int]:
    return [at for at in range(len(tokens)) if tokens[at : at + len(name)] == name]


def test_a_conversation_has_exactly_the_trie_s_tokens(model: Model) -> None:
    names, rows = model.index, [row.tolist() for row in model.item_rows]
    assert isinstance(names, TitleNames)
    assert model.item_rows.lengths.min() >= 3
    for history in ([0, 1, 2], [5, 5, 9], [len(names) - 1, len(names) - 2, len(names) - 3]):
        answer = history[0]
        tokens, ours = model.chat.encode(talk(names, history, answer))
        said = [number for row in history for number in rows[row]]
        assert len(places(tokens, said)) == 1
        weighted = [token for token, mine in zip(tokens, ours, strict=True) if mine]
        assert weighted[: len(rows[answer])] == rows[answer]
        assert Trie.build(model.item_rows).find(model.item_rows.take([answer]))[0] > 0
        prompt = model.chat.prompt(talk(names, history, answer)[:1])
        assert tokens[: len(prompt)] == prompt
        assert tokens[len(prompt) : len(prompt) + len(rows[answer])] == rows[answer]


def test_what_is_around_a_name_changes_nothing_in_it(model: Model) -> None:
    names = model.index
    for row in (3, len(names) - 1):
        own = model.item_rows[row].tolist()
        for around in ("@", "ab@cd", "ab @ cd", "@@", "a\n@\n", "see '@'.", "{@}", "@ @"):
            (read,) = model.chat.encode_segments([around.replace("@", names.text(row))])
            assert len(places(read.tolist(), own)) == around.count("@")


def test_rows_of_a_batch_are_those_of_one_at_a_time(model: Model) -> None:
    names = model.index
    assert isinstance(names, TitleNames)
    talks = [talk(names, [row, row + 1], row + 2) for row in range(20)] * 2
    batch = model.chat.encode_batch([*talks, "no name at all {x", names.text(4)])
    for row, each in enumerate(talks[:20]):
        tokens, ours = model.chat.encode(each)
        assert batch[row].tolist() == tokens
        assert batch.weights is not None
        assert batch.weights[batch.offsets[row] : batch.offsets[row + 1]].astype(bool).tolist() == ours
    plain = ChatRenderer(model.tokenizer)
    assert batch[40].tolist() == plain.encode_segments(["no name at all {x"])[0].tolist()
    assert batch[41].tolist()[-len(model.item_rows[4]) :] == model.item_rows[4].tolist()


def test_only_names_are_supervised_where_that_is_asked(model: Model) -> None:
    names = model.index
    assert isinstance(names, TitleNames)
    rows = model.chat.encode_batch([talk(names, [1, 2], 3)], supervise="itemic")
    assert rows.weights is not None
    assert rows.tokens[rows.weights > 0].tolist() == model.item_rows[3].tolist()


# ------------------------------------------------------------------------ one base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return family_folder(tmp_path_factory.mktemp("base"), "qwen2")


def test_a_base_stays_as_it_was_but_for_its_record(base: Path, tmp_path: Path) -> None:
    names = names_of(TITLES)
    model = expand(base, names)
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    assert len(model.tokenizer) == len(tokenizer)
    assert model.item_tokens == range(len(tokenizer), len(tokenizer))
    assert model.new_token_range[0] == model.new_token_range[1]
    theirs = dict(plain.named_parameters())
    for name, weight in model.lm.named_parameters():
        assert torch.equal(weight, theirs[name])
    model.save(tmp_path / "model")
    assert all(proof.ok in (True, None) for proof in check_model(tmp_path / "model"))
    loaded = Model.load(tmp_path / "model")
    assert loaded.index.digest == names.digest
    assert loaded.item_rows.tokens.tolist() == model.item_rows.tokens.tolist()
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "| items go by | `title`" in card
    names_of(TITLES[::-1]).save(tmp_path / "model" / "sid")
    with pytest.raises(IndexMismatchError, match=names.digest):
        Model.load(tmp_path / "model")


def test_a_base_without_a_template_gets_turn_tokens_alone(tmp_path: Path) -> None:
    model = expand(base_folder(tmp_path, "bare"), names_of(TITLES))
    start, stop = model.new_token_range
    assert list(model.item_tokens) == []
    assert model.tokenizer.convert_ids_to_tokens(list(range(start, stop))) == list(CHAT_TOKENS)
    rows = embeddings(model.lm)[start:stop]
    assert len(torch.unique(rows, dim=0)) == stop - start


def test_starts_that_need_codes_are_refused(base: Path) -> None:
    names = names_of(TITLES)
    for init in ("text", "vectors"):
        with pytest.raises(ConfigError, match=f"init {init} is about the codes"):
            new_model("qwen3-pico", names, TITLES, init=init, vectors=np.zeros((30, 4)))
    with pytest.raises(ConfigError, match="init text is about the codes"):
        expand(base, names, init="text", dataset=make_dataset(TITLES))


def test_new_items_are_added_and_old_names_kept(base: Path) -> None:
    model = expand(base, names_of(TITLES))
    more = model.with_index(names_of([*TITLES, "Jaws", TITLES[0]]))
    assert len(more.item_rows) == len(TITLES) + 2
    assert more.item_rows.take(range(len(TITLES))).tokens.tolist() == model.item_rows.tokens.tolist()
    with pytest.raises(IndexMismatchError, match="names item 'item0' otherwise"):
        model.with_index(names_of(["Jaws", *TITLES[1:]]))


def test_long_histories_lose_their_oldest_items_whole(base: Path) -> None:
    names = names_of(TITLES)
    model = expand(base, names)
    rows = model.chat.encode_batch([talk(names, [*range(12)], 12), talk(names, [3, 4], 5)])
    short = model.chat.encode_batch([talk(names, [*range(7, 12)], 12)])
    cut, lost = shorten_histories(rows, int(short.lengths[0]), model.history_marks)
    assert lost.tolist() == [7, 0]
    assert cut[0].tolist() == short[0].tolist()
    assert cut[1].tolist() == rows[1].tolist()


def test_a_model_of_codes_takes_no_titles(base: Path) -> None:
    from tests.model.helpers import small_index

    model = expand(base, small_index())
    names = TitleNames(model.index.item_ids, [f"a {row}" for row in range(len(model.index))])
    with pytest.raises(IndexMismatchError, match="other tokens"):
        model.with_index(names)
    with pytest.raises((IndexMismatchError, ModelError)):
        Model(model.lm, model.tokenizer, names)
