"""Whatever a source calls a time, as milliseconds since 1970."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from itemic.errors import ConfigError, DataError

UNITS: Final = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}  # milliseconds in one
EARLIEST: Final = -2_208_988_800_000  # 1900-01-01
LATEST: Final = 7_258_118_400_000  # 2200-01-01
SAMPLE: Final = 10_000
# the median number is told apart by size: 1e11 is 1973 in milliseconds and 5138 in seconds
_SIZES: Final = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
_NUMBER: Final = r"^\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*$"
_ZONE: Final = r"\s*(?P<zone>Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?\s*$"
_CLOCK: Final = (
    r"(?:[T ]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?)?"
)
_YEAR_FIRST: Final = (
    r"^\s*(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?:[-/.](?P<day>\d{1,2}))?" + _CLOCK + _ZONE
)
_DAY_FIRST: Final = r"^\s*(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})" + _CLOCK + _ZONE
_FAST: Final = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%SZ",
    *(f"%Y-%m-%d{mark}%H:%M:%S%.f{zone}" for mark in "T " for zone in ("", "Z", " UTC", "%:z")),
)


def milliseconds(series: pl.Series, unit: str | None = None) -> tuple[pl.Series, str]:
    """Times as milliseconds since 1970, UTC.

    A column of datetimes or dates tells its own unit. Numbers (also as text) are told apart by the size of their
    median: seconds, milliseconds, microseconds or nanoseconds, or dates written like 20240131. Other texts are ISO
    8601, in any mixture of its forms (a date alone, a blank for the T, fractions, zones; UTC where there is no zone),
    or 31.12.2024.

    Args:
        series: the times; null where there is none.
        unit: ``"s"``, ``"ms"``, ``"us"``, ``"ns"``, ``"iso"``, ``"yyyymmdd"`` or a pattern of strptime
            (``"%d/%m/%Y"``); None tells it from the values.

    Returns:
        An Int64 series ``[N]``, null where there is no time or the value can't be one (not between 1900 and 2200), and
        the unit, ``"datetime"`` for a column that has the type.

    Raises:
        ConfigError: there is no such unit.
        DataError: most values can't be times in this unit; the message shows one.
    """
    _check_unit(unit)
    if series.dtype.is_temporal():
        return _typed(series), "datetime"
    if series.dtype == pl.Null:
        return series.cast(pl.Int64), unit or "s"
    told = unit or tell_unit(series)
    found = _in_unit(series, told)
    found = found.set(~found.is_between(EARLIEST, LATEST), None).alias(series.name)
    lost = series.filter(found.is_null() & series.is_not_null())
    if len(lost) * 2 > len(series) - series.null_count():
        raise DataError(*_complaint(series, lost, told, given=unit is not None))
    return found, told


def tell_unit(series: pl.Series) -> str:
    """The unit of numbers or texts, from a sample spread over the series; see :func:`milliseconds`."""
    sample = series.drop_nulls()
    sample = sample.gather_every(max(1, len(sample) // SAMPLE))
    if sample.dtype == pl.String:
        numbers = sample.str.contains(_NUMBER)
        if not len(sample) or numbers.sum() * 2 < len(sample):
            return "iso"
        sample = sample.filter(numbers)
    values = sample.cast(pl.Float64, strict=False).drop_nans().drop_nulls()
    if not len(values):
        return "s"
    if values.is_between(19000101, 22000101).all() and not _in_unit(values, "yyyymmdd").has_nulls():
        return "yyyymmdd"
    median = abs(float(values.median()))  # type: ignore[arg-type]
    return next(name for bound, name in _SIZES if median < bound)


def _check_unit(unit: str | None) -> None:
    if unit is not None and unit not in UNITS and unit not in ("iso", "yyyymmdd") and "%" not in unit:
        raise ConfigError(
            f"the unit of times is {unit!r}",
            f"Use one of {', '.join(UNITS)}, iso, yyyymmdd, or a pattern like %d/%m/%Y.",
        )


def _typed(series: pl.Series) -> pl.Series:
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        series = series.dt.convert_time_zone("UTC")
    if series.dtype in (pl.Time, pl.Duration):
        raise DataError(
            f"the column {series.name!r} holds {series.dtype}, not moments", "Name another column of times."
        )
    return series.dt.epoch("ms")


def _in_unit(series: pl.Series, unit: str) -> pl.Series:
    """Milliseconds, null where the value doesn't fit the unit."""
    if unit == "iso":
        return _iso(series.cast(pl.String).rename("text"))
    if unit in UNITS:
        if series.dtype.is_integer() and unit == "ms":
            return series.cast(pl.Int64, strict=False)
        numbers = (series.str.strip_chars() if series.dtype == pl.String else series).cast(
            pl.Float64, strict=False
        )
        return (numbers * UNITS[unit]).round().cast(pl.Int64, strict=False)
    whole = (
        series.cast(pl.Int64, strict=False) if unit == "yyyymmdd" and series.dtype.is_numeric() else series
    )
    text, pattern = whole.cast(pl.String).str.strip_chars(), "%Y%m%d" if unit == "yyyymmdd" else unit
    return _strptime(text, pattern)


