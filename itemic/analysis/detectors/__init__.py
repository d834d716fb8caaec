"""The detectors, one row each: patterns of requests and of answers that may go with failure."""

from __future__ import annotations

from itemic.analysis.detector import Detector
from itemic.analysis.detectors.lists import (
    category_mismatch_history,
    category_mismatch_target,
    ignores_recent,
    near_miss,
    only_recent,
    popularity_bias,
    pruned_by_beam,
    repetition,
    unanswered,
)
from itemic.analysis.detectors.sids import DEEPEST, collision, crowded_prefix, found_namesake, wrong_level
from itemic.analysis.detectors.targets import (
    cold_start,
    history_cut,
    long_tail,
    memory_knew,
    repeat_target,
    short_history,
    text_missing,
)

_OR_BELOW = ["" if level < DEEPEST else " or below" for level in range(DEEPEST + 1)]

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for detector in (
        Detector(
            "cold_start",
            "Cold target",
            "Training saw the target at most {cold} ×.",
            "Training saw the target {count} ×.",
            "request",
            cold_start,
            "Schein et al., Methods and metrics for cold-start recommendations, SIGIR 2002",
        ),
        Detector(
            "long_tail",
            "Target in the long tail",
            "The target is one of the rarest items, which make up {tail} of training's interactions.",
            "Training saw the target {count} ×.",
            "request",
            long_tail,
            "Park and Tuzhilin, The long tail of recommender systems and how to leverage it, RecSys 2008",
        ),
        Detector(
            "short_history",
            "Short history",
            "The history has at most {short} items.",
            "The history has {length} items.",
            "request",
            short_history,
        ),
        Detector(
            "repeat_target",
            "The user has had the target before",
            "The target stands in the history. Lists that leave out histories can't hold it.",
            "The user has had the target {times} × before.",
            "request",
            repeat_target,
            "Anderson et al., The dynamics of repeat consumption, WWW 2014",
        ),
        Detector(
            "text_missing",
            "Target without text",
            "Title and description of the target have fewer than {words} words.",
            "Title and description of the target have {words} words.",
            "request",
            text_missing,
            needs=("text",),
        ),
        Detector(
            "collision",
            "Target shares its semantic ID",
            "Another item has the very semantic ID of the target.",
            "{others} other items have the target's semantic ID.",
            "request",
            collision,
            "Rajput et al., Recommender systems with generative retrieval, NeurIPS 2023, section 3.1",
            ("codes",),
        ),
        Detector(
            "crowded_prefix",
            "Target under a crowded prefix",
            "At least {crowded} times as many items share all of the target's codes but the last as share those of the "
            "median item.",
            "{items} items share all of the target's codes but the last.",
            "request",
            crowded_prefix,
            needs=("codes",),
        ),
        Detector(
            "history_cut",
            "History cut",
            "The ranker couldn't read the whole history and left out its oldest items.",
            "The history of {length} items was cut.",
            "answer",
            history_cut,
        ),
        Detector(
            "unanswered",
            "Too few items",
            "The list has fewer items than were asked for.",
            "The list has {size} items.",
            "answer",
            unanswered,
        ),
        Detector(
            "category_mismatch_history",
            "List beside the user's taste",
            "At least {mostly} of the list are of categories that nothing in the history has.",
            "{strange} of {size} listed items are of categories that the user has never had.",
            "answer",
            category_mismatch_history,
            needs=("labels",),
        ),
        Detector(
            "ignores_recent",
            "List ignores the last items",
            "The target has followed a recent item (of the last {recent}) in training, at most {window} places behind, "
            "and at most {hardly} of the list has.",
            "{follow} of {size} listed items have followed the last items in training; the target has.",
            "answer",
            ignores_recent,
        ),
        Detector(
            "only_recent",
            "List follows only the last items",
            "At least {mostly} of the list has followed a recent item (of the last {recent}) in training, at most "
            "{window} places behind, and the target has followed an earlier one alone.",
            "{follow} of {size} listed items have followed the last items in training; the target an earlier one.",
            "answer",
            only_recent,
        ),
        Detector(
            "repetition",
            "List repeats",
            "The user hasn't had the target, and at least {repeated} of the list stands in the history, or twice.",
            "{again} of {size} places repeat the history or the list.",
            "answer",
            repetition,
        ),
        Detector(
            "popularity_bias",
            "List of the popular",
            "At least {mostly} of the list are the most frequent items (they make up {head} of training's "
            "interactions), the target isn't one, and at most half of the history are.",
            "{popular} of {size} listed items are of the most frequent ones, {had} of {length} in the history.",
            "answer",
            popularity_bias,
            "Abdollahpouri et al., The unfairness of popularity bias in recommendation, RMSE at RecSys 2019",
        ),
        Detector(
            "category_mismatch_target",
            "Wrong category",
            "No listed item is of a category of the target.",
            "No listed item is of a category of the target.",
            "kind",
            category_mismatch_target,
            needs=("labels",),
        ),
        Detector(
            "near_miss",
            "Near miss",
            "The target stands in the ranking, behind the places that are shown.",
            "The target stands at place {place}.",
            "kind",
            near_miss,
        ),
        Detector(
            "memory_knew",
            "Counting knew it",
            "What followed what in training has the target in a list of the same length.",
            "Counted transitions have the target at place {place}.",
            "kind",
            memory_knew,
            "Ding et al., How well does generative recommendation generalize?, 2026",
        ),
        Detector(
            "found_namesake",
            "Right semantic ID, other item",
            "The list holds an item that has the target's semantic ID, and not the target.",
            "An item with the target's semantic ID stands at place {place}.",
            "kind",
            found_namesake,
            needs=("codes",),
        ),
        *(
            Detector(
                f"wrong_level_{level}",
                f"Wrong from level {level}{_OR_BELOW[level]} on",
                f"No listed item has the target's codes up to level {level}{_OR_BELOW[level]}; one has those before.",
                "No listed item has the target's codes up to level {level}.",
                "kind",
                wrong_level(level),
                needs=("codes",),
            )
            for level in range(1, DEEPEST + 1)
        ),
        Detector(
            "pruned_by_beam",
            "Lost by the search",
            "The model scores the target, where its semantic ID is forced, above the last item that is shown.",
            "The model scores the target {forced:.3f}, the last listed item {cutoff:.3f}.",
            "kind",
            pruned_by_beam,
            "Stahlberg and Byrne, On NMT search errors and model errors: cat got your tongue?, EMNLP 2019",
            ("model",),
        ),
    )
}
