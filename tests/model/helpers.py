"""Tiny models of four families, written to disk with tokenizers and chat templates of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from itemic.model.tokenizer import train_tokenizer
from itemic.sid.index import ItemIndex
from tests.sid.helpers import make_index

TALK = (
    "shampoo conditioner soap for dry curly hair and sensitive skin rose lavender lemon oil hand cream body "
    "lotion brush comb mirror nail polish red blue gold professional daily care travel size pack of natural"
)
WORDS = TALK.split()

# Each is written in the manner of its family: what matters here is how it treats contents and headers.
THINKING = """\
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- set content = m.content -%}{%- set thought = '' -%}
{%- if '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1] -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if loop.last -%}
{{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' -}}
{{- content.lstrip('\\n') -}}
{%- else -%}{{- '<|im_start|>assistant\\n' + content -}}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- else -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""
HEADERS = """\
{{- bos_token -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
NO_SYSTEM = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}
{%- for m in messages -%}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}
{{- '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
FAMILIES = ("qwen3", "qwen2", "llama", "gemma")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


def catalogue(count: int, seed: int = 0) -> list[str]:
    """Titles made of words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(count)]


def small_index(count: int = 30, sizes: tuple[int, ...] = (4, 5, 6), form: str = "onerec") -> ItemIndex:
    rng = np.random.default_rng(1)
    return make_index(rng.integers(0, sizes, (count, len(sizes))), sizes, form)


def llama_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts a beginning-of-text token before every text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=350,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], eos_token=special[4], chat_template=HEADERS
    )


def gemma_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """BPE on characters, bytes to fall back on, blanks written as ▁, runs of line ends as added tokens."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens([AddedToken("\n" * k, normalized=False) for k in range(2, 5)])
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        chat_template=NO_SYSTEM,
    )


def metaspace_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Writes a blank before the first word of a text, as Llama 2 does: its pieces can't be read alone."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<|im_end|>")


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """qwen3 and llama and gemma with templates in their manner, qwen2 without one."""
    texts = catalogue(200)
    if family == "llama":
        return llama_tokenizer(texts)
    if family == "gemma":
        return gemma_tokenizer(texts)
    tokenizer = train_tokenizer(texts, vocab_size=400)
    tokenizer.chat_template = THINKING if family == "qwen3" else None
    return tokenizer


def family_model(family: str, vocabulary: int) -> PreTrainedModel:
    torch.manual_seed(3)
    shape = SHAPE | {"vocab_size": vocabulary, "initializer_range": 0.2}
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=True))
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=False))
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False))
    return GemmaForCausalLM(GemmaConfig(**shape, tie_word_embeddings=True))


def family_folder(root: Path, family: str, spare: int = 0) -> Path:
    """A saved base model; ``spare`` rows of its matrices have no token."""
    folder = root / family
    tokenizer = family_tokenizer(family)
    family_model(family, len(tokenizer) + spare).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
