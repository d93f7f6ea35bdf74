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
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.archives.failures import AgainError, UnansweredError
from truemorph.catalogs.archives.fetched import read_part, require_columns, write_part
from truemorph.catalogs.archives.web import Web
from truemorph.errors import TruemorphError
from truemorph.progress import progress

_TIMED_OUT = re.compile(r"time[- ]?out|timed out|time limit|query time", re.IGNORECASE)
_TOO_MANY = re.compile(r"maximum \d+ queries allowed per minute", re.IGNORECASE)
_NO_TABLE = re.compile(r"\s*\"?(ERROR|No objects have been found)")
# Statuses that fewer ids may cure: it took too long, or the query did.
_SLOW, _LONG = {408, 504}, {400, 404, 413, 414, 431}
_PAUSE = 65.0  # seconds
_PAGES = 3  # tries of a query that a web page comes of
_CALM = 8  # answers after which more ids are asked for again


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
    """The server ran out of time, or the query was too long: fewer ids may do."""


@dataclass
class _Batch:
    """How many ids are asked for at once: halved where that was too much, and doubled again after a while.

    What was too much before takes twice as long until it is tried again.
    """

    most: int
    size: int
    calm: int = 0
    needed: int = _CALM

    def answered(self, smallest: int) -> None:
        """Take note of a batch that was answered in parts of at least so many ids."""
        if smallest < self.size:
            self.size, self.calm, self.needed = smallest, 0, 2 * self.needed
            return
        self.calm += 1
        if self.calm >= self.needed and self.size < self.most:
            self.size, self.calm = min(self.most, 2 * self.size), 0


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
    kept = [read_part(path, query.columns) for path in sorted(folder.glob(f"{query.name}-{key}-*.parquet"))]
    frames = [frame for frame in kept if frame is not None]
    have = pl.concat([frame["objid"] for frame in frames]) if frames else pl.Series("objid", [], dtype=pl.Int64)
    open_ids = wanted.filter(~wanted.is_in(have.unique().implode())).to_list()
    pace = _Batch(batch, batch)
    with progress(wanted.len(), f"SDSS {query.name}", "objects", initial=wanted.len() - len(open_ids)) as bar:
        while open_ids:
            asked, open_ids = open_ids[: pace.size], open_ids[pace.size :]
            smallest = pace.size
            for ids, rows in _halved(web, url, query, asked):
                one_each = pl.DataFrame({"objid": pl.Series(ids, dtype=pl.Int64)})
                frame = one_each.join(rows, on="objid", how="left").select(*query.columns)
                if rows.height:  # of a server that knows none of many ids nothing is believed for good
                    write_part(folder / f"{query.name}-{key}-{ids[0]}.parquet", frame)
                frames.append(frame)
                bar.update(len(ids))
                if len(ids) < len(asked):
                    smallest = min(smallest, len(ids))
            pace.answered(smallest)
    every = pl.concat(frames) if frames else pl.DataFrame(schema=query.columns)
    return every.filter(pl.col("objid").is_in(wanted.implode()))


def _halved(web: Web, url: str, query: Query, ids: list[int]) -> Iterator[tuple[list[int], pl.DataFrame]]:
    """Ask for ids; where that is too much, for one half and then the other."""
    try:
        yield ids, _complete(web, url, query, ids)
    except _TooMuchError as problem:
        if len(ids) == 1:
            raise TruemorphError(
                f"SkyServer: {problem}, even for one object ({ids[0]}); run the same again later, what arrived is kept"
            ) from problem
        print(f"SDSS {query.name}: {problem}; asking for half of {len(ids)} objects", file=sys.stderr, flush=True)
        middle = len(ids) // 2
        for half in (ids[:middle], ids[middle:]):
            yield from _halved(web, url, query, half)


def _complete(web: Web, url: str, query: Query, ids: list[int]) -> pl.DataFrame:
    """Ask for ids, and again for those that nothing came of, as long as something does: answers may be cut anywhere."""
    rows = _ask(web, url, query, ids)
    while absent := set(ids) - set(rows["objid"]):
        # Rows come in order of objid: the last one's may not be all.
        again = sorted(absent | set(rows["objid"][-1:]))
        more = _ask(web, url, query, again)
        rows = pl.concat([rows.filter(~pl.col("objid").is_in(again)), more])
        if absent.isdisjoint(more["objid"]):
            break
    return rows


def _ask(web: Web, url: str, query: Query, ids: list[int]) -> pl.DataFrame:
    what, pages = f"SDSS {query.name}", count(1)

    def once() -> str:
        try:
            parameters = {"cmd": query.text(ids), "format": "csv"}
            body = web.get(url, parameters, expect="csv", ends=_ends, what=what)
        except UnansweredError as problem:
            # Servers and proxies have many ways to say that an address is too long; one id is not.
            if problem.silent or problem.status in _SLOW or (problem.status in _LONG and len(ids) > 1):
                raise _TooMuchError(str(problem)) from problem
            if problem.page and next(pages) < _PAGES:
                raise AgainError(str(problem)) from problem
            raise
        text = body.decode("utf-8-sig", "replace")
        if _TOO_MANY.search(text):
            raise AgainError("SkyServer says it had too many queries this minute", wait=_PAUSE)
        return text

    return _table(web.session.patience.until(once, what), query)


def _ends(body: bytes) -> bool:
    """Whether an answer ends with a line, or is no table."""
    return not body.strip() or body.endswith(b"\n") or bool(_NO_TABLE.match(body.decode("utf-8-sig", "replace")))


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
