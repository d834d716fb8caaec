"""Pickles of plain data, read without letting them do anything.

A pickle is a program: where it names a class or a function, an ordinary unpickler imports and calls it. This one takes
containers, strings, bytes, numbers, booleans and None, which need no name at all, and stops at the first name.
"""

from __future__ import annotations

import copyreg
import pickle
from typing import IO, Any, NoReturn

from itemic.errors import DataError

PLAIN = "Write it again as plain dicts, lists, strings and numbers, or as JSON."
AGAIN = "Fetch or make the file again."


class _Named(Exception):
    """A pickle asks for something that isn't plain."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Named(f"{module}.{name}")

    def persistent_load(self, identity: Any) -> NoReturn:
        raise _Named("an object that is kept elsewhere")


def load_plain(stream: IO[bytes], file: str) -> Any:
    """What a pickle holds, where that is plain data alone.

    Args:
        stream: its bytes.
        file: its name, for messages.

    Raises:
        DataError: it names a class or a function, which is said and neither imported nor called; or it is damaged.
    """
    copyreg.clear_extension_cache()  # names by number, which are looked up there unasked
    try:
        return _PlainUnpickler(stream, fix_imports=False).load()
    except _Named as error:
        raise DataError(f"{file} is no pickle of plain data: it asks for {error}", PLAIN) from None
    except (pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        raise DataError(f"{file} is damaged or no pickle: {error or type(error).__name__}", AGAIN) from error
    except (TypeError, AttributeError, OverflowError, MemoryError, OSError) as error:
        raise DataError(f"{file} is damaged or no pickle: {error or type(error).__name__}", AGAIN) from error
