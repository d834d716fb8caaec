from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from itemic.decode.beam import BeamSearch
from itemic.errors import ConfigError, IndexMismatchError, ModelError
from itemic.forest.rows import TokenRows
from itemic.model.expand import expand
from itemic.model.model import Model, embeddings, head
from itemic.model.template import CHAT_TEMPLATE, CHAT_TOKENS
from itemic.sid.index import ItemIndex
from itemic.sid.trie import Trie
from tests.model.helpers import FAMILIES, catalogue, family_folder, family_tokenizer, small_index
from tests.sid.helpers import make_dataset

INDEX = small_index()
DATASET = make_dataset(catalogue(len(INDEX)))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {family: family_folder(root, family) for family in FAMILIES}


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)  # type: ignore[no-any-return]


def logits(lm: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return lm(tokens[None], use_cache=False).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("init", ["moments", "text", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_old_weights_stay_bit_for_bit_and_new_rows_have_their_spread(
    bases: dict[str, Path], family: str, init: str
) -> None:
    base, tokens = load(bases[family]), len(AutoTokenizer.from_pretrained(bases[family]))
    model = expand(bases[family], INDEX, init=init, dataset=DATASET)
    start, stop = model.new_token_range
    assert start == tokens
    assert len(embeddings(model.lm)) == -(-stop // 256) * 256 == model.lm.config.vocab_size
    for old, new in ((embeddings(base), embeddings(model.lm)), (head(base), head(model.lm))):
        assert torch.equal(old, new[: len(old)])
        fresh = new[start:stop].detach()
        assert len(torch.unique(fresh, dim=0)) == stop - start
        wide = 0.1 if init == "mean" else 1.0
        assert (fresh - fresh.mean(0)).std().item() == pytest.approx(wide * old.std().item(), rel=0.25)
    assert (head(base) is embeddings(base)) == (head(model.lm) is embeddings(model.lm))
    state = model.lm.state_dict()
    matrices = ("embed_tokens.weight", "lm_head.weight")
    assert all(torch.equal(w, state[n]) for n, w in base.state_dict().items() if not n.endswith(matrices))
    text = torch.arange(30)
    assert torch.allclose(logits(base, text), logits(model.lm, text)[:, : len(embeddings(base))], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_expanded_model_survives_saving_and_plain_loading(
    bases: dict[str, Path], family: str, tmp_path: Path
) -> None:
    model = expand(bases[family], INDEX)
    model.save(tmp_path / "m")
    plain, tokenizer = load(tmp_path / "m"), AutoTokenizer.from_pretrained(tmp_path / "m")
    text = torch.tensor(tokenizer.encode("rose oil " + "".join(INDEX.tokens)))
    assert torch.equal(logits(plain, text), logits(model.lm, text))
    assert tokenizer.convert_tokens_to_ids(INDEX.tokens) == list(model.item_tokens)
    for token in INDEX.tokens:
        assert tokenizer.encode(f"a{token}", add_special_tokens=False)[-1] == tokenizer.convert_tokens_to_ids(
            token
        )
    loaded = Model.load(tmp_path / "m")
    assert loaded.new_token_range == model.new_token_range
    conversation = [
        {"role": "user", "content": INDEX.text(2)},
        {"role": "assistant", "content": INDEX.text(3)},
    ]
    assert loaded.chat.encode(conversation) == model.chat.encode(conversation)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tie", [True, False])
def test_the_head_is_tied_as_asked(bases: dict[str, Path], family: str, tie: bool, tmp_path: Path) -> None:
    model = expand(bases[family], INDEX, tie=tie)
    model.save(tmp_path / "m")
    base, loaded = load(bases[family]), load(tmp_path / "m")
    for lm in (model.lm, loaded):
        assert (head(lm) is embeddings(lm)) == tie
        assert lm.config.tie_word_embeddings == tie
        assert torch.equal(head(lm)[: len(head(base))], head(base) if not tie else embeddings(base))
    text = torch.arange(300)
    assert torch.equal(logits(loaded, text), logits(model.lm, text))


def test_rows_without_a_token_are_filled_before_new_ones_are_made(tmp_path: Path) -> None:
    folder = family_folder(tmp_path, "llama", spare=10)
    base, tokens = load(folder), len(AutoTokenizer.from_pretrained(folder))
    model = expand(folder, INDEX, pad_to=1)
    start, stop = model.new_token_range
    assert start == tokens == len(embeddings(base)) - 10
    assert len(embeddings(model.lm)) == stop
    assert torch.equal(embeddings(model.lm)[:start], embeddings(base)[:start])
    wide = expand(family_folder(tmp_path / "wide", "llama", spare=300), INDEX, pad_to=64)
    assert len(embeddings(wide.lm)) == -(-(tokens + 300) // 64) * 64  # never fewer rows than before


def test_a_base_keeps_its_template_and_gets_ours_if_it_has_none(bases: dict[str, Path]) -> None:
    for family in FAMILIES:
        model = expand(bases[family], INDEX)
        own = family_tokenizer(family).chat_template
        assert model.tokenizer.chat_template == (own or CHAT_TEMPLATE)


def test_turn_tokens_of_our_template_are_new_rows_too(tmp_path: Path) -> None:
    folder = family_folder(tmp_path, "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    model = expand(folder, INDEX)
    start, stop = model.new_token_range
    turns = model.tokenizer.convert_tokens_to_ids(list(CHAT_TOKENS))
    assert turns == list(range(start + len(INDEX.tokens), stop))
    assert list(model.item_tokens) == list(range(start, start + len(INDEX.tokens)))
    assert turns[1] in model.lm.generation_config.eos_token_id
    ids, mask = model.chat.encode(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": INDEX.text(0)}]
    )
    assert ids[mask.index(True) :][:-1] == [*model.item_rows[0], turns[1]]


def test_equal_seeds_give_equal_rows(bases: dict[str, Path]) -> None:
    rows = [embeddings(expand(bases["qwen3"], INDEX, seed=seed).lm) for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_text_init_puts_codes_near_the_words_of_their_items(tmp_path: Path) -> None:
    folder = family_folder(tmp_path, "qwen2")
    index = small_index(40, (2, 3))
    titles = ["rose lavender lemon" if code == 0 else "comb brush mirror" for code in index.codes[:, 0]]
    model = expand(folder, index, init="text", dataset=make_dataset(titles))
    for matrix in (embeddings(model.lm).detach(), head(model.lm).detach()):
        known = matrix[: model.new_token_range[0]]
        for code, text in enumerate(("Title: rose lavender lemon", "Title: comb brush mirror")):
            words = known[model.tokenizer.encode(text)].mean(0) - known.mean(0)
            rows = matrix[model.new_token_range[0] :][:2] - known.mean(0)
            close = torch.nn.functional.cosine_similarity(rows, words[None])
            assert close.argmax().item() == code


class TestTokensThatAreThereAlready:
    def test_the_same_index_again_changes_nothing(self, bases: dict[str, Path], tmp_path: Path) -> None:
        first = expand(bases["qwen3"], INDEX)
        first.save(tmp_path / "m")
        second = expand(tmp_path / "m", INDEX, seed=7)
        assert torch.equal(embeddings(first.lm), embeddings(second.lm))
        assert second.new_token_range == first.new_token_range

    def test_another_index_of_the_same_form_starts_anew(self, bases: dict[str, Path], tmp_path: Path) -> None:
        first = expand(bases["qwen3"], INDEX)
        first.save(tmp_path / "m")
        other = small_index(count=29)
        second = expand(tmp_path / "m", other, seed=7)
        start, stop = first.new_token_range
        assert second.new_token_range == (start, stop)
        assert torch.equal(embeddings(first.lm)[:start], embeddings(second.lm)[:start])
        assert not (embeddings(first.lm)[start:stop] == embeddings(second.lm)[start:stop]).all(1).any()
        assert second.index.digest == other.digest

    def test_codes_alone_and_items_under_these_codes_keep_the_rows(
        self, bases: dict[str, Path], tmp_path: Path
    ) -> None:
        """Pretraining on the codes, then a catalogue that has them; and the way back."""
        first = expand(bases["qwen3"], ItemIndex.of_codes(INDEX.sizes))
        first.think_pattern = True
        first.save(tmp_path / "codes")
        second = expand(tmp_path / "codes", INDEX, seed=7)
        assert torch.equal(embeddings(first.lm), embeddings(second.lm))
        assert (second.index.digest, second.think_pattern) == (INDEX.digest, True)
        second.save(tmp_path / "items")
        third = expand(tmp_path / "items", ItemIndex.of_codes(INDEX.sizes), seed=8)
        assert torch.equal(embeddings(first.lm), embeddings(third.lm))

    def test_a_model_that_others_expanded_keeps_its_rows(
        self, bases: dict[str, Path], tmp_path: Path
    ) -> None:
        """As OpenOneRec releases its models: tokens and rows are there, no word of ours in the configuration."""
        tokenizer, lm = AutoTokenizer.from_pretrained(bases["qwen3"]), load(bases["qwen3"])
        first = len(tokenizer)
        tokenizer.add_tokens(INDEX.tokens, special_tokens=True)
        lm.resize_token_embeddings(-(-len(tokenizer) // 256) * 256)
        torch.nn.init.normal_(embeddings(lm))
        for part in (tokenizer, lm):
            part.save_pretrained(tmp_path / "theirs")
        model = expand(tmp_path / "theirs", ItemIndex.of_codes(INDEX.sizes))
        assert torch.equal(embeddings(model.lm), embeddings(lm))
        assert list(model.item_tokens) == list(range(first, first + len(INDEX.tokens)))
        model.save(tmp_path / "ours")
        assert Model.load(tmp_path / "ours").item_tokens == model.item_tokens

    def test_some_of_them_is_refused(self, bases: dict[str, Path], tmp_path: Path) -> None:
        expand(bases["qwen3"], INDEX).save(tmp_path / "m")
        with pytest.raises(ModelError, match="already has"):
            expand(tmp_path / "m", small_index(sizes=(4, 5, 7)))


TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 300,
}
OTHERS: dict[str, tuple[Any, str]] = {
    "encoder": (lambda: BertLMHeadModel(BertConfig(**TINY)), "bert model is not a causal"),
    "encoder-decoder": (
        lambda: T5ForConditionalGeneration(
            T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=300)
        ),
        "encoder-decoder",
    ),
    "recurrent": (
        lambda: MambaForCausalLM(
            MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, vocab_size=300)
        ),
        "mamba model",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_models_that_forests_cannot_run_are_refused(kind: str, tmp_path: Path) -> None:
    make, word = OTHERS[kind]
    make().save_pretrained(tmp_path)
    family_tokenizer("qwen3").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=word) as caught:
        expand(tmp_path, INDEX)
    assert caught.value.remedy


def test_a_multimodal_model_is_refused(tmp_path: Path) -> None:
    from transformers import Qwen2VLConfig

    Qwen2VLConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="multimodal"):
        expand(tmp_path, INDEX)


def test_code_that_a_model_brings_along_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match=r"config\.json can't be used"):
        expand(tmp_path, INDEX)


def test_what_is_no_model_folder_is_refused(tmp_path: Path, bases: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="not a folder"):
        expand(tmp_path / "nowhere", INDEX)
    with pytest.raises(ModelError, match=r"no config\.json"):
        expand(tmp_path, INDEX)


def test_bad_arguments_are_refused(bases: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="zeros"):
        expand(bases["qwen3"], INDEX, init="zeros")
    with pytest.raises(ConfigError, match="pad_to is 0"):
        expand(bases["qwen3"], INDEX, pad_to=0)
    with pytest.raises(ConfigError, match="needs the catalogue"):
        expand(bases["qwen3"], INDEX, init="text")
    with pytest.raises(IndexMismatchError):
        expand(bases["qwen3"], INDEX, init="text", dataset=make_dataset(["a", "b"]))


def test_weights_can_be_taken_in_bfloat16(bases: dict[str, Path]) -> None:
    base, model = load(bases["llama"]), expand(bases["llama"], INDEX, dtype="bfloat16")
    assert model.lm.dtype == torch.bfloat16
    assert torch.equal(embeddings(model.lm)[: len(embeddings(base))], embeddings(base).bfloat16())
    assert np.isfinite(embeddings(model.lm).detach().float().numpy()).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_bases_in_half_precision_and_in_shards_with_rows_to_spare(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """As most bases come: in 16 bits, in several files, with more rows than tokens, with a tied head or their own."""
    whole, folder = family_folder(tmp_path, family, spare=271), tmp_path / "shards"
    load(whole).to(dtype).save_pretrained(folder, max_shard_size="20KB")
    tokenizer = AutoTokenizer.from_pretrained(whole)
    tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    base, model = load(folder), expand(folder, INDEX, pad_to=8)
    start, stop = model.new_token_range
    had = len(embeddings(base))
    assert (start, had) == (len(tokenizer), len(tokenizer) + 271)
    assert len(embeddings(model.lm)) == -(-had // 8) * 8  # the new tokens fit into the rows to spare
    assert base.dtype == model.lm.dtype == dtype
    model.save(tmp_path / "model")
    plain, loaded = load(tmp_path / "model"), Model.load(tmp_path / "model")
    for lm in (model.lm, loaded.lm, plain):
        assert lm.dtype == dtype
        assert (head(lm) is embeddings(lm)) == (head(base) is embeddings(base)) == (family == "qwen3")
        for old, new in ((embeddings(base), embeddings(lm)), (head(base), head(lm))):
            assert torch.equal(old[:start], new[:start])
            assert torch.equal(old[stop:], new[stop:had])
            assert len(torch.unique(new[start:stop].detach().float(), dim=0)) == stop - start
        state = lm.state_dict()
        others = [name for name in state if not name.endswith(("embed_tokens.weight", "lm_head.weight"))]
        assert others
        assert all(torch.equal(base.state_dict()[name], state[name]) for name in others)
    text = torch.tensor(tokenizer.encode("rose oil") + list(model.item_tokens))
    assert torch.equal(logits(plain, text), logits(model.lm, text))
    assert torch.equal(logits(loaded.lm, text), logits(model.lm, text))
    before = torch.tensor(tokenizer.encode("rose oil"))
    assert torch.equal(logits(plain, before)[:, :start], logits(base, before)[:, :start])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_ranks(bases: dict[str, Path], dtype: torch.dtype) -> None:
    model = expand(bases["qwen3"], INDEX, dtype=dtype)
    prompt = model.chat.prompt([{"role": "user", "content": f"I had {INDEX.text(2)}"}])
    search = BeamSearch(model.lm, Trie.build(model.item_rows), beams=40, skip_forced=False)
    items, scores = search.rank(TokenRows.of([prompt]), k=len(INDEX))
    assert sorted(items[0].tolist()) == list(range(len(INDEX)))
    answers = torch.tensor([model.item_rows[row].tolist() for row in items[0]])
    with torch.no_grad():
        rows = torch.cat([torch.tensor(prompt).expand(len(answers), -1), answers], dim=1)
        chances = model.lm(rows).logits.float().log_softmax(-1)[:, len(prompt) - 1 : -1]
    slow = chances.gather(2, answers[:, :, None]).sum((1, 2)).numpy()
    assert np.allclose(scores[0], slow, rtol=0.02)


def test_ids_without_a_row_are_told(
    bases: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody gave the tokenizer tokens and the model no rows; or it is the tokenizer of another model."""
    shutil.copytree(bases["llama"], tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "more")
    tokenizer.add_tokens(["<more>", "<yet more>"])
    tokenizer.save_pretrained(tmp_path / "more")
    with caplog.at_level("WARNING", logger="itemic"):
        model = expand(tmp_path / "more", INDEX)
    assert "the tokenizer has 2 ids more than the model has rows" in caplog.text
    base = load(bases["llama"])
    assert model.new_token_range[0] == len(embeddings(base)) + 2 == len(tokenizer)
    assert torch.equal(embeddings(model.lm)[: len(embeddings(base))], embeddings(base))


def test_a_model_in_shards_is_loaded(bases: dict[str, Path], tmp_path: Path) -> None:
    model = expand(bases["llama"], INDEX)
    model.save(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    model.lm.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 2
    found = Model.load(tmp_path / "m").lm.state_dict()
    assert all(torch.equal(weight, found[name]) for name, weight in model.lm.state_dict().items())


def qwen3_folder(root: Path) -> Path:
    """A Qwen3 model as narrow as can be, with as many tokens and rows as the real ones: the last token of Qwen3's
    tokenizer is 151,668, its matrices have 151,936 rows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*alphabet, *(f"w{number}" for number in range(151_669 - len(alphabet) - len(special)))]
    backend = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )
    assert len(tokenizer) == 151_669
    tokenizer.save_pretrained(root)
    shape = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Qwen3Config(
        **shape, num_key_value_heads=1, head_dim=4, vocab_size=151_936, tie_word_embeddings=True
    )
    Qwen3ForCausalLM(config).save_pretrained(root)
    return root


def test_openonerecs_token_ids_on_qwen3(tmp_path: Path) -> None:
    """The published numbers: ids 151669 to 176246, 176,384 rows."""
    model = expand(qwen3_folder(tmp_path), ItemIndex.of_codes((8192,) * 3), init="mean")
    assert list(model.item_tokens) == list(range(151_669, 176_247))
    assert len(embeddings(model.lm)) == model.lm.config.vocab_size == 176_384
    ids = {"<s_a_0>": 151_669, "<s_b_0>": 159_861, "<s_c_8191>": 176_244, "<|sid_begin|>": 176_245}
    for token, number in (ids | {"<|sid_end|>": 176_246}).items():
        assert model.tokenizer.encode(token, add_special_tokens=False) == [number]
