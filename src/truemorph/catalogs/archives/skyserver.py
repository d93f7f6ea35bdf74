"""SQL at SkyServer, many ids at a time: batches that are kept, halved where they take too long, and never asked twice.

What SkyServer says comes with status 200, whatever it is (its functions.inc, writeCSV): a table; "No objects have been
found"; "ERROR", an empty line, and what SQL Server said; or "ERROR: Maximum 60 queries allowed per minute", which
passes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.archives.fetched import require_columns, write_frame
from truemorph.catalogs.archives.patience import AgainError
from truemorph.catalogs.archives.web import Web
from truemorph.errors import TruemorphError
from truemorph.progress import progress

_TIMED_OUT = re.compile(r"time[- ]?out|timed out|time limit|query time", re.IGNORECASE)
_TOO_MANY = re.compile(r"maximum \d+ queries allowed per minute", re.IGNORECASE)
# How `Web` words failures that fewer ids may cure.
_TOO_LONG = re.compile(r"nothing came for|HTTP (500|504)|the query is too long")
_PAUSE = 65.0  # seconds


@dataclass(frozen=True)
class Query:
    """One kind of question.

    Attributes
    ----------
    name : str
    sql : str
        With `{ids}` in place of the ids.
    columns : dict
        Polars types of the answer's columns; `objid` is one of them.
    """

    name: str
    sql: str
    columns: dict[str, type[pl.DataType]]

    def text(self, ids: list[int]) -> str:
        """SQL that asks for these ids."""
        return self.sql.format(ids=",".join(map(str, ids)))


class _TooMuchError(Exception):
    """The server ran out of time: fewer ids may do."""


def answers(web: Web, url: str, folder: Path, query: Query, wanted: pl.Series, batch: int) -> pl.DataFrame:
    """What SkyServer knows of each id, from the answers in `folder` and, for other ids, from SkyServer.

    Parameters
    ----------
    web : Web
    url : str
        x_sql.asp.
    folder : Path
        Each batch's answer is kept here when it has come; another query's or server's are not mixed with them.
    query : Query
    wanted : Series of int64
        Each id once.
    batch : int
        Most ids a query.

    Returns
    -------
    DataFrame
        The query's columns. At least one row an id: null but for `objid` where there was none.

    Raises
    ------
    TruemorphError
        If a query is refused, is too much even for one id, or an answer lacks a column or is damaged.
    """
    key = hashlib.sha256(f"{url} {query.sql}".encode()).hexdigest()[:10]
    kept = [_kept(path, query) for path in sorted(folder.glob(f"{query.name}-{key}-*.parquet"))]
    frames = [frame for frame in kept if frame is not None]
    have = pl.concat([frame["objid"] for frame in frames]) if frames else pl.Series("objid", [], dtype=pl.Int64)
    open_ids = wanted.filter(~wanted.is_in(have.unique().implode())).to_list()
    with progress(wanted.len(), f"SDSS {query.name}", "objects", initial=wanted.len() - len(open_ids)) as bar:
        while open_ids:
            asked, open_ids = open_ids[:batch], open_ids[batch:]
            for ids, rows in _halved(web, url, query, asked):
                one_each = pl.DataFrame({"objid": pl.Series(ids, dtype=pl.Int64)})
                frame = one_each.join(rows, on="objid", how="left").select(*query.columns)
                write_frame(folder / f"{query.name}-{key}-{ids[0]}.parquet", frame)
                frames.append(frame)
                bar.update(len(ids))
                # What was too much once will be again.
                batch = batch if len(ids) == len(asked) else min(batch, len(ids))
    every = pl.concat(frames) if frames else pl.DataFrame(schema=query.columns)
    return every.filter(pl.col("objid").is_in(wanted.implode()))


def _kept(path: Path, query: Query) -> pl.DataFrame | None:
    """A part of an earlier run; one that can't be read is asked for again."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        print(f"{path}: can't be read ({str(problem).splitlines()[0]}); asked for again", file=sys.stderr)
        path.unlink()
        return None
    return frame.select(*query.columns)


def _halved(web: Web, url: str, query: Query, ids: list[int]) -> Iterator[tuple[list[int], pl.DataFrame]]:
    """Ask for ids; where that is too much, for one half and then the other."""
    try:
        yield ids, _ask(web, url, query, ids)
    except _TooMuchError as problem:
        if len(ids) == 1:
            raise TruemorphError(
                f"SkyServer: {problem}, even for one object ({ids[0]}); run the same again later, what arrived is kept"
            ) from problem
        print(f"SDSS {query.name}: {problem}; asking for half of {len(ids)} objects", file=sys.stderr, flush=True)
        middle = len(ids) // 2
        for half in (ids[:middle], ids[middle:]):
            yield from _halved(web, url, query, half)


def _ask(web: Web, url: str, query: Query, ids: list[int]) -> pl.DataFrame:
    what = f"SDSS {query.name}"

    def once() -> str:
        try:
            body = web.get(url, {"cmd": query.text(ids), "format": "csv"}, expect="csv", what=what)
        except TruemorphError as problem:
            if _TOO_LONG.search(str(problem)):
                raise _TooMuchError(str(problem)) from problem
            raise
        text = body.decode("utf-8-sig", "replace")
        if _TOO_MANY.search(text):
            raise AgainError("SkyServer says it had too many queries this minute", wait=_PAUSE)
        return text

    return _table(web.session.patience.until(once, what), query)


def _table(text: str, query: Query) -> pl.DataFrame:
    """Read an answer, every id digit by digit."""
    # Later releases begin with a line "#Table1".
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise TruemorphError("SkyServer's answer is empty; run the same again later, what has arrived is kept")
    if any(line.lstrip('"').startswith("ERROR") for line in lines):
        said = _error(lines)
        if _TIMED_OUT.search(said):
            raise _TooMuchError(f'SkyServer says "{said}"')
        raise TruemorphError(f'SkyServer refuses the query for SDSS {query.name}: "{said}"')
    if lines[0].startswith("No objects have been found"):
        return pl.DataFrame(schema=query.columns)
    header, *rows = csv.reader(io.StringIO("\n".join(lines)))
    names = [name.strip() for name in header]
    require_columns(query.columns, names, f"SkyServer's answer for SDSS {query.name}")
    cut = next((number for number, row in enumerate(rows, 1) if len(row) != len(names)), None)
    if cut is not None:
        raise TruemorphError(
            f"SkyServer's answer for SDSS {query.name} is cut in row {cut}; run the same again, what arrived is kept"
        )
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    types: dict[Any, Any] = dict(query.columns)
    clean = pl.all().str.strip_chars().replace({"null": None, "": None})
    try:
        return frame.select(*query.columns).with_columns(clean).cast(types, strict=True)
    except pl.exceptions.PolarsError as problem:
        raise TruemorphError(
            f"SkyServer's answer for SDSS {query.name} has something else than numbers: {str(problem).splitlines()[0]}"
        ) from problem


def _error(lines: list[str]) -> str:
    """What SQL Server said, without SkyServer's words around it."""
    start = next(number for number, line in enumerate(lines) if line.lstrip('"').startswith("ERROR"))
    kept = []
    for line in lines[start:]:
        if line.startswith("Your SQL command was"):
            break
        if line.strip() != "ERROR" and not line.startswith("SQL returned the following error"):
            kept.append(line.strip().strip('"'))
    return " ".join(kept)[:200] or "ERROR"
