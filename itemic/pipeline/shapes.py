"""The shapes of a recipe's run, from its base model's configuration: no weights, no data, no download."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itemic.errors import ConfigError, ModelError
from itemic.recipe import Recipe
from itemic.recipe.profile import ProfilePart
from itemic.recipe.schema import IndexPart
from itemic.sid.encoders.huggingface import TOKENIZERS

if TYPE_CHECKING:
    from itemic.screen import Table
    from itemic.training.language.shapes import StageShape

# Ids that a family's tokenizer takes, where no tokenizer is at hand: Qwen3's last one is 151,668 (its model cards'
# tokenizer.json), while its matrices have 151,936 rows.
BASE_TOKENS = {"qwen3": 151_669}


@dataclass(frozen=True)
class Shapes:
    """What a run will hold.

    Attributes:
        kind: of model, e.g. ``qwen3``.
        parameters: after the expansion.
        tied: whether the head is the embedding matrix.
        vocabulary: rows of the embedding matrix.
        first: the id of the index's first token.
        last: of its last; one less than ``first`` where items go by their titles and no token is new.
        stages: one by one.
    """

    kind: str
    parameters: int
    tied: bool
    vocabulary: int
    first: int
    last: int
    stages: list[StageShape]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Table:
        """For the console."""
        from itemic.screen import Table

        head = "tied" if self.tied else "untied"
        tokens = (
            "no token is new"
            if self.last < self.first
            else f"the index's tokens are {self.first} to {self.last}"
        )
        title = (
            f"{self.kind}, {self.parameters:,} parameters, {head} head, {self.vocabulary:,} rows; {tokens}"
        )
        shown = Table(title=title, title_justify="left")
        for name in (
            "stage",
            "learns",
            "of",
            "learn",
            "weights",
            "gradients",
            "optimizer",
            "sum",
            "tokens a step",
        ):
            shown.add_column(name, justify="left" if name in ("stage", "learns") else "right")
        for stage in self.stages:
            sizes = (stage.weights, stage.gradients, stage.optimizer, stage.total)
            counts = (f"{stage.parameters:,}", f"{stage.learning:,}")
            step = f"{stage.tokens:,} in {stage.blocks}"
            shown.add_row(
                stage.name, stage.train, *counts, *(f"{size / 2**30:.2f} GiB" for size in sizes), step
            )
        return shown


def recipe_shapes(recipe: Recipe, config: str | Path | None = None, tokens: int | None = None) -> Shapes:
    """Work out a recipe's shapes.

    Args:
        recipe: what is to be run.
        config: ``config.json`` of the base model, or its folder; None where ``model.base`` is there or the model is
            a new one.
        tokens: ids that the base's tokenizer takes; None to count them in its folder, or to know them by the
            model's kind.

    Raises:
        ConfigError: something can't be known yet; the message says what to give.
        ModelError: no configuration, or one of a model that can't be used.
    """
    from itemic.model.model import embeddings, head
    from itemic.sid.format import token_format
    from itemic.training.language.shapes import empty_model, stage_shape

    if recipe.model is None and recipe.profile is not None:
        return _writer_shapes(recipe.profile, config)
    titles = recipe.index.names == "title"
    needed = [] if titles else token_format(recipe.index.format).tokens(index_sizes(recipe.index))
    found, first, rows = (
        _new(recipe, len(needed)) if recipe.item_model.base is None else _base(recipe, needed, config, tokens)
    )
    lm = empty_model(found, rows, recipe.item_model.tie)
    span = range(first, first + len(needed))
    stages = [stage_shape(lm, stage, span) for stage in recipe.trainings]
    tied = head(lm) is embeddings(lm)
    return Shapes(found.model_type, lm.num_parameters(), tied, rows, first, span.stop - 1, stages)


def _writer_shapes(part: ProfilePart, config: str | Path | None) -> Shapes:
    """Of the writer's stages; what the embedder holds isn't worked out."""
    from itemic.model.build import new_rows
    from itemic.model.configuration import preset_config
    from itemic.model.model import embeddings, head
    from itemic.training.language.shapes import empty_model, stage_shape

    writer = part.writer
    if writer.base is None:
        rows = new_rows(writer.vocab_size)
        own = preset_config(
            str(writer.preset), vocab_size=rows, max_length=writer.max_length, **writer.overrides
        )
    else:
        own = _base_configuration(writer.base, config)
    lm = empty_model(own, own.vocab_size, None)
    stages = [writer.taught, *([] if part.turns is None else [part.turns.writer])]
    shapes = [stage_shape(lm, stage, range(0)) for stage in stages if stage is not None]
    tied = head(lm) is embeddings(lm)
    return Shapes(
        own.model_type, lm.num_parameters(), tied, own.vocab_size, own.vocab_size, own.vocab_size - 1, shapes
    )


def index_sizes(part: IndexPart) -> tuple[int, ...]:
    """Codes per level, as far as the recipe alone tells.

    Raises:
        ConfigError: only the built index tells.
    """
    if part.published is not None and Path(part.published).expanduser().exists():
        from itemic.sid.published import import_index

        return import_index(
            None, part.published, format=part.format, sizes=part.levels, collisions=part.collisions or "keep"
        ).sizes
    if part.collisions == "rank" or (part.published is not None and part.levels is None):
        raise ConfigError(
            "the sizes of the index are known only when it is built",
            "Give index.levels (and no collisions: rank) for this look ahead: -s index.levels=[256,256,256,256].",
        )
    return tuple(part.levels or (256,) * 4)


def _new(recipe: Recipe, count: int) -> tuple[Any, int, int]:
    """Configuration, first id and rows of a new model; its tokenizer may turn out smaller."""
    from itemic.model.build import new_rows
    from itemic.model.configuration import preset_config

    part = recipe.item_model
    rows = new_rows(part.vocab_size + count)
    made = preset_config(str(part.preset), vocab_size=rows, max_length=part.max_length, **part.overrides)
    return made, part.vocab_size, rows


def _base(
    recipe: Recipe, needed: list[str], config: str | Path | None, tokens: int | None
) -> tuple[Any, int, int]:
    """The same of a base model that is expanded."""
    from itemic.model.expand import padded_rows

    base = str(recipe.item_model.base)
    folder, found = Path(base).expanduser(), _base_configuration(base, config)
    if tokens is None and any((folder / name).is_file() for name in TOKENIZERS):
        first, taken = _count(folder, needed)
    else:
        first = tokens or BASE_TOKENS.get(found.model_type, 0)
        taken = first + len(needed)
        if not first:
            raise ConfigError(
                f"nobody knows how many tokens the tokenizer of this {found.model_type} has", "Give --tokens."
            )
    if not needed and taken <= found.vocab_size:
        return found, first, found.vocab_size
    return found, first, padded_rows(taken, found.vocab_size, recipe.item_model.pad_to)


def _base_configuration(base: str, config: str | Path | None) -> Any:
    folder = Path(base).expanduser()
    if config is None and not folder.is_dir():
        raise ConfigError(
            f"the base model {base} is not there", "Give its configuration: --config config.json."
        )
    return _configuration(Path(config) if config is not None else folder)


def _configuration(path: Path) -> Any:
    from transformers import AutoConfig

    from itemic.model.folder import read_config

    if path.is_dir():
        return read_config(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return AutoConfig.for_model(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path} can't be used: {str(error).splitlines()[0]}", "Give a Hugging Face model's config.json."
        ) from error


def _count(folder: Path, needed: list[str]) -> tuple[int, int]:
    """The first id of the index's tokens and the number of ids in all, by the base's own tokenizer."""
    from itemic.model.folder import load_tokenizer
    from itemic.model.template import CHAT_TOKENS
    from itemic.model.tokenizer import add_index_tokens, tokens_taken

    tokenizer = load_tokenizer(folder)
    first, _ = add_index_tokens(tokenizer, needed)
    known = tokenizer.get_vocab()
    turns = 0 if tokenizer.chat_template else sum(token not in known for token in CHAT_TOKENS)
    return first, tokens_taken(tokenizer) + turns
