"""truemorph send: a table to TOPCAT, Aladin or DS9."""

from __future__ import annotations

from pathlib import Path

from truemorph.arguments import Table, validated
from truemorph.results import PlainResult, Result


@validated
def send_table(table: Table, *, to: str | None = None) -> PlainResult:
    """Send a table to TOPCAT, Aladin or DS9, through SAMP.

    The program must be running. Units and descriptions of columns are sent too.

    Example: truemorph send labels.parquet --to topcat

    Parameters
    ----------
    table : path, table or result
        Table of any format that truemorph reads (.parquet, .fits, .ecsv, .vot, .csv, ...); of a result, its table.
    to : str, optional
        Name of the program, or a part of it; default every program that loads tables.

    Returns
    -------
    PlainResult

    Raises
    ------
    InputError
        If the table can't be read, or no program of this name is running.
    TruemorphError
        If no program that loads tables is running, or one could not load this table.

    Examples
    --------
    >>> send_table("absent.fits")
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: absent.fits: no such file
    """
    if isinstance(table, Result):
        return table.send(to)
    from truemorph.samp import sent
    from truemorph.tables import name_of

    return PlainResult(*sent(table, Path(name_of(table)).name, to))
