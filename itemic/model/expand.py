"""Any Hugging Face causal language model learns to write items: new tokens, new rows, everything else
untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from itemic.data.dataset import Dataset
from itemic.errors import ConfigError, ModelError
from itemic.forest.support import check_config, check_supported
from itemic.model import init as start
from itemic.model.folder import load_lm, load_tokenizer, read_config
from itemic.model.model import RECORD, Model, embeddings, head, remember_index
from itemic.model.template import CHAT_TEMPLATE, CHAT_TOKENS, TURN_END
from itemic.model.tokenizer import add_index_tokens, opening, plain_token, settled, tokens_taken
from itemic.progress import log
from itemic.sid.encoders.huggingface import find_model
from itemic.sid.index import ItemIndex
from itemic.sid.kinds import need_sids
from itemic.sid.names import ItemNames
from itemic.sid.text import item_texts

# what nobody reads in their configurations: they have no other attention than a causal one
ALWAYS_DECODERS = ("gpt_neox", "gpt_neox_japanese")
# what no trial of a forest would find out
UNFIT = {
    "phimoe": "draws its experts at random while it trains",
    "diffllama": "attends twice in each layer, which the beam search keeps the keys of only once",
}
INITS = ("moments", "text", "mean")
KINDS = "Use a text-only decoder, such as Qwen3, Llama, Mistral or Gemma; docs/families.md has more."


def expand(
    base_folder: str | Path,
    index: ItemNames,
    *,
    init: str = "moments",
    pad_to: int = 256,
    tie: bool | None = None,
    dataset: Dataset | None = None,
    seed: int = 0,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> Model:
    """Give a base model one token for each token of the index.

    The new ids follow the tokenizer's last one without a gap, by level, then begin and end, then the turn
    tokens of our chat template if the base had no template. All old rows stay bit for bit as they are. A base
    whose tokenizer has all tokens already keeps their rows (OpenOneRec's released models; a model trained on the
    codes alone, see :meth:`ItemIndex.of_codes`), unless it was made by us for other items: then they start anew.

    Args:
        base_folder: a local Hugging Face folder with safetensors weights, or a model's name on the hub
            (``Qwen/Qwen3-0.6B``), which is downloaded once; code in it is never run.
        index: the items' tokens. Titles need none: then at most turn tokens are added.
        init: how new rows start, in the input matrix and in an untied head alike: ``moments`` (drawn with
            mean and full covariance of the old rows), ``text`` (from the mean row of the text of the items
            that carry the code, brought to the old rows' mean and spread level by level, plus a little noise;
            needs ``dataset``) or ``mean`` (the mean of the old rows plus a little noise).
        pad_to: the matrix gets a multiple of so many rows; it never shrinks.
        tie: whether the head is the input matrix; None leaves it as it is. Tying drops the base's own head.
        dataset: the catalogue, for ``init="text"``.
        seed: of the random rows.
        dtype: of the weights; None for the one they are stored in.
        revision: of a model on the hub: a branch, a tag or a commit.
    Raises:
        ModelError: no model folder, a kind of model that forests or the beam search can't run, or a tokenizer
            that has some of the tokens.
        ConfigError: an unknown init, or ``text`` without a dataset.
        IndexMismatchError: the dataset is not the one that the index was made for.
    """
    _check_arguments(init, pad_to, dataset, index)
    root = find_model(str(base_folder), revision)
    config = read_config(root)
    check_kind(config)
    tokenizer, lm = load_tokenizer(root), load_lm(root, "cpu", dtype)
    check_supported(lm)
    had = len(embeddings(lm))
    old = min(tokens_taken(tokenizer), had)
    if tokens_taken(tokenizer) > had:
        more = tokens_taken(tokenizer) - had
        log.warning("the tokenizer has %d ids more than the model has rows: is it the model's own?", more)
    first, added = add_index_tokens(tokenizer, index.tokens)
    turns = _give_template(tokenizer, lm) if not tokenizer.chat_template else []
    taken = tokens_taken(tokenizer)
    stop = taken if added or turns else first + len(index.tokens)
    if tie is not None:
        set_tied(lm, tie)
    if index.tokens or taken > had:  # a base that gets no token keeps its matrices as they are
        resize(lm, padded_rows(taken, had, pad_to))
    record = getattr(config, RECORD, None) or {"digest": index.digest}
    known = (index.digest, index.codes_digest) if isinstance(index, ItemIndex) else (index.digest,)
    same = not len(index) or record["digest"] in known  # the codes mean the same
    fresh = bool(index.tokens) and (added or not same or first + len(index.tokens) > had)
    if fresh or turns:
        begin = first if fresh else stop - len(turns)
        texts = item_texts(dataset.items) if init == "text" and dataset is not None else None
        _start_rows(lm, tokenizer, index, (begin, first, stop), min(old, first), init, texts, seed)
    elif index.tokens:
        log.info("the base has all %d tokens of the index already; their rows are kept", len(index.tokens))
    remember_index(lm, index, first, stop - first)
    _give_pad(tokenizer, lm)
    model = Model(lm, settled(tokenizer, lm.config, index.tokens), index)
    if record.get("think_pattern") and not fresh:
        model.think_pattern = True
    return model


def check_kind(config: Any) -> None:
    """Refuse by the configuration what is no text-only causal language model, or has layers that forests
    can't mask.

    Raises:
        ModelError: with the reason.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"a {kind} model is an encoder-decoder, not a causal language model", KINDS)
    for part in ("vision_config", "audio_config", "text_config"):
        if getattr(config, part, None) is not None:
            raise ModelError(f"a {kind} model is multimodal (its configuration has {part})", KINDS)
    names = getattr(config, "architectures", None) or []
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    encoder = getattr(config, "is_decoder", True) is False and kind not in ALWAYS_DECODERS
    if not causal or encoder:
        raise ModelError(f"a {kind} model is not a causal language model", KINDS)
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise ModelError(f"the folder holds a {', '.join(names)}, not a causal language model", KINDS)
    if getattr(config, "hidden_size_per_layer_input", None):
        raise ModelError(
            f"a {kind} model looks each token up in a second table for its layers, which new tokens have no rows of",
            KINDS,
        )
    if kind in UNFIT:
        raise ModelError(f"a {kind} model {UNFIT[kind]}", KINDS)
    check_config(config)


