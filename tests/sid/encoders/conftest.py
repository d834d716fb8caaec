"""Fixtures of the encoders' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sid.encoders.cases import Site
from tests.sid.encoders.server import Embedder, serving


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to this machine go to this machine, whatever proxy is set."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    with made.closing:
        yield made


@pytest.fixture
def server() -> Iterator[Embedder]:
    """A server for one test, to be broken at will."""
    with serving() as running:
        yield running
