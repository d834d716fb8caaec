"""What to change for what a report says: one rule a strategy, in a literal table.

A rule is pure: it reads an analysis, the recipe as it stands and a few facts of the run, and proposes changes that
would do something. What is so already it never proposes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from itemic.advise.look import LEAST, Look, levels_of
from itemic.advise.patch import Change
from itemic.recipe.init import CODES_AN_ITEM

COLLABORATIVE = 0.35  # the share of behaviour in items' vectors that serves both real catalogues
FIRST_WRONG = 0.5  # of the bad cases
MOST_BEAMS = 400
WORDS = 2048  # tokens of text that a new model needs to read titles
ALIGNED = 0.1  # of the conversations about items' texts, in each epoch
SHORT: dict[str, Any] = {"task": "sequence", "source": "short", "max_items": 3, "overlap": 1, "cuts": 10}
MOST_CODES = 4096
HALF_LIFE = 180.0  # days
GAIN = 1.01  # of the last validation over the one before: still getting better


@dataclass(frozen=True)
class Rule:
    """One strategy.

    Attributes:
        name: as a person chooses it.
        title: what it is about.
        reads: detectors of the analysis, or what else it looks at.
        threshold: when it speaks.
        why: how the change is meant to help.
        changes: which keys it may touch.
        costs: what that costs.
        find: the changes; none where the report doesn't call for them or all is so already.
    """

    name: str
    title: str
    reads: tuple[str, ...]
    threshold: str
    why: str
    changes: str
    costs: str
    find: Callable[[Look], list[Change]]


# ----------------------------------------------------------------------------- items that training saw rarely


def long_tail(look: Look) -> list[Change]:
    if not look.says("long_tail"):
        return []
    return [*_weigh_rare(look), *_align(look), *_reward(look, "long-tail")]


def _weigh_rare(look: Look) -> list[Change]:
    """Rare items drawn more often where rows have a target each; else their tokens count more."""
    at: tuple[str | int, ...] = ("stages", look.stage)
    if look.tasks("sequence") or look.now(*at, "data", "stream"):
        power = look.now(*at, "objective", "weights", "frequency") or 0.0
        reason = "a token of a rare item costs more, by its frequency to this power"
        return look.change((*at, "objective", "weights", "frequency"), min(power + 0.5, 1.0), reason)
    power = look.now(*at, "data", "balance", "power")
    if power is None:
        balance = {"by": "item", "power": 0.5, "most": 10.0}
        reason = "conversations about a rare item are drawn more often, by its frequency to this power"
        return look.change((*at, "data", "balance"), balance, reason)
    reason = "rare items are drawn more often still"
    return look.change((*at, "data", "balance", "power"), min(power + 0.25, 1.0), reason)


def _align(look: Look) -> list[Change]:
    """Tasks that tie an item's semantic ID to its text, so that an item without a past is still known by its words."""
    if not (look.by_codes and look.textual and look.recipe.data is not None):
        return []
    found: list[Change] = []
    for name, says in (("A", "what an item is, from its semantic ID"), ("B", "its semantic ID, from a text")):
        if not look.tasks(name):
            found += look.add_task({"task": name}, ALIGNED, f"the model learns {says}, seen often or not")
    model = look.recipe.item_model
    if found and model.preset is not None and model.vocab_size < WORDS:
        reason = "there are texts to read and to write now"
        found += look.change(("model", "vocab_size"), WORDS, reason, found[0].bundle)
    return found


def _reward(look: Look, *names: str) -> list[Change]:
    """Rewards of reinforcement learning, where there is any."""
    found: list[Change] = []
    for i, stage in enumerate(look.recipe.rl):
        for name in names:
            if name not in stage.rewards:
                reason = "answers that are shown to few are worth something beside the hit"
                found += look.change(("rl", i, "rewards", name), 0.1, reason)
    return found


def cold_start(look: Look) -> list[Change]:
    if not look.says("cold_start", "text_missing"):
        return []
    found: list[Change] = []
    if look.built and look.textual:
        weight = look.now("index", "encoder_options", "collaborative_weight") or 0.0
        if look.recipe.index.encoder == "collaborative":
            reason = "an item that nobody has had yet has no behaviour; its words tell where it belongs"
            found += look.change(("index", "encoder"), "lsa", reason)
        elif weight > 0.2:
            reason = (
                "a new item's semantic ID comes from its words alone; words count for more in all of them"
            )
            path = ("index", "encoder_options", "collaborative_weight")
            found += look.change(path, round(weight / 2, 3), reason)
    found += _begin_near(look)
    found += _align(look)
    if look.textual and look.by_codes:
        for i in look.tasks("C"):
            if look.now("tasks", i, "history_text") in (None, "sid"):
                reason = "prompts say what the items are, not their semantic IDs alone"
                found += look.change(("tasks", i, "history_text"), "sid+title", reason)
    return found


