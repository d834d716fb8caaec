"""Errors that say what went wrong, where, and what to do next.

Every error that a user can cause is an :class:`ItemicError`. Its message names the file, row or key at fault; its
remedy is one sentence in the imperative. The command line prints both and exits with status 2; anything else that
escapes is a bug and keeps its traceback.
"""

from __future__ import annotations


class ItemicError(Exception):
    """A fault that the user can mend. ``remedy`` says how."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[type[ItemicError], tuple[str, str]]:
        return (type(self), (self.message, self.remedy))


class DataError(ItemicError):
    """A raw file, a dataset folder or a table is missing, broken or contradicts itself."""


class IndexMismatchError(ItemicError):
    """An item index does not belong to the dataset or the model that it meets."""


class ModelError(ItemicError):
    """A model folder can't be used: unsupported kind, missing files, wrong vocabulary."""


class ConstraintError(ItemicError):
    """A constrained decoding request can't be met (no legal continuation, nothing left to recommend)."""


class ArtifactError(ItemicError):
    """A folder of a run is locked, half written, or was made by something else."""


class ConfigError(ItemicError):
    """An argument or a recipe key has a value that can't work."""


class EndpointError(ItemicError):
    """Somebody's API refuses, can't be reached, or answers something else than what it is asked for."""


def missing_extra(who: str, package: str, extra: str) -> ConfigError:
    """The error of something that needs a package which comes with an extra of itemic alone."""
    return ConfigError(f"{who} needs {package}", f'Install it with `pip install "itemic[{extra}]"`.')
