"""The keys of a recipe. Where a room has settings of its own, they are the recipe's; other classes stop at the door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from itemic.control.tests import ListTests
from itemic.data.settings import FilterRule, SimulatorConfig, SplitRule
from itemic.errors import ConfigError
from itemic.evaluate.settings import BlendSettings, MemorySettings, ThinkingSettings
from itemic.recipe.part import Part, Shape, switched
from itemic.recipe.profile import ProfilePart
from itemic.rl.settings import RLStage
from itemic.schema import SYSTEM, TITLE
from itemic.settings import Amount, Count, Number, Switch, Text, some_of
from itemic.teacher.settings import TeacherSettings
from itemic.training.distribution import Distribution
from itemic.training.language.stage import Stage

# The names that a recipe may use. They repeat the keys of the rooms' own tables (a test compares them),
# because those tables can't be imported without torch and a recipe is checked in an instant.
FORMATS = (
    "auto",
    "onerec-think",
    "openonerec",
    "letter",
    "minionerec",
    "movielens",
    "amazon-2014",
    "amazon-2018",
    "amazon-2023",
    "recbole",
    "reclm-gen",
    "table",
)
ENCODERS = ("auto", "lsa", "collaborative", "sentence-transformers", "transformers", "openai", "precomputed")
QUANTIZERS = ("rqkmeans", "balanced", "constrained", "rqkmeans+", "rqvae", "rfsq", "opq", "opq-residual")
COLLISIONS = ("keep", "rank", "reassign", "sinkhorn")
TOKEN_FORMATS = ("onerec", "minionerec", "offset")
NEW_INITS = ("normal", "text", "vectors")
EXPAND_INITS = ("moments", "text", "mean")
BASELINES = ("popularity", "last-item", "transitions", "item-knn", "ease", "ridge")
NAMES = ("sid", "title")

Split = Annotated[dict[str, Any], some_of(SplitRule)]


class DataPart(Part):
    """Raw files of a ``format`` at a ``path``, or a marketplace to ``simulate``.

    Attributes:
        format: what kind of files they are, a reader's name; ``auto`` finds it out.
        path: the file or folder, or any URL that fsspec knows.
        options: what the format's reader can be told.
        on_bad_row: a bad row (a broken line, an unknown item) is an ``error`` that names it, or ``drop`` leaves it
            out and counts it.
        missing_text: an item without any title is kept (``keep``: known by its id), left out with its interactions
            (``drop``), or an ``error``.
        limit_users: for a quick trial, a random sample of so many users; limits come before the filters.
        limit_items: the so many items with the most interactions.
        limit_rows: so many users at random as have this many interactions together.
        simulate: settings of a marketplace to make instead of reading files; ``{}`` for its defaults.
        filters: what to keep of the interactions.
        split: what is trained on, validated on and tested on. What isn't given is as the source's own split has it,
            where it has one; else leave-one-out.
    """

    format: Text | None = None
    path: Text | None = None
    options: dict[str, Any] = {}
    on_bad_row: Literal["error", "drop"] = "error"
    missing_text: Literal["keep", "drop", "error"] = "keep"
    limit_users: Count | None = None
    limit_items: Count | None = None
    limit_rows: Count | None = None
    simulate: SimulatorConfig | None = None
    filters: FilterRule | None = None
    split: Split = {}


class IndexPart(Part):
    """What items are called: semantic IDs to build from the items' texts or from behaviour, or published ones to
    ``import`` from a file; or their titles.

    Without ``data`` there is nothing to build from: ``import`` takes all items of its file, and ``levels`` without it
    makes the codes alone.

    Attributes:
        names: ``sid``, or ``title``: each item goes by a text of its own, in the tokens that the model has already.
        column: of names ``title``: the items' column of text that is their name.
        max_tokens: of names ``title``: longer texts are cut to so many tokens of the model; None for none.
        encoder: what turns an item into a vector; ``auto`` is ``lsa`` where at least half of the items have text, else
            ``collaborative``.
        encoder_options: of the encoder, and what adds behaviour to any of them (``collaborative_weight``).
        quantizer: what turns vectors into codes.
        quantizer_options: of the quantizer.
        levels: how many codes there are at each level; None for four times 256, or for what ``import`` has.
        collisions: what becomes of items with the same codes; None for ``reassign``, or for ``keep`` with ``import``.
        duplicates: items with the very same text get semantic IDs of their own (``apart``) or ``share`` one.
        format: how codes are written as tokens.
        published: a file of semantic IDs that exist already: an ``X.index.json``, an item file with texts of them, or
            a Parquet table.
        unknown: items of ``import`` that the data doesn't have are an ``error``, or ``drop`` passes them over.
    """

    names: Text = "sid"
    column: Text = TITLE
    max_tokens: Count | None = 64
    encoder: Text = "auto"
    encoder_options: dict[str, Any] = {}
    quantizer: Text = "rqkmeans"
    quantizer_options: dict[str, Any] = {}
    levels: list[Annotated[int, Field(strict=True, ge=2)]] | None = None
    collisions: Text | None = None
    duplicates: Literal["apart", "share"] = "apart"
    format: Text = "onerec"
    published: Text | None = Field(default=None, alias="import")
    unknown: Literal["error", "drop"] = "error"


class ModelPart(Part):
    """A ``preset`` with random weights, or a ``base`` to expand.

    Attributes:
        preset: the size of a model from scratch.
        vocab_size: of a preset: tokens of the text part of its vocabulary, which is learnt from the catalogue; smaller
            where the texts can't fill it.
        max_length: of a preset: the longest row that the model is meant for, in tokens.
        overrides: settings of the preset that are to be others.
        base: a model to expand by the items' tokens: a Hugging Face folder, or a name on the hub.
        revision: branch, tag or commit of a ``base`` on the hub.
        init: how the rows of the items' tokens start. Of a preset: ``normal`` (as all others; the default), ``text``
            (from the words of the items that carry the code) or ``vectors`` (from their vectors). Of a base:
            ``moments`` (with mean and covariance of the old rows; the default), ``text`` or ``mean``.
        pad_to: of a base: the embedding matrix gets a multiple of so many rows.
        tie: of a base: whether the head is the embedding matrix; None leaves it as it is.
    """

    preset: Text | None = None
    vocab_size: Count = 4096
    max_length: Count = 1024
    overrides: Shape = {}
    base: Text | None = None
    revision: Text | None = None
    init: Text | None = None
    pad_to: Count = 256
    tie: Switch | None = None


class TaskPart(BaseModel):
    """A kind of conversation and its options, which :mod:`itemic.recipe.tasks` lists."""

    model_config = ConfigDict(extra="allow", frozen=True)

    task: Text

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ConversationsPart(Part):
    """Conversation files that others made, to be trained on as they are: Parquet files, folders of them, globs, JSON
    lists of files, local or remote; see :meth:`itemic.tasks.Conversations.open`.

    Attributes:
        files: their paths; one may stand without a list.
    """

    files: Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1)]


class PublishedPart(Part):
    """Somebody else's figures for the table.

    Attributes:
        name: of the row.
        metrics: the figures, e.g. ``{hr@10: .0648}``.
        source: who published them where.
    """

    name: Text
    metrics: dict[Text, Number]
    source: Text


def _several(value: Any) -> Any:
    return [{} if value is True else value] if value is True or isinstance(value, Mapping) else value


class EvaluatePart(Part):
    """What is asked of the trained model, and what it is compared with.

    Attributes:
        split: whose targets are looked for, ``valid`` or ``test``.
        task: whose prompt is asked, with the options that the model is trained with.
        beams: width of the search, and so the most items of a ranking.
        k: lengths of the list at which HR, NDCG and MRR are told.
        normalize: what scores are normalised over: the whole vocabulary (``vocab``, what ``generate`` does), the codes
            of a level (``level``) or what may follow (``legal``).
        exclude_history: leave out the items that the user has had.
        thinking: how prompts end, in a model of the think pattern: ``no_think`` (before the empty block) or ``empty``
            (after it); None for the model's own way.
        batch_size: prompts that are searched at once; bounds the memory.
        baselines: what stands in the table beside the model.
        memory: rank once more with the model as the prior of what training counted: ``true`` (all of how that is
            weighed is chosen) or a section that says some or all of it. What isn't given is the best of a grid by
            NDCG@10 of at most 2,000 requests of the validation split.
        blend: rank once more by several rankers, mixed by their probabilities: ``true`` or a section. With ``memory``
            there is one more row, with the blend as the prior of the counts.
        thoughts: rank twice more, so that it is seen what thinking is worth: the model without thoughts in the other
            way than its own row (before an empty think block, or behind one), and with thoughts that it writes itself:
            ``true`` or a section. All three read the very same histories.
        control: ask the test tasks of control as well, which tell how well lists do what they are told: ``true`` or a
            section.
        published: rows of others for the table.
        trackers: who is told the numbers, the table and some predictions; None for those of the last stage.
        samples: how many predictions trackers are shown, with titles.
        verbose: log each request as it is answered.
        tf32: multiply float32 matrices in TensorFloat-32 where the GPU has it: faster, and scores are exact to three
            digits only; without effect on a CPU.
    """

    split: Literal["valid", "test"] = "test"
    task: Text = "C"
    beams: Count = 50
    k: Annotated[list[Count], Field(min_length=1)] = [1, 5, 10, 20]
    normalize: Literal["vocab", "level", "legal"] = "vocab"
    exclude_history: Switch = False
    thinking: Literal["no_think", "empty"] | None = None
    batch_size: Count = 32
    tf32: Switch = False
    baselines: list[Text] = ["popularity", "last-item", "transitions", "item-knn"]
    memory: Annotated[dict[str, Any] | None, some_of(MemorySettings), BeforeValidator(switched)] = None
    blend: Annotated[BlendSettings | None, BeforeValidator(switched)] = None
    thoughts: Annotated[ThinkingSettings | None, BeforeValidator(switched)] = None
    control: Annotated[ListTests | None, BeforeValidator(switched)] = None
    published: list[PublishedPart] = []
    trackers: list[Text] | None = None
    samples: Amount = 10
    verbose: Switch = False


class Recipe(Part):
    """A whole run. Its steps are data, teacher, index, conversations, model, one per stage, evaluate and report; with
    ``profile`` writer, embedder, turns and profiles stand before the report.

    Without ``data`` there are no data, teacher, evaluate and report, without ``tasks`` no conversations. A recipe with
    ``profile`` may be without a ``model`` of items: then it has no index, conversations, stages and evaluate.

    Attributes:
        name: of the run, and of its folder below ``runs/``.
        seed: of all random numbers; the same seed gives the same run.
        data: what to read, what to keep of it, and how it is split.
        teacher: a sequential model of the items' rows, trained on the same histories: a row of the table, a part of
            blends. ``true`` or a section; null for none.
        index: the items' semantic IDs, or titles.
        model: what is trained to name items; null in a recipe whose language model writes profiles.
        system: the first line of all conversations that tasks build and of what evaluation asks; null for none.
        tasks: the kinds of conversation to build from the data.
        conversations: conversations that others made, to be trained on as well, or alone.
        stages: the stages of training, one after the other.
        rl: stages of reinforcement learning after these; one may stand without a list.
        profile: users described in words.
        evaluate: what is asked of the trained model.
        distribution: how several processes train together.
    """

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][\w.\-]*$")]
    seed: Amount = 0
    system: Text | None = SYSTEM
    data: DataPart | None = None
    teacher: Annotated[TeacherSettings | None, BeforeValidator(switched)] = None
    index: IndexPart = IndexPart()
    model: ModelPart | None = None
    tasks: Annotated[list[TaskPart], Field(min_length=1)] = []
    conversations: ConversationsPart | None = None
    stages: Annotated[list[Stage], Field(min_length=1)] = []
    rl: Annotated[list[RLStage], BeforeValidator(_several)] = []
    profile: ProfilePart | None = None
    evaluate: EvaluatePart = EvaluatePart()
    distribution: Distribution = Distribution()

    @property
    def trainings(self) -> list[Stage | RLStage]:
        """All stages of the language model, in their order."""
        return [*self.stages, *self.rl]

    @property
    def trained(self) -> list[str]:
        """Names of all that is trained."""
        names = [stage.name for stage in self.trainings]
        return names if self.profile is None else [*names, *self.profile.trained]

    @property
    def item_model(self) -> ModelPart:
        """The model of items.

        Raises:
            ConfigError: there is none.
        """
        if self.model is None:
            raise ConfigError(
                f"{self.name} has no model that names items: it describes users in words",
                "Use `itemic profile`, or a recipe with model and stages.",
            )
        return self.model

    def __repr__(self) -> str:
        stages = ", ".join(self.trained)
        if self.model is None:
            return f"<Recipe {self.name!r}: profiles; trains {stages or 'nothing'}>"
        tasks = ", ".join(task.task for task in self.tasks) or "none"
        return f"<Recipe {self.name!r}: tasks {tasks}; model {self.model.base or self.model.preset}; trains {stages}>"

    def __str__(self) -> str:
        """The recipe as YAML."""
        from itemic.recipe.write import dump_recipe

        return dump_recipe(self)
