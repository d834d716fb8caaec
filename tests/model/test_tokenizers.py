"""Bases with tokenizers of all kinds: what itemic trains on is what plain transformers reads."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from itemic.errors import ModelError
from itemic.evaluate.recommend import ModelRanker
from itemic.model.check import check_model
from itemic.model.expand import expand
from itemic.model.folder import load_tokenizer
from itemic.model.model import Model
from itemic.model.tokenizer import add_index_tokens, opening
from tests.model.helpers import catalogue, llama_tokenizer, small_index
from tests.model.tokenizers import KINDS, TEXTS, base_folder
from tests.sid.helpers import make_dataset

INDEX = small_index()
HISTORIES = {f"user{row}": [(row * 7 + step * step) % len(INDEX) for step in range(5)] for row in range(6)}
DATASET = make_dataset(catalogue(len(INDEX)), HISTORIES, ids=INDEX.item_ids)
ITEM = INDEX.text(3)
SAMPLES = [
    "rose oil: Cream\n a",
    "Hello",
    "  two  blanks  ",
    "",
    f"a {ITEM} b,{INDEX.text(2)}\n",
    ITEM,
    f"ab{INDEX.tokens[0]}cd{INDEX.tokens[0] * 2}",
    f"x\n{INDEX.tokens[1]}\n\ny",
    "<s> </s> a < b <unk>",
]
BEGINNINGS = {
    "begin": "<|begin_of_text|>",
    "begin and end": "<|begin_of_text|>",
    "gemma": "<bos>",
    "prepended": "<s>",
    "spm": "<s>",
    "spm legacy": "<s>",
    "llama 2 chat": "<s>",
    "phi 3": "<s>",
    "gemma file": "<bos>",
    "spm without dummy prefix": "<s>",
    "wordpiece": "[CLS]",
}
EXACT = (
    "bare",
    "begin",
    "begin and end",
    "gemma",
    "spm",
    "spm without dummy prefix",
    "llama 2 chat",
    "phi 3",
    "gemma file",
    "gpt2 files",
    "qwen2 files",
    "spm slow without dummy prefix",
    "bytes slow",
)
BLANKS = (
    "prefix space",
    "prepended",
    "spm legacy",
    "spm slow",
    "bert generation slow",
)  # they write blanks of their own
# the others lose capitals, blanks or unknown letters


@dataclass
class Bench:
    """A base, what itemic made of it, and the tokenizer that plain transformers finds in the saved folder."""

    base: Path
    folder: Path
    model: Model
    plain: PreTrainedTokenizerBase


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("kind")
    base, folder = base_folder(root, request.param), root / "model"
    model = expand(base, INDEX)
    model.save(folder)
    return Bench(base, folder, model, AutoTokenizer.from_pretrained(folder))


@pytest.fixture
def kind(bench: Bench, request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["bench"])


def read(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize(
    "around", ["@", "ab@cd", "ab @ cd", "@@", "ab\n@\ncd", "@ ", " @", "a@\n\n", "<@>", "12@3"]
)
def test_every_token_is_one_token_wherever_it_stands(bench: Bench, around: str) -> None:
    ids = bench.plain.convert_tokens_to_ids(INDEX.tokens)
    assert ids == list(bench.model.item_tokens)
    for token, number in zip(INDEX.tokens, ids, strict=True):
        found = read(bench.plain, around.replace("@", token))
        assert [i for i in found if i in bench.model.item_tokens] == [number] * around.count("@")
        if not around.strip("@ \n"):
            nothing = {i for blank in (" ", "\n", "\n\n") for i in read(bench.plain, blank)}
            assert set(found) - nothing == {number}


def test_decoding_gives_the_text_back(bench: Bench, kind: str) -> None:
    for text in (f"rose {ITEM} oil", f"{ITEM}{ITEM}", f"a{ITEM}b {INDEX.text(1)}"):
        found = bench.plain.decode(read(bench.plain, text))
        if kind in EXACT:
            assert found == text
        elif kind in BLANKS:
            assert " ".join(found.split()).replace(" b", "b") == text.replace(" b", "b")
        else:
            assert ITEM in "".join(found.split())


def test_what_is_saved_is_what_was_trained_on(bench: Bench) -> None:
    """The base's own tokenizer with the same tokens added reads every text alike, before and after it was saved."""
    own = AutoTokenizer.from_pretrained(bench.base)
    own.add_tokens([AddedToken(token, normalized=False) for token in INDEX.tokens])
    loaded = Model.load(bench.folder)
    for tokenizer in (bench.model.tokenizer, loaded.tokenizer, bench.plain):
        for text in SAMPLES:
            assert tokenizer.encode(text) == own.encode(text)
            assert read(tokenizer, text) == read(own, text)
    assert loaded.chat.digest == bench.model.chat.digest
    assert loaded.tokenizer.chat_template == bench.plain.chat_template == bench.model.tokenizer.chat_template
    assert bench.plain.pad_token_id == loaded.lm.config.pad_token_id is not None
    loaded.save(bench.folder.parent / "again")
    again = Model.load(bench.folder.parent / "again")
    assert again.chat.digest == loaded.chat.digest
    assert [again.tokenizer.encode(text) for text in SAMPLES] == [own.encode(text) for text in SAMPLES]


