"""Answers of annotators: one SQLite file in the plan folder, written before the page shows the next galaxy.

No answer is deleted: one that was undone or replaced stays in the file, marked as undone.
"""

import math
import sqlite3
import unicodedata
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from truemorph.errors import InputError, reason
from truemorph.gold.plan import read_about
from truemorph.tables import left_join, read_columns

ANSWERS, TWINS = "answers.sqlite", "twins.parquet"
# A galaxy is shown once, or a second time, or as a degraded copy of itself.
FIRST, REPEAT, TWIN = "first", "repeat", "twin"
# Seconds that a writer waits for another one.
_PATIENCE = 30.0
_TABLE = """
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    annotator TEXT NOT NULL,
    galaxy TEXT NOT NULL,
    occasion TEXT NOT NULL,
    answer TEXT NOT NULL,
    better INTEGER NOT NULL,
    note TEXT NOT NULL,
    time TEXT NOT NULL,
    seconds REAL NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS one_answer ON answers (annotator, galaxy, occasion) WHERE undone = 0;
"""
_TEXTS = ("annotator", "galaxy", "occasion", "answer", "note", "time")
_SCHEMA = {**dict.fromkeys(_TEXTS, pl.String), "better": pl.Int64, "seconds": pl.Float64}


def person(name: str) -> str:
    """Return a name as it is compared with others: without case and outer spaces, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", " ".join(name.split())).casefold())


def one_spelling(answers: pl.DataFrame) -> pl.DataFrame:
    """Give each person (`annotator`) the first spelling of their name."""
    first: dict[str, str] = {}
    every = answers["annotator"].unique(maintain_order=True)
    names = {name: first.setdefault(person(name), name.strip()) for name in every}
    return answers.with_columns(pl.col("annotator").replace(names))


def record_answer(
    folder: Path,
    annotator: str,
    galaxy: str,
    occasion: str,
    answer: str,
    note: str = "",
    seconds: float = 0.0,
    better: bool = False,
) -> None:
    """Write an answer to the file; an earlier one of the same person about the same picture is marked as undone.

    It is one of the choices of the plan in this folder.
    """
    choices = read_about(folder).choices
    if answer not in choices or not math.isfinite(seconds):
        raise InputError(f"send one of {'; '.join(choices)}, after a number of seconds; got {answer!r}, {seconds}")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with _connected(folder) as connection:
        connection.execute(
            "UPDATE answers SET undone = 1 WHERE galaxy = ? AND occasion = ? AND undone = 0 AND person(annotator) = ?",
            (galaxy, occasion, person(annotator)),
        )
        connection.execute(
            "INSERT INTO answers (annotator, galaxy, occasion, answer, better, note, time, seconds) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (annotator, galaxy, occasion, answer, better, note, now, seconds),
        )


def undo_answer(folder: Path, annotator: str) -> tuple[str, str] | None:
    """Undo a person's last answer; returns its galaxy and occasion, None if there is none."""
    with _connected(folder) as connection:
        return connection.execute(
            "UPDATE answers SET undone = 1 WHERE id = "
            "(SELECT max(id) FROM answers WHERE person(annotator) = ? AND undone = 0) RETURNING galaxy, occasion",
            (person(annotator),),
        ).fetchone()


def answers_of(folder: Path, annotator: str) -> tuple[dict[tuple[str, str], tuple[str, str]], int]:
    """Answer and note of one person by galaxy and occasion, and the number of galaxies that anyone has answered."""
    with _connected(folder) as connection:
        rows = connection.execute(
            "SELECT galaxy, occasion, answer, note FROM answers WHERE person(annotator) = ? AND undone = 0 ORDER BY id",
            (person(annotator),),
        ).fetchall()
        (labelled,) = connection.execute(
            "SELECT count(DISTINCT galaxy) FROM answers WHERE occasion = 'first' AND undone = 0"
        ).fetchone()
    return {(galaxy, occasion): (answer, note) for galaxy, occasion, answer, note in rows}, labelled


def read_answers(folder: Path) -> pl.DataFrame:
    """Read the answers to a plan in their order, without those that were undone or replaced.

    `occasion` is first, repeat or twin; `better` whether a better image was beside; `seconds` what the answer took;
    `twin_alpha` the resolution of a degraded copy.
    """
    rows = []
    if (folder / ANSWERS).is_file():
        with _connected(folder) as connection:
            rows = connection.execute(
                f"SELECT {', '.join(_SCHEMA)} FROM answers WHERE undone = 0 ORDER BY id"
            ).fetchall()
    try:
        frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row").with_columns(
            pl.col("time").str.to_datetime(time_unit="us", time_zone="UTC"),
            pl.col("better").cast(pl.Boolean),
            pl.col("answer").cast(pl.Enum(read_about(folder).choices)).cast(pl.String),
        )
        if frame["annotator"].null_count():
            raise TypeError("an answer without a name")
    except (TypeError, pl.exceptions.PolarsError) as problem:
        raise InputError(
            f"{folder / ANSWERS}: a value has the wrong type ({reason(problem)}); restore a copy"
        ) from problem
    frame = one_spelling(frame).unique(["annotator", "galaxy", "occasion"], keep="last", maintain_order=True)
    twins = read_twins(folder).select("twin_alpha", occasion=pl.lit(TWIN), galaxy="object_id")
    frame = left_join(frame, twins, ["galaxy", "occasion"])
    if frame.filter(occasion=TWIN)["twin_alpha"].null_count():
        raise InputError(f"{folder / TWINS}: lacks degraded copies that people have labelled; restore a copy")
    return frame


def read_twins(folder: Path) -> pl.DataFrame:
    """Read `object_id`, `image` and `twin_alpha`, the resolution, of degraded copies; empty if there are none."""
    columns = {"object_id": pl.String, "image": pl.String, "twin_alpha": pl.Float64}
    return read_columns(folder / TWINS, columns) if (folder / TWINS).is_file() else pl.DataFrame(schema=columns)


@contextmanager
def _connected(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose block is one transaction: all of its changes are in the file when it ends, or none is."""
    path = folder / ANSWERS
    with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level="IMMEDIATE")) as connection:
        connection.create_function("person", 1, person, deterministic=True)
        try:
            connection.executescript(_TABLE)
            with connection:
                yield connection
        except (sqlite3.DatabaseError, UnicodeDecodeError) as problem:
            advice = "try again later" if isinstance(problem, sqlite3.OperationalError) else "move it away"
            raise InputError(f"{path}: can't be used as a file of answers ({problem}); {advice}") from problem
