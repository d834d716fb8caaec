"""Times of every kind, against Python's own datetime."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemic.data.readers.times import milliseconds
from itemic.errors import ConfigError, DataError
from tests.cases import case

MOMENT = 1_601_466_248_123  # 2020-09-30T11:44:08.123Z
MOMENTS = st.datetimes(datetime(1973, 6, 1), datetime(2150, 1, 1))


@pytest.mark.parametrize(
    ("unit", "value"),
    [("s", MOMENT / 1000), ("ms", MOMENT), ("us", MOMENT * 1000), ("ns", MOMENT * 1_000_000)],
)
@pytest.mark.parametrize("kind", [int, float, str])
def test_the_unit_is_told_from_the_size(unit: str, value: float, kind: type) -> None:
    times, told = milliseconds(pl.Series("t", [kind(value), None]))
    assert told == unit
    exact = kind is not int or unit != "s"
    assert times.to_list() == [MOMENT if exact else MOMENT // 1000 * 1000, None]
    assert times.dtype == pl.Int64


@given(
    moments=st.lists(st.tuples(MOMENTS, st.integers(-14 * 60, 14 * 60), st.sampled_from("Tc dz")), min_size=1)
)
def test_iso_agrees_with_datetime(moments: list[tuple[datetime, int, str]]) -> None:
    """Forms with T, a blank, a date alone, a zone without colon and Z stand mixed in one column."""
    texts, expected = [], []
    for moment, minutes, form in moments:
        zone = UTC if form in "dz " else timezone(timedelta(minutes=minutes))
        there = moment.replace(tzinfo=zone)
        if form == "d":
            there = there.replace(hour=0, minute=0, second=0, microsecond=0)
        text = {
            "T": there.isoformat(),
            "c": there.strftime("%Y-%m-%d %H:%M:%S.%f%z"),
            " ": there.strftime("%Y/%m/%d %H:%M:%S.%f"),
            "d": there.strftime("%Y-%m-%d"),
            "z": there.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }[form]
        texts.append(text)
        expected.append((there - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    times, told = milliseconds(pl.Series(texts))
    assert told == "iso"
    assert times.to_list() == expected


@given(moments=st.lists(MOMENTS, min_size=1), unit=st.sampled_from(["us", "ms", "ns"]))
def test_typed_columns_agree_with_datetime(moments: list[datetime], unit: str) -> None:
    series = pl.Series(moments, dtype=pl.Datetime(unit))
    expected = [(moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1) for moment in moments]
    assert milliseconds(series)[0].to_list() == expected
    zoned = series.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Kolkata")
    assert milliseconds(zoned)[0].to_list() == expected


def test_dates() -> None:
    day = 1_704_067_200_000
    assert milliseconds(pl.Series([date(2024, 1, 1)]))[0].to_list() == [day]
    assert milliseconds(pl.Series([20240101, 20240102]))[1] == "yyyymmdd"
    assert milliseconds(pl.Series(["20240101"]))[0].to_list() == [day]
    assert milliseconds(pl.Series(["01.01.2024", "1.1.2024 01:00"]))[0].to_list() == [day, day + 3_600_000]
    assert milliseconds(pl.Series(["2024-01"]))[0].to_list() == [day]
    assert milliseconds(pl.Series(["01/02/2024"]), "%d/%m/%Y")[0].to_list() == [day + 31 * 86_400_000]


def test_what_is_no_time_is_null_and_the_others_stay() -> None:
    texts = [
        "2024-01-01",
        "2024-02-30",
        "soon",
        "2024-01-01T25:00",
        None,
        "2024-01-02",
        "2024-01-03",
        "2024-01-04",
    ]
    assert milliseconds(pl.Series(texts))[0].is_null().to_list() == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    numbers = [1_600_000_000, 10**17, 1_600_000_001]
    assert milliseconds(pl.Series(numbers))[0].to_list() == [1_600_000_000_000, None, 1_600_000_001_000]


def test_a_unit_that_cannot_be_is_an_error_that_names_the_right_one() -> None:
    with pytest.raises(DataError, match=r"1601466248000.* in s") as caught:
        milliseconds(pl.Series("when", [1_601_466_248_000]), "s")
    assert "unit: ms" in caught.value.remedy
    with pytest.raises(DataError, match="when is 'soon'"):
        milliseconds(pl.Series("when", ["soon", "later"]))
    with pytest.raises(ConfigError, match="'hours'"):
        milliseconds(pl.Series([1]), "hours")


def test_milliseconds_of_a_real_dump() -> None:
    frame = pl.read_csv(case("milliseconds") / "shop.inter", separator="\t", infer_schema=False)
    times, told = milliseconds(frame["timestamp:float"])
    assert told == "ms"
    assert times.to_list() == [int(text) for text in frame["timestamp:float"]]
