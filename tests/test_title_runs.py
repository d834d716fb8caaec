"""Whole runs whose items go by their titles, and that their rankings are exact."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import itemic
from itemic.cli.app import call
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests
from itemic.errors import ConfigError
from itemic.evaluate.recommend import ModelRanker
from itemic.model import Model
from itemic.model.tokenizer import train_tokenizer
from itemic.pipeline.recommend import recommend_one
from itemic.pipeline.shapes import recipe_shapes
from itemic.recipe import load_recipe
from itemic.sid.titles import TitleNames
from itemic.training.language.learning import learning
from itemic.training.language.stage import Stage
from tests.model.helpers import family_folder
from tests.runs import RECIPE, made, write_recipe

TITLES = (
    RECIPE.replace("index:\n  levels: [8, 8]\n", "index: {names: title, column: title, max_tokens: 6}\n")
    .replace("  - name: rows\n    train: embeddings\n    steps: 2\n    data: {tokens_per_step: 512}\n", "")
    .replace("epochs: 2", "epochs: 1")
)
TINY = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "intermediate_size": 32}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("titles")
    assert call(["run", str(write_recipe(folder, TITLES)), "-o", str(folder / "run")]) == 0
    return folder


def read(tokenizer: object, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[operator]


def exhaustive(lm: PreTrainedModel, prompt: list[int], rows: list[list[int]]) -> np.ndarray:
    """The log-probability of every row after the prompt, without its first token, which all rows have: one padded
    forward pass of the plain model over all of them."""
    found = []
    for start in range(0, len(rows), 256):
        some = rows[start : start + 256]
        width = len(prompt) + max(map(len, some))
        tokens = torch.zeros(len(some), width, dtype=torch.long)
        for k, row in enumerate(some):
            tokens[k, : len(prompt) + len(row)] = torch.tensor(prompt + row)
        with torch.no_grad():
            logits = lm(tokens, use_cache=False).logits[:, len(prompt) - 1 :].float()
        likely = logits.log_softmax(-1).gather(-1, tokens[:, len(prompt) :, None])
        for k, row in enumerate(some):
            found.append(float(likely[k, 1 : len(row), 0].sum()) if len(row) > 1 else 0.0)
    return np.array(found)


def spoken(tokenizer: object, names: TitleNames, row: int) -> list[int]:
    """A name's tokens, by the definition: mark, title and mark read apart (which is right for byte-level ones)."""
    return [*read(tokenizer, "{"), *read(tokenizer, names.titles[row]), *read(tokenizer, "}")]


def plain_prompt(
    tokenizer: object, names: TitleNames, asked: dict[str, str], history: list[int]
) -> list[int]:
    between = [token for row in history for token in spoken(tokenizer, names, row)]
    return [*read(tokenizer, asked["head"]), *between, *read(tokenizer, asked["tail"])]


def test_a_run_goes_from_titles_to_its_report(ran: Path) -> None:
    root = ran / "run"
    assert list(made(root)) == ["data", "index", "conversations", "model", "train.all", "evaluate", "report"]
    names = TitleNames.load(root / "index")
    assert names.origin["cut"] == 40
    assert names.origin["max_tokens"] == 6
    model = Model.load(root / "train.all")
    assert model.index.digest == names.digest
    assert len(model.tokenizer) == len(AutoTokenizer.from_pretrained(root / "train.all"))
    rows = json.loads((root / "report" / "comparison.json").read_text())["rows"]
    assert rows[0]["name"] == "model"
    assert rows[0]["metrics"]["hr@10"]["value"] >= 0
    table = pl.read_parquet(sorted((root / "evaluate" / "model").glob("part-*.parquet")))
    for items, sids in table.select("items", "sids").iter_rows():
        assert [names.parse(sid) for sid in sids] == [names.item_ids.index(item) for item in items]
    log = [json.loads(line) for line in (root / "train.all" / "log.jsonl").read_text().splitlines()]
    parts = {key for line in log for key in line if key.startswith("loss/")}
    assert "loss/text" in parts
    assert not any("level" in part for part in parts)


def test_its_ranking_is_that_of_scoring_every_title(ran: Path) -> None:
    """Plain transformers, the recorded prompt, and one forward pass for each item of the catalogue."""
    root = ran / "run"
    lm = AutoModelForCausalLM.from_pretrained(root / "train.all").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "train.all")
    names, requests = TitleNames.load(root / "index"), Dataset.load(root / "data").split("test")
    table = pl.read_parquet(sorted((root / "evaluate" / "model").glob("part-*.parquet")))
    rows = [spoken(tokenizer, names, row) for row in range(len(names))]
    wide = ModelRanker(Model.load(root / "train.all"), beams=len(names))
    some = Requests(
        requests.users[:3], requests.offsets[:4], requests.items, requests.targets[:3], requests.catalogue
    )
    items, scores = wide.rank(some, len(names))
    for number in range(3):
        history = requests.history(number).tolist()
        prompt = plain_prompt(tokenizer, names, lm.config.itemic["asked"], history)
        due = exhaustive(lm, prompt, rows)
        assert sorted(items[number]) == list(range(len(names)))
        assert scores[number] == pytest.approx(due[items[number]], abs=2e-4)
        assert (np.diff(due[items[number]]) < 2e-4).all()
        ranked = [names.item_ids[row] for row in items[number]]
        assert table["items"][number].to_list()[:3] == ranked[:3]


