"""``run.log``: what a run said, in its folder, one call after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from itemic.artifact import digest_of, versions
from itemic.errors import ItemicError
from itemic.progress import log_to
from itemic.recipe import Recipe, dump_recipe

LOG = "run.log"
TOLD = ("torch", "transformers", "polars", "numpy")


@contextmanager
def run_log(root: Path, recipe: Recipe, command: str) -> Iterator[None]:
    """Append to the log of a run: the command, the recipe's digest, versions, every log line, and how it ended.

    Args:
        root: the run's folder.
        recipe: as it is run, overrides and variables resolved.
        command: as somebody would type it again.
    """
    begun = time.monotonic()

    def ended(how: str) -> None:
        write(f"{how} after {time.monotonic() - begun:,.0f} s")

    with log_to(root / LOG) as write:
        write(f"$ {command}")
        write(f"recipe {recipe.name}, digest {digest_of(dump_recipe(recipe))}, seed {recipe.seed}")
        write(", ".join(f"{name} {version}" for name, version in versions(*TOLD).items()))
        try:
            yield
        except KeyboardInterrupt:
            ended("interrupted")
            raise
        except ItemicError as error:
            write(f"error: {error}")
            ended("stopped")
            raise
        except BaseException as error:
            write(f"{type(error).__name__}: {error}")
            ended("failed")
            raise
        ended("done")
