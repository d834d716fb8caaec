"""Samples in a file, in RecLM-gen's form: a list of epochs, each a list of samples.

A sample is ``{"input_text": …, "output_text": …, "task": …, "input_field_data": {…}}``; without an output it is a
prompt alone, as reinforcement learning takes it. The file is a pickle, JSON, or JSON Lines whose lines name their
``epoch``.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from itemic import schema as c
from itemic.data.pickles import load_plain
from itemic.errors import ConfigError, DataError
from itemic.tasks.conversation import SCHEMA, Conversations, Message, make_uuids

INPUT, OUTPUT, TASK, FIELDS, EPOCH = "input_text", "output_text", "task", "input_field_data", "epoch"
NAMELESS = "static"  # the task of samples that name none
MEND = "Make the file again, or mend it."
Sample = Mapping[str, Any]


def write_static(file: str | Path, epochs: Iterable[Iterable[Sample]]) -> list[int]:
    """Write samples, whole or not at all.

    Args:
        file: ends with ``.pickle`` or ``.pkl``, ``.json``, or ``.jsonl``; one that is there is replaced.
        epochs: the samples of each.

    Returns:
        How many samples each epoch has.

    Raises:
        ConfigError: the file's name says no form.
        DataError: a sample lacks its input, or holds what is no plain data.
    """
    path = Path(file)
    form = _form(path)
    whole = [
        [_checked(sample, f"epoch {i}, sample {n}") for n, sample in enumerate(epoch)]
        for i, epoch in enumerate(epochs)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as stream:
            if form == "pickle":
                pickle.dump(whole, stream, protocol=pickle.HIGHEST_PROTOCOL)
            elif form == "json":
                stream.write(json.dumps(whole, ensure_ascii=False).encode())
            else:
                for i, epoch in enumerate(whole):
                    stream.writelines(
                        json.dumps({EPOCH: i} | one, ensure_ascii=False).encode() + b"\n" for one in epoch
                    )
        scratch.replace(path)
    except UnicodeEncodeError as error:
        raise DataError(f"a sample holds text that is no text: {error}", "Mend its text.") from error
    finally:
        scratch.unlink(missing_ok=True)
    return [len(epoch) for epoch in whole]


def read_epochs(file: str | Path) -> list[list[dict[str, Any]]]:
    """The samples of a file, epoch by epoch, as they are.

    Raises:
        ConfigError: the file's name says no form.
        DataError: it can't be read, holds something else, or is a pickle of more than plain data.
    """
    path = Path(file)
    form = _form(path)
    try:
        if form == "pickle":
            with path.open("rb") as stream:
                whole = load_plain(stream, str(path))
        elif form == "json":
            whole = json.loads(path.read_text("utf-8"))
        else:
            return _read_lines(path)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read: {error}", MEND) from error
    if not isinstance(whole, list) or any(not isinstance(epoch, list) for epoch in whole):
        raise DataError(f"{path} holds no list of epochs, each a list of samples", MEND)
    return [
        [_checked(sample, f"{path}, epoch {i}, sample {n}") for n, sample in enumerate(epoch)]
        for i, epoch in enumerate(whole)
    ]


def read_static(file: str | Path, *, turns: bool = False) -> Conversations:
    """The samples of a file as conversations to train on, in order.

    ``metadata`` has the ``task``, the ``epoch``, and the ``fields`` that came as ``input_field_data``.

    Args:
        file: as :func:`write_static` or RecLM-gen writes it.
        turns: the input is what a user says and the output what the assistant answers, and a chat template is put
            around them. By default the texts are taken as they are, for RecLM-gen's inputs hold a template's text
            already: they are read without loss, and the output follows after a blank unless they end with white space.

    Raises:
        ConfigError: the file's name says no form.
        DataError: it can't be read, or holds something else.
    """
    rows = []
    for i, epoch in enumerate(read_epochs(file)):
        for n, sample in enumerate(epoch):
            task = sample.get(TASK) or NAMELESS
            metadata = {TASK: task, EPOCH: i, "fields": sample.get(FIELDS) or {}}
            row = {c.SOURCE: task, c.MESSAGES: None, c.SEGMENTS: None, c.METADATA: metadata}
            row |= {c.MESSAGES: _turns(sample)} if turns else {c.SEGMENTS: _segments(sample)}
            where = f"{file}, epoch {i}, sample {n}"
            rows.append({name: _as_json(value, where) for name, value in row.items()})
    table = pl.DataFrame(rows, schema={name: kind for name, kind in SCHEMA.items() if name != c.UUID})
    named = table.with_columns(make_uuids(NAMELESS, 0, 0, len(table)))
    return Conversations.open(named.select(list(SCHEMA)))


def samples_of(
    conversations: Conversations, render: Callable[[Sequence[Message]], str]
) -> list[list[dict[str, Any]]]:
    """Conversations as samples, by the ``epoch`` that their metadata name (0 where they name none).

    Args:
        conversations: that end with the assistant's turn; or texts, whose input is what comes before the last part
            that has a loss.
        render: the text of all turns but the last, as the model reads it before it answers.

    Raises:
        DataError: a conversation ends with somebody else's turn.
    """
    epochs: dict[int, list[dict[str, Any]]] = {}
    for row in (row for _, frame in conversations.frames() for row in frame.iter_rows(named=True)):
        metadata = json.loads(row[c.METADATA] or "{}")
        epoch = int(metadata.pop(EPOCH, 0))
        task = metadata.pop(TASK, None) or row[c.SOURCE]
        fields = metadata.get("fields", metadata)
        texts = _split_turns(row, render) if row[c.MESSAGES] else _split_segments(row)
        epochs.setdefault(epoch, []).append({**texts, TASK: task, FIELDS: fields})
    return [epochs.get(i, []) for i in range(max(epochs, default=-1) + 1)]


def _form(path: Path) -> str:
    forms = {".pickle": "pickle", ".pkl": "pickle", ".json": "json", ".jsonl": "jsonl"}
    if path.suffix not in forms:
        raise ConfigError(
            f"{path.name} doesn't say in which form samples are", f"End it with one of {', '.join(forms)}."
        )
    return forms[path.suffix]


def _read_lines(path: Path) -> list[list[dict[str, Any]]]:
    epochs: dict[int, list[dict[str, Any]]] = {}
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                sample = _checked(json.loads(line), f"{path}, line {number}")
                epoch = sample.pop(EPOCH, 0)
                if not isinstance(epoch, int) or epoch < 0:
                    raise DataError(f"{path}, line {number}: the epoch is {epoch!r}", "Count epochs from 0.")
                epochs.setdefault(epoch, []).append(sample)
    if len(epochs) <= max(epochs, default=0) - 1_000:
        raise DataError(f"{path} names epoch {max(epochs)} and has {len(epochs)}", "Count epochs from 0.")
    return [epochs.get(i, []) for i in range(max(epochs, default=-1) + 1)]


def _checked(sample: Any, where: str) -> dict[str, Any]:
    """A sample as a dict, its parts of the right kinds and all of it plain."""
    if not isinstance(sample, Mapping):
        raise DataError(f"{where} is no dict", MEND)
    for key, kind, needed in (
        (INPUT, str, True),
        (OUTPUT, str, False),
        (TASK, str, False),
        (FIELDS, Mapping, False),
    ):
        value = sample.get(key)
        if not isinstance(value, kind) and (needed or value is not None):
            what = "missing" if value is None else f"no {'text' if kind is str else 'dict'}"
            raise DataError(f"{where}: {key} is {what}", MEND)
    found = dict(sample)
    _check_plain(found, where, 0)
    return found


def _check_plain(value: Any, where: str, depth: int) -> None:
    """Raises:
    DataError: there is something that neither form can hold.
    """
    if depth > 50:
        raise DataError(f"{where} is nested too deep", "Put into samples what is needed of them alone.")
    if type(value) in (list, tuple):
        for one in value:
            _check_plain(one, where, depth + 1)
    elif type(value) is dict:
        for key, one in value.items():
            if type(key) not in (str, int):
                raise DataError(f"{where} has the key {key!r}", "Keys are texts or whole numbers.")
            _check_plain(one, where, depth + 1)
    elif value is not None and type(value) not in (str, int, float, bool):
        kind = type(value)
        raise DataError(
            f"{where} holds a {kind.__module__}.{kind.__qualname__}",
            "Samples hold dicts, lists, texts, numbers, booleans and None.",
        )


def _turns(sample: Sample) -> list[Message]:
    said = [{"role": "user", "content": sample[INPUT]}]
    if sample.get(OUTPUT) is not None:
        said.append({"role": "assistant", "content": sample[OUTPUT]})
    return said


def _segments(sample: Sample) -> list[dict[str, Any]]:
    asked, answer = sample[INPUT], sample.get(OUTPUT)
    parts: list[dict[str, Any]] = [{"type": "text", "text": asked, "loss": False}]
    if answer is not None:
        blank = "" if not asked or asked[-1].isspace() else " "
        parts.append({"type": "text", "text": blank + answer})
    return parts


def _as_json(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds text that is no text: {error}", MEND) from error
    return text


def _split_turns(row: Mapping[str, Any], render: Callable[[Sequence[Message]], str]) -> dict[str, str]:
    messages = json.loads(row[c.MESSAGES])
    if not messages or messages[-1].get("role") not in ("assistant", "user"):
        raise DataError(f"conversation {row[c.UUID]!r} ends with nobody's turn", "Give it an answer.")
    if messages[-1]["role"] == "user":  # a prompt alone
        return {INPUT: render(messages)}
    return {INPUT: render(messages[:-1]), OUTPUT: _text(messages[-1]["content"])}


def _split_segments(row: Mapping[str, Any]) -> dict[str, str]:
    parts = json.loads(row[c.SEGMENTS] or "[]")
    silent = [i for i, part in enumerate(parts) if part.get("loss") is False]
    start = silent[-1] + 1 if silent else 0
    asked, answer = ("".join(part["text"] for part in some) for some in (parts[:start], parts[start:]))
    if not answer:
        return {INPUT: asked}
    # the blank that reading puts before the answer
    return {INPUT: asked, OUTPUT: answer.removeprefix(" ") if asked and not asked[-1].isspace() else answer}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
