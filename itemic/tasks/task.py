"""The contract of a task: it makes the prompt, reads the answer and names the target, wherever it is used.

A task first *plans*: one line of integers per conversation, which is cheap, so that limits and mixtures are
settled before any text exists. Then it *renders* slices of the plan. A task sees the catalogue and the
training sequences and nothing else of a dataset, so that no target of validation or test can reach its text.

Prompts begin with what never changes (system line, instruction) and end with what does, so that in a token
forest the beginning stands once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl

from itemic import schema as c
from itemic.data.dataset import Dataset
from itemic.data.sequences import Requests, Sequences
from itemic.errors import ConfigError
from itemic.sid.names import ItemNames
from itemic.tasks.catalogue import Catalogue, join_rows
from itemic.tasks.conversation import ROWS_PER_PART, SCHEMA, Message, json_strings, make_uuids


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: messages that await the assistant's turn, or a plain text to go on from."""

    messages: tuple[Message, ...] | None = None
    text: str | None = None


@dataclass(frozen=True)
class Task(ABC):
    """One way to make conversations. Its fields are its options; two equal tasks make equal prompts.

    Attributes:
        templates: how many of each kind's wordings training uses, the first ones; None for all. Evaluation
            always asks with the first.
        system: the first line of every conversation, as its system turn; None for none. Plain texts have
            no turns.
    """

    templates: int | None = None
    system: str | None = c.SYSTEM

    name: ClassVar[str]
    leads: ClassVar[dict[str, tuple[str, ...]]]  # kind → wordings; what varies follows after them
    plain: ClassVar[bool] = False  # segments rather than messages
    recommends: ClassVar[bool] = False  # asks for the next item of a history
    finds_items: ClassVar[bool] = False  # asks which item a text means; a history's latest one is asked about
    least_items: ClassVar[int] = 0  # that a history must have for evaluation to ask about it
    codes: ClassVar[str | None] = None  # why it makes no sense where items go by titles

    @property
    def asked_kind(self) -> str:
        """The kind of conversation that evaluation asks."""
        return next(iter(self.leads))

    def __post_init__(self) -> None:
        most = max((len(wordings) for wordings in self.leads.values()), default=1)
        if self.templates is not None and not 1 <= self.templates <= most:
            raise ConfigError(
                f"task {self.name}: templates is {self.templates}", f"Give a number from 1 to {most}."
            )
        if self.plain and self.system not in (None, c.SYSTEM):
            raise ConfigError(
                f"task {self.name}: system is {self.system!r}, and its plain texts have no system turn",
                "Leave system out.",
            )

    def check_names(self, names: ItemNames) -> None:
        """Refuse names that the task can't work with.

        Raises:
            ConfigError: why not.
        """
        if names.kind != "sid" and self.codes is not None:
            raise ConfigError(
                f"task {self.name} makes no sense where items go by their {names.word}s: {self.codes}",
                "Leave the task out, or name items by semantic IDs.",
            )

    # ------------------------------------------------------------- what a task says of itself

    @abstractmethod
    def plan(self, catalogue: Catalogue, train: Sequences, rng: np.random.Generator) -> pl.DataFrame:
        """One line per conversation.

        It has ``kind`` (Int32, into ``leads``), ``group`` (Int64, equal where a beginning is shared beyond
        the instruction) and whatever :meth:`render` needs.
        """

    @abstractmethod
    def render(self, plan: pl.DataFrame, catalogue: Catalogue, train: Sequences) -> pl.DataFrame:
        """The texts of some lines of the plan.

        They are ``value`` (what follows the lead), ``answer`` (null for plain text), ``group`` (String) and
        ``target`` (List of item rows, or null); plain texts may have a ``context`` that stands before the
        value and carries no loss.
        """

    @abstractmethod
    def ask(
        self, catalogue: Catalogue, offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]
    ) -> pl.Series:
        """The values that evaluation asks about the histories ``items[offsets[r]:offsets[r + 1]]``."""

    def about_users(self, catalogue: Catalogue, users: pl.Series) -> pl.Series | None:
        """What stands before the history of each of these users; None for a task that never says anything of them."""
        return None

    def times(self, plan: pl.DataFrame, train: Sequences) -> pl.Series | None:
        """When the items that lines of the plan teach were taken, in the order in which they are said: List(Int64),
        milliseconds since 1970. None for a task whose answers aren't interactions, and where nobody knows."""
        return None

    # ------------------------------------------------------------- evaluation

    def prompts(self, index: ItemNames, requests: Requests, dataset: Dataset | None = None) -> list[Prompt]:
        """The prompts of many requests, each under the first wording of :attr:`asked_kind`.

        Args:
            index: names the items.
            requests: the histories; targets aren't looked at.
            dataset: needed where the prompt shows item texts.

        Raises:
            IndexMismatchError: requests or dataset are of another catalogue.
            DataError: the requests name rows that the index doesn't have.
        """
        self.check_names(index)
        index.check_requests(requests)
        if dataset is not None:
            index.check_dataset(dataset)
        items, users = (None, None) if dataset is None else (dataset.items, dataset.users)
        catalogue = Catalogue(index, items, users)
        values = self.ask(catalogue, requests.offsets, requests.items)
        about = self.about_users(catalogue, pl.Series(requests.users, dtype=pl.String))
        values = values if about is None else about + values
        lead = self.asked_lead(index)
        if self.plain:
            return [Prompt(text=lead + value) for value in values]
        system = self.opening(index)
        head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        return [Prompt(messages=(*head, {"role": "user", "content": lead + value})) for value in values]

    def prompt(
        self,
        index: ItemNames,
        history_rows: Sequence[int] | npt.NDArray[np.integer],
        dataset: Dataset | None = None,
    ) -> Prompt:
        """The prompt of one request: item rows, oldest first."""
        items = np.asarray(history_rows, np.int32)
        request = Requests(np.array([""], object), np.array([0, len(items)]), items, np.array([-1], np.int32))
        return self.prompts(index, request, dataset)[0]

    def parse(self, answer: str, index: ItemNames) -> int | None:
        """The row of the item that an answer names: all of it but its thoughts, white space aside, is a semantic ID, or
        a title with its marks.

        Exactly so, never what is merely like it. Of items that share a semantic ID the first is taken; None for any
        other answer.
        """
        rows = index.named(answer.rpartition(c.THINK_END)[2].strip())
        return int(rows[0]) if len(rows) else None

    # ------------------------------------------------------------- training

    @cached_property
    def wordings(self) -> list[str]:
        """All leads in one list, kind after kind, as they speak of semantic IDs."""
        return [lead for leads in self.leads.values() for lead in leads]

    def said(self, names: ItemNames) -> list[str]:
        """The same as they speak of these names."""
        return [spoken_of(lead, names) for lead in self.wordings]

    def asked_lead(self, names: ItemNames) -> str:
        """The wording that evaluation uses."""
        return spoken_of(self.leads[self.asked_kind][0], names)

    def opening(self, names: ItemNames) -> str | None:
        """The system line; our own one speaks of these names."""
        return spoken_of(self.system, names) if self.system == c.SYSTEM else self.system

    def planned(
        self, catalogue: Catalogue, train: Sequences, seed: int, limit: int | None = None
    ) -> pl.DataFrame:
        """The plan with a wording (``lead``) for every line, cut to ``limit`` lines.

        A group has one wording, so that what it shares stays shared, and is kept or left out as a whole, but
        for the one that the limit cuts through.
        """
        rng = np.random.default_rng([seed, crc32(self.name.encode())])
        plan = self.plan(catalogue, train, rng)
        group = plan["group"].to_numpy()
        lots = rng.random((2, int(group.max()) + 1 if len(group) else 0))
        if limit is not None and limit < len(plan):
            order = np.argsort(lots[0][group], kind="stable")
            keep = np.sort(order[:limit])
            plan, group = plan[keep], group[keep]
        counts = np.array([min(len(w), self.templates or len(w)) for w in self.leads.values()])
        starts = np.concatenate([[0], np.cumsum([len(w) for w in self.leads.values()])])
        kind = plan["kind"].to_numpy()
        lead = starts[kind] + (lots[1][group] * counts[kind]).astype(np.int64)
        return plan.with_columns(lead=pl.Series(lead, dtype=pl.Int32))

    def rendered(
        self,
        plan: pl.DataFrame,
        catalogue: Catalogue,
        train: Sequences,
        *,
        source: str,
        seed: int,
        start: int = 0,
        times: bool = False,
    ) -> pl.DataFrame:
        """Some lines of a plan as conversations; ``start`` is the number of the first of them, and with ``times`` their
        metadata say when the items were taken."""
        texts = self.render(plan, catalogue, train)
        leads = pl.Series(self.said(catalogue.index)).gather(plan["lead"])
        kinds = pl.Series(list(self.leads)).gather(plan["kind"])
        return pl.DataFrame(
            {
                c.UUID: make_uuids(source, seed, start, len(plan)),
                c.SOURCE: pl.Series([source]).new_from_index(0, len(plan)),
                c.MESSAGES: None
                if self.plain
                else self._messages(self.opening(catalogue.index), leads + texts["value"], texts["answer"]),
                c.SEGMENTS: _segments(leads, texts) if self.plain else None,
                c.METADATA: self._metadata(
                    kinds, texts, catalogue, self.times(plan, train) if times else None
                ),
            },
            schema=SCHEMA,
        )

    def _messages(self, system: str | None, asked: pl.Series, answers: pl.Series) -> pl.Series:
        head = ""
        if system is not None:
            head = f'{{"role":"system","content":{json.dumps(system)}}},'
        fixed = f'[{head}{{"role":"user","content":'
        return fixed + json_strings(asked) + '},{"role":"assistant","content":' + json_strings(answers) + "}]"

    def _metadata(
        self, kinds: pl.Series, texts: pl.DataFrame, catalogue: Catalogue, times: pl.Series | None
    ) -> pl.Series:
        target = texts["target"]
        counts = target.list.len().fill_null(0).to_numpy().astype(np.int64)
        rows = target.drop_nulls().explode(empty_as_null=False).to_numpy()
        listed = join_rows(json_strings(catalogue.ids), np.concatenate([[0], np.cumsum(counts)]), rows, ",")
        named = pl.when(pl.col("counts") > 0).then(
            pl.concat_str(pl.lit(',"target":['), "target", pl.lit("]"))
        )
        table = pl.DataFrame(
            {
                "kind": json_strings(kinds),
                "group": json_strings(texts["group"]),
                "target": listed,
                "counts": counts,
                "times": "" if times is None else times.cast(pl.List(pl.String)).list.join(","),
            }
        )
        taken = [] if times is None else [pl.lit(',"time":['), pl.col("times"), pl.lit("]")]
        parts: tuple[str | pl.Expr, ...] = (
            pl.lit(f'{{"task":{json.dumps(self.name)},"kind":'),
            "kind",
            pl.lit(',"group":'),
            "group",
            named.otherwise(pl.lit("")),
            *taken,
            pl.lit(f',"split":"{c.TRAIN}"}}'),
        )
        return table.select(pl.concat_str(*parts).alias("metadata"))["metadata"]

    def frames(
        self,
        dataset: Dataset,
        index: ItemNames,
        *,
        seed: int = 0,
        limit: int | None = None,
        source: str | None = None,
        rows: int = ROWS_PER_PART,
    ) -> Iterator[pl.DataFrame]:
        """The task's conversations, ``rows`` at a time.

        Raises:
            IndexMismatchError: the index belongs to another dataset.
        """
        self.check_names(index)
        index.check_dataset(dataset)
        catalogue = Catalogue(index, dataset.items, dataset.users)
        plan = self.planned(catalogue, dataset.train, seed, limit)
        for start in range(0, len(plan), rows):
            part = plan.slice(start, rows)
            yield self.rendered(
                part, catalogue, dataset.train, source=source or self.name, seed=seed, start=start
            )

    def build(
        self,
        dataset: Dataset,
        index: ItemNames,
        *,
        seed: int = 0,
        limit: int | None = None,
        source: str | None = None,
    ) -> pl.DataFrame:
        """All of the task's conversations, columns ``schema.CONVERSATION_COLUMNS``."""
        frames = list(self.frames(dataset, index, seed=seed, limit=limit, source=source))
        return pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)


