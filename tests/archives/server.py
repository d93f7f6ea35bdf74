"""A local HTTP server whose next responses can be scripted to fail, with simulated archives.

with Server() as server:
    server.put("/table.csv", b"a,b\\n1,2\\n")
    server.script("/table.csv", Answer(status=503), Answer(cut=3))  # the first two requests; the third succeeds

`Observatory` runs SQL and ADQL on SQLite, and responds like SkyServer, VizieR's TAP, CDS's MOCServer and hips2fits:
`real` columns with three decimals, errors as text with status 200, black images outside of the coverage.
"""

import contextlib
import hashlib
import io
import json
import math
import re
import socket
import sqlite3
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import parse_qs, urlsplit

import numpy as np
import polars as pl
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info
from PIL import Image

from truemorph.archives.fetch import fetch
from truemorph.tables import CatalogTable, to_astropy

SQL, TAP, MOC, CUTOUTS = "/dr7/en/tools/search/x_sql.asp", "/TAPVizieR/tap", "/MocServer/query", "/hips2fits"
# The paths of the addresses that truemorph fetch uses.
PATHS = {
    "gz2.willett13": "/files/zoo2MainSpecz.csv.gz",
    "gz2.hart16": "/files/gz2_hart16.csv.gz",
    "gz2.sample": "/files/gz2sample.csv.gz",
    "gz2.mapping": "/files/gz2_filename_mapping.csv",
    "gz2.images": "/files/images_gz2.zip",
    "sdss.sql": SQL,
    "simard.tap": TAP,
    "hst.moc": MOC,
    "hst.hips2fits": CUTOUTS,
}


@dataclass(frozen=True)
class Request:
    path: str
    params: dict
    headers: dict


@dataclass(frozen=True)
class Answer:
    """A response and its faults."""

    body: bytes | None = None  # None: the usual body
    status: int = 200
    headers: dict = field(default_factory=dict)
    ranges: bool = True  # supports Range, and has an ETag
    length: bool = True  # Content-Length; otherwise the end of the connection is the end of the body
    cut: int | None = None  # bytes after which the connection is closed


def busy(status=503, retry_after=None):
    return Answer(b"try later", status, {"Retry-After": retry_after} if retry_after else {}, ranges=False)


def text(said, **answer):
    return Answer(said.encode(), ranges=False, **answer)


def page(said="We are down for maintenance."):
    return text(f"<!DOCTYPE html>\n<html><head></head><body><p>{said}</p></body></html>")


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        parts = urlsplit(self.path)
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        params = parse_qs(parts.query) | parse_qs(form)
        request = Request(parts.path, {name: values[-1] for name, values in params.items()}, dict(self.headers))
        with contextlib.suppress(ConnectionError):  # the client disconnected
            self._send(request, self.server.answer(request))

    do_POST = do_GET

    def _send(self, request, answer):
        body, status, headers = answer.body or b"", answer.status, dict(answer.headers)
        if status == 200 and answer.ranges:
            headers.setdefault("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
            if asked and request.headers.get("If-Range") == headers["ETag"]:
                first = int(asked[1])
                status = 206 if first < len(body) else 416
                headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
                body = body[first:]
        if answer.length:
            headers["Content-Length"] = str(len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if answer.cut is None else body[: answer.cut])
        self.wfile.flush()
        if answer.cut is not None:
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    """Files, functions and scripted faults by path."""

    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []
        self.routes = {}
        self._scripts = {}

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *problem):
        self.shutdown()
        self.server_close()

    def url(self, path=""):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def put(self, path, body, **answer):
        self.routes[path] = lambda request: Answer(body, **answer)
        return self.url(path)

    def script(self, path, *answers):
        """Set the next responses for a path; one without a body gets the usual body."""
        self._scripts.setdefault(path, []).extend(answers)

    def asked(self, path):
        return [request for request in self.requests if request.path == path]

    def answer(self, request):
        self.requests.append(request)
        scripted = self._scripts.get(request.path)
        answer = scripted.pop(0) if scripted else Answer()
        if answer.body is not None or answer.status != 200:
            return answer
        usual = self.routes.get(request.path, lambda request: busy(404))(request)
        return replace(answer, body=usual.body) if answer != Answer() else usual


