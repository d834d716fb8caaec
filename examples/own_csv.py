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
    # item has text, "auto" takes what users had together instead.
    size = max(8, round((4 * len(dataset.items)) ** 0.5))
    index = itemic.build_index(dataset, encoder="auto", levels=[size, size], format="minionerec")

    # A small model from scratch, which reads and writes nothing but items.
    model = itemic.new_model("qwen3-pico", index)
    conversations = itemic.build_conversations(dataset, index, tasks=[{"task": "sequence", "max_items": 20}])
    stage = {"epochs": options.epochs, "learning_rate": 5e-3, "dropout": 0.1, "tokens_per_step": 4096}
    model = itemic.train(model, conversations, stage=stage)

    # Everybody's last item is the test, ranked among all items; popularity is what a model should beat.
    test = dataset.split("test")
    ranking = itemic.recommend(model, test, task="sequence", beams=20, normalize="level")
    popular = itemic.rank_all(itemic.Popularity(dataset), test, dataset.item_ids)
    print(itemic.compare([itemic.score(ranking, k=[5, 10]), itemic.score(popular, k=[5, 10])]))

    titles = dict(dataset.items.select("item_id", "title").iter_rows())
    first = ranking.table(0).row(0, named=True)
    print(f"for user {first['user_id']}:")
    for item in first["items"][:5]:
        print(f"  {item}  {titles[item]}")
    return ranking


if __name__ == "__main__":
    main()
