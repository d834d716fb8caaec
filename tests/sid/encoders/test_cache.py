"""What was encoded stays encoded: by content, across runs, after a kill, and not beyond its encoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemic.errors import DataError
from itemic.sid.encoders import cache as module
from itemic.sid.encoders.cache import VectorCache
from itemic.sid.encoders.openai import PROBE, OpenAIEncoder
from itemic.sid.encoders.transformers import TransformersEncoder
from tests.sid.encoders.cases import FRESH, ITEMS, TITLES, Site
from tests.sid.encoders.server import Embedder, reply
from tests.sid.helpers import make_dataset


def encoder(server: Embedder, folder: Path, **options: Any) -> OpenAIEncoder:
    return OpenAIEncoder(model="words", base_url=server.url, cache=str(folder), batch_size=4, **options)


def test_only_new_texts_are_encoded_and_equal_ones_once(server: Embedder, tmp_path: Path) -> None:
    plain = OpenAIEncoder(model="words", base_url=server.url).fit_transform(ITEMS)
    server.bodies.clear()
    first = encoder(server, tmp_path).fit_transform(ITEMS)
    assert (first == plain).all()
    assert max(Counter(server.texts).values()) == 1
    assert len(server.texts) == 61  # and the probe
    server.bodies.clear()
    assert (encoder(server, tmp_path).fit_transform(ITEMS.reverse()) == plain[::-1]).all()
    assert server.texts == []
    more = make_dataset([*TITLES, "pink soap", "pink soap"]).items
    encoder(server, tmp_path).fit_transform(more)
    assert sorted(server.texts)[-1] == PROBE
    assert sum("pink" in text for text in server.texts) == 1


def test_other_encoders_do_not_share(site: Site, server: Embedder, tmp_path: Path) -> None:
    encoder(server, tmp_path).fit_transform(ITEMS)
    for options in ({"instruction": "x "}, {"dims": 5}, {"normalize": False}):
        server.bodies.clear()
        encoder(server, tmp_path, **options).fit_transform(ITEMS)
        assert len(server.texts) == 61
    full, half = (
        TransformersEncoder(model=str(site.bert), cache=str(tmp_path), dtype=dtype).fit_transform(ITEMS)
        for dtype in ("float32", "bfloat16")
    )
    assert not (full == half).all()
    assert len([*tmp_path.iterdir()]) == 6


def test_what_was_paid_for_is_kept_when_the_server_fails(server: Embedder, tmp_path: Path) -> None:
    refuse = lambda body: reply({"error": {"message": "no more"}}, 400)  # noqa: E731
    proper = server.always
    server.next = [proper] * 8 + [refuse] * 20
    with pytest.raises(DataError, match="no more"):
        encoder(server, tmp_path, parallel=1).fit_transform(ITEMS)
    server.next.clear()
    server.bodies.clear()
    encoder(server, tmp_path, parallel=1).fit_transform(ITEMS)
    assert len(server.texts) == 1 + 60 - 7 * 4  # eight answers, the probe's among them


SCRIPT = """
    import sys
    from itemic.sid.encoders import cache
    from itemic.sid.encoders.openai import OpenAIEncoder
    from tests.sid.encoders.cases import ITEMS
    cache.PART_TEXTS = 8
    OpenAIEncoder(
        model="words", base_url=sys.argv[1], cache=sys.argv[2], batch_size=4, parallel=1
    ).fit_transform(ITEMS)
"""


def test_a_killed_run_goes_on_where_it_was(server: Embedder, tmp_path: Path) -> None:
    proper = server.always

    def hang(body: dict[str, Any]) -> None:
        time.sleep(60)

    server.next = [proper] * 10 + [hang] * 20
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), server.url, str(tmp_path)]
    child = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[3]
    )
    try:
        deadline = time.monotonic() + 600
        while len(server.bodies) < 11 and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.05)
        assert len(server.bodies) == 11
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
    # The probe and nine batches were answered; parts are of two batches, so the ninth was lost.
    (folder,) = tmp_path.iterdir()
    assert len([*folder.glob("*.safetensors")]) == 4
    (folder / ".half.safetensors.1").write_bytes(b"what a kill in the middle of writing leaves")
    server.next.clear()
    server.bodies.clear()
    vectors = encoder(server, tmp_path).fit_transform(ITEMS)
    assert len(server.texts) == 1 + 60 - 32
    assert (vectors == OpenAIEncoder(model="words", base_url=server.url).fit_transform(ITEMS)).all()


def test_a_damaged_part_is_passed_over(
    server: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PART_TEXTS", 20)
    first = encoder(server, tmp_path).fit_transform(ITEMS)
    (folder,) = tmp_path.iterdir()
    parts = sorted(folder.glob("*.safetensors"))
    assert len(parts) == 3
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    server.bodies.clear()
    with caplog.at_level("WARNING", logger="itemic"):
        assert (encoder(server, tmp_path).fit_transform(ITEMS) == first).all()
    assert "is damaged" in caplog.text
    assert len(server.texts) == 21


def test_all_from_the_cache_needs_no_model(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TransformersEncoder(model=str(site.bert), cache=str(tmp_path))
    made.fit_transform(ITEMS)
    new = made.transform(FRESH)
    again = TransformersEncoder(model=str(site.bert), cache=str(tmp_path))
    monkeypatch.setattr(TransformersEncoder, "encode", None)
    again.restore(made.state)
    assert (again.transform(FRESH) == new).all()


def test_parts_come_after_some_time_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VectorCache(tmp_path, {"name": "x"})
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with cache.writing():
        cache.put(["a"], np.ones((1, 2), np.float32))
        assert not VectorCache(tmp_path, {"name": "x"}).read(["a"])[0].any()
        clock[0] = 100.0
        cache.put(["b"], np.full((1, 2), 2, np.float32))
        found, table = VectorCache(tmp_path, {"name": "x"}).read(["b", "c", "a"])
    assert found.tolist() == [True, False, True]
    assert table.tolist() == [[2, 2], [0, 0], [1, 1]]
    assert VectorCache(None, {"name": "x"}).read(["a"])[1].shape == (1, 0)
