"""The model card that stands in every saved folder."""

from __future__ import annotations

from transformers import PreTrainedModel

from itemic.sid.index import ItemIndex
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
| token format | `{form}` |
| levels | {levels} ({sizes} codes) |
| items with a semantic ID of their own | {unique:,} of {items:,} |
| index digest | `{digest}` |

{example}

## Use

```python
from itemic.model import Model

model = Model.load("this folder")
```

or with transformers alone: `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`.

## Limits

- The model knows the items of its index and no others; a changed catalogue needs a new index and more
  training.
- Free generation can spell semantic IDs that no item has. Rank with a search that is constrained to the
  index.
- This card describes the model's form. It says nothing about quality: look at the reports of the run that
  trained it.
"""


def model_card(lm: PreTrainedModel, vocabulary: int, index: ItemIndex) -> str:
    """Facts that can be read off the model and its index, and no others."""
    collisions = index.collisions
    return _CARD.format(
        kind=lm.config.model_type,
        parameters=lm.num_parameters(),
        dtype=str(lm.dtype).removeprefix("torch."),
        vocabulary=vocabulary,
        tokens=len(index.tokens),
        items=len(index),
        layers=lm.config.num_hidden_layers,
        width=lm.config.hidden_size,
        form=index.format,
        levels=index.levels,
        sizes=" × ".join(map(str, index.sizes)),
        unique=collisions.items - collisions.collided,
        digest=index.digest,
        example=_example(index),
    )


def _example(index: ItemIndex) -> str:
    text = index.examples(1)[0]
    if len(index):
        return f"An item reads `{text}` (item {code_span(index.item_ids[0])})."
    return f"Its index holds the codes alone; a semantic ID reads `{text}`."
