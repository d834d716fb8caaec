"""Tiny models with random weights, written to disk with tokenizers trained on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

CORPUS = [
    "Title Brand Categories Description Home > : number 0 1 2 3 4 5 6 7 8 9",
    "red green blue white pink soap shampoo brush towel mirror",
] * 3
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, [CLS] … [SEP]."""
    words = sorted({word for text in CORPUS for word in text.lower().split()})
    letters = sorted(set("".join(words)))
    tokens = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters), *words]
    # a trainer numbers its tokens differently every time, and so deals out other random rows
    vocabulary = {token: row for row, token in enumerate(dict.fromkeys(tokens))}
    core = Tokenizer(kinds.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **SPECIAL)


def byte_level(side: str = "right", pad: str | None = "<|end|>") -> PreTrainedTokenizerFast:
    """As Qwen3-Embedding's: bytes, and an end token behind every text."""
    core = Tokenizer(kinds.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, padding_side=side, pad_token=pad, eos_token="<|end|>", model_max_length=64
    )


def save(folder: Path, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    tokenizer = wordpiece()
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    lm = BertModel(config)
    torch.nn.init.normal_(lm.embeddings.word_embeddings.weight, std=0.5)  # words tell more than places
    return save(folder, lm, tokenizer)


def qwen3(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    tokenizer = tokenizer or byte_level()
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return save(folder, Qwen3ForCausalLM(config), tokenizer)


def gpt2(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Places are learnt here, so that padding on the left shows unless it is handled."""
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64)
    return save(folder, GPT2LMHeadModel(config), tokenizer)


def t5(folder: Path) -> Path:
    tokenizer = wordpiece()
    torch.manual_seed(4)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return save(folder, T5ForConditionalGeneration(config), tokenizer)


def sentence_model(folder: Path, base: Path) -> Path:
    """A folder that sentence-transformers itself wrote: BERT, mean over tokens, length 1, two prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    parts = Transformer(str(base)), Pooling(64, pooling_mode="mean"), Normalize()
    SentenceTransformer(modules=[*parts], device="cpu", prompts={"document": "towel: "}).save(str(folder))
    return folder