pieces = st.sampled_from([*INDEX.texts[:5], *INDEX.tokens[:5], "<", "<s>", "</s>", "\n", " ", "<|im_end|>\n"])
texts = st.lists(pieces | st.text(max_size=8) | st.sampled_from(TEXTS[:9]), max_size=7).map("".join)
some = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@some
@given(many=st.lists(texts, min_size=1, max_size=12))
def test_rows_of_many_texts_are_those_of_the_tokenizer(bench: Bench, many: list[str]) -> None:
    encoder = bench.model.chat._pieces
    rows = encoder.rows(many * 32)
    for row, text in enumerate(many):
        assert rows[row].tolist() == read(bench.plain, text)


@some
@given(question=texts, answer=texts, more=texts)
def test_a_prompt_is_what_its_training_row_begins_with(
    bench: Bench, question: str, answer: str, more: str
) -> None:
    talk = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": more},
        {"role": "assistant", "content": ITEM + answer},
    ]
    chat = bench.model.chat
    ids, mask = chat.encode(talk)
    for turns in (1, 3):
        prompt = chat.prompt(talk[:turns])
        assert ids[: len(prompt)] == prompt
        assert not mask[len(prompt) - 1]
        assert mask[len(prompt)]


def test_answers_of_words_gain_no_blanks(bench: Bench, kind: str) -> None:
    """Where a text is cut between question and answer, nothing is read that stands in neither.

    Llama 2's template puts a blank before the answer, which the prompt has and the answer's first word then lacks; the
    tokens of Phi 3's turns take the line ends after them along.
    """
    talk = [{"role": "user", "content": f"I had {ITEM}"}, {"role": "assistant", "content": "rose oil"}]
    ids, _ = bench.model.chat.encode(talk)
    whole = bench.plain.apply_chat_template(talk, tokenize=False)
    if kind != "llama 2 chat":
        assert ids == read(bench.plain, whole)
    if kind in EXACT and kind != "phi 3":
        assert bench.plain.decode(ids) == whole


def test_plain_histories_are_what_their_training_rows_begin_with(bench: Bench, kind: str) -> None:
    """Task sequence asks with items alone; the beginning token stands before them."""
    requests = DATASET.split("test")
    prompts = ModelRanker(bench.model, task="sequence", beams=3).ask(requests).prompts
    for row in range(len(requests)):
        text = "".join(INDEX.text(int(item)) for item in requests.history(row))
        assert prompts[row].tolist() == read(bench.plain, BEGINNINGS.get(kind, "") + text)
        taught = bench.model.chat.encode_segments([text + ITEM]).tokens.tolist()
        assert taught == prompts[row].tolist() + read(bench.plain, ITEM)


def template(bench: Bench, messages: Any) -> str:
    """The text before an answer by the template alone; Gemma's knows no system role."""
    if "System role not supported" in str(bench.plain.chat_template) and messages[0]["role"] == "system":
        merged = f"{messages[0]['content']}\n\n{messages[1]['content']}"
        messages = [{"role": "user", "content": merged}, *messages[2:]]
    answered = [*messages, {"role": "assistant", "content": "ANSWER"}]
    return str(bench.plain.apply_chat_template(answered, tokenize=False)).partition("ANSWER")[0]


def test_training_rows_and_rankings_agree_on_prompts(bench: Bench) -> None:
    """Task C's rows begin with its prompts, whose tokens plain transformers finds in the template's text."""
    ranker = ModelRanker(bench.model, task="C", beams=3)
    requests = DATASET.split("test")
    asked, item = ranker.task.prompts(INDEX, requests, DATASET), read(bench.plain, ITEM)
    prompts = ranker.ask(requests).prompts
    for row, prompt in enumerate(asked):
        assert prompt.messages is not None
        text = template(bench, prompt.messages)
        assert prompts[row].tolist() == read(bench.plain, text)
        taught = bench.model.chat.encode_batch([[*prompt.messages, {"role": "assistant", "content": ITEM}]])
        assert taught.tokens[: len(prompts[row])].tolist() == prompts[row].tolist()
        answer = taught.tokens[len(prompts[row]) :].tolist()
        assert answer[: len(item)] == item


@torch.no_grad()
def test_a_ranking_is_that_of_plain_transformers(bench: Bench) -> None:
    """All items, in the order of their probability after the prompt's text, by plain forward passes."""
    torch.set_num_threads(1)
    requests = DATASET.split("test")[:1]
    ranker = ModelRanker(Model.load(bench.folder), task="C", beams=40)
    items, scores = ranker.rank(requests, len(INDEX))
    lm = AutoModelForCausalLM.from_pretrained(bench.folder)
    messages = ranker.task.prompts(INDEX, requests, DATASET)[0].messages
    prompt = read(bench.plain, template(bench, messages))
    answers = [read(bench.plain, INDEX.text(row)) for row in range(len(INDEX))]
    tokens = torch.tensor([prompt + answer for answer in answers])
    chances = lm(tokens).logits.log_softmax(-1)[:, len(prompt) - 1 : -1]
    spoken = chances.gather(2, torch.tensor(answers)[:, :, None])[:, 1:-1, 0].sum(1).numpy()
    assert sorted(items[0].tolist()) == list(range(len(INDEX)))
    assert np.allclose(scores[0], spoken[items[0]], atol=1e-3)
    assert (np.diff(spoken[items[0]]) < 1e-3).all()


