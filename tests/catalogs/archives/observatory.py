"""The archives of a simulated sky, served: files, SkyServer's SQL, VizieR's TAP, MOCServer and hips2fits.

with Observatory(write_archive(folder, 120, seed=1, size=64)) as sky:
    fetch("gz2", out, addresses_from=sky.addresses)

It runs the SQL and ADQL that it is sent, on SQLite, and answers as the real services do, their oddities included:
numbers of `real` columns with three decimals, errors as text with status 200, limits of rows, empty images outside
coverage.
Faults: `script` of the server below (cut, busy, page), and the attributes of this one.
"""

from __future__ import annotations

import atexit
import csv
import io
import json
import math
import re
import shutil
import sqlite3
import tempfile
import threading
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars as pl
from astropy.table import MaskedColumn, Table
from PIL import Image

from catalogs.archives.server import Answer, Request, Server
from truemorph.simulate.archive import write_archive

SQL, TAP, MOC, CUTOUTS = "/dr7/en/tools/search/x_sql.asp", "/TAPVizieR/tap", "/MocServer/query", "/hips2fits"
_FILES = {
    "gz2.willett13": "zoo2MainSpecz.csv.gz",
    "gz2.hart16": "gz2_hart16.csv.gz",
    "gz2.mapping": "gz2_filename_mapping.csv",
    "gz2.images": "images_gz2.zip",
    "gz2.images_record": "zenodo_record.json",
}
# `real` in SDSS's schema; ra, dec and Neighbors.distance are `float`.
_REAL = re.compile(r"\w+\.(petro\w+|psfWidth\w+|extinction\w+|z|zErr|zConf)", re.IGNORECASE)


