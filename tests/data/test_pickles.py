"""Pickles of others: plain data are read, anything else is named, and nothing of it runs."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.data import read
from itemic.data.pickles import load_plain
from itemic.errors import DataError

from .sources import write_reclm_gen

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.text())
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from([4, 5]))
def test_plain_data_come_back(value: Any, protocol: int) -> None:
    assert load_plain(io.BytesIO(pickle.dumps(value, protocol)), "it") == value


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(protocol: int) -> None:
    value = {"a": [1, 2.5, "é\n", None, True, (1, 2, 3, 4)], 7: {"b": -1 << 70}}
    assert load_plain(io.BytesIO(pickle.dumps(value, protocol)), "it") == value


def _text(word: str) -> bytes:
    raw = word.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


class Calls:
    """Unpickled in the ordinary way it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def malicious(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Programs that make the folder when they run, by the opcode that they do it with, and what they name."""
    path = str(folder)
    line, mkdir = path.encode() + b"\n", "posix.mkdir"
    memoised = b"cposix\nmkdir\nq\x00(V" + line + b"tR."
    return {
        **{f"REDUCE, protocol {n}": (pickle.dumps(Calls(folder), n), mkdir) for n in range(6)},
        "GLOBAL": (b"cposix\nmkdir\n(V" + line + b"tR.", mkdir),
        "GLOBAL, kept": (memoised, mkdir),
        "STACK_GLOBAL": (
            b"\x80\x04" + _text("posix") + _text("mkdir") + b"\x93" + _text(path) + b"\x85R.",
            mkdir,
        ),
        "STACK_GLOBAL, dotted": (
            b"\x80\x04" + _text("os") + _text("path.os.mkdir") + b"\x93" + _text(path) + b"\x85R.",
            "os.path.os.mkdir",
        ),
        "INST": (b"(V" + line + b"iposix\nmkdir\n.", mkdir),
        "OBJ": (b"(cposix\nmkdir\nV" + line + b"o.", mkdir),
        "NEWOBJ": (b"\x80\x02cpathlib\nPath\n)\x81.", "pathlib.Path"),
        "NEWOBJ_EX": (b"\x80\x04" + _text("pathlib") + _text("Path") + b"\x93)}\x92.", "pathlib.Path"),
        "BUILD": (b"\x80\x02ctypes\nSimpleNamespace\n)R}V__class__\nNsb.", "types.SimpleNamespace"),
        "after good data": (b"(lp0\nV1\na0cposix\nmkdir\n(V" + line + b"tR.", mkdir),
        "PERSID": (b"Pfile\n.", "kept elsewhere"),
        "BINPERSID": (b"Vfile\nQ.", "kept elsewhere"),
        "eval": (
            b"cbuiltins\neval\n(V__import__('os').mkdir('" + path.encode() + b"')\ntR.",
            "builtins.eval",
        ),
    }


NAMES = list(malicious(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_plain_data_is_named_and_nothing_runs(name: str, tmp_path: Path) -> None:
    program, named = malicious(tmp_path / "made")[name]
    with pytest.raises(DataError) as caught:
        load_plain(io.BytesIO(program), "meta.pickle")
    assert named in caught.value.message
    assert "meta.pickle" in caught.value.message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["REDUCE, protocol 4", "INST", "eval"])
def test_these_programs_would_run(name: str, tmp_path: Path) -> None:
    """Else the test above proves nothing."""
    program, _ = malicious(tmp_path / "made")[name]
    try:
        pickle.loads(program)
    except TypeError:  # a function is no class
        pytest.skip("this Python calls no functions so")
    assert (tmp_path / "made").is_dir()


def test_a_name_by_number_is_none_either(tmp_path: Path) -> None:
    """Numbers of copyreg are looked up in a cache, which the unpickler of the library asks nobody about."""
    code = 0x7FFF
    copyreg.add_extension("posix", "mkdir", code)
    try:
        program = b"\x80\x02\x83" + struct.pack("<H", code) + _text(str(tmp_path / "made")) + b"\x85R."
        pickle.loads(program)  # now it is in the cache
        (tmp_path / "made").rmdir()
        with pytest.raises(DataError, match=r"posix\.mkdir"):
            load_plain(io.BytesIO(program), "it")
        assert not (tmp_path / "made").exists()
    finally:
        copyreg.remove_extension("posix", "mkdir", code)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (defaultdict(list, {"a": ["1"]}), "collections.defaultdict"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        ({"a": np.array([1, 2])}, "numpy"),
        ({"a": np.int64(1)}, "numpy"),
        (Path("a"), "pathlib"),
    ],
)
def test_what_is_harmless_but_not_plain_is_refused_with_a_remedy(value: Any, named: str) -> None:
    with pytest.raises(DataError) as caught:
        load_plain(io.BytesIO(pickle.dumps(value)), "it")
    assert named in caught.value.message
    assert "plain" in caught.value.remedy


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"no pickle at all",
        pickle.dumps({"a": ["1"] * 99})[:-20],
        b"\x80\x63.",
        b"h\x07.",
        b"(.",
        b"}]Ns.",
        b"\x80\x04X\xff\xff\xff\x7fshort.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fshort.",
        b"\x80\x05\x97.",
    ],
)
def test_damaged_files_are_no_bare_errors(program: bytes) -> None:
    with pytest.raises(DataError, match=r"^it is damaged or no pickle: .") as caught:
        load_plain(io.BytesIO(program), "it")
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["sequential", "meta", "category", "ranking_candidate"])
def test_no_file_of_a_dataset_runs_anything(name: str, tmp_path: Path) -> None:
    write_reclm_gen(tmp_path)
    (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps({"7": Calls(tmp_path / "made")}))
    with pytest.raises(DataError, match=rf"{name}\.pickle .*posix\.mkdir"):
        read("auto", tmp_path, on_bad_row="drop")
    assert not (tmp_path / "made").exists()
