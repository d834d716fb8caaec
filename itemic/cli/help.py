"""How help looks: groups of commands, a line for each, and examples of most of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "init": ("itemic init my-shop -o my-shop.yaml", "itemic init clicks.csv -o clicks.yaml --yes"),
    "run": (
        "itemic run scientific",
        "itemic run beauty --from evaluate -s evaluate.beams=100",
        "itemic run quickstart -o runs/trial -s stages.0.epochs=1 --dry-run",
    ),
    "check": (
        "itemic check scientific",
        "itemic check quickstart -s seed=1 --shapes",
    ),
    "recommend": (
        "itemic recommend runs/quickstart --user u1 -k 10",
        "itemic recommend runs/quickstart/train.all --history i1,i2",
        "itemic recommend runs/beauty-think --user A1 --think 8",
        "itemic recommend runs/movies --user 42 --want Comedy --avoid Horror --share Drama=.5",
    ),
    "train": (
        "itemic train models/new --conversations talks -o models/trained -s epochs=3 -s learning_rate=2e-3",
    ),
    "report": ("itemic report runs/quickstart -o quickstart.html",),
    "compare": (
        "itemic compare runs/a runs/b -o a-against-b",
        "itemic compare new=runs/a-0,runs/a-1,runs/a-2 old=runs/b-0,runs/b-1,runs/b-2",
        "itemic compare runs/a theirs.csv --slices countries.csv",
    ),
    "advise": (
        "itemic advise runs/quickstart --auto -o improved.yaml",
        "itemic advise runs/quickstart --strategy long_tail,memory --dry-run",
    ),
    "improve": (
        "itemic improve runs/quickstart",
        "itemic improve runs/quickstart --rounds 5 --one-by-one",
    ),
    "recipe show": ("itemic recipe show quickstart",),
    "recipe copy": ("itemic recipe copy quickstart",),
    "data import": (
        "itemic data import raw/beauty -o data/beauty --format amazon-2014 -f user_k_core=5 -f item_k_core=5",
    ),
    "data export": ("itemic data export data/shop --format recbole -o data/shop-recbole",),
    "data describe": ("itemic data describe runs/quickstart --plot data.png",),
    "data simulate": ("itemic data simulate -o data/shop -s users=1000 -s items=300",),
    "sid build": (
        "itemic sid build data/shop -o index/shop --levels 64,64,64",
        "itemic sid build data/shop -o index/shop --quantizer rqvae -s epochs=20",
    ),
    "sid embed": ("itemic sid embed data/shop -o vectors/shop",),
    "sid assign": ("itemic sid assign index/shop data/new -o index/more",),
    "sid show": ("itemic sid show runs/quickstart --first 20",),
    "sid report": ("itemic sid report runs/quickstart --html sid.html",),
    "sid compare": ("itemic sid compare index/a index/b --data data/shop --html compare.html",),
    "tasks build": ("itemic tasks build data/shop --index index/shop -o talks -t C -t A --limit 1000",),
    "tasks preview": ("itemic tasks preview runs/quickstart/conversations -n 3 --index runs/quickstart",),
    "model new": ("itemic model new qwen3-pico --index index/shop --dataset data/shop -o models/new",),
    "model expand": ("itemic model expand models/Qwen3-0.6B --index index/shop -o models/expanded",),
    "model check": ("itemic model check runs/quickstart/train.all",),
    "model checkpoints": ("itemic model checkpoints runs/quickstart",),
    "model curves": ("itemic model curves runs/quickstart -o curves.png",),
    "control evaluate": (
        "itemic control evaluate runs/control-simulated --price",
        "itemic control evaluate --endpoint http://127.0.0.1:8000/v1 --model M --dataset runs/control-simulated",
    ),
    "control export": ("itemic control export runs/movies -o SFT_dataset_train.pickle",),
    "control import": ("itemic control import SFT_dataset_train.pickle -o talks",),
    "teacher serve": ("itemic teacher serve runs/scientific --port 12621",),
    "profile write": (
        "itemic profile write runs/profiles-simulated --user 42",
        "itemic profile write runs/profiles-simulated --history i1,i2 --samples 3",
    ),
    "profile edit": (
        'itemic profile edit runs/profiles-simulated --user 42 --text "Likes tents and stoves."',
        'itemic profile edit runs/profiles-simulated --user 42 --sentence 2 --text ""',
    ),
    "profile evaluate": ("itemic profile evaluate runs/profiles-simulated --split valid -k 5,10,20",),
    "rl preview": ("itemic rl preview runs/scientific-rl -n 5",),
    "evaluate rank": (
        "itemic evaluate rank models/mine --dataset data/shop -o rankings/mine --task C --beams 50",
    ),
    "evaluate score": ("itemic evaluate score rankings/mine --dataset data/shop -k 1,5,10",),
    "evaluate export": ("itemic evaluate export runs/quickstart --json answers.json --csv answers.csv",),
}
_CLAUSE = re.compile(r"[,;:] |\. | \(")


class Command(TyperCommand):
    """A command whose options with the metavar ``[N]`` may stand without a number, which is 0 then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        bare = {
            word for param in self.params if getattr(param, "metavar", None) == "[N]" for word in param.opts
        }
        told = []
        for word, after in zip(args, [*args, ""][1:], strict=True):
            told.append(f"{word}=0" if word in bare and not after.lstrip("-").isdecimal() else word)
        return super().parse_args(ctx, told)


class Group(TyperGroup):
    """A group whose help shows its commands under their headings, a whole line for each."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        shown = [(name, command) for name, command in commands if command is not None and not command.hidden]
        width = formatter.width - 6 - max((len(name) for name, _ in shown), default=0)
        for name, command in shown:
            heading = getattr(command, "rich_help_panel", None)
            row = (name, one_line(command.short_help or command.help or "", width))
            sections.setdefault(heading if isinstance(heading, str) else "Commands", []).append(row)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def one_line(text: str, width: int) -> str:
    """The first sentence of a help text, or as many whole clauses of it as fit."""
    sentence = re.split(r"(?<=\.)\s", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]
    if len(sentence) <= width:
        return sentence
    ends = [found.start() for found in _CLAUSE.finditer(sentence) if found.start() < width]
    return f"{sentence[: ends[-1]]}." if ends else f"{sentence[: width - 1].rsplit(' ', 1)[0]}…"


def add_examples(
    app: typer.Typer, examples: Mapping[str, tuple[str, ...]] = EXAMPLES, path: str = ""
) -> None:
    """Show examples below the help of commands; the keys are their paths, such as ``"sid build"``."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        lines = examples.get(f"{path} {name}".strip(), ())
        if lines:
            shown = "\n".join(
                ["\b", "Examples:", *(f"  {line}" for line in lines)]
            )  # \b keeps lines as they are
            command.epilog = f"{shown}\n\n{command.epilog}" if command.epilog else shown
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_examples(group.typer_instance, examples, f"{path} {group.name or ''}".strip())