class Observatory(Server):
    """A simulated archive on a local server."""

    def __init__(self, archive):
        super().__init__()
        self.archive = archive
        self.truth = pl.read_parquet(archive / "truth.parquet")
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        for folder, prefix in (("skyserver", ""), ("vizier", "J/ApJS/196/11/")):
            for path in (archive / folder).iterdir():
                name, table = f"{prefix}{path.stem}", pl.read_parquet(path)
                columns = ", ".join(f'"{column}"' for column in table.columns)
                self._database.execute(f'CREATE TABLE "{name}" ({columns})')
                marks = ", ".join("?" * table.width)
                self._database.executemany(f'INSERT INTO "{name}" VALUES ({marks})', table.iter_rows())
        for path in (archive / "files").iterdir():
            self.put(f"/files/{path.name}", path.read_bytes())
        self.routes |= {SQL: self.sql, f"{TAP}/sync": self.tap, MOC: self.coverage, CUTOUTS: self.cutout}

    def server_close(self):
        super().server_close()
        self._database.close()

    def fetch(self, archive, out, **options):
        with NamedTemporaryFile(suffix=".toml") as file:
            addresses = self.write_addresses(Path(file.name))
            return fetch(archive, out, addresses_from=addresses, per_second=1e6, **options)

    def write_addresses(self, path):
        """Write replacements of the packaged addresses to a file for --addresses."""
        path.write_text("".join(f'"{name}" = "{self.url(there)}"\n' for name, there in PATHS.items()))
        return path

    def rows(self, query):
        cursor = self._database.execute(query)
        return [one[0] for one in cursor.description or ()], cursor.fetchall()

    def sql(self, request):
        """Respond to x_sql.asp?cmd=...&format=csv like SkyServer's functions.inc."""
        query = request.params["cmd"]
        names, rows = self.rows(query)
        if not rows:
            return text("No objects have been found")
        # `float` columns have six decimals, `real` columns three, missing numbers are 0 (SkyServer's stringOf).
        exact = [name in ("ra", "dec") or bool(re.search(rf"AS float\)[^A-Z]* AS {name}\b", query)) for name in names]
        lines = [names]
        for row in rows:
            values = zip(row, exact, strict=True)
            lines.append(
                [f"{one:.{6 if fine else 3}f}" if isinstance(one, float) else str(one or 0) for one, fine in values]
            )
        return text("".join(f"{','.join(line)}\n" for line in lines))

    def tap(self, request):
        """Respond to TAP's /sync with a VOTable of the ADQL result."""
        return votable(*self.rows(request.params["QUERY"]), "OK")

    def _pointing(self, ra, dec):
        """Return the nearest pointing that contains a position."""
        pointings = pl.read_parquet(self.archive / "hubble" / "coverage.parquet")
        across = (pl.col("ra") - float(ra)) * math.cos(math.radians(float(dec)))
        distance = (across**2 + (pl.col("dec") - float(dec)) ** 2).sqrt() * 3600
        near = pointings.with_columns(distance=distance).filter(pl.col("distance") < pl.col("side") / 2)
        return near.sort("distance").row(0, named=True) if near.height else None

    def coverage(self, request):
        """Respond like MOCServer: ids of the mosaics whose coverage overlaps a circle."""
        assert {"get": "id", "ID": "CDS/P/HST*", "fmt": "json"}.items() <= request.params.items()
        assert request.params["intersect"] == "overlaps"
        assert 0 < float(request.params["SR"]) <= 0.5  # degrees
        found = self._pointing(request.params["RA"], request.params["DEC"])
        return text(json.dumps(["CDS/P/HST/V", "CDS/P/HST/color"] if found else []))

    def cutout(self, request):
        """Respond like hips2fits: the image of a galaxy, whatever its width; black outside of the images."""
        params = request.params
        assert (params["projection"], params["coordsys"], params["format"]) == ("TAN", "icrs", "jpg")
        assert params["width"] == params["height"]
        size = int(params["width"])
        found = self._pointing(params["ra"], params["dec"])
        pixels = np.zeros((size, size, 3), dtype=np.uint8)
        if found and found["image"]:
            with Image.open(self.archive / "hubble" / f"{found['objid']}.jpg") as image:
                pixels = np.asarray(image.resize((size, size)))
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90)
        return Answer(out.getvalue(), ranges=False)


def refusal(said):
    return text(f"ERROR\n\nSQL returned the following error message:\n{said}\nYour SQL command was:\nSELECT ...\n")


def votable(names, rows, status, said=""):
    frame = pl.DataFrame(rows, names, orient="row").cast({pl.Null: pl.Int64})
    tree = from_table(to_astropy(CatalogTable(frame)))
    tree.resources[0].type = "results"
    info = Info(name="QUERY_STATUS", value=status)
    info.content = said
    tree.resources[0].infos.append(info)
    out = io.BytesIO()
    tree.to_xml(out)
    return Answer(out.getvalue(), ranges=False)
