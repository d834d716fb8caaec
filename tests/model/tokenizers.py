"""Tokenizers of all kinds, each made on the spot in the manner of a family, and tiny models to carry them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import sentencepiece
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoTokenizer,
    BertGenerationTokenizer,
    ByT5Tokenizer,
    CTRLTokenizer,
    GPTSw3Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.model.helpers import SHAPE, catalogue, gemma_tokenizer, llama_tokenizer, metaspace_tokenizer

TEXTS = catalogue(200)
SIGNS = "\n:,.<>|/_-!?'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def sentencepiece_model(folder: Path, name: str, **settings: object) -> Path:
    """A real SentencePiece model, trained on a few titles."""
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {
        "vocab_size": 400,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 1.0,
        "num_threads": 1,
        "minloglevel": 3,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, *SIGNS.replace("\n", "")]),
        model_prefix=str(folder / Path(name).stem),
        **(options | settings),
    )
    (folder / Path(name).stem).with_suffix(".vocab").unlink()
    made = (folder / Path(name).stem).with_suffix(".model")
    return made.rename(folder / name)


def _settings(folder: Path, name: str, **more: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **more}))


def spm_llama(folder: Path, add_dummy_prefix: bool = True, **how: object) -> None:
    """As Llama 2 was released: a SentencePiece file alone, from which transformers makes a fast tokenizer."""
    sentencepiece_model(folder, "tokenizer.model", add_dummy_prefix=add_dummy_prefix)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _settings(folder, "LlamaTokenizer", add_bos_token=True, **special, **how)


INST = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{- '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' -}}
{%- elif m.role == 'user' -%}{{- '[INST] ' + m.content + ' [/INST]' -}}
{%- else -%}{{- ' ' + m.content + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}
"""
TURNS = """\
{%- for m in messages -%}{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""


def llama_2_chat(folder: Path) -> None:
    """Llama 2's template: turns are marked by plain text, and an answer begins after a blank."""
    spm_llama(folder, chat_template=INST)


def phi_3(folder: Path) -> None:
    """Phi 3's: the tokens of turns take the blanks after them along."""
    spm_llama(folder, legacy=False, chat_template=TURNS)
    made = AutoTokenizer.from_pretrained(folder, config=LlamaConfig())
    names = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    made.add_tokens([AddedToken(name, rstrip=True, normalized=False, special=True) for name in names])
    made.save_pretrained(folder)


def gemma_file(folder: Path) -> None:
    """Gemma's SentencePiece file alone."""
    special = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
    signs = "<start_of_turn>,<end_of_turn>"
    sentencepiece_model(
        folder,
        "tokenizer.model",
        **special,
        bos_piece="<bos>",
        add_dummy_prefix=False,
        user_defined_symbols=signs,
    )
    _settings(
        folder,
        "GemmaTokenizer",
        add_bos_token=True,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def words_and_merges(folder: Path, name: str, **special: str) -> None:
    """As GPT-2 and the first Qwens were released: a vocabulary and merges in files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    made = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), ["<|endoftext|>"])
    made.model.save(str(folder))
    _settings(folder, name, eos_token="<|endoftext|>", **special)


def decoder_bert(folder: Path) -> None:
    """BERT generation's: SentencePiece in Python, with a bare beginning."""
    file = sentencepiece_model(folder, "spiece.model", pad_id=3)
    BertGenerationTokenizer(str(file)).save_pretrained(folder)


def slow_sentencepiece(folder: Path, **settings: object) -> None:
    """GPT-SW3's: a tokenizer in Python around a SentencePiece model, which transformers doesn't convert."""
    file = sentencepiece_model(
        folder, "spiece.model", pad_id=3, pad_piece="<pad>", bos_id=1, eos_id=2, unk_id=0, **settings
    )
    GPTSw3Tokenizer(str(file)).save_pretrained(folder)


def t5(folder: Path) -> None:
    """Unigram from a SentencePiece file, with an end token after every text."""
    sentencepiece_model(
        folder, "spiece.model", model_type="unigram", byte_fallback=False, vocab_size=110,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True,
    )  # fmt: skip
    _settings(folder, "T5Tokenizer", extra_ids=0)


def _fast(backend: Tokenizer, **special: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)

    return write


def _bpe(pre: object, decoder: object, special: list[str], **model: object) -> Tokenizer:
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer, backend.decoder = pre, decoder
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if isinstance(decoder, decoders.ByteLevel) else []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*TEXTS, *SIGNS], trainer)
    return backend


def bare(folder: Path) -> None:
    """Byte-level without any special token, and without a template."""
    _fast(_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), []))(folder)