def test_a_base_hears_the_beginning_that_it_always_heard(bench: Bench, kind: str) -> None:
    """A token that the tokenizer puts before every text by itself comes first in rows and in prompts, once; one that it
    puts after every text never does."""
    due = read(bench.plain, BEGINNINGS.get(kind, ""))
    assert len(due) == (kind in BEGINNINGS)
    assert bench.plain.encode("a")[: len(due)] == due
    assert opening(bench.plain) == BEGINNINGS.get(kind, "")
    chat = bench.model.chat
    talk = [{"role": "user", "content": "rose"}, {"role": "assistant", "content": ITEM}]
    segments = chat.encode_batch([ITEM, "rose"])
    rows = [chat.encode(talk)[0], chat.prompt(talk[:1]), segments[0].tolist(), segments[1].tolist()]
    rows.append(chat.prompt(ITEM))
    own = rows.pop(0), rows.pop(0)
    whole = bench.plain.apply_chat_template(talk, return_dict=False)
    assert own[0] == whole
    if kind != "phi 3":  # a template of its own, which doesn't write the beginning
        rows += own
    for row in rows:
        assert row[: len(due)] == due
        assert not set(due) & set(row[len(due) :])
    assert rows[0] == rows[2] == due + read(bench.plain, ITEM)
    assert rows[1] == due + read(bench.plain, "rose")
    assert chat.prompt_text(ITEM) == BEGINNINGS.get(kind, "") + ITEM


def test_workers_read_as_the_renderer_that_they_were_sent(bench: Bench) -> None:
    chat = bench.model.chat
    sent = pickle.loads(pickle.dumps(chat))
    assert sent.encode_batch(SAMPLES * 8).tokens.tolist() == chat.encode_batch(SAMPLES * 8).tokens.tolist()
    assert sent.digest == chat.digest


def test_the_folder_passes_its_proofs_and_generates(bench: Bench) -> None:
    proofs = check_model(bench.folder)
    assert [proof.detail for proof in proofs if not proof.ok] == []
    lm = AutoModelForCausalLM.from_pretrained(bench.folder)
    padded = bench.plain([f"rose {ITEM}", "oil"], return_tensors="pt", padding=True)
    assert lm.generate(**padded, max_new_tokens=2, do_sample=False).shape[0] == 2


def fast(vocab: dict[str, int]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


class TestWhatIsWrongWithATokenizer:
    def test_gaps_in_its_ids(self) -> None:
        """New tokens are numbered by a count of the old ones, and would take the ids of some."""
        with pytest.raises(
            ModelError, match="ids have gaps: it gives '<s_a_2>' the id 5, that of 'b'"
        ) as caught:
            add_index_tokens(fast({"[UNK]": 0, "a": 1, "b": 5}), INDEX.tokens)
        assert caught.value.remedy

    def test_tokens_that_count_only_between_blanks(self) -> None:
        made = llama_tokenizer(TEXTS)
        made.add_tokens([AddedToken(token, normalized=False, single_word=True) for token in INDEX.tokens])
        with pytest.raises(ModelError, match="doesn't read '<s_a_0>' as one token between letters"):
            add_index_tokens(made, INDEX.tokens)

    def test_tokens_that_are_words_of_its_vocabulary_become_tokens(self) -> None:
        made = fast({"[UNK]": 0, "a": 1} | {token: 2 + place for place, token in enumerate(INDEX.tokens)})
        assert read(made, INDEX.tokens[0]) != [2]
        assert add_index_tokens(made, INDEX.tokens) == (2, False)
        assert read(made, f"a{INDEX.tokens[0]}a") == [1, 2, 1]

    def test_none_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        with pytest.raises(ModelError, match="has no tokenizer"):
            load_tokenizer(tmp_path)

    def test_code_of_its_own_is_never_run(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        settings = '{"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", null]}}'
        (tmp_path / "tokenizer_config.json").write_text(settings)
        (tmp_path / "own.py").write_text("raise SystemExit('ran')")
        with pytest.raises(ModelError, match="no usable tokenizer") as caught:
            load_tokenizer(tmp_path)
        assert "tokenizer.json" in str(caught.value.remedy)

    def test_a_sentencepiece_file_without_sentencepiece(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = base_folder(tmp_path, "spm")
        monkeypatch.setitem(sys.modules, "sentencepiece", None)
        with pytest.raises(ModelError, match="no usable tokenizer") as caught:
            load_tokenizer(folder)
        assert "itemic[sentencepiece]" in str(caught.value.remedy)
