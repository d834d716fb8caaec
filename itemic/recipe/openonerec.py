"""OpenOneRec's data configuration (JSON) and training flags as a recipe that says the same.

What has no counterpart, or means something else, stands in the recipe as a comment; what is unknown is told.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from itemic.errors import ConfigError
from itemic.recipe.flags import Flags, parse_flags
from itemic.recipe.openonerec_keys import (
    CODES,
    DATA_KEYS,
    FLAGS,
    FRAME,
    LAYERS,
    LOADER,
    SCHEDULES,
    SILENT,
    SWITCHES,
)
from itemic.settings import keys_of
from itemic.training.language.stage import Stage


@dataclass
class Imported:
    """A recipe's text, and what its reader should know.

    Attributes:
        text: YAML.
        told: keys and flags that were not taken over or mean something else, one sentence each.
    """

    text: str
    told: list[str]


@dataclass
class _Draft:
    """A recipe in the making: its sections, comments beside keys, and what is told."""

    recipe: dict[str, Any] = field(default_factory=dict)
    stage: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """A key of the stage, dotted where it is a part's."""
        self.stage[key] = value
        if comment:
            self.beside[key] = comment


def import_openonerec(
    config: str | Path, flags: str | None = None, *, name: str | None = None, ranks: int | None = None
) -> Imported:
    """Make a recipe of OpenOneRec's files.

    Args:
        config: the JSON file that its ``--dataset_config`` names.
        flags: the training flags, or the shell script with them; None for none: then the stage has our defaults.
        name: of the run; None for that of ``--output_dir``, or of the file.
        ranks: processes that train side by side, each of which has ``max_length`` tokens a step; None for what the
            script says, else 1.

    Raises:
        ConfigError: the file can't be read, or values are of the wrong kind; all of them are named.
    """
    file = Path(config)
    data, faults = _read(file)
    found = parse_flags(flags, SWITCHES) if flags is not None else Flags()
    values = _values(found, faults)
    if faults:
        raise ConfigError(f"{file} can't be imported: {'; '.join(faults)}", "Mend these values.")
    draft = _Draft()
    known = {key: value for key, value in data.items() if key in DATA_KEYS}
    _unknown(draft, data, found)
    _name(draft, name, values, file)
    _sections(draft, known, values)
    _data_keys(draft, known)
    if flags is None:
        draft.told.append(
            "no training flags were given: learning rate, schedule and steps are itemic's defaults"
        )
    else:
        _training(draft, known, values)
    _tokens(draft, known, values, ranks or found.ranks)
    draft.told = [" ".join(line.split()) for line in draft.told]  # a line each, whatever a value holds
    return Imported(_write(draft, file), draft.told)


def _read(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} can't be read as JSON: {error}", "Give OpenOneRec's data configuration."
        ) from error
    if not isinstance(data, dict) or "sources" not in data:
        raise ConfigError(
            f"{file} has no sources", "Give OpenOneRec's data configuration, not a list of files."
        )
    faults = []
    for key, kind in DATA_KEYS.items():
        value = data.get(key)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is int)):
            faults.append(f"{key} is {value!r}")
    sources = data["sources"]
    if isinstance(sources, list) and not (sources and all(isinstance(path, str) for path in sources)):
        faults.append("sources is no list of paths")
    return data, faults


def _values(flags: Flags, faults: list[str]) -> dict[str, Any]:
    """The flags with their types and the script's defaults."""
    found = {name: kind for name, kind in FLAGS.items() if not isinstance(kind, type)}
    for name, text in flags.given.items():
        if name not in FLAGS:
            continue
        kind = FLAGS[name] if isinstance(FLAGS[name], type) else type(FLAGS[name])
        try:
            if (text is True or text is False) and kind is not bool:
                raise ValueError("a value is missing")
            found[name] = text if kind is bool else kind(text)
        except ValueError as error:
            faults.append(f"--{name} {text}: {error}")
    return found


