"""The model card that stands in every saved folder."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from itemic.sid.index import ItemIndex
from itemic.sid.names import ItemNames
from itemic.sid.titles import BEGIN, END
from itemic.text import code_span

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [recommendation, semantic-ids, itemic]
---

# A recommender that speaks items

A causal language model ({kind}, {parameters:,} parameters, {dtype}) whose vocabulary of {vocabulary:,} tokens
has {tokens:,} tokens for semantic IDs. It names {items:,} items; the folder `sid/` says which.

| | |
|---|---|
| layers, width | {layers}, {width} |
{facts}| index digest | `{digest}` |

{example}
{asked}
## Use

```python
from itemic.model import Model

model = Model.load("this folder")
```

or with transformers alone: `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

## Limits

- The model knows the items of its index and no others; a changed catalogue needs a new index and more
  training.
- Free generation can spell {names} that no item has. Rank with a search that is constrained to the
  index.
- This card describes the model's form. It says nothing about quality: look at the reports of the run that
  trained it.
"""

_CODES = """\
| token format | `{form}` |
| levels | {levels} ({sizes} codes) |
| items with a semantic ID of their own | {unique:,} of {items:,} |
"""
_TITLES = """\
| items go by | `{column}`, between `{begin}` and `{end}` |
| cut to | {cut} |
| without text, named by their id | {no_text:,} of {items:,} |
| numbered, for their text was taken | {numbered:,} of {items:,} |
"""

_ASKED = """
## How it is asked

Training asked for the next item in these words, with the user's items in the place of `HISTORY`, oldest
first{most}; each stands there as its {shows}.

```text
{prompt}
```

With transformers alone, and a trie of the items so that only they can come out:

```python
import polars as pl
{torch}from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "this folder"
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
items, asked = pl.read_parquet(f"{{folder}}/sid/items.parquet"), model.config.itemic["asked"]
{program}

def allowed(_, tokens):
    node = trie
    for token in tokens[start["input_ids"].shape[1] :].tolist():
        node = node.get(token, {{}})
    return list(node) or [tokenizer.pad_token_id]


found = model.generate(
    **start, num_beams={beams}, num_return_sequences={beams}, max_new_tokens={length}, do_sample=False,
    prefix_allowed_tokens_fn=allowed, length_penalty=0.0,{ends}
)
{ranked}
```
"""
_CODES_PROGRAM = """\
trie, item_of = {{}}, {{}}
for item, sid in items.select("item_id", "semantic_id").iter_rows():
    tokens, node = tokenizer.encode(sid, add_special_tokens=False), trie
    item_of.setdefault(tuple(tokens), item)
    for token in tokens:
        node = node.setdefault(token, {{}})
lines = {lines}
prompt = asked["head"] + asked["between"].join(lines[:3]) + asked["tail"]  # somebody had the first three items
start = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
"""
_TITLES_PROGRAM = """\


def read(text):  # as text that goes on: a name has the same tokens wherever it stands
    return tokenizer.encode("\\n" + text, add_special_tokens=False)[len(newline) :]


newline = tokenizer.encode("\\n", add_special_tokens=False)
end = read("{end}")[-1]
trie, item_of, names = {{}}, {{}}, []
for item, title in items.select("item_id", "title").iter_rows():
    tokens, node = [*read("{begin}"), *read(title), *read("{end}")], trie
    names.append(tokens)
    item_of[tuple(tokens)] = item
    for token in tokens:
        node = node.setdefault(token, {{}})
history = [token for name in names[:3] for token in name]  # somebody had the first three items
head = tokenizer.encode(asked["head"], add_special_tokens=False)
prompt = torch.tensor([[*head, *history, *read(asked["tail"])]])
start = {{"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}}
"""
_CODES_RANKED = 'ranked = [item_of[tuple(row[start["input_ids"].shape[1] :].tolist())] for row in found]'
_TITLES_RANKED = """\
answers = [row[prompt.shape[1] :].tolist() for row in found]
ranked = [item_of[tuple(answer[: answer.index(end) + 1])] for answer in answers]"""
_SHOWS = {
    "sid": ("semantic ID", 'items["semantic_id"]'),
    "title": ("title", 'items["title"]'),
    "sid+title": (
        "semantic ID and title",
        '(items["semantic_id"] + " " + items["title"]).str.strip_chars()',
    ),
}


def model_card(lm: PreTrainedModel, vocabulary: int, index: ItemNames) -> str:
    """Facts that can be read off the model and its index, and no others."""
    return _CARD.format(
        kind=lm.config.model_type,
        parameters=lm.num_parameters(),
        dtype=str(lm.dtype).removeprefix("torch."),
        vocabulary=vocabulary,
        tokens=len(index.tokens),
        items=len(index),
        layers=lm.config.num_hidden_layers,
        width=lm.config.hidden_size,
        facts=_facts(index),
        digest=index.digest,
        example=_example(index),
        names=f"{index.word}s",
        asked=_asked(index, getattr(lm.config, "itemic", {}).get("asked")),
    )


def _facts(index: ItemNames) -> str:
    """The rows of the table that are about names."""
    if isinstance(index, ItemIndex):
        collisions = index.collisions
        return _CODES.format(
            form=index.format,
            levels=index.levels,
            sizes=" × ".join(map(str, index.sizes)),
            unique=collisions.items - collisions.collided,
            items=len(index),
        )
    said = index.origin
    most = said.get("max_tokens")
    return _TITLES.format(
        column=said.get("column", "title"),
        begin=BEGIN,
        end=END,
        cut=f"{most} tokens, {said.get('cut', 0):,} of {len(index):,}" if most else "nothing",
        no_text=said.get("no_text", 0),
        numbered=said.get("numbered", 0),
        items=len(index),
    )


def _asked(index: ItemNames, way: dict[str, Any] | None) -> str:
    """The prompt, and a program that asks it; nothing where nobody recorded one, where a prompt says more than a
    history's items, or there are no items."""
    if way is None or not len(index) or way["shows"] is None:
        return ""
    if way["shows"] != "sid" and index.known_titles() is None:
        return ""
    most = f", the latest {way['most_items']} of them" if way["most_items"] else ""
    if isinstance(index, ItemIndex):
        shows, lines = _SHOWS[way["shows"]]
        form = index.token_format
        program, ranked = _CODES_PROGRAM.format(lines=lines), _CODES_RANKED
        torch = ends = ""
        length = str(index.levels + (form.begin is not None) + (form.end is not None))
    else:
        shows, torch = f"title between `{BEGIN}` and `{END}`", "import torch\n"
        program, ranked = _TITLES_PROGRAM.format(begin=BEGIN, end=END), _TITLES_RANKED
        ends = "\n    eos_token_id=end,"  # titles are of different lengths
        length = "max(map(len, names))"
    return _ASKED.format(
        most=most,
        shows=shows,
        prompt=f"{way['head']}HISTORY{way['tail']}".strip("\n").replace("```", "~~~"),
        program=program,
        torch=torch,
        ends=ends,
        ranked=ranked,
        beams=min(10, index.distinct),
        length=length,
    )


def _example(index: ItemNames) -> str:
    text = index.examples(1)[0]
    if len(index):
        return f"An item reads {code_span(text)} (item {code_span(index.item_ids[0])})."
    return f"Its index holds the codes alone; a semantic ID reads `{text}`."
