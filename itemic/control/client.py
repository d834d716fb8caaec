"""Answers of a model that somebody serves, to the prompts of a test: any OpenAI-compatible endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itemic.endpoint import REFUSED, WHOLE, Endpoint, Prompt, answered
from itemic.progress import log


def ask(
    prompts: Sequence[Prompt],
    endpoint: Endpoint,
    file: str | Path,
    *,
    more: Mapping[str, Any] | None = None,
    counts: Counter[str] | None = None,
) -> list[str]:
    """The text that answers each prompt, as it came. It is empty where there is none, so that every prompt counts.

    ``endpoint.concurrency`` requests are open at once; who is busy is asked again, and each answer is in the file as
    soon as it is there, so the same call goes on from where it was stopped.

    Args:
        prompts: messages that end with a user's, or plain texts to go on with.
        endpoint: where to ask, and how; a test asks with temperature 0.
        file: that keeps the answers.
        more: what else is sent with each prompt, such as vLLM's ``top_k``; not every server knows such.
        counts: gets how many prompts were ``refused`` alone, how many answers ``cut`` off and how many ``empty``.

    Raises:
        EndpointError: the endpoint can't be reached, refuses all, or says what is no answer; what came before is kept.
        ConfigError: the package ``httpx`` is missing, or the key is no key.
        ArtifactError: another process writes to the file.
        DataError: the file holds something else.
    """
    found = answered(endpoint, prompts, file, more=more, spare=True)
    failed = Counter(
        refused=sum(one.finish == REFUSED for one in found),
        cut=sum(one.finish not in (WHOLE, REFUSED) for one in found),
        empty=sum(one.finish == WHOLE and not one.text.strip() for one in found),
    )
    if counts is not None:
        counts.update(failed)
    if told := ", ".join(f"{count:,} {kind}" for kind, count in failed.items() if count):
        log.warning("%s: of %d answers %s", endpoint.url, len(found), told)
    return [one.text for one in found]