def prefix_space(folder: Path) -> None:
    """Byte-level with a blank before the first word (as of RoBERTa, or GPT-2 with add_prefix_space)."""
    backend = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel(), ["<|endoftext|>"])
    _fast(backend, eos_token="<|endoftext|>")(folder)


def begin_and_end(folder: Path) -> None:
    """A tokenizer that puts tokens before and after every text; no template."""
    made = llama_tokenizer(TEXTS)
    made.chat_template = None
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A <|end_of_text|>",
        special_tokens=[("<|begin_of_text|>", 0), ("<|end_of_text|>", 1)],
    )
    made.save_pretrained(folder)


def begin(folder: Path) -> None:
    """Llama 3's base: a beginning token before every text, no template."""
    made = llama_tokenizer(TEXTS)
    made.chat_template = None
    made.save_pretrained(folder)


def prepended(folder: Path) -> None:
    """Llama 2's own tokenizer.json: blanks are signs, and each stretch of text gets one in front."""
    backend = _bpe(
        None,
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
        ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    words = [pre_tokenizers.Metaspace(prepend_scheme="always").pre_tokenize_str(text) for text in TEXTS]
    state = json.loads(backend.to_str())
    vocab = state["model"]["vocab"]
    for word in ["▁", *sorted({word[:2] for row in words for word, _ in row})]:
        vocab.setdefault(word, len(vocab))
    state["model"]["merges"] += [[word[0], word[1]] for word in vocab if len(word) == 2 and word[0] == "▁"]
    backend = Tokenizer.from_str(json.dumps(state))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    _fast(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")(folder)


def wordpiece(folder: Path) -> None:
    """BERT's: lower case, blanks and line ends lost, tokens before and after every text."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(
        [*TEXTS, *SIGNS],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    _fast(backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")(folder)


def unigram_nfkc(folder: Path) -> None:
    """Unigram with a normalizer that changes characters and their case, and a blank before every stretch."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.train_from_iterator(
        [*TEXTS, *SIGNS],
        trainers.UnigramTrainer(
            vocab_size=250, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
        ),
    )
    _fast(backend, unk_token="<unk>", eos_token="</s>")(folder)


def words_alone(folder: Path) -> None:
    """A word list: whatever isn't on it is unknown."""
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(
        TEXTS, trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
    )
    _fast(backend, unk_token="[UNK]")(folder)


def ctrl(folder: Path) -> None:
    """CTRL's: words cut by a program in Python."""
    folder.mkdir(parents=True, exist_ok=True)
    signs = sorted(set(SIGNS) - {"\n"})
    vocab = ["<unk>", *signs, *(f"{sign}@@" for sign in signs)]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def _saved(make: Callable[[list[str]], PreTrainedTokenizerFast]) -> Callable[[Path], None]:
    return lambda folder: (make(TEXTS).save_pretrained(folder), None)[1]


KINDS: dict[str, Callable[[Path], None]] = {
    "bare": bare,
    "prefix space": prefix_space,
    "begin": begin,
    "begin and end": begin_and_end,
    "gemma": _saved(gemma_tokenizer),
    "metaspace": _saved(metaspace_tokenizer),
    "prepended": prepended,
    "spm": spm_llama,
    "spm legacy": lambda folder: spm_llama(folder, legacy=True),
    "spm without dummy prefix": lambda folder: spm_llama(folder, False, add_prefix_space=False),
    "llama 2 chat": llama_2_chat,
    "phi 3": phi_3,
    "gemma file": gemma_file,
    "gpt2 files": lambda folder: words_and_merges(folder, "GPT2Tokenizer", bos_token="<|endoftext|>"),
    "qwen2 files": lambda folder: words_and_merges(folder, "Qwen2Tokenizer", pad_token="<|endoftext|>"),
    "bert generation slow": decoder_bert,
    "spm slow": slow_sentencepiece,
    "spm slow without dummy prefix": lambda folder: slow_sentencepiece(folder, add_dummy_prefix=False),
    "t5": t5,
    "wordpiece": wordpiece,
    "unigram nfkc": unigram_nfkc,
    "words alone": words_alone,
    "bytes slow": lambda folder: (ByT5Tokenizer().save_pretrained(folder), None)[1],
    "ctrl slow": ctrl,
}


def base_folder(root: Path, kind: str) -> Path:
    """A Llama with as many rows as its tokenizer, of the given kind, has ids."""
    folder = root / kind.replace(" ", "-")
    folder.mkdir(parents=True)
    KINDS[kind](folder)
    torch.manual_seed(5)
    config = LlamaConfig(**SHAPE | {"vocab_size": 8, "initializer_range": 0.2})
    config.save_pretrained(folder)
    config.vocab_size = max(AutoTokenizer.from_pretrained(folder).get_vocab().values()) + 1
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
