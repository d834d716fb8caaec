"""Fixtures of the encoders' tests."""

from __future__ import annotations

import pytest

from tests.sid.encoders.cases import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))