def _strptime(text: pl.Series, pattern: str) -> pl.Series:
    clock = any(mark in pattern for mark in ("%H", "%I", "%T", "%R", "%X", "%c", "%s"))
    try:
        found = (
            text.str.to_datetime(pattern, strict=False) if clock else text.str.to_date(pattern, strict=False)
        )
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"the unit of times {pattern!r} is no pattern: {error}", "Write it like %d/%m/%Y."
        ) from error
    return _typed(found)


def _iso(text: pl.Series) -> pl.Series:
    """Each value by itself: those that have the form of the first one fast, the others by their parts."""
    first = text.drop_nulls().head(1)
    for pattern in _FAST:
        if len(first) and not _strptime(first, pattern).has_nulls():
            found = _strptime(text, pattern)
            break
    else:
        found = pl.Series(text.name, [None], pl.Int64).new_from_index(0, len(text))
    others = found.is_null() & text.is_not_null()
    if not others.any():
        return found
    rest = text.filter(others).to_frame().select(pl.coalesce(_moment(_YEAR_FIRST), _moment(_DAY_FIRST)))
    return found.scatter(others.arg_true(), rest.to_series())


def _moment(pattern: str) -> pl.Expr:
    parts = pl.col("text").str.extract_groups(pattern).struct
    whole: dict[str, Any] = {
        name: parts.field(name).cast(pl.Int32, strict=False).fill_null(other)
        for name, other in (("month", 1), ("day", 1), ("hour", 0), ("minute", 0), ("second", 0))
    }
    year = parts.field("year").cast(pl.Int32, strict=False)
    fits = (
        year.is_not_null() & whole["month"].is_between(1, 12) & (whole["hour"] < 24) & (whole["minute"] < 60)
    )
    date = pl.concat_str(
        parts.field("year"), *(whole[name].cast(pl.String).str.zfill(2) for name in ("month", "day"))
    )
    days = date.str.to_date("%Y%m%d", strict=False).dt.epoch("ms")  # null for the 30th of February
    clock = (whole["hour"] * 3600 + whole["minute"] * 60 + whole["second"]).cast(pl.Int64) * 1000
    fraction = (
        parts.field("fraction").str.pad_end(3, "0").str.head(3).cast(pl.Int64, strict=False).fill_null(0)
    )
    zone = parts.field("zone").str.replace(":", "")
    hours, minutes = (zone.str.slice(start, 2).cast(pl.Int64, strict=False).fill_null(0) for start in (1, 3))
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    offset = sign * (hours * 60 + minutes) * 60_000
    return pl.when(fits).then(days + clock + fraction - offset)


def _complaint(series: pl.Series, lost: pl.Series, unit: str, *, given: bool) -> tuple[str, str]:
    value = lost[0]
    what = f"{series.name or 'time'} is {value!r}, which is no time"
    if unit in UNITS and (fitting := tell_unit(lost)) != unit:
        return (
            f"{what} in {unit} between 1900 and 2200",
            f"The values look like {fitting}: set unit: {fitting}.",
        )
    if unit in UNITS:
        return f"{what} in {unit} between 1900 and 2200", "Set unit, or name another column of times."
    remedy = (
        "Leave unit out, or set another."
        if given
        else "Set unit to a pattern like %d/%m/%Y, or name another column."
    )
    return f"{what} ({len(lost)} of {len(series)} values)", remedy