def _unknown(draft: _Draft, data: dict[str, Any], flags: Flags) -> None:
    for key, value in data.items():
        if key not in DATA_KEYS:
            draft.told.append(f"{key}: {json.dumps(value, ensure_ascii=False)} is unknown and was left out")
    for name, text in flags.given.items():
        if name not in FLAGS:
            draft.told.append(f"--{name}{'' if text is True else f' {text}'} is unknown and was left out")
        elif name in SILENT and text is not False:
            draft.told.append(f"--{name}: {SILENT[name]}")
    for word in flags.stray:
        draft.told.append(f"{word!r} belongs to no flag and was left out")


def _name(draft: _Draft, name: str | None, values: dict[str, Any], file: Path) -> None:
    output = values.get("output_dir")
    plain = re.sub(r"[^\w.\-]+", "-", name or Path(output or file).stem).strip("-._")
    draft.recipe["name"] = plain or "openonerec"
    if output:
        draft.told.append(f"--output_dir: give it when you run the recipe, -o {output}")


def _sections(draft: _Draft, data: dict[str, Any], values: dict[str, Any]) -> None:
    draft.recipe["seed"] = values.get("seed", 0)
    draft.recipe["index"] = {"levels": _levels(draft, data.get("itemic_id_range")), "format": "onerec"}
    base, tokenizer = values.get("model_dir"), data.get("base_model_dir")
    if base is None and tokenizer is None:
        draft.told.append("neither base_model_dir nor --model_dir names a base model; set BASE_MODEL")
    elif base and tokenizer and Path(base) != Path(tokenizer):
        draft.told.append(
            f"base_model_dir: {tokenizer} is not read; the tokenizer is that of the base, {base}"
        )
    draft.recipe["model"] = {"base": base or tokenizer or "${BASE_MODEL}"}
    if values.get("use_tie_weights"):
        draft.recipe["model"]["tie"] = True
    sources = data["sources"]
    draft.recipe["conversations"] = {"files": [sources] if isinstance(sources, str) else sources}


