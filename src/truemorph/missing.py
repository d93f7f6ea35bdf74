"""Values that mean "missing" in published tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import polars as pl

from truemorph.findings import Finding

# Published tables use these values for "not measured", usually without documenting them.
SENTINELS = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -9999.99, -99999.0)


def without(series: pl.Series, missing: Sequence[float | int | str]) -> pl.Series:
    """Replace values that mean missing by null.

    A number also matches its single-precision value (-99.99), and the same number as text ("-99").

    Examples
    --------
    >>> without(pl.Series([1.5, -99.0]), SENTINELS).to_list()
    [1.5, None]
    """
    name, series = series.name, series.alias("")
    numbers = [number for number in map(_number, missing) if number is not None]
    if series.dtype.is_numeric():
        if series.dtype.is_integer():
            numbers = [int(one) for one in numbers if one == int(one)]
        gone = series.is_in(pl.Series(numbers, dtype=series.dtype, strict=False).to_list())
    elif series.dtype == pl.String:
        gone = series.is_in([str(one) for one in missing])
        gone |= series.str.strip_chars().cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
    else:
        return series.alias(name)
    return pl.select(pl.when(gone.fill_null(False).not_()).then(series)).to_series().alias(name)


def cleaned(
    frame: pl.DataFrame,
    columns: Iterable[str],
    source: str,
    missing: Sequence[float | int | str] = (),
    sentinels: Sequence[float] = SENTINELS,
) -> tuple[pl.DataFrame, list[Finding]]:
    """Replace -99, -999, -9999 and similar values, and other codes for missing values, by null.

    Parameters
    ----------
    frame : polars.DataFrame
    columns : iterable of str
    source : str
        Name of the table in findings.
    missing : sequence, optional
        Values that are known to mean missing; they cause no finding.
    sentinels : sequence, optional
        Values that most likely mean missing.

    Returns
    -------
    frame : polars.DataFrame
    findings : list of Finding
        One per column with values such as -99.

    Examples
    --------
    >>> cleaned(pl.DataFrame({"z": [0.1, -9999.0, -9999.0]}), ["z"], "t.csv")[1][0].message
    't.csv: column z: -9999 was treated as missing in 2 of 3 rows.'
    """
    findings = []
    for name in columns:
        known = without(frame[name].alias(""), missing)  # polars interprets some names as patterns
        kept = without(known, sentinels)
        gone = kept.is_null() & known.is_not_null()
        if gone.any():
            values = known.filter(gone).unique().sort().to_list()
            shown = ", ".join(f"{float(one):.6g}" for one in values[:3])
            findings.append(
                Finding(
                    "values-treated-as-missing",
                    "note",
                    f"{source}: column {name}: {shown} was treated as missing in {gone.sum():,d} of {len(gone):,d} "
                    "rows.",
                )
            )
        frame = frame.with_columns(kept.alias(name))
    return frame, findings


def _number(one: float | int | str) -> float | int | None:
    try:
        number = float(one) if isinstance(one, str) else one
    except ValueError:
        return None
    return number if math.isfinite(number) else None
