"""What a tokenizer that is trained on a catalogue learns of requests."""

from __future__ import annotations

from itertools import pairwise

import pytest

from itemic import schema as c
from itemic.control.form import ListForm
from itemic.control.labels import Labels
from itemic.control.want import PartOf, Want
from itemic.control.words import WORDINGS, ask_label, control_words, say
from itemic.model.tokenizer import train_tokenizer
from tests.control.catalogues import dataset, tagged

PATHS = [["Office", "Writing", "Inks"], ["Office", "Paper"], ["Garden", "Potting Soil"]]
OWN = Labels.of(dataset(PATHS), [c.CATEGORIES])
BRANDS = tagged([["Night Owl"], ["Sunrise"]], brands=["Acme", "Umbrella Works"])
TOKENIZER = train_tokenizer(control_words([OWN, BRANDS]), vocab_size=4096)


def tokens_of(text: str) -> list[str]:
    """The tokens of a text; whoever joins them has the text."""
    tokens = [str(TOKENIZER.decode([token])) for token in TOKENIZER(text)["input_ids"]]
    assert "".join(tokens) == text
    return tokens


def joints(text: str) -> list[tuple[str, str]]:
    """Neighbouring tokens that a word was cut into."""
    tokens = tokens_of(text)
    return [pair for pair in pairwise(tokens) if pair[0][-1].isalpha() and pair[1][0].isalpha()]


@pytest.mark.parametrize("wording", range(len(WORDINGS["next"])))
@pytest.mark.parametrize("labels", [OWN, BRANDS])
def test_a_request_is_written_in_whole_words(labels: Labels, wording: int) -> None:
    names = ["a"] * labels.items
    for name in labels.names:
        wants = [
            Want(count=10, wanted=(name,)),
            Want(count=3, unwanted=(name,), candidates=(0, 1), avoid=(1,)),
        ]
        wants += [
            Want(count=10, shares=(PartOf(name, how, 0.2),)) for how in ("at most", "at least", "about")
        ]
        for want in wants:
            for form in (ListForm(), ListForm(numbered=False)):
                for history in (None, [0, 0]):
                    text = say(want, labels, wording=wording, form=form, names=names, history=history)
                    assert not joints(text)
    assert not joints(ask_label("a", wording=wording))


def test_what_comes_before_a_role_s_words_is_one_token() -> None:
    assert tokens_of("user\nassistant\nsystem\n") == ["user", "\n", "assistant", "\n", "system", "\n"]


def test_without_labels_sentences_are_words_all_the_same() -> None:
    own = train_tokenizer(control_words(), vocab_size=4096)
    assert len(own(" Number them from 1.")["input_ids"]) == 6
    assert len(own(' None of them may be of "Inks".')["input_ids"]) > len(
        TOKENIZER(' None of them may be of "Inks".')["input_ids"]
    )