def _levels(draft: _Draft, span: Any) -> list[int]:
    if span is None:
        draft.told.append(f"no itemic_id_range: {LAYERS} levels of {CODES} codes are assumed")
        return [CODES] * LAYERS
    draft.told.append(f"itemic_id_range: {span}: here the ids follow from the tokenizer and index.levels")
    whole = len(span) == 2 and all(isinstance(number, int) for number in span)
    codes = span[1] - span[0] + 1 - FRAME if whole else 0
    if codes < 2 * LAYERS or codes % LAYERS:
        draft.told.append(f"itemic_id_range: {span} is not {LAYERS} equal levels; set index.levels yourself")
        return [CODES] * LAYERS
    return [codes // LAYERS] * LAYERS


def _data_keys(draft: _Draft, data: dict[str, Any]) -> None:
    if data.get("name", LOADER) != LOADER:
        draft.told.append(
            f"name: {data['name']}: only OpenOneRec's conversation tables are read, as {LOADER}"
        )
    if "model_class" in data:
        draft.told.append(f"model_class: {SILENT['model_class']}")
    draft.set("name", "train")
    draft.set("epochs", data.get("num_epochs", 1), "num_epochs")
    if data.get("only_assistant_loss") is False:
        draft.set(
            "objective.supervise",
            "everything",
            "only_assistant_loss: false, which OpenOneRec's code never reads",
        )
    else:
        draft.set("objective.supervise", "all", "assistant turns, and plain texts whole")
    if "add_think_pattern" in data:
        draft.set("data.think_pattern", data["add_think_pattern"])
    draft.set("data.stream", True, "files are read while training goes on, as there")
    if "local_shuffle_buffer_size" in data:
        draft.set("data.shuffle_buffer", data["local_shuffle_buffer_size"], "local_shuffle_buffer_size")
    if "num_workers" in data:
        draft.set("data.workers", data["num_workers"], "num_workers")


def _training(draft: _Draft, data: dict[str, Any], values: dict[str, Any]) -> None:
    _what_learns(draft, data, values)
    kind = values["lr_scheduler_type"]
    if kind not in SCHEDULES:
        draft.told.append(f"--lr_scheduler_type {kind} is unknown; the recipe has cosine")
    draft.set("learning_rate", values["learning_rate"])
    draft.set("schedule.min_lr", values["min_lr"])
    draft.set("schedule.name", SCHEDULES.get(kind, "cosine"))
    draft.set(
        "schedule.steps", values["num_training_steps"], "num_training_steps: training goes on at min_lr"
    )
    draft.set("schedule.warmup", values["num_warmup_steps"], "steps")
    draft.set(
        "optimizer.weight_decay",
        values["weight_decay"],
        "on matrices alone; there on norms and embeddings as well",
    )
    draft.set("optimizer.betas", [values["beta1"], values["beta2"]])
    draft.set("optimizer.clip", 0.0, "there the norm is measured and nothing is cut by it; 1.0 is safer")
    if "clip_range" in values:
        draft.told.append(f"--clip_range {values['clip_range']} cuts gradients by value: no counterpart")
    draft.set("engine.gradient_checkpointing", bool(values.get("enable_gradient_checkpointing")))
    draft.set("engine.precision", "bfloat16")
    draft.set("engine.minibatch_size", values["minibatch_size"])
    draft.set("checkpoints.every", values["save_checkpoint_per_step"])
    draft.set("logs.every", values["logging_per_step"])
    if "reshard_after_forward" in values:
        reshard = values["reshard_after_forward"]
        draft.recipe["distribution"] = {"strategy": "fsdp", "reshard_after_forward": reshard}
    named = values.get("dataset_config")
    if named:
        draft.told.append(f"--dataset_config {named}: the recipe has what the imported file says")


def _what_learns(draft: _Draft, data: dict[str, Any], values: dict[str, Any]) -> None:
    start, frozen = values["start_optimize_embedding_index"], values.get("freeze_llm", False)
    draft.set("train", "embeddings" if frozen else "all", "freeze_llm" if frozen else "no freeze_llm")
    if frozen and start <= 0:
        draft.told.append(
            "--freeze_llm alone lets all embeddings learn there; here the rows of the index's tokens do"
        )
    if start > 0 and not frozen:
        draft.told.append(
            f"--start_optimize_embedding_index {start} without --freeze_llm keeps the text's rows as they are there;"
            " here all rows learn"
        )
    span = data.get("itemic_id_range")
    if start > 0 and span and span[0] != start:
        draft.told.append(
            f"--start_optimize_embedding_index {start} is not where itemic_id_range {span} begins"
        )


def _tokens(draft: _Draft, data: dict[str, Any], values: dict[str, Any], ranks: int | None) -> None:
    longest = values.get("max_length") or data.get("max_length")
    if longest is None:
        return
    if "max_length" in values and data.get("max_length", longest) != longest:
        draft.told.append(
            f"max_length: {data['max_length']} gives way to --max_length {longest}, as it does there"
        )
    draft.set("data.max_length", longest)
    draft.set("data.overlong", "split", "there what doesn't fit is thrown away")
    draft.set("data.block_tokens", longest, "a step's tokens on one GPU")
    draft.set(
        "data.tokens_per_step", longest * (ranks or 1), f"on all GPUs: {longest} on each of {ranks or 1}"
    )
    if ranks is None:
        draft.told.append(
            "nothing says how many GPUs train; data.tokens_per_step is that of one (see --ranks)"
        )


def _write(draft: _Draft, file: Path) -> str:
    lines = [f"# Made by `itemic recipe import` of OpenOneRec's {file.name}."]
    if draft.told:
        lines += [
            "# What was not taken over, or means something else here:",
            *(f"#   {line}" for line in draft.told),
        ]
    for section, value in draft.recipe.items():
        lines.append(_yaml({section: value}) if isinstance(value, dict) else f"{section}: {_flow(value)}")
    lines.append("stages:")
    told = set()
    for key, value in sorted(draft.stage.items(), key=_place):
        part, dot, name = key.partition(".")
        if dot and part not in told:
            told.add(part)
            lines.append(f"    {part}:")
        comment = f"    # {draft.beside[key]}" if key in draft.beside else ""
        indent = "      " if dot else "  - " if key == "name" else "    "
        lines.append(f"{indent}{name if dot else key}: {_flow(value)}{comment}")
    return "\n".join(lines) + "\n"


def _place(setting: tuple[str, Any]) -> int:
    """Where a key of the stage stands: as its part does among the stage's."""
    return keys_of(Stage).index(setting[0].partition(".")[0])


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000
    ).rstrip()


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
