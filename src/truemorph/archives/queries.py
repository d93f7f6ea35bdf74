"""What archives that are queried share: a long query in batches, kept on disk, and columns found by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.archives.http import TooMuchError
from truemorph.errors import InputError, nearest
from truemorph.io import written_whole
from truemorph.progress import progress, tell

# What services say when they ran out of time.
TIMED_OUT = re.compile(r"time[- ]?out|timed out|time limit|query time|aborted", re.IGNORECASE)


def in_batches(
    parts: Path,
    name: str,
    source: str,
    schema: Mapping[str, Any],
    wanted: pl.Series,
    ask: Callable[[pl.Series], pl.DataFrame],
    most: int,
) -> pl.DataFrame:
    """Ask for the rows of many keys; a later run asks only for those that are missing.

    Parameters
    ----------
    parts : Path
        Folder in which each answer is kept.
    name : str
        What the files' names begin with.
    source : str
        Address and query: answers of another source are not used.
    schema : dict
        Columns, the key first.
    wanted : Series
        Keys in ascending order, each once.
    ask : callable
        From keys to their rows.
    most : int
        Keys a query. Where `ask` raises `TooMuchError` it is halved, down to a hundredth.

    Returns
    -------
    DataFrame
        At least one row a key: null but for the key where there was none.
    """
    key = next(iter(schema))
    begin = f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:10]}"
    frames = [pl.DataFrame(schema=schema), *(_part(path, schema) for path in sorted(parts.glob(f"{begin}-*.parquet")))]
    to_ask = wanted.filter(~wanted.is_in(pl.concat(frames)[key].implode()))
    size = most
    with progress(wanted.len(), name, "objects", initial=wanted.len() - to_ask.len()) as bar:
        while to_ask.len():
            keys = to_ask.head(size)
            try:
                rows = ask(keys)
            except TooMuchError:
                if keys.len() <= max(1, most // 100):
                    raise
                size = keys.len() // 2
                tell(f"{name}: too much for the server; asking for {size:,d} at a time")
                continue
            frames.append(keys.to_frame(key).join(rows, on=key, how="left").select(*schema))
            if rows.height:  # a server that knows none of many keys may be at fault
                with written_whole(parts / f"{begin}-{keys[0]}.parquet") as partial:
                    frames[-1].write_parquet(partial)
            bar.update(keys.len())
            to_ask = to_ask.slice(keys.len())
    return pl.concat(frames).filter(pl.col(key).is_in(wanted.implode()))


def _part(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Read an answer of an earlier run; one that is damaged is removed, and empty."""
    try:
        return pl.read_parquet(path).select(*schema).cast(dict(schema))  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, OSError):
        tell(f"{path}: damaged; asking for it again")
        path.unlink()
        return pl.DataFrame(schema=schema)


def find_column(frame: pl.DataFrame, names: Iterable[str], source: str) -> str:
    """Return the first of several names that a user's table has, in upper or lower case.

    Raises
    ------
    InputError
        With the nearest of the names it has.
    """
    by_case = {column.lower(): column for column in frame.columns}
    names = list(names)
    for name in names:
        if name.lower() in by_case:
            return by_case[name.lower()]
    raise InputError(f"{source}: no column {names[0]}; {nearest(names[0], frame.columns)}")