def set_tied(lm: PreTrainedModel, tie: bool) -> None:
    """Make the head the input matrix itself, or a copy of its own.

    Raises:
        ModelError: this kind of model has a head that can't be tied.
    """
    inputs, outputs = embeddings(lm), head(lm)
    if tie == (outputs is inputs):
        lm.config.tie_word_embeddings = tie
        return
    if tie and outputs.shape != inputs.shape:
        raise ModelError(
            f"the head {list(outputs.shape)} can't be tied to {list(inputs.shape)}", "Leave tie out."
        )
    lm.config.tie_word_embeddings = tie
    output: Any = lm.get_output_embeddings()  # type: ignore[no-untyped-call]
    output.weight = inputs if tie else torch.nn.Parameter(inputs.detach().clone())
    lm.tie_weights()
    lm.all_tied_weights_keys = lm.get_expanded_tied_weights_keys(all_submodels=True)


def padded_rows(taken: int, had: int, pad_to: int) -> int:
    """Rows of the matrices for ``taken`` token ids in a model that had ``had``: a multiple of ``pad_to``, never
    fewer than before."""
    return -(-max(taken, had) // pad_to) * pad_to


def resize(lm: PreTrainedModel, rows: int) -> None:
    """Grow both matrices to ``rows``; rows that no token has get the mean of the old ones."""
    had = len(embeddings(lm))
    if rows == had:
        return
    tied = head(lm) is embeddings(lm)
    lm.resize_token_embeddings(rows, mean_resizing=False)
    if tied and head(lm) is not embeddings(lm):
        raise ModelError("the head came apart from the embeddings while growing", KINDS)
    for matrix in [*matrices(lm), *_head_bias(lm)]:
        with torch.no_grad():
            matrix[had:] = matrix[:had].float().mean(0).to(matrix.dtype)


def matrices(lm: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The input matrix, and the head where it is another."""
    inputs, outputs = embeddings(lm), head(lm)
    return [inputs] if outputs is inputs else [inputs, outputs]


def _head_bias(lm: PreTrainedModel) -> list[Tensor]:
    """What some heads (Phi's, GPT-J's) add to each token's logit, in a list; it has a row as the matrices do."""
    bias = getattr(lm.get_output_embeddings(), "bias", None)  # type: ignore[no-untyped-call]
    return [] if bias is None else [bias]


def _start_rows(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    index: ItemNames,
    span: tuple[int, int, int],
    old: int,
    init: str,
    texts: list[str] | None,
    seed: int,
) -> None:
    """Fill rows ``begin:stop``; the index's start at ``first``. Rows ``:old`` are those that the base has
    learned."""
    begin, first, stop = span
    generator = torch.Generator().manual_seed(seed)
    codes = None if texts is None else need_sids(index, "init text")
    mixing = None if texts is None or codes is None else start.text_mixing(codes, texts, tokenizer, old)
    for matrix in matrices(lm):
        known = matrix.detach()[:old]
        rows = start.sample_like(known, stop - begin, generator)
        if init == "mean":
            mean = known.float().mean(0)
            rows = mean + start.NOISE * (rows - mean)
        elif mixing is not None and codes is not None and begin == first:
            count = len(index.tokens)
            meanings = start.text_meanings(mixing, known)
            rows[:count] = start.from_meanings(codes.sizes, meanings, known, rows[:count])
        _write(matrix, begin, rows)
    for bias in _head_bias(lm):
        _write(bias, begin, bias.detach()[:old].float().mean(0).expand(stop - begin))


def _write(matrix: Tensor, begin: int, rows: Tensor) -> None:
    with torch.no_grad():
        matrix[begin : begin + len(rows)] = rows.to(matrix.dtype)


def _give_template(tokenizer: PreTrainedTokenizerBase, lm: PreTrainedModel) -> list[str]:
    """Our chat template for a base without one, after what its tokenizer puts before every text by itself; returns the
    turn tokens that were new to the tokenizer."""
    known = tokenizer.get_vocab()
    missing = [token for token in CHAT_TOKENS if token not in known]
    marked = tokenizer.get_added_vocab()
    tokenizer.add_tokens([plain_token(token) for token in CHAT_TOKENS if token not in marked])
    before = opening(tokenizer)  # the base has never read a text without it
    tokenizer.chat_template = (f"{{{{- {json.dumps(before)} -}}}}\n" if before else "") + CHAT_TEMPLATE
    end = cast(int, tokenizer.convert_tokens_to_ids(TURN_END))
    if lm.generation_config is not None:
        ends = lm.generation_config.eos_token_id
        others = [] if ends is None else ends if isinstance(ends, list) else [ends]
        lm.generation_config.eos_token_id = [*dict.fromkeys([*others, end])]
    return missing


def _give_pad(tokenizer: PreTrainedTokenizerBase, lm: PreTrainedModel) -> None:
    """A token to pad with, for those who batch prompts: the base's own, else one that ends a text or a turn, or
    whatever special token there is."""
    if tokenizer.pad_token is None:
        known = tokenizer.get_vocab()
        named = (tokenizer.eos_token, TURN_END, tokenizer.bos_token, tokenizer.unk_token)
        others = sorted(set(tokenizer.all_special_tokens) & set(known))
        tokenizer.pad_token = next(
            token for token in (*named, *others, *reversed(known)) if token is not None and token in known
        )
    for config in (lm.config, lm.generation_config):
        if config is not None and config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id


def _check_arguments(init: str, pad_to: int, dataset: Dataset | None, index: ItemNames) -> None:
    if init not in INITS:
        raise ConfigError(f"unknown init {init!r} for an expansion", f"Use one of {', '.join(INITS)}.")
    if pad_to < 1:
        raise ConfigError(f"pad_to is {pad_to}", "Give a positive number of rows.")
    if init == "text":
        need_sids(index, "init text")
        if dataset is None:
            raise ConfigError(
                "init text needs the catalogue", "Give the dataset that the index was made for."
            )
        index.check_dataset(dataset)
