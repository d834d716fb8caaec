"""Writers: one module per system whose files a dataset can be written as."""

from __future__ import annotations

from itemic.data.writers import letter, minionerec, onerec_think, openonerec, recbole, reclm_gen
from itemic.data.writers.writer import Writer
from itemic.errors import ConfigError

WRITERS: dict[str, Writer] = {
    "minionerec": minionerec.WRITER,
    "letter": letter.WRITER,
    "recbole": recbole.WRITER,
    "reclm-gen": reclm_gen.WRITER,
    "onerec-think": onerec_think.WRITER,
    "openonerec": openonerec.WRITER,
}


def find_writer(format: str) -> Writer:
    """Raises:
    ConfigError: there is no such format.
    """
    if format not in WRITERS:
        raise ConfigError(
            f"unknown format {format!r} to write a dataset in", f"Use one of {', '.join(WRITERS)}."
        )
    return WRITERS[format]


__all__ = ["WRITERS", "Writer", "find_writer"]
