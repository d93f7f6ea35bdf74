"""truemorph send: a table to TOPCAT, Aladin or DS9."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truemorph.arguments import Table
from truemorph.findings import Finding
from truemorph.results import Result, quantity_table


@dataclass(frozen=True, repr=False)
class Sent(Result):
    """A table that was sent, and the names of the programs that loaded it."""

    name: str
    rows: int
    columns: int
    programs: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def summary(self) -> str:
        """Return what was sent to which program as text."""
        return f"Sent {self.name} ({self.rows:,} rows, {self.columns} columns) to {', '.join(self.programs)}"

    def to_table(self) -> Any:
        """Return a table of one row a program."""
        return quantity_table({"program": (list(self.programs), "", "program that loaded the table")}, name=self.name)


def send_table(table: Table, *, to: str | None = None) -> Sent:
    """Send a table to TOPCAT, Aladin or DS9, through SAMP.

    The program must be running. Units and descriptions of columns are sent too.

    Example: truemorph send labels.parquet --to topcat

    Parameters
    ----------
    table : path or table
        Table of any format that truemorph reads (.parquet, .fits, .ecsv, .vot, .csv, ...).
    to : str, optional
        Name of the program, or a part of it; default every program that loads tables.

    Returns
    -------
    Sent

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
    from truemorph.samp import send_votable
    from truemorph.tables import kind_of, read_table

    read = read_table(table)
    name = Path(table).name if isinstance(table, str | Path) else kind_of(table)
    return Sent(name, read.frame.height, read.frame.width, tuple(send_votable(read, name, to)))
