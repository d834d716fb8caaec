"""The names of all table columns, once. Tables meet only through these. And what conversations begin with, and what
opens and closes thoughts in them."""

from __future__ import annotations

from typing import Final

# items.parquet: one row an item; the row number is the item's *row* everywhere else
ITEM_ID: Final = "item_id"
TITLE: Final = "title"
DESCRIPTION: Final = "description"
BRAND: Final = "brand"
CATEGORIES: Final = "categories"  # list of strings, the path from general to specific
ITEM_COLUMNS: Final = (ITEM_ID, TITLE, DESCRIPTION, BRAND, CATEGORIES)
TAGS: Final = "tags"  # list of strings without order, such as genres; only where the source has such labels
PRICE: Final = "price"  # Float64, null where unknown; only where the source has prices
# further columns of the source travel along under their own names

# interactions.parquet: one row an event, users contiguous, each user's events in time order
USER_ID: Final = "user_id"
TIMESTAMP: Final = "timestamp"  # Int64, milliseconds since 1970; null where the source tells only the order
RATING: Final = "rating"  # Float32, null where the source has none
SPLIT: Final = "split"  # what the source's own split says of the event ("train", "valid", "test"), else null
INTERACTION_COLUMNS: Final = (USER_ID, ITEM_ID, TIMESTAMP, RATING, SPLIT)
REVIEW: Final = "review"  # what the user wrote of the item; only where the source has reviews
# further columns of the source travel along under their own names

# candidates.parquet, where the source has such lists: one row a user
CANDIDATES: Final = "candidates"  # list of item ids, each once and in the catalogue

# conversations: OpenOneRec's columns; the last three hold JSON text
UUID: Final = "uuid"
SOURCE: Final = "source"
MESSAGES: Final = "messages"  # [{"role": ..., "content": ...}], null where segments are given
SEGMENTS: Final = (
    "segments"  # [{"type": "text", "text": ...}], null where messages are given; "loss": false is ours
)
METADATA: Final = "metadata"
SYSTEM: Final = "You are the recommender of an online shop. Every item of its catalogue has a semantic ID."
THINK_START: Final = "<think>"
THINK_END: Final = "</think>"
CONVERSATION_COLUMNS: Final = (UUID, SOURCE, MESSAGES, SEGMENTS, METADATA)

# rankings
REQUEST: Final = "request"  # Int64, the request's number within its split
TARGET_ID: Final = "target_id"  # null where the target is unknown
HISTORY_LENGTH: Final = "history_length"  # Int32, how many items the request showed
SHORTENED: Final = (
    "shortened"  # Boolean, whether the oldest of them were left out, for the ranker reads no more
)
RANKED_ITEMS: Final = "items"  # list of item ids, best first
RANKED_SCORES: Final = "scores"  # list of Float32, log-probabilities
RANKED_SIDS: Final = "sids"  # list of SID texts, null without an item index
RANKING_COLUMNS: Final = (
    REQUEST,
    USER_ID,
    TARGET_ID,
    HISTORY_LENGTH,
    SHORTENED,
    RANKED_ITEMS,
    RANKED_SCORES,
    RANKED_SIDS,
)

TRAIN: Final = "train"
VALID: Final = "valid"
TEST: Final = "test"
SPLITS: Final = (TRAIN, VALID, TEST)
