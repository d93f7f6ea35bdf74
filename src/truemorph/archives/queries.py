"""Run long queries in batches that are stored on disk; find columns by name."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.archives.http import TooMuchError
from truemorph.errors import InputError, nearest
from truemorph.io import written_whole
from truemorph.progress import progress, tell
from truemorph.tables import read_columns, usual_column

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
    """Query the rows of many keys (ascending, each once); `schema` has the key first.

    `ask` returns the rows of up to `most` keys, which is halved when it raises `TooMuchError`, down to a hundredth.
    Each response is stored in `parts` under `name` and a hash of `source` (address and query), so that a later run
    queries only the missing keys. A key without any row has one of nulls.
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
                tell(f"{name}: too much for the server; querying {size:,d} at a time")
                continue
            frames.append(keys.to_frame(key).join(rows, on=key, how="left").select(*schema))
            if rows.height:  # not stored if empty, because the server may be at fault
                with written_whole(parts / f"{begin}-{keys[0]}.parquet", of_many=True) as partial:
                    frames[-1].write_parquet(partial)
            bar.update(keys.len())
            to_ask = to_ask.slice(keys.len())
    return pl.concat(frames).filter(pl.col(key).is_in(wanted.implode()))


def _part(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Read a response of an earlier run; a damaged one is removed and treated as empty."""
    try:
        return read_columns(path, schema, nulls=True)
    except InputError:
        tell(f"{path}: damaged; querying it again")
        path.unlink()
        return pl.DataFrame(schema=schema)


def find_column(frame: pl.DataFrame, names: Sequence[str], source: str) -> str:
    """Return the first of several names in a user's table, ignoring case."""
    column = usual_column(frame.columns, names)
    if column is None:
        raise InputError(f"{source}: no column {names[0]}; {nearest(names[0], frame.columns)}")
    return column