@cache
def small_archive() -> Path:
    """120 galaxies, drawn once a session; read only."""
    folder = Path(tempfile.mkdtemp(prefix="truemorph-archive-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_archive(folder, 120, seed=3, size=48, hst=0.2)


class Observatory(Server):
    """A simulated archive, served.

    Attributes
    ----------
    most_ids : int or None
        SkyServer times out where more ids are asked for at once.
    most_rows : int or None
        Rows after which TAP answers OVERFLOW.
    renamed : dict
        Columns by other names: of SkyServer's answers and of VizieR's tables.
    refuse : str or None
        What SQL Server says to every query.
    """

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self.archive = archive
        self.most_ids: int | None = None
        self.most_rows: int | None = None
        self.renamed: dict[str, str] = {}
        self.refuse: str | None = None
        self.truth = pl.read_parquet(archive / "truth.parquet")
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._one_at_a_time = threading.Lock()
        self._load()
        for name in _FILES.values():
            self.put(f"/files/{name}", (archive / "files" / name).read_bytes())
        self.route(SQL, self._sql)
        self.route(f"{TAP}/sync", self._tap)
        self.route(MOC, self._coverage)
        self.route(CUTOUTS, self._cutout)

    @property
    def addresses(self) -> dict[str, str]:
        """In place of the packaged addresses."""
        services = {"sdss.sql": SQL, "simard.tap": TAP, "hst.moc": MOC, "hst.hips2fits": CUTOUTS}
        files = {name: f"/files/{file}" for name, file in _FILES.items()}
        return {name: self.url(path) for name, path in (files | services).items()}

    def write_addresses(self, path: Path) -> Path:
        """The same as a file for --addresses."""
        path.write_text("".join(f'"{name}" = "{url}"\n' for name, url in self.addresses.items()))
        return path

    def _load(self) -> None:
        run = self._database.execute
        run("ATTACH DATABASE ':memory:' AS TAP_SCHEMA")
        run("CREATE TABLE TAP_SCHEMA.columns (table_name, column_name, unit, description)")
        tables = {path.stem: pl.read_parquet(path) for path in sorted((self.archive / "skyserver").glob("*.parquet"))}
        for path in sorted((self.archive / "vizier").glob("*.parquet")):
            name = f"J/ApJS/196/11/{path.stem}"
            tables[name] = pl.read_parquet(path)
            # VizieR keeps names that need quotes with their quotes.
            rows = [(f'"{name}"', column, "", "") for column in tables[name].columns]
            self._database.executemany("INSERT INTO TAP_SCHEMA.columns VALUES (?, ?, ?, ?)", rows)
        for name, table in tables.items():
            columns = ", ".join(f'"{column}"' for column in table.columns)
            run(f'CREATE TABLE "{name}" ({columns})')
            self._database.executemany(
                f'INSERT INTO "{name}" VALUES ({", ".join("?" * table.width)})', table.iter_rows()
            )
        run("CREATE INDEX of_object ON PhotoObjAll (objID)")
        run("CREATE VIEW SpecObj AS SELECT * FROM SpecObjAll WHERE sciencePrimary = 1")

    def _rows(self, query: str) -> tuple[list[str], list[tuple]]:
        with self._one_at_a_time:
            cursor = self._database.execute(query)
            return [one[0] for one in cursor.description], cursor.fetchall()

    def _sql(self, request: Request) -> Answer:
        """x_sql.asp?cmd=...&format=csv, as SkyServer's functions.inc answers."""
        query = request.params["cmd"]
        if self.refuse:
            return _error(self.refuse, query)
        listed = re.search(r"IN \(([^)]*)\)", query)
        if self.most_ids is not None and listed and listed[1].count(",") >= self.most_ids:
            return _error("[Microsoft][ODBC SQL Server Driver]Timeout expired", query)
        try:
            names, rows = self._rows(query)
        except sqlite3.Error as problem:
            return _error(str(problem), query)
        if not rows:
            return _text("No objects have been found")
        coarse = [bool(_REAL.fullmatch(item.split(" AS ")[0])) for item in _selected(query)]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([self.renamed.get(name, name) for name in names])
        for row in rows:
            writer.writerow([_number(value, 3 if real else 6) for value, real in zip(row, coarse, strict=True)])
        return _text(out.getvalue())

    def _tap(self, request: Request) -> Answer:
        """TAP's /sync: a VOTable of what the ADQL gives."""
        query, most = request.params["QUERY"], request.params.get("MAXREC")
        back = {new: old for old, new in self.renamed.items()}
        query = re.sub(r'"([^"]*)"', lambda match: f'"{back.get(match[1], match[1])}"', query)
        try:
            names, rows = self._rows(query)
        except sqlite3.Error as problem:
            return _votable(_tabled(["problem"], []), "ERROR", str(problem))
        if "TAP_SCHEMA" in query:
            rows = [(self.renamed.get(name, name),) for (name,) in rows]
        limit = min(int(most) if most else 10**9, self.most_rows or 10**9)
        return _votable(_tabled(names, rows[:limit]), "OVERFLOW" if len(rows) > limit else "OK")

    def _pointing(self, request: Request, ra: str, dec: str) -> dict | None:
        """The pointing nearest to a position that holds it."""
        ra, dec = float(request.params[ra]), float(request.params[dec])
        pointings = pl.read_parquet(self.archive / "hubble" / "coverage.parquet")
        distance = (((pl.col("ra") - ra) * math.cos(math.radians(dec))) ** 2 + (pl.col("dec") - dec) ** 2).sqrt() * 3600
        near = pointings.with_columns(distance=distance).filter(pl.col("distance") < pl.col("side") / 2)
        return near.sort("distance").row(0, named=True) if near.height else None

    def _coverage(self, request: Request) -> Answer:
        """MOCServer: ids of all mosaics, or of those whose coverage overlaps a circle."""
        wanted = {"get": "id", "ID": "CDS/P/HST*", "fmt": "json"}
        assert wanted.items() <= request.params.items()
        circle = {"RA", "DEC", "SR", "intersect"} & request.params.keys()
        if not circle:
            pointings = pl.read_parquet(self.archive / "hubble" / "coverage.parquet")
            hips = pointings.select(pl.col("hips").str.split(",").explode())[:, 0].unique().sort()
            return Answer(json.dumps(hips.to_list()).encode(), type="application/json")
        assert len(circle) == 4
        assert request.params["intersect"] == "overlaps"
        assert 0 < float(request.params["SR"]) <= 0.5  # degrees
        found = self._pointing(request, "RA", "DEC")
        return Answer(json.dumps(found["hips"].split(",") if found else []).encode(), type="application/json")

    def _cutout(self, request: Request) -> Answer:
        """hips2fits: a cut-out, black (or not a number) where nothing was seen."""
        assert request.params["projection"] == "TAN"
        assert request.params["coordsys"] == "icrs"
        assert request.params["width"] == request.params["height"]
        size, fov = int(request.params["width"]), float(request.params["fov"]) * 3600
        assert 1 <= fov <= 3600
        found = self._pointing(request, "ra", "dec")
        pixels = np.zeros((size, size, 3), dtype=np.uint8)
        if found and found["image"] and request.params["hips"] in found["hips"].split(","):
            with Image.open(self.archive / "hubble" / f"{found['object_id']}.jpg") as image:
                half, middle = fov / found["side"] * image.width / 2, image.width / 2
                box = (middle - half, middle - half, middle + half, middle + half)
                pixels = np.asarray(
                    image.resize((size, size), Image.Resampling.BILINEAR, box=_inside(box, image.width))
                )
        out = io.BytesIO()
        if request.params["format"] == "fits":
            from astropy.io import fits

            data = pixels.mean(axis=2).astype(np.float32)
            fits.PrimaryHDU(np.where(pixels.any(), data, np.nan)).writeto(out)
            return Answer(out.getvalue(), type="application/fits", ranges=False)
        Image.fromarray(pixels).save(out, {"jpg": "JPEG", "png": "PNG"}[request.params["format"]], quality=90)
        return Answer(out.getvalue(), type="image/jpeg", ranges=False)


def _inside(box: tuple[float, ...], side: int) -> tuple[float, ...]:
    return tuple(min(max(one, 0.0), float(side)) for one in box)


def _selected(query: str) -> list[str]:
    """Items between SELECT and FROM."""
    text, items, depth = query[query.upper().index("SELECT") + 6 : query.upper().index(" FROM ")], [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items]


def _number(value: object, decimals: int) -> str:
    """As SkyServer's stringOf writes: decimals by type, a missing number as 0."""
    if value is None:
        return "0"
    if not isinstance(value, float) or value == 0:
        return str(value)
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -2 or exponent > 3:
        return f"{round(value / 10.0**exponent, decimals)}E{exponent}"
    return f"{math.floor(value * 10**decimals + 0.5) / 10**decimals:g}" if decimals == 3 else f"{value:.{decimals}f}"


def _text(text: str) -> Answer:
    return Answer(text.encode(), type="text/plain", ranges=False)


def _error(said: str, query: str) -> Answer:
    return _text(f"ERROR\n\nSQL returned the following error message:\n{said}\nYour SQL command was:\n{query}\n")


def _tabled(names: list[str], rows: list[tuple]) -> Table:
    columns = []
    for number, name in enumerate(names):
        values = [row[number] for row in rows]
        kind = next((type(value) for value in values if value is not None), str)
        filler = {int: 0, float: 0.0}.get(kind, "")
        missing = [value is None for value in values]
        data = np.array(
            [filler if value is None else value for value in values], dtype=kind if kind is not str else None
        )
        columns.append(MaskedColumn(data if values else np.array([], dtype="U1"), name=name, mask=missing))
    return Table(columns)


def _votable(table: Table, status: str, said: str = "") -> Answer:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    votable = from_table(table)
    resource = votable.resources[0]
    resource.type = "results"
    info = Info(name="QUERY_STATUS", value=status)
    info.content = said
    resource.infos.append(info)
    out = io.BytesIO()
    votable.to_xml(out)
    return Answer(out.getvalue(), type="application/x-votable+xml", ranges=False)


def asked_ids(requests: list[Request]) -> list[list[int]]:
    """Ids of each SQL query."""
    lists = [re.search(r"IN \(([^)]*)\)", unquote(request.params["cmd"])) for request in requests]
    return [[int(one) for one in found[1].split(",")] for found in lists if found]
