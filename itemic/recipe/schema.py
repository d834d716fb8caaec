"""The keys of a recipe. Parts take plain arguments; these classes stop at the door."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt

# The names that a recipe may use. They repeat the keys of the rooms' own tables (a test compares them),
# because those tables can't be imported without torch and a recipe is checked in an instant.
FORMATS = (
    "auto",
    "onerec-think",
    "letter",
    "minionerec",
    "movielens",
    "amazon-2014",
    "amazon-2018",
    "amazon-2023",
    "recbole",
    "table",
)
ENCODERS = ("auto", "lsa", "collaborative", "sentence-transformers", "transformers", "openai", "precomputed")
QUANTIZERS = ("rqkmeans", "balanced", "rqkmeans+", "rqvae", "rfsq", "opq", "opq-residual")
COLLISIONS = ("keep", "rank", "reassign", "sinkhorn")
TOKEN_FORMATS = ("onerec", "minionerec", "offset")
PRESETS = ("qwen3-pico", "qwen3-nano", "qwen3-micro", "qwen3-mini", "qwen3-small", "qwen3-0.6b")
NEW_INITS = ("normal", "text", "vectors")
EXPAND_INITS = ("moments", "text", "mean")
BASELINES = ("popularity", "last-item", "transitions")
SPLIT_METHODS = ("leave-one-out", "leave-last-out", "temporal", "published")

Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A section of a recipe: unknown keys are faults, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SplitPart(Part):
    """How interactions are divided, see :class:`itemic.data.split.SplitRule`.

    What isn't given is as the source's own split has it, where it has one; else leave-one-out.
    """

    method: str | None = None
    history: PositiveInt | None = 50
    ratios: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)


class DataPart(Part):
    """Raw files of a ``format`` at a ``path``, or a marketplace to ``simulate``.

    ``limit_users``, ``limit_items`` and ``limit_rows`` take a part for a quick trial, before the filters, see
    :func:`itemic.data.limits.apply_limits`.
    ``filters`` has the fields of :class:`itemic.data.settings.FilterRule`, ``simulate`` those of
    :class:`itemic.data.settings.SimulatorConfig`, ``options`` whatever the format's reader takes.
    """

    format: str | None = None
    path: str | None = None
    options: dict[str, Any] = {}
    on_bad_row: Literal["error", "drop"] = "error"
    missing_text: Literal["keep", "drop", "error"] = "keep"
    limit_users: PositiveInt | None = None
    limit_items: PositiveInt | None = None
    limit_rows: PositiveInt | None = None
    simulate: dict[str, Any] | None = None
    filters: dict[str, Any] | None = None
    split: SplitPart = SplitPart()


class IndexPart(Part):
    """Semantic IDs to build from the items' texts or from behaviour, or published ones to ``import`` from a file.

    Without ``data`` there is nothing to build from: ``import`` takes all items of its file, and ``levels`` without it
    makes the codes alone.
    """

    encoder: str = "auto"
    encoder_options: dict[str, Any] = {}
    quantizer: str = "rqkmeans"
    quantizer_options: dict[str, Any] = {}
    levels: list[Annotated[int, Field(ge=2)]] | None = None
    collisions: str | None = None
    duplicates: Literal["apart", "share"] = "apart"
    format: str = "onerec"
    published: str | None = Field(default=None, alias="import")
    unknown: Literal["error", "drop"] = "error"


class ShapePart(Part):
    """Settings of a preset that are to be others, see :class:`itemic.model.presets.Preset`."""

    hidden_size: PositiveInt | None = None
    layers: PositiveInt | None = None
    heads: PositiveInt | None = None
    kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    intermediate_size: PositiveInt | None = None
    rope_theta: float | None = None
    dropout: Share | None = None
    tie: bool | None = None


class ModelPart(Part):
    """A ``preset`` with random weights, or a ``base`` (a Hugging Face folder) to expand."""

    preset: str | None = None
    vocab_size: PositiveInt = 4096
    max_length: PositiveInt = 1024
    overrides: ShapePart = ShapePart()
    base: str | None = None
    init: str | None = None
    pad_to: PositiveInt = 256
    tie: bool | None = None


class TaskPart(BaseModel):
    """A kind of conversation and its options, which :mod:`itemic.recipe.tasks` lists."""

    model_config = ConfigDict(extra="allow", frozen=True)

    task: str

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ConversationsPart(Part):
    """Conversation files that others made, to be trained on as they are: Parquet files, folders of them, globs, JSON
    lists of files, local or remote; see :meth:`itemic.tasks.Conversations.open`."""

    files: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class PublishedPart(Part):
    """Somebody else's figures for the table, e.g. ``{hr@10: .0648}``."""

    name: str
    metrics: dict[str, float]
    source: str


class EvaluatePart(Part):
    """What is asked of the trained model, and what it is compared with."""

    split: Literal["valid", "test"] = "test"
    task: str = "C"
    beams: PositiveInt = 50
    k: Annotated[list[PositiveInt], Field(min_length=1)] = [1, 5, 10, 20]
    normalize: Literal["vocab", "level", "legal"] = "vocab"
    exclude_history: bool = False
    thinking: Literal["no_think", "empty"] | None = None
    batch_size: PositiveInt = 32
    baselines: list[str] = list(BASELINES)
    published: list[PublishedPart] = []


class DistributionPart(Part):
    """How several processes train together, see :class:`itemic.train.distribution.Distribution`."""

    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    reshard_after_forward: bool = True
    config: str | None = None


class Recipe(Part):
    """A whole run. Its steps are data, index, conversations, model, one per stage, evaluate and report.

    Without ``data`` there are no data, evaluate and report, without ``tasks`` no conversations.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]*$")]
    seed: NonNegativeInt = 0
    data: DataPart | None = None
    index: IndexPart = IndexPart()
    model: ModelPart
    tasks: Annotated[list[TaskPart], Field(min_length=1)] = []
    conversations: ConversationsPart | None = None
    stages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    evaluate: EvaluatePart = EvaluatePart()
    distribution: DistributionPart = DistributionPart()

    def __repr__(self) -> str:
        stages = ", ".join(str(stage.get("name", "train")) for stage in self.stages)
        tasks = ", ".join(task.task for task in self.tasks) or "none"
        return f"<Recipe {self.name!r}: tasks {tasks}; model {self.model.base or self.model.preset}; trains {stages}>"

    def __str__(self) -> str:
        """The recipe as YAML."""
        from itemic.recipe.write import dump_recipe

        return dump_recipe(self)