def _begin_near(look: Look) -> list[Change]:
    """Rows of codes that begin where their items are."""
    model = look.recipe.item_model
    if not look.built or (model.init or "normal") not in ("normal", "moments", "mean"):
        return []
    reason = "a code begins near the items that carry it, before anybody has had them"
    return look.change(("model", "init"), "vectors" if model.preset else "text", reason)


# ----------------------------------------------------------------------------- histories


def short_history(look: Look) -> list[Change]:
    if not look.says("short_history"):
        return []
    found = _short_segments(look, "short segments teach what follows an item, whatever came before it")
    for i in look.tasks("sequence"):
        if (look.now("tasks", i, "max_items") or 99) > 5 and not look.now("tasks", i, "beginnings"):
            reason = "the first items of every history are prompts of their own"
            found += look.change(("tasks", i, "beginnings"), 3, reason)
    found += _short_windows(look, (1, 2, 3))
    if look.by_codes and not look.tasks("E"):
        entry = {"task": "E", "kinds": ["next", "before", "together"]}
        found += look.add_task(entry, ALIGNED, "what one item goes with is all that a short history can tell")
    if look.facts.users:
        for i in [*look.tasks("C"), *look.tasks("F")]:
            if not look.now("tasks", i, "user_text"):
                reason = "a prompt says who asks, where the history says little"
                found += look.change(("tasks", i, "user_text"), True, reason)
    return found


def _short_segments(look: Look, reason: str) -> list[Change]:
    of_sequences = look.tasks("sequence")
    short = [i for i in of_sequences if (look.now("tasks", i, "max_items") or 99) <= 5]
    taken = {task.arguments.get("source", task.task) for task in look.recipe.tasks}
    if not of_sequences or short or SHORT["source"] in taken:
        return []
    return look.add_task(dict(SHORT), 0.1, reason)


def _short_windows(look: Look, sizes: tuple[int, ...]) -> list[Change]:
    """Rows of task C that show the latest items alone."""
    found: list[Change] = []
    for i in look.tasks("C"):
        windows = look.now("tasks", i, "windows") or [2, 3, 5, "all"]
        more = sorted({*sizes, *(size for size in windows if size != "all")})
        wanted = [*more, *(["all"] if "all" in windows else [])]
        if set(wanted) != set(windows):
            reason = "the same targets are asked with a few items of history as well"
            found += look.change(("tasks", i, "windows"), wanted, reason)
    return found


def recency_bias(look: Look) -> list[Change]:
    """The two patterns call for the opposite; the one with more at stake has its way."""
    if look.stake("only_recent") > look.stake("ignores_recent"):
        return _longer(look) if look.says("only_recent") else []
    if not look.says("ignores_recent"):
        return []
    found = _short_segments(look, "short segments teach what follows the very last item")
    found += _short_windows(look, (1, 2))
    at = ("stages", look.stage, "objective", "weights", "half_life")
    if look.facts.timed and look.now(*at) is None:
        reason = f"what was taken long before the end of training counts less: half as much every {HALF_LIFE:g} days"
        found += look.change(at, HALF_LIFE, reason)
    if look.recipe.evaluate.memory is None:
        found += look.change(("evaluate", "memory"), {}, "counts of what followed the latest items take part")
    return found


def _longer(look: Look) -> list[Change]:
    """Less of the rows that show the latest items alone."""
    found: list[Change] = []
    reason = "fewer rows show the latest items alone"
    for i in look.tasks("C"):
        windows = look.now("tasks", i, "windows") or [2, 3, 5, "all"]
        if windows != ["all"] and "all" in windows:
            found += look.change(("tasks", i, "windows"), ["all"], reason)
    names = [
        task.arguments.get("source", task.task)
        for task in look.recipe.tasks
        if task.task == "sequence" and (task.arguments.get("max_items") or 50) <= 5
    ]
    for name in names:
        of_source = ("stages", look.stage, "data", "sources", name)
        share = look.now(*of_source)
        found += look.change(of_source, round((1.0 if share is None else share) / 2, 4), reason)
    decay = look.now("evaluate", "memory", "decay")
    if decay is not None and decay < 0.9:
        path = ("evaluate", "memory", "decay")
        found += look.change(path, 0.9, "of the history earlier items count for more in the counts")
    return found


# ----------------------------------------------------------------------------- semantic IDs


