"""Why a recommender fails: patterns of bad cases, told from coincidences."""

from __future__ import annotations
