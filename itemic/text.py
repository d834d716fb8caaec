"""Text of other people in our own: what a catalogue holds is shown as it is, and nowhere read as markup."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from typing import Any

_CONTROL = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)  # halves of pairs, which no file and no screen takes
# What means something to Markdown: brackets only where a link or a reference could end, an underscore outside of words.
_MARKDOWN = re.compile(r"[\\`*<>|~$]|\](?=[(\[:])|&(?=[#\w])|(?<!\w)_|_(?!\w)|^[#+-]")


def _visible(code: int) -> str:
    """Unicode's picture of an ASCII control code, ``\\u202e`` for all others."""
    return chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}"


_VISIBLE = {code: _visible(code) for code in (*_CONTROL, *_BIDI, *_SURROGATES)}
_VISIBLE_LINES = {code: picture for code, picture in _VISIBLE.items() if code != ord("\n")}


def shown(text: str, *, lines: bool = False) -> str:
    """The text with its control codes made visible: ``"\\x1b[31mred"`` → ``"␛[31mred"``, a tab → ``"␉"``.

    What would turn the direction of the text around it becomes its escape, such as ``\\u202e``. Everything else
    stays as it is, brackets and tags among it.

    Args:
        text: of anybody.
        lines: let line feeds through, for text that may take several lines.
    """
    return text.translate(_VISIBLE_LINES if lines else _VISIBLE)


def markdown(text: str) -> str:
    """The text as Markdown that reads as the text: ``"[x](y) | <b>"`` → ``"[x\\](y) \\| \\<b\\>"``, on one line."""
    return _MARKDOWN.sub(lambda found: "\\" + found[0], shown(text))


def code_span(text: str) -> str:
    """The text as a code span of Markdown, between more backticks than it has in a row."""
    inside = shown(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", inside)), default=0))
    space = " " if inside.startswith("`") or inside.endswith("`") else ""
    return f"{fence}{space}{inside}{space}{fence}"


def plot_label(text: str) -> str:
    """The text as a label of matplotlib's, which would read what stands between dollars as a formula."""
    return shown(text).replace("$", r"\$")


def settings_repr(settings: Any) -> str:
    """A dataclass of settings with what isn't at its default, such as ``SimulatorConfig(users=300)``."""
    told = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        if value != usual:
            told.append(f"{field.name}={value!r}")
    return f"{type(settings).__name__}({', '.join(told)})"