def sid_quality(look: Look) -> list[Change]:
    index = look.recipe.index
    if not look.by_codes:
        return []
    collide = look.says("collision", "found_namesake")
    if not look.built:
        reason = "items that share a semantic ID get one more code"
        return look.change(("index", "collisions"), "rank", reason) if collide else []
    found: list[Change] = []
    if collide:
        if index.duplicates == "share":
            found += look.change(
                ("index", "duplicates"), "apart", "items with the same text can be told apart"
            )
        bundle = "room"
        reason = f"there are fewer than {CODES_AN_ITEM} semantic IDs for an item"
        found += look.change(("index", "levels"), _room(look), reason, bundle)
        if index.collisions == "keep":
            reason = "no two items share a semantic ID"
            found += look.change(("index", "collisions"), "reassign", reason, bundle)
    later = tuple(range(2, look.depth + 1))
    first, rest = look.first_wrong(1) >= FIRST_WRONG, look.first_wrong(*later) >= FIRST_WRONG
    if first or look.says("category_mismatch_target", least=FIRST_WRONG) or look.asked:
        found += _by_behaviour(look)
    if look.says("crowded_prefix") and index.quantizer == "rqkmeans":
        reason = "codes of a level get equally many items, so that no prefix is crowded"
        found += look.change(("index", "quantizer"), "balanced", reason)
    if rest and not any(change.path == ("index", "levels") for change in found):
        found += _more_codes(look, -1, "items under one prefix are told apart by more codes")
    if found or rest:
        found += _begin_near(look)
    return found


def _by_behaviour(look: Look) -> list[Change]:
    """Codes of what users have together; a larger first level where they are so already."""
    path = ("index", "encoder_options", "collaborative_weight")
    weight = look.now(*path) or 0.0
    if not look.textual or look.recipe.index.encoder == "collaborative":
        return _more_codes(look, 0, "the first code says more of an item")
    if weight < COLLABORATIVE:
        reason = "items that users have together get codes alike: the first one is easier to foresee"
        return look.change(path, COLLABORATIVE, reason)
    if look.asked and look.recipe.index.quantizer == "rqkmeans":
        return look.change(
            ("index", "quantizer"), "balanced", "another quantizer, whose codes are equally full"
        )
    return []


def _room(look: Look) -> Any:
    """The levels, the smallest one doubled until there are enough semantic IDs; None for the usual ones."""
    levels = list(levels_of(look.recipe))
    while look.facts.items and prod(levels) < CODES_AN_ITEM * look.facts.items and min(levels) < MOST_CODES:
        smallest = len(levels) - 1 - levels[::-1].index(min(levels))
        levels[smallest] *= 2
    return look.recipe.index.levels if levels == list(levels_of(look.recipe)) else levels


def _more_codes(look: Look, level: int, reason: str) -> list[Change]:
    levels = list(levels_of(look.recipe))
    if levels[level] * 2 <= MOST_CODES:
        levels[level] *= 2
    return look.change(("index", "levels"), levels, reason)


# ----------------------------------------------------------------------------- training, counts, search


def hyperparameter(look: Look) -> list[Change]:
    found: list[Change] = []
    i = look.stage
    stage = look.recipe.stages[i]
    curve = look.facts.curves.get(stage.name)
    if stage.validation.every is None:
        reason = "nobody knows whether it is trained too long; the best weights validated are kept"
        return look.change(("stages", i, "validation", "every"), "epoch", reason)
    if curve is None or len(curve.values) < 3:
        return []
    if curve.best == len(curve.values) - 1 and curve.values[-1] > GAIN * curve.values[-2]:
        key = "epochs" if stage.epochs is not None else "steps"
        longer = max(int((getattr(stage, key) or 1) * 1.5), (getattr(stage, key) or 1) + 1)
        return look.change(("stages", i, key), longer, f"it was still getting better: {curve.words}")
    if curve.at[curve.best] <= 0.7 and curve.values[-1] < 0.98 * curve.values[curve.best]:
        reason = f"it learns by heart: {curve.words}"
        decay, dropout = stage.optimizer.weight_decay, stage.objective.dropout
        found += look.change(
            ("stages", i, "optimizer", "weight_decay"), min(max(decay * 3, 0.1), max(decay, 0.5)), reason
        )
        found += look.change(
            ("stages", i, "objective", "dropout"), max(dropout, min(round(dropout + 0.1, 3), 0.3)), reason
        )
        if stage.objective.label_smoothing == 0:
            found += look.change(("stages", i, "objective", "label_smoothing"), 0.05, reason)
    return found


def memory(look: Look) -> list[Change]:
    if not look.says("memory_knew"):
        return []
    part = look.recipe.evaluate
    if part.memory is None:
        reason = "what training counted takes part, with the model as its prior; validation says how much"
        return look.change(("evaluate", "memory"), {}, reason)
    if part.blend is None:
        rankers = ["model", *(["teacher"] if look.recipe.teacher is not None else []), "ridge"]
        reason = "a linear model of all pairs of items is mixed in, by a weight that validation chooses"
        return look.change(("evaluate", "blend"), {"rankers": rankers}, reason)
    return []