@dataclass(frozen=True)
class OfUsers(Task):
    """A task that shows the history of a user, and may say what is known of them.

    Attributes:
        user_text: say before the history what the data know of the user: ``true`` for all columns of the users' table,
            or the columns by name. Of a user of whom nothing is known nothing is said.
    """

    user_text: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.user_text, bool):
            return
        named = self.user_text if isinstance(self.user_text, list | tuple) else (None,)
        if not all(isinstance(name, str) for name in named):
            raise ConfigError(
                f"task {self.name}: user_text is {self.user_text!r}",
                "Give true, false, or a list of columns.",
            )
        object.__setattr__(self, "user_text", tuple(named))
        if not named:
            raise ConfigError(f"task {self.name}: user_text is empty", "Name columns, or give true for all.")

    def about_users(self, catalogue: Catalogue, users: pl.Series) -> pl.Series | None:
        if self.user_text is False:
            return None
        return catalogue.user_texts(users, None if self.user_text is True else tuple(self.user_text))

    def users_known(self, catalogue: Catalogue) -> None:
        """Refuse data that know nothing of users, where the task is to say it.

        Raises:
            ConfigError: they don't.
        """
        if self.user_text is not False and catalogue.users is None:
            raise ConfigError(
                f"task {self.name}: user_text is set, and the data know nothing of users",
                "Read data with a table of users (MovieLens' users.dat, RecBole's .user, the option users of tables),"
                " or leave user_text out.",
            )


