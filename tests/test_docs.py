"""What the documents show works: every command is known, short ones run, the Python examples run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

import itemic
from itemic.cli.app import app, call
from itemic.pipeline import Run
from itemic.pipeline.run import check_tasks
from itemic.recipe import check_recipe, load_recipe
from itemic.recipe.shipped import SHIPPED, find_recipe
from tests.conftest import SHARED

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted(SHIPPED.glob("*.yaml"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
ELSEWHERE = (
    "git",
    "cd",
    "pip",
    "vllm",
    "export",
    "source",
    "pytest",
    "tensorboard",
)  # commands that aren't ours
UNCOMMENTED = re.compile(r"#.*")
INLINE = re.compile(
    r"(?<!`)`(itemic (?!COMMAND)[^`…]+)`(?!`)"
)  # commands within a sentence; … leaves something out
OTHERS = {  # what recipes read that users bring along, and what stands in for it here
    "QWEN3_8B": "qwen3-8b",
    "QWEN2_5": "qwen2.5-0.5b",
    "OPENONEREC_BASE": "qwen3-1.7b",
    "OPENONEREC_STAGE1": "qwen3-1.7b",
    "OPENONEREC_STAGE2": "qwen3-1.7b",
    "OPENONEREC_DATA": None,
    "OPENONEREC_GENERAL": None,
    "OPENONEREC_SFT": None,
    "LLAMA2": "llama-2-7b-chat",
    "RECLM_DATA": None,
    "SHAREGPT": None,
    "LLAMA3": "llama-3-8b",
    "AMAZON_MOVIES": None,
}
# ours, but not for a test to run: they take long, or need a run that did, or a server
LONG = (
    ("init", "my-shop"),
    ("run",),
    ("recommend",),
    ("report",),
    ("model", "expand"),
    ("model", "curves"),
    ("evaluate",),
    ("analyze",),
    ("advise",),
    ("improve",),
    ("compare",),
    ("tasks", "rationales"),
    ("teacher", "serve"),
    ("control",),
    ("profile",),
)


@pytest.fixture(autouse=True, scope="module")
def what_users_bring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Folders with the configurations of base models, and lists of no conversations."""
    root = tmp_path_factory.mktemp("brought")
    with pytest.MonkeyPatch.context() as patch:
        for name, model in OTHERS.items():
            place = root / (name if model else f"{name}.json")
            if model:
                place.mkdir()
                shutil.copy(ROOT / "tests" / "configs" / f"{model}.json", place / "config.json")
            else:
                place.write_text("[]", encoding="utf-8")
            patch.setenv(name, str(place))
        yield


def fences(document: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(document.read_text("utf-8")) if language in languages]


def commands(document: Path) -> list[list[str]]:
    """Every command of a document's shell fences, as words; variables before it are left out."""
    found = []
    for language, body in FENCE.findall(document.read_text("utf-8")):
        if language not in ("bash", "console", "sh", "shell"):
            continue
        lines = body.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found


ALL = [(document, words) for document in DOCUMENTS if document.is_file() for words in commands(document)]


@pytest.mark.parametrize(("document", "words"), ALL, ids=[" ".join(words) for _, words in ALL])
def test_every_command_is_known(document: Path, words: list[str]) -> None:
    head, rest = words[0], words[1:]
    if head == "itemic":
        parse(rest)
    elif head == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in rest if "=" not in target)
    elif head in ("python", ".venv/bin/python"):
        if rest[0] == "-c":
            compile(rest[1], document.name, "exec")
        elif rest[0] == "-m":
            assert importlib.util.find_spec(rest[1]), f"{document.name} runs {rest[1]}"
        else:
            shown = f"# {rest[0]}\n" in document.read_text("utf-8")  # the document says what is in the file
            assert shown or (ROOT / rest[0]).is_file(), f"{document.name} names {rest[0]}"
    elif head in ("torchrun", "deepspeed"):
        parse(rest[rest.index("itemic") + 1 :])  # test_launchers.py starts them
    elif head.startswith(".venv/bin/"):
        assert Path(os.sys.executable).with_name(Path(head).name).is_file()
    else:
        assert head in ELSEWHERE, f"{document.name} shows a command that no test knows: {head}"


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.is_file()], ids=lambda path: path.name)
def test_commands_in_sentences_are_known(document: Path) -> None:
    """Their names and options, that is: what has to be given besides may be missing."""
    for text in INLINE.findall(document.read_text("utf-8")):
        words = shlex.split(text.replace("\n", " "))[1:]
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{document.name} names {text!r}"
            command = command.commands[words.pop(0)]
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        unknown = {word for word in words if re.match(r"--?[a-z]", word)} - options - {"--help"}
        assert not unknown, f"{document.name}: {text!r} has {', '.join(unknown)}"


def test_the_extras_are_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    explained = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "install.md").read_text("utf-8"), re.M)
    assert sorted(explained) == sorted(project["optional-dependencies"])


