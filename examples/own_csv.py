"""From your own tables to ranked items.

    python examples/own_csv.py FOLDER

FOLDER holds one table of interactions (who had what, and when) and, if you like, one of items: CSV, TSV, Parquet,
Arrow or JSON Lines. Columns are found by their usual names, and what was guessed is printed; `itemic.read` takes
options where a guess is wrong, such as `user="session"`. DataFrames go in by `itemic.dataset(interactions, items)`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import itemic
from itemic.progress import setup_logging


def main(arguments: Sequence[str] | None = None) -> itemic.Ranking:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="where the tables are")
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args(arguments)

    setup_logging()  # shows what was guessed, and how far things are

    # Who has too short a history, or nobody bought often enough, is left out: there is nothing to learn from.
    dataset = itemic.read("table", options.folder)
    dataset = itemic.apply_filters(dataset, itemic.FilterRule(user_k_core=3, item_k_core=2))

    # A semantic ID has two codes here; four times as many combinations as items leave room for all of them. Where no
    # item has text, "auto" takes what users had together instead; else that counts beside the texts.
    size = max(8, round((4 * len(dataset.items)) ** 0.5))
    behaviour = {"collaborative_weight": 0.35}
    index = itemic.build_index(dataset, levels=[size, size], format="minionerec", encoder_options=behaviour)

    # A small model from scratch, which reads and writes nothing but items; a code starts where its items' vectors are.
    vectors, _ = itemic.encode_items(dataset, options=behaviour)
    model = itemic.new_model("qwen3-pico", index, init="vectors", vectors=vectors)
    conversations = itemic.build_conversations(dataset, index, tasks=[{"task": "sequence", "max_items": 20}])
    tokens = int(
        min(4096, max(512, 2 * len(dataset.interactions) // 16))
    )  # some sixteen steps an epoch, fewer on small data
    stage = {
        "epochs": options.epochs,
        "learning_rate": 4e-3,
        "objective": {"dropout": 0.2},
        "data": {"tokens_per_step": tokens},
    }
    model = itemic.train(model, conversations, stage=stage)

    # Everybody's last item is the test, ranked among all items; counting is what a model should beat.
    test = dataset.split("test")
    ranking = itemic.recommend(model, test, beams=20, normalize="level")
    counting = (itemic.Popularity(dataset), itemic.Transitions(dataset))
    rankings = [ranking, *(itemic.rank_all(each, test, dataset.item_ids) for each in counting)]
    print(itemic.compare([itemic.score(each, k=[5, 10]) for each in rankings], rankings=rankings))

    titles = dict(dataset.items.select("item_id", "title").iter_rows())
    first = ranking.table(0).row(0, named=True)
    print(f"for user {first['user_id']}:")
    for item in first["items"][:5]:
        print(f"  {item}  {titles[item]}")
    return ranking


if __name__ == "__main__":
    main()
