"""Whether the assistant thinks before it answers: OpenOneRec's pattern, in which the user's turn says so at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from itemic.errors import ConfigError
from itemic.forest.rows import TokenRows
from itemic.model.template import EMPTY_THINK
from itemic.schema import THINK_END, THINK_START

if TYPE_CHECKING:
    from itemic.model.model import Model

Turn = tuple[str, str]  # role, content

THINKING = ("think", "no_think", "empty")
THINK, NO_THINK = "/think", "/no_think"
_THOUGHTS = re.compile(f"{THINK_START}(.*?){THINK_END}", re.DOTALL)


def check_thinking(thinking: str | None) -> None:
    """Refuse what is no way to think.

    Raises:
        ConfigError: it is unknown.
    """
    if thinking is not None and thinking not in THINKING:
        raise ConfigError(f"unknown thinking {thinking!r}", f"Use one of {', '.join(THINKING)}, or none.")


def think_pattern(turns: Sequence[Turn]) -> list[Turn]:
    """Turns in the pattern, for training.

    An assistant's turn after a user's that has no think block gets an empty one, and the user's ``/no_think`` at its
    end; one with an empty block gets ``/no_think`` as well, one with thoughts ``/think``. A user's turn that ends so
    already stays as it is.
    """
    found = list(turns)
    for at in range(1, len(found)):
        role, content = found[at]
        if role != "assistant" or found[at - 1][0] != "user":
            continue
        block = _THOUGHTS.search(content)
        if block is None:
            found[at] = (role, EMPTY_THINK + content)
        thought = block is not None and bool(block[1].strip())
        found[at - 1] = ("user", _with(found[at - 1][1], THINK if thought else NO_THINK))
    return found


def ask_to_think(turns: Sequence[Turn], thinking: str) -> list[Turn]:
    """Turns up to the user's last in the pattern, for an answer that is yet to come."""
    found = think_pattern(turns)
    if found[-1][0] == "user":
        found[-1] = ("user", _with(found[-1][1], THINK if thinking == "think" else NO_THINK))
    return found


def _with(content: str, ending: str) -> str:
    return content if content.endswith(ending) else content + ending


@dataclass(frozen=True)
class ThoughtTokens:
    """What stands around a thought that a model writes.

    Attributes:
        begin: int32, behind a prompt that asks for thoughts.
        end: the token that closes a thought.
        behind: int32, between that and the answer.
    """

    begin: npt.NDArray[np.int32]
    end: int
    behind: npt.NDArray[np.int32]

    @property
    def count(self) -> int:
        """How many tokens stand around a thought."""
        return len(self.begin) + 1 + len(self.behind)

    def opened(self, prompts: TokenRows) -> TokenRows:
        """Prompts that ask for thoughts, up to where a thought begins; some templates open it themselves."""
        ended = [np.array_equal(prompts[row][-len(self.begin) :], self.begin) for row in range(len(prompts))]
        return TokenRows.of(
            np.concatenate([prompts[row], self.begin[: 0 if there else None]]).tolist()
            for row, there in enumerate(ended)
        )


def thought_tokens(model: Model) -> ThoughtTokens:
    """The marks of a model's thoughts, as training writes them.

    Raises:
        ConfigError: the tokenizer has no token of its own that closes a thought.
    """
    tokenizer = model.tokenizer
    begin, end, behind = (
        np.array(tokenizer.encode(text, add_special_tokens=False), np.int32)
        for text in (f"{THINK_START}\n", THINK_END, "\n\n")
    )
    if len(end) != 1:
        raise ConfigError(
            f"this model's tokenizer has no token {THINK_END}, so nobody could tell where a thought ends",
            "Use a base that thinks, such as Qwen3, or a preset.",
        )
    return ThoughtTokens(begin, int(end[0]), behind)