def parse(arguments: list[str]) -> None:
    """Let the real command line read the arguments, without doing anything; a recipe is read too."""
    command: Any = typer.main.get_command(app)
    context = None
    while True:
        try:
            context = command.make_context(command.name or "itemic", list(arguments), parent=context)
        except typer.Exit:  # --help and --version have done what they do
            return
        if not hasattr(command, "resolve_command") or not arguments:
            break
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        _, command, arguments = command.resolve_command(context, rest)
    values = context.params
    recipe = values.get("recipe")
    if recipe is not None and find_recipe(recipe).is_file() and needs_nothing(find_recipe(recipe)):
        names = [planned.step.name for planned in plan(recipe, values.get("override") or [])]
        assert values.get("start") in (None, *names)
        assert values.get("until") in (None, *names)


def needs_nothing(recipe: Path) -> bool:
    """Whether the recipe's raw data is at hand."""
    return "ITEMIC_SHARED" not in recipe.read_text("utf-8") or SHARED.is_dir()


def plan(recipe: str | Path, overrides: list[str]) -> list[Any]:
    os.environ.setdefault("ITEMIC_SHARED", str(SHARED))
    found = load_recipe(recipe, overrides)
    check_tasks(found)
    return Run.of(found, Path("/nowhere") / "at" / "all").plan()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_sound_and_plans(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not needs_nothing(recipe):
        pytest.skip(f"no real data at {SHARED}; set ITEMIC_SHARED to the folder that holds it")
    monkeypatch.setenv("ITEMIC_SHARED", str(SHARED))
    steps = plan(recipe, [])
    names = [planned.step.name for planned in steps]
    found = load_recipe(recipe)
    whole = found.data is not None
    taught = ["teacher"] if found.teacher is not None else []
    before = ["data", *taught, "index", "conversations", "model"] if whole else ["index", "model"]
    lists = ["lists"] if found.evaluate.control is not None else []
    training = [f"train.{stage.name}" for stage in found.trainings]
    after = ["evaluate", *lists] if whole else []
    items = [*before, *training, *after] if found.model is not None else ["data", *taught]
    told = [] if found.profile is None else ["writer", "embedder", "turns", "profiles"]
    if found.profile is not None and found.profile.writer.taught is not None:
        told.insert(1, "writer.taught")
    assert names == [*items, *told, *(["report"] if whole else [])]
    assert all(planned.run and planned.reason == "not built yet" for planned in steps)
    assert found.name == recipe.stem


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_waits_for_files_and_says_how_to_name_them(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a fresh checkout, with nothing set: no fault, and for each missing file a variable."""
    for name in ("ITEMIC_SHARED", *OTHERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    _, waiting = check_recipe(recipe)
    named = {found for fault in waiting for found in re.findall(r"; set (\w+) to where it is", fault.problem)}
    assert len(waiting) == sum("; set " in fault.problem for fault in waiting)
    assert named == set(re.findall(r"\$\{(\w+):-", UNCOMMENTED.sub("", recipe.read_text("utf-8"))))


def runnable(words: list[str]) -> bool:
    if words[0] != "itemic" or ("--dry-run" in words and ("--from" in words or words[1] == "advise")):
        return False
    return "--dry-run" in words or not any(tuple(words[1 : 1 + len(long)]) == long for long in LONG)


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.is_file()], ids=lambda path: path.name)
def test_short_commands_run(
    document: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the document, in a folder that looks like a checkout."""
    if document.name == "tutorial.md":
        pytest.skip("test_tutorial.py runs all of it")
    todo = [words for words in commands(document) if runnable(words)]
    if not todo:
        pytest.skip("no commands to run")
    (tmp_path / "checkout").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "data").symlink_to(shared.resolve())
    monkeypatch.chdir(tmp_path / "checkout")
    monkeypatch.delenv("ITEMIC_SHARED", raising=False)
    for words in todo:
        assert call(words[1:]) == 0, shlex.join(words)


def examples() -> list[tuple[str, str]]:
    """Whole Python examples, which begin with ``import itemic``, and the one of the package's docstring."""
    lines = [line[4:] for line in str(itemic.__doc__).splitlines() if line.startswith("    ")]
    found = [("itemic.__doc__", "\n".join(lines))]
    for document in DOCUMENTS:
        shown = fences(document, "python") if document.is_file() else []
        found += [(document.name, code) for code in shown if "import itemic" in code]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), examples(), ids=[name for name, _ in examples()])
def test_python_examples_run(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, but for the data: a marketplace of a few users stands in for every source."""
    config = itemic.SimulatorConfig(users=30, items=24, categories=4, brands=4, longest=8)
    small = itemic.simulate(config).dataset
    monkeypatch.setattr(itemic, "read", lambda *_, **__: small, raising=False)
    monkeypatch.setattr(itemic, "SimulatorConfig", lambda **_: config, raising=False)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"itemic": itemic}
    exec(compile(code, name, "exec"), space)
    assert 0 <= space["report"].item["ndcg@10"].value <= 1
    assert space["report"].scored == 30