@dataclass(frozen=True)
class OfKinds(Task):
    """A task whose kinds of conversation can be had one by one.

    Attributes:
        kinds: those that are made; None for all. Evaluation asks the first one named.
    """

    kinds: tuple[str, ...] | None = None

    beside: ClassVar[tuple[str, ...]] = ()  # kinds that are made where they are named, and not for None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kinds is None:
            return
        object.__setattr__(self, "kinds", tuple(self.kinds))
        unknown = [kind for kind in self.kinds if kind not in self.leads]
        if unknown or not self.kinds or len(set(self.kinds)) < len(self.kinds):
            told = f"unknown kind {unknown[0]!r}" if unknown else f"kinds is {list(self.kinds)}"
            raise ConfigError(
                f"task {self.name}: {told}",
                f"Name some of {', '.join(self.leads)}, each once, or none for all.",
            )

    @property
    def asked_kind(self) -> str:
        return self.kinds[0] if self.kinds is not None else super().asked_kind

    def only(self, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which conversations are made, of those that could be: bool ``[n, kinds]``, in the order of ``leads``."""
        if self.kinds is None and not self.beside:
            return wanted
        named: npt.NDArray[np.bool_] = wanted & np.array([kind in self.made_kinds for kind in self.leads])
        return named

    @property
    def made_kinds(self) -> tuple[str, ...]:
        """The kinds that are made, by name."""
        return self.kinds or tuple(kind for kind in self.leads if kind not in self.beside)


def spoken_of(text: str, names: ItemNames) -> str:
    """A wording about semantic IDs as it is about these names."""
    return text if names.kind == "sid" else text.replace("semantic ID", names.word)


def _segments(leads: pl.Series, texts: pl.DataFrame) -> pl.Series:
    whole = '{"type":"text","text":' + json_strings(leads + texts["value"]) + "}]"
    if "context" not in texts.columns:
        return "[" + whole
    value = '{"type":"text","text":' + json_strings(texts["value"]) + "}]"
    context = '{"type":"text","text":' + json_strings(leads + texts["context"]) + ',"loss":false},'
    cut = pl.when(texts["context"] == "").then(whole).otherwise(context + value)
    return "[" + pl.select(cut).to_series()


def last_items(offsets: npt.NDArray[np.int64], items: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The latest item of each history.

    Raises:
        ConfigError: a history is empty.
    """
    if (np.diff(offsets) < 1).any():
        raise ConfigError(
            "this prompt is about an item, and a history is empty", "Ask about at least one item."
        )
    return items[offsets[1:] - 1]
