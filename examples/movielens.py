"""MovieLens, from its own files to a table beside popularity and item-to-item transitions.

    python examples/movielens.py ml-latest-small

The folder holds `ratings.csv` and `movies.csv`, or `ratings.dat` and `movies.dat` as in MovieLens 1M.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import itemic


def main(arguments: Sequence[str] | None = None) -> itemic.Ranking:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="where MovieLens was unpacked")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--k-core", type=int, default=5, help="ratings that every user and film must have")
    options = parser.parse_args(arguments)

    # Ratings count as "has seen". Leave-one-out: everybody's last film is the test, the one before it validation.
    dataset = itemic.read("movielens", options.folder)
    core = itemic.FilterRule(user_k_core=options.k_core, item_k_core=options.k_core)
    dataset = itemic.apply_filters(dataset, core).with_split(itemic.SplitRule("leave-one-out", history=50))

    # Titles say little of a film, so what was seen together has its share in the vectors.
    size = max(8, round((4 * len(dataset.items)) ** 0.5))
    index = itemic.build_index(
        dataset, levels=[size, size], format="minionerec", encoder_options={"collaborative_weight": 0.7}
    )

    model = itemic.new_model("qwen3-pico", index)
    conversations = itemic.build_conversations(dataset, index, tasks=[{"task": "sequence", "max_items": 50}])
    stage = {
        "epochs": options.epochs,
        "learning_rate": 3e-3,
        "objective": {"dropout": 0.2},
        "data": {"tokens_per_step": 4096},
    }
    model = itemic.train(model, conversations, stage=stage)

    # Nobody is recommended a film that they have rated already.
    test = dataset.split("test")
    ranking = itemic.recommend(
        model, test, task="sequence", beams=50, normalize="level", exclude_history=True
    )
    rankings = [ranking] + [
        itemic.rank_all(baseline, test, dataset.item_ids, k=50, exclude_history=True)
        for baseline in (itemic.Popularity(dataset), itemic.Transitions(dataset))
    ]
    print(itemic.compare([itemic.score(ranked, k=[10, 20]) for ranked in rankings]))
    return ranking


if __name__ == "__main__":
    main()
