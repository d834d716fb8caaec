"""A Hugging Face model of your own becomes a recommender.

    python examples/own_model.py models/Qwen3-0.6B

The folder is one that `save_pretrained` wrote, of any causal language model with full attention. Without one, a tiny
Llama with random weights stands in, to show all steps in a minute. The result is a plain Hugging Face folder again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import itemic


def tiny_llama(folder: Path, texts: Sequence[str]) -> Path:
    """A Llama of 100,000 random weights, and a tokenizer that learns its words from the texts."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    words.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main(arguments: Sequence[str] | None = None) -> itemic.Model:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", nargs="?", type=Path, help="a Hugging Face folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/own-model"))
    parser.add_argument("--steps", type=int, default=200, help="of each of the two stages")
    options = parser.parse_args(arguments)

    # A made-up shop; itemic.read takes real files.
    dataset = itemic.simulate(itemic.SimulatorConfig(users=300, items=100), seed=0).dataset
    index = itemic.build_index(dataset, levels=[16, 16])

    with TemporaryDirectory() as folder:
        base = options.base or tiny_llama(Path(folder), dataset.items["title"].to_list())
        # One new token for each code; its row begins as the mean of the words of the items that carry it.
        model = itemic.expand(base, index, init="text", dataset=dataset)

    # First the new rows alone, so that what the model knows isn't washed away, then everything: what items are called
    # (A, B) and what comes next (C).
    tasks = [{"task": "A"}, {"task": "B"}, {"task": "C", "windows": ["all"]}]
    conversations = itemic.build_conversations(dataset, index, tasks=tasks)
    rows = {
        "train": "embeddings",
        "steps": options.steps,
        "learning_rate": 1e-3,
        "optimizer": {"weight_decay": 0.0},
    }
    whole = {"train": "all", "steps": options.steps, "learning_rate": 1e-3 if options.base is None else 2e-5}
    for stage in (rows, whole):
        model = itemic.train(model, conversations, stage=stage | {"data": {"tokens_per_step": 4096}})
    model.save(options.output)

    ranking = itemic.recommend(model, dataset.split("test"), task="C", beams=20, dataset=dataset)
    print(itemic.score(ranking, k=[5, 10]))
    print(f"the model is in {options.output}; AutoModelForCausalLM loads it")
    return model


if __name__ == "__main__":
    main()
