"""The writer: a causal language model that reads what a user did and writes a profile of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from itemic.decode import Sampler
from itemic.errors import DataError, ModelError
from itemic.forest.rows import TokenRows
from itemic.model.chat import ChatRenderer, Conversation
from itemic.model.folder import load_lm, load_tokenizer, read_config, write_folder
from itemic.model.model import RECORD, SID
from itemic.model.positions import most_positions
from itemic.model.streamed import Value, write_lm, write_weights
from itemic.profile.turn_settings import Drawing
from itemic.sid.kinds import load_names
from itemic.sid.names import ItemNames

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

DONE = "stop token"


@dataclass(frozen=True)
class Profiles:
    """``n`` profiles of each of ``P`` users, those of one user one after the other.

    Attributes:
        texts: ``P · n`` of them, without the end token and blanks at the ends.
        tokens: ``P · n`` rows as they were written, the end token included.
        log_probs: float32 ``[T]``, of each token under the model at temperature 1 without any filter: what a training
            step computes for it.
        ended: bool ``[P · n]``; the others were cut off by their length.
        empty: bool ``[P · n]``, whether there is nothing but blanks.
    """

    texts: tuple[str, ...]
    tokens: TokenRows
    log_probs: Float32
    ended: Bool
    empty: Bool

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        cut, empty = int((~self.ended).sum()), int(self.empty.sum())
        return f"<Profiles: {len(self):,}, {cut:,} cut off, {empty:,} empty>"

    @property
    def usable(self) -> Bool:
        """bool ``[P · n]``: profiles that ended and say something. Others are worth 0 and aren't searched with."""
        return self.ended & ~self.empty


@dataclass(eq=False)
class Writer:
    """A causal language model with a chat template.

    Attributes:
        lm: the Hugging Face model.
        tokenizer: its tokenizer.
        names: of items, where the model speaks them as well; its folder keeps them.
    """

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    names: ItemNames | None = None

    def __repr__(self) -> str:
        dtype = str(self.lm.dtype).removeprefix("torch.")
        about = f"{self.lm.num_parameters():,} parameters, {dtype} on {self.lm.device}"
        return f"<Writer {self.lm.config.model_type}: {about}>"

    @cached_property
    def chat(self) -> ChatRenderer:
        """From messages to token ids.

        Raises:
            ModelError: the tokenizer has no chat template.
        """
        return ChatRenderer(self.tokenizer)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a profile: those that the model's own generation stops at, and the one that closes a turn.

        Raises:
            ModelError: there are none.
        """
        found = {self.tokenizer.eos_token_id}
        stops = getattr(self.lm.generation_config, "eos_token_id", None)
        found |= set(stops) if isinstance(stops, list) else {stops}
        asked = [{"role": "user", "content": "?"}]
        tokens, ours = self.chat.encode([*asked, {"role": "assistant", "content": "!"}])
        last = [token for token, own in zip(tokens, ours, strict=True) if own][-1]
        if last in self.tokenizer.get_added_vocab().values():
            found.add(last)
        known = tuple(sorted(token for token in found if token is not None))
        if not known:
            raise ModelError(
                "the writer has no token that ends a text",
                "Set eos_token in its tokenizer_config.json, or eos_token_id in its generation_config.json.",
            )
        return known

    def prompts(self, messages: Iterable[Conversation]) -> TokenRows:
        """What the model reads before it writes, one row for each user."""
        return self.chat.prompt_batch(messages)

    def write(
        self, prompts: TokenRows, settings: Drawing, seeds: Sequence[int] | int = 0, *, greedy: bool = False
    ) -> Profiles:
        """``settings.samples`` profiles of each user; each prompt is read once for all of its profiles.

        A profile is a function of the weights, the prompt, its user's seed and its number: not of the others.

        Args:
            prompts: ``P`` of them.
            settings: how profiles are drawn.
            seeds: one for each user, or one for all.
            greedy: write the most probable profile instead, one for each user.

        Raises:
            DataError: a prompt leaves too few of the model's positions.
        """
        most = most_positions(self.lm)
        room = None if most is None else most - settings.max_new_tokens
        if room is not None and len(prompts) and int(prompts.lengths.max()) > room:
            row = int(prompts.lengths.argmax())
            raise DataError(
                f"prompt {row} has {int(prompts.lengths[row])} tokens; with {settings.max_new_tokens} of a profile the "
                f"model, which was made for {most}, has room for {room}",
                "Cut prompts earlier, or lower max_new_tokens.",
            )
        sampler = Sampler(
            self.lm,
            max_new_tokens=settings.max_new_tokens,
            temperature=0.0 if greedy else settings.temperature,
            top_k=None if greedy else settings.top_k,
            top_p=None if greedy or settings.top_p == 1 else settings.top_p,
            stop_tokens=self.ends,
            max_batch_tokens=settings.batch_tokens,
        )
        count = 1 if greedy else settings.samples
        own = seeds if isinstance(seeds, int) else [int(seed) for seed in seeds]
        samples = sampler.sample(prompts, count, seeds=own)
        ended = np.array([why == DONE for why in samples.why], np.bool_)
        texts = self._texts(samples.tokens, ended)
        empty = np.array([not text for text in texts], np.bool_)
        return Profiles(texts, samples.tokens, samples.model_log_probs, ended, empty)

    def _texts(self, tokens: TokenRows, ended: Bool) -> tuple[str, ...]:
        found = []
        for number in range(len(tokens)):
            row = tokens[number].tolist()
            own = row[:-1] if ended[number] else row
            found.append(str(self.tokenizer.decode(own, skip_special_tokens=True)).strip())
        return tuple(found)

    # ------------------------------------------------------------------- files

    def save(self, folder: str | Path) -> None:
        """Write a plain Hugging Face folder; all of it or nothing. Where the model speaks items, with ``sid/``.

        Raises:
            OSError: the disk refuses; what stood in ``folder`` before still stands there.
        """
        write_folder(folder, self._write)

    def save_streamed(self, folder: str | Path | None, value: Value) -> None:
        """The same for a model on the meta device, see :meth:`itemic.model.Model.save_streamed`."""
        if folder is None:
            write_weights(self.lm, value, None)
            return
        write_folder(folder, partial(self._write, value=value))

    def _write(self, folder: Path, value: Value | None = None) -> None:
        write_lm(self.lm, self.tokenizer, folder, value)
        if self.names is not None:
            self.names.save(folder / SID)

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | str | None = None
    ) -> Writer:
        """Read the folder of any causal language model.

        Raises:
            ModelError: no model folder, or one that can't be used.
        """
        root = Path(folder)
        config = read_config(root)
        names = load_names(root / SID) if isinstance(getattr(config, RECORD, None), dict) else None
        return cls(load_lm(root, device, dtype), load_tokenizer(root), names)

    def copied(self) -> Writer:
        """The same with weights of its own."""
        return Writer(copy.deepcopy(self.lm), self.tokenizer, self.names)
