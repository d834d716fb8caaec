"""Folders of sentence-transformers, read and written without the library: what its modules say of pooling, length and
prompts.

The layout is that of the library's versions 2 to 6: ``modules.json`` lists a Transformer, a Pooling and perhaps a
Normalize module, each with a folder of its own; ``sentence_bert_config.json`` and ``config_sentence_transformers.json``
say the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itemic.artifact import write_json
from itemic.errors import ModelError
from itemic.profile.settings import Pooling

MODULES = "modules.json"
MODES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True)
class Said:
    """What a folder says of how its model is used; None where it doesn't.

    Attributes:
        root: where the model itself is.
        pooling: of its states.
        normalize: whether vectors get length 1.
        max_length: tokens of a text.
        query: text in front of what is searched with.
        document: text in front of what is found.
    """

    root: Path
    pooling: Pooling | None = None
    normalize: bool | None = None
    max_length: int | None = None
    query: str = ""
    document: str = ""


def read_sentence_folder(folder: Path) -> Said:
    """What a folder says; one of plain Hugging Face says nothing.

    Raises:
        ModelError: a module that isn't known, or a file that can't be read.
    """
    if not (folder / MODULES).is_file():
        return Said(folder)
    modules = _read(folder / MODULES, list)
    try:
        parts = [(str(part["type"]).rpartition(".")[2], folder / part.get("path", "")) for part in modules]
    except (TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{folder / MODULES} is no list of modules: {error!r}", "Copy the folder again."
        ) from None
    names = [name for name, _ in parts]
    if names[:2] != ["Transformer", "Pooling"] or names[2:] not in ([], ["Normalize"]):
        raise ModelError(
            f"{folder} is a chain of {', '.join(names)}",
            "Use a model of Transformer, Pooling and perhaps Normalize; others are frozen encoders "
            "(sentence-transformers) alone.",
        )
    root = parts[0][1]
    prompts = _read(folder / "config_sentence_transformers.json", dict).get("prompts") or {}
    sizes = _read(root / "sentence_bert_config.json", dict)
    if sizes.get("do_lower_case"):
        raise ModelError(f"{root} puts texts in lower case before its tokenizer", "Let the tokenizer do so.")
    return Said(
        root,
        _pooling(parts[1][1], bool(any(prompts.values()))),
        "Normalize" in names,
        sizes.get("max_seq_length"),
        prompts.get("query") or "",
        prompts.get("document") or "",
    )


def _pooling(folder: Path, prompts: bool) -> Pooling:
    told = _read(folder / "config.json", dict)
    modes = told.get("pooling_mode") or [mode for key, mode in OLD_MODES.items() if told.get(key)]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in MODES:
        raise ModelError(
            f"{folder} pools by {' and '.join(map(str, modes)) or 'nothing'}",
            f"Use one of {', '.join(MODES)}.",
        )
    if prompts and not told.get("include_prompt", True):
        raise ModelError(f"{folder} leaves prompts out of the mean", "Use a model that pools them too.")
    return MODES[modes[0]]


def write_sentence_folder(folder: Path, said: Said, width: int) -> None:
    """Make a folder that holds a model and its tokenizer one of sentence-transformers."""
    mode = next(word for word, pooling in MODES.items() if pooling == said.pooling)
    names = ["Transformer", "Pooling", *(["Normalize"] if said.normalize else [])]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{name}" if number else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for number, name in enumerate(names)
    ]
    for module in modules[1:]:
        (folder / str(module["path"])).mkdir(exist_ok=True)
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    pooling |= {key: known == mode for key, known in OLD_MODES.items()}
    write_json(folder / MODULES, modules)
    write_json(folder / "1_Pooling" / "config.json", pooling | {"include_prompt": True})
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": said.max_length, "do_lower_case": False}
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": said.query, "document": said.document},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if said.normalize else "dot",
        },
    )


def _read(file: Path, kind: type) -> Any:
    if not file.is_file():
        return kind()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} can't be read: {error}", "Copy the folder again.") from None
    if not isinstance(found, kind):
        raise ModelError(f"{file} is no {kind.__name__}", "Copy the folder again.")
    return found