def test_nothing_is_done_twice_and_a_lost_step_is_made_again(
    ran: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(ran, folder)
    before = made(folder / "run")
    assert call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run")]) == 0
    assert made(folder / "run") == before
    shutil.rmtree(folder / "run" / "evaluate")
    assert call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run")]) == 0
    after = made(folder / "run")
    assert {step for step in after if after[step] != before[step]} <= {"evaluate", "report"}
    old, new = (
        pl.read_parquet(sorted((root / "run/evaluate/model").glob("part-*.parquet")))["items"].to_list()
        for root in (ran, folder)
    )
    assert old == new
    other = ["--dry-run", "-s", "index.max_tokens=5"]
    assert call(["run", str(folder / "tiny.yaml"), "-o", str(folder / "run"), *other]) == 0
    assert "max_tokens was 6, now 5" in capfd.readouterr().out


def test_one_question_is_answered_with_titles(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ran / "run"
    names = TitleNames.load(root / "index")
    user = str(Dataset.load(root / "data").sequences.users[0])
    answer = recommend_one(root, user=user, k=3)
    assert [names.parse(item.sid) for item in answer.items] == [
        names.item_ids.index(item.item_id) for item in answer.items
    ]
    alone = recommend_one(root / "train.all", items=names.item_ids[:2], k=3)
    assert [item.title for item in alone.history] == names.titles[:2]
    assert call(["recommend", str(root), "--user", user]) == 0
    assert answer.items[0].item_id in capsys.readouterr().out


def test_commands_about_semantic_ids_say_that_there_are_none(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(ran / "run")
    for command in (["sid", "show", root], ["sid", "report", root]):
        assert call(command) != 0
        assert "names items by their titles: it has no semantic IDs" in capsys.readouterr().err
    assert call(["model", "check", str(ran / "run" / "train.all")]) == 0
    validated = ["tasks", "validate", str(ran / "run/conversations"), "--dataset", root, "--index", root]
    assert call(validated) == 0


def test_the_command_names_a_dataset_s_items(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(ran / "run" / "data")
    assert call(["sid", "titles", data, "-o", str(tmp_path / "whole")]) == 0
    assert "40 items by their title: 0 no text, 0 cut, 0 numbered" in capsys.readouterr().out
    base = str(family_folder(tmp_path, "qwen2"))
    cut = ["sid", "titles", data, "-o", str(tmp_path / "cut"), "--max-tokens", "6"]
    assert call(cut) != 0
    assert "Give both of them" in capsys.readouterr().err
    assert call([*cut, "--base", base]) == 0
    assert TitleNames.load(tmp_path / "cut").origin["cut"] > 0
    expanded = ["model", "expand", base, "--index", str(tmp_path / "cut"), "-o", str(tmp_path / "model")]
    assert call(expanded) == 0
    assert Model.load(tmp_path / "model").index.kind == "title"


def test_the_card_s_program_ranks_as_the_search_does(ran: Path) -> None:
    folder = ran / "run" / "train.all"
    card = (folder / "README.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(import polars.*?)```", card, re.DOTALL)
    assert program is not None
    names: dict[str, object] = {}
    model = Model.load(folder)
    every = str(len(model.index))  # beams for all: else transformers gives up other items than we do
    exec(re.sub(r"=10\b", f"={every}", program[1].replace("this folder", str(folder))), names)
    first = Requests(
        np.array(["u"], object), np.array([0, 3]), np.arange(3, dtype=np.int32), np.array([-1], np.int32)
    )
    ranker = ModelRanker(model, beams=int(every))
    assert ranker.ask(first).prompts[0].tolist() == names["prompt"][0].tolist()  # type: ignore[index]
    items, _ = ranker.rank(first, int(every))
    assert names["ranked"] == [model.index.item_ids[row] for row in items[0]]


# ------------------------------------------------------------------------- training


def test_training_has_no_new_rows_to_learn(ran: Path) -> None:
    model = Model.load(ran / "run" / "model")
    tokens = range(*model.new_token_range)
    with (
        pytest.raises(ConfigError, match="this model got none: its items go by titles"),
        learning(model.lm, Stage(train="embeddings"), tokens),
    ):
        pass
    pytest.importorskip("peft")
    before = {name: weight.detach().clone() for name, weight in model.lm.named_parameters()}
    conversations = ran / "run" / "conversations"
    for stage in ({"train": "lora"}, {"train": {"what": "last-layers", "layers": 1}}):
        trained = itemic.train(
            model, conversations, stage=stage | {"steps": 1, "data": {"tokens_per_step": 256}}
        )
        moved = [name for name, weight in trained.lm.named_parameters() if not weight.equal(before[name])]
        assert moved
        assert not any("embed" in name or "lm_head" in name for name in moved)
        assert all(weight.requires_grad for weight in trained.lm.parameters())


def test_conversations_of_other_names_are_refused(ran: Path) -> None:
    dataset = Dataset.load(ran / "run" / "data")
    whole = TitleNames.of(dataset)
    conversations = itemic.build_conversations(dataset, whole, "C")
    with pytest.raises(itemic.ItemicError, match=f"speak item index {whole.digest}"):
        itemic.train(Model.load(ran / "run" / "model"), conversations, stage={"steps": 1})


# --------------------------------------------------------------------------- recipes


def test_all_faults_of_a_recipe_with_titles_are_told(tmp_path: Path) -> None:
    text = (
        RECIPE.replace(
            "  levels: [8, 8]\n", "  names: title\n  levels: [8, 8]\n  import: .\n  format: onerec\n"
        )
        .replace("  - {task: A, limit: 40}\n", "  - {task: B}\n  - {task: sequence}\n")
        .replace("windows: [all]", "windows: [all], history_text: title")
        .replace("  vocab_size: 400\n", "  vocab_size: 400\n  init: text\n")
    )
    with pytest.raises(ConfigError) as caught:
        load_recipe(write_recipe(tmp_path, text))
    found = caught.value.message
    for fault in (
        "index.levels: is about semantic IDs",
        "index.import: is about semantic IDs",
        "index.format: is about semantic IDs",
        "tasks.0.history_text: items go by their titles",
        "tasks.1.task: 'B' is about semantic IDs",
        "model.init: 'text' starts the rows of new tokens",
        "stages.0.train: 'embeddings' teaches new tokens alone",
    ):
        assert fault in found
    assert "sequence" not in found
    bare = RECIPE.replace("  levels: [8, 8]\n", "  column: title\n  max_tokens: 3\n")
    with pytest.raises(ConfigError, match=r"index.column: is about titles; it needs names: title"):
        load_recipe(write_recipe(tmp_path, bare))
    with pytest.raises(ConfigError, match="unknown names 'titel'"):
        load_recipe(write_recipe(tmp_path, TITLES), ["index.names=titel"])


def test_the_look_ahead_knows_that_no_token_is_new(ran: Path) -> None:
    shapes = recipe_shapes(load_recipe(ran / "tiny.yaml"))
    assert shapes.last == shapes.first - 1
    assert "no token is new" in str(shapes.table().title)
    lm = Model.load(ran / "run" / "model").lm
    assert abs(shapes.vocabulary - len(lm.get_input_embeddings().weight)) <= 64  # type: ignore[arg-type]


def test_old_indexes_have_the_digest_they_had() -> None:
    """Digests are in configurations of models that people have."""
    index = itemic.ItemIndex(["a", "b"], np.array([[0, 1], [1, 0]], np.int32), (2, 2))
    assert index.digest == "7a7a4344fca98466"


# ------------------------------------------------------------------------- real data


def test_movies_are_ranked_as_by_scoring_all_their_titles(shared: Path, tmp_path: Path) -> None:
    """MovieLens: the beams against one forward pass per title, over the whole catalogue."""
    dataset = itemic.read("movielens", str(shared / "ml-latest-small"), limit_items=600, limit_users=80)
    titles = dataset.items["title"].to_list()
    tokenizer = train_tokenizer(titles, vocab_size=600)
    names = TitleNames.of(dataset, max_tokens=12, tokenizer=tokenizer)
    assert len(set(names.titles)) == len(dataset.item_ids) > 500
    model = itemic.new_model("qwen3-pico", names, titles, vocab_size=600, **TINY)  # type: ignore[arg-type]
    assert model.tokenizer.get_vocab() == tokenizer.get_vocab()
    built = itemic.build_conversations(dataset, names, {"task": "C", "windows": [3], "limit": 200})
    itemic.train(
        model, built, stage={"steps": 3, "data": {"tokens_per_step": 1024}}, output=tmp_path / "model"
    )
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    requests = dataset.split("test")
    some = Requests(
        requests.users[:2],
        np.array([0, 3, 6]),
        np.concatenate([requests.history(k)[-3:] for k in range(2)]),
        requests.targets[:2],
        requests.catalogue,
    )
    items, scores = ModelRanker(model, beams=len(names)).rank(some, 20)
    rows = [spoken(tokenizer, names, row) for row in range(len(names))]
    asked = model.lm.config.itemic["asked"]
    for number in range(2):
        prompt = plain_prompt(tokenizer, names, asked, some.history(number).tolist())
        due = exhaustive(lm, prompt, rows)
        assert scores[number] == pytest.approx(np.sort(due)[::-1][:20], abs=2e-3)
        assert due[items[number]] == pytest.approx(scores[number], abs=2e-3)
