"""HATS catalogues: Parquet files by HEALPix pixel, in nested order (https://hats.readthedocs.io)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truemorph._version import __version__
from truemorph.errors import InputError
from truemorph.io import write_file, written_folder
from truemorph.tables import read_columns

HEALPIX = "_healpix_29"  # the spatial index of HATS
NO_POSITION = "no position on the sky"  # why a galaxy has no pixel
_ORDER = 29  # of `_healpix_29`
_FINEST = 8  # smallest partitions, 0.05 square degrees
MOST_ROWS = 1_000_000  # of a partition, unless it is one of the smallest
_DIR = 10_000  # pixels in a folder
# Path of a partition.
PARTITION = re.compile(r"(?P<folder>.*?)Norder=(?P<order>\d+)/(?:Dir=\d+/)?Npix=(?P<pixel>\d+)(?:\.parquet$|/)")
_PROPERTIES = "hats.properties"


def properties_of(path: Path) -> dict[str, str]:
    """Return what a file of properties says of a catalogue, by key; nothing if there is no such file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def check_partitions(root: Path, names: Sequence[str], rows: int) -> None:
    """Raise an InputError if files are partitions of HATS, but not all of one catalogue, with all rows."""
    matched = [match for match in map(PARTITION.match, names) if match]
    if not matched:
        return
    folders = sorted({match["folder"] for match in matched})
    if len(folders) > 1:
        raise InputError(f"{root}: holds several HATS catalogues ({', '.join(folders[:3])}); give the folder of one")
    place = (root / folders[0]).resolve()
    place = place.parent if place.name == "dataset" else place
    info, kinds = place / "partition_info.csv", {"Norder": pl.Int64, "Npix": pl.Int64}
    pixels = {(int(match["order"]), int(match["pixel"])) for match in matched}
    listed = {*read_columns(info, kinds).rows()} if info.is_file() else set()
    if listed and listed != pixels:
        order, pixel = min(listed ^ pixels)
        what = "is not in partition_info.csv" if (order, pixel) in pixels else "is missing"
        raise InputError(f"{place}: the partition Norder={order}, Npix={pixel} {what}; copy the catalogue again")
    whole = properties_of(place / _PROPERTIES).get("hats_nrows", "")
    if whole.isdigit() and int(whole) != rows:
        raise InputError(f"{place}: has {rows:,} rows, but {_PROPERTIES} says {int(whole):,}; copy it again")


def check_replaceable(out: Path) -> None:
    """Raise an InputError unless a folder is absent, empty, or a HATS catalogue that truemorph wrote."""
    own = properties_of(out / _PROPERTIES).get("hats_builder", "").startswith("truemorph")
    if out.exists() and not own and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists, and is no HATS catalogue of labels by truemorph; choose another `out`")


def write_hats(parts: list[Path], out: Path, schema: pa.Schema, positions: tuple[str, str]) -> None:
    """Write a HATS catalogue of the rows of Parquet files, whole or not at all; it replaces an earlier one of ours.

    `positions` are its columns of right ascension and declination. Memory is that of one partition.
    """
    check_replaceable(out)
    counts, of_pixel = np.zeros(12 * 4**_FINEST, int), defaultdict[int, list[Path]](list)
    for path in parts:
        pixels, rows = np.unique(_indexed(path, positions)[1] >> 2 * (_ORDER - _FINEST), return_counts=True)
        counts[pixels] += rows
        for pixel in pixels:
            of_pixel[int(pixel)].append(path)
    own = pa.schema(
        [pa.field(HEALPIX, pa.int64()), *(field for field in schema if field.name != HEALPIX)], schema.metadata
    )
    written: list[pq.FileMetaData] = []
    partitions = [*_partitions(counts)]
    with written_folder(out) as partial:
        new = partial / "new"
        for order, pixel in partitions:
            first, last = (number << 2 * (_FINEST - order) for number in (pixel, pixel + 1))
            tables = []
            for path in dict.fromkeys(file for fine in range(first, last) for file in of_pixel.get(fine, ())):
                table, index = _indexed(path, positions)
                inside = pa.array(index >> 2 * (_ORDER - order) == pixel)
                tables.append(table.filter(inside).select(own.names).cast(own))
            table = pa.concat_tables(tables).sort_by(HEALPIX)
            name = f"Norder={order}/Dir={pixel // _DIR * _DIR}/Npix={pixel}.parquet"
            place = new / "dataset" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, place, metadata_collector=written)
            written[-1].set_file_path(name)
        pq.write_metadata(own, new / "dataset" / "_metadata", written)
        pq.write_metadata(own, new / "dataset" / "_common_metadata")
        lines = ["Norder,Npix", *(f"{order},{pixel}" for order, pixel in partitions)]
        write_file(new / "partition_info.csv", "\n".join(lines) + "\n")
        properties = {
            "obs_collection": out.name,
            "dataproduct_type": "object",
            "hats_nrows": int(counts.sum()),
            "hats_col_ra": positions[0],
            "hats_col_dec": positions[1],
            "hats_col_healpix": HEALPIX,
            "hats_col_healpix_order": _ORDER,
            "hats_max_rows": MOST_ROWS,
            "hats_order": max(order for order, _ in partitions),
            "hats_version": "v1.0",
            "hats_builder": f"truemorph {__version__}",
        }
        for name in (_PROPERTIES, "properties"):  # the second for older readers
            write_file(new / name, "".join(f"{key}={value}\n" for key, value in properties.items()))
        if out.exists():
            out.rename(partial / "replaced")
        new.rename(out)


def _indexed(path: Path, positions: tuple[str, str]) -> tuple[pa.Table, np.ndarray]:
    """Read a part with the column `_healpix_29`, computed from positions."""
    from astropy import units  # takes half a second, with the next
    from astropy_healpix import lonlat_to_healpix

    table = pq.read_table(path, partitioning=None)
    ra, dec = (pc.cast(table[name], pa.float64()).to_numpy() * units.deg for name in positions)
    index = lonlat_to_healpix(ra, dec, 2**_ORDER, order="nested")
    others = [name for name in table.column_names if name != HEALPIX]
    return table.select(others).append_column(HEALPIX, pa.array(index)), index


def _partitions(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return order and pixel of each partition: the largest with at most `MOST_ROWS` rows."""
    finer = [counts]
    while finer[0].size > 12:
        finer.insert(0, finer[0].reshape(-1, 4).sum(axis=1))
    open_pixels = np.flatnonzero(finer[0])
    for order, rows in enumerate(finer):
        whole = (rows[open_pixels] <= MOST_ROWS) | (order == _FINEST)
        yield from ((order, int(pixel)) for pixel in open_pixels[whole])
        children = (4 * open_pixels[~whole][:, None] + np.arange(4)).ravel()
        open_pixels = children[finer[order + 1][children] > 0] if children.size else children