def beams(look: Look) -> list[Change]:
    if not look.says("pruned_by_beam", "unanswered", least=0.005):
        return []
    now = look.recipe.evaluate.beams
    most = min(MOST_BEAMS, look.facts.items or MOST_BEAMS)
    if now >= most:
        return []
    return look.change(
        ("evaluate", "beams"), min(2 * now, most), "a wider search loses fewer targets on its way"
    )


def popularity(look: Look) -> list[Change]:
    if not look.says("popularity_bias"):
        return []
    return [*_weigh_rare(look), *_reward(look, "coverage", "diversity")]


STAKE = f"the pattern is a cause, and what is at stake in it is at least {LEAST:.0%} of the bad cases"
RULES: dict[str, Rule] = {
    "long_tail": Rule(
        "long_tail",
        "Items that training saw rarely",
        ("long_tail",),
        STAKE,
        "A model of frequencies spends itself on what is frequent; rare items need more of its attention, and another "
        "way to be known: their text.",
        "loss weights or sampling by frequency, tasks A and B, the reward long-tail",
        "Frequent items get a little worse. Tasks A and B add conversations and need a vocabulary of words.",
        long_tail,
    ),
    "cold_start": Rule(
        "cold_start",
        "Items that training never saw",
        ("cold_start", "text_missing"),
        STAKE,
        "An item without a past is known by its text alone: its semantic ID has to come from it, and the model has to "
        "read it.",
        "the share of behaviour in the index, how codes begin, tasks A and B, titles in the prompts of task C",
        "The index and all after it are made again. Prompts with titles are several times as long.",
        cold_start,
    ),
    "short_history": Rule(
        "short_history",
        "Histories of few items",
        ("short_history",),
        STAKE,
        "Rows of training mostly show long histories; those that ask have short ones.",
        "short segments and beginnings of histories, windows of task C, task E, what is known of the user",
        "More rows to train on: about a tenth.",
        short_history,
    ),
    "sid_quality": Rule(
        "sid_quality",
        "Semantic IDs that don't tell items apart, or not by what users do",
        (
            "collision",
            "found_namesake",
            "crowded_prefix",
            "category_mismatch_target",
            "the levels of the semantic ID",
        ),
        f"{STAKE}; or half of the bad cases first go wrong at the first level or in the category, or at later levels",
        "A list is right only where every code of the target is; where a level goes wrong first says which codes to "
        "make otherwise.",
        "collisions, duplicates, levels, the quantizer, the share of behaviour, how codes begin",
        "The index and all after it are made again; larger codebooks have more rows to learn.",
        sid_quality,
    ),
    "recency_bias": Rule(
        "recency_bias",
        "The latest items count too little, or alone",
        ("ignores_recent", "only_recent"),
        STAKE,
        "How much of a history rows show decides what the model takes notice of.",
        "short segments and windows, loss weights by age, counts of what followed",
        "A few more rows, or fewer.",
        recency_bias,
    ),
    "memory": Rule(
        "memory",
        "What the counts of training knew",
        ("memory_knew",),
        STAKE,
        "Exact counts of what followed what are right where a pair was seen often; a model smooths them away.",
        "evaluate.memory, then evaluate.blend",
        "No training. Ranking takes a little longer, and the choice on validation some minutes.",
        memory,
    ),
    "beams": Rule(
        "beams",
        "Targets that the search lost",
        ("pruned_by_beam", "unanswered"),
        "the pattern is there in at least half a percent of the bad cases",
        "The model would have ranked the target well enough, and the search never got there.",
        "evaluate.beams",
        "Ranking takes longer, about in proportion.",
        beams,
    ),
    "popularity": Rule(
        "popularity",
        "Lists of what everybody has",
        ("popularity_bias",),
        STAKE,
        "What is frequent in training is safe to recommend; weights and rewards make it less so.",
        "loss weights or sampling by frequency, the rewards coverage and diversity",
        "Frequent items get a little worse.",
        popularity,
    ),
    "hyperparameter": Rule(
        "hyperparameter",
        "How long and how hard it learns",
        ("the validations of the run",),
        "the best validation is the last one, 1 % above the one before; or the best comes before 70 % of the way and "
        "the end is 2 % behind it; or there are none",
        "Validation tells a training that ends too early from one that learns by heart.",
        "epochs or steps, weight decay, dropout, label smoothing; with --trials whatever the search finds",
        "Longer training takes longer. A search trains once for each trial.",
        hyperparameter,
    ),
}
