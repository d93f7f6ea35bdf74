"""A simulated sky as archives publish it: the files and tables of `truemorph fetch`, with the truth kept beside.

Column names, formats and file names are those of the real ones: Galaxy Zoo 2 (Willett et al. 2013, Hart et al. 2016;
the first question only, the real tables have eleven), SDSS DR7, Simard et al. (2011) at VizieR, HST images. So are
their faults: galaxies that one archive has and another has not, galaxies without redshift, values that were never
measured, the same galaxy in several fields, images without a table row and rows without an image. As Zenodo's record
says of its own, the zip holds the original sample's images; rows of Stripe 82's coadds have ids of another catalogue.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import simplejpeg

from truemorph.bias.transitions import RayleighTransition, Transition
from truemorph.errors import InputError
from truemorph.simulate.galaxies import simulate_galaxies
from truemorph.simulate.hubble import write_hubble
from truemorph.simulate.observe import FIELD_R90, GZ2_SIZE, render
from truemorph.simulate.sdss import SdssTables, sdss_tables
from truemorph.simulate.structure import simard_tables
from truemorph.simulate.zoo import zoo_tables

TRUE_THETA = 11.25
_SMALLEST = 60
# Shares of the galaxies; at least one each.
_UNKNOWN, _NO_REDSHIFT, _UNMEASURED, _NOT_FITTED = 0.02, 0.04, 0.02, 0.06
_EXTRA, _COADDED, _NO_IMAGE = 0.10, 0.04, 0.02
_ORIGINAL = "original"
# Ids of Stripe 82's coadd begin like this one; DR7's tables of single images don't have them.
_COADD_ID = 8647474690000000000


def write_archive(
    folder: Path,
    galaxies: int = 2000,
    seed: int = 0,
    *,
    size: int = GZ2_SIZE,
    hst: float = 0.2,
    confounded: bool = True,
    transition: Transition | None = None,
) -> Path:
    """Write a simulated archive.

    Parameters
    ----------
    folder : Path
        Made if it isn't there. `files` gets what is downloaded whole, `skyserver` and `vizier` tables to be asked,
        `hubble` images with their coverage; `truth.parquet`, never served, a row a galaxy.
    galaxies : int
        At least 60.
    seed : int
        The same seed writes the same archive.
    size : int
        Pixels on a side of a Galaxy Zoo 2 image; the real ones have 424.
    hst : float
        Share of galaxies that HST has seen, 0 to 1.
    confounded : bool
        As for `simulate_galaxies`.
    transition : Transition, optional
        How labels flip with α; default Rayleigh with θ = 11.25.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    InputError
        If there are too few galaxies, or a share is not one.

    Notes
    -----
    Petrosian radius, redshift and magnitude of a galaxy agree with its `radius_kpc` and `M_r` in WMAP9, extinction and
    a K correction included: petroMag_r = M_r + distance modulus + `k_correction` + extinction_r. α of the truth is
    petroRad_r over σ of the PSF in the galaxy's own field.
    """
    if galaxies < _SMALLEST:
        raise InputError(f"a simulated archive has at least {_SMALLEST} galaxies; got {galaxies}")
    if not 0 <= hst <= 1:
        raise InputError(f"hst is a share, 0 to 1; got {hst}")
    rng = np.random.default_rng([seed, 11])
    population = simulate_galaxies(galaxies, seed, confounded=confounded)
    known, with_redshift, measured, fitted = (
        ~_some(rng, galaxies, share) for share in (_UNKNOWN, _NO_REDSHIFT, _UNMEASURED, _NOT_FITTED)
    )
    sdss = sdss_tables(population, rng, known=known, with_redshift=with_redshift, measured=measured)
    population = population.with_columns(object_id=sdss.object_ids, ra=sdss.ra, dec=sdss.dec)
    zoo = zoo_tables(population, transition or RayleighTransition(TRUE_THETA), seed)
    mapping = _mapping(rng, population["object_id"])
    seen = rng.random(galaxies) < hst

    for name in ("files", "skyserver", "vizier", "hubble"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write_tables(folder, sdss, simard_tables(population, rng, fitted=fitted, with_redshift=with_redshift))
    files = folder / "files"
    _whole(files / "zoo2MainSpecz.csv.gz", lambda path: path.write_bytes(_gzipped(zoo.willett)))
    _whole(files / "gz2_hart16.csv.gz", lambda path: path.write_bytes(_gzipped(zoo.hart)))
    _whole(files / "gz2_filename_mapping.csv", mapping.drop("imaged").write_csv)
    _whole(files / "images_gz2.zip", lambda path: _write_images(path, population, mapping, size, seed))
    _write_record(files)
    hubble = write_hubble(folder / "hubble", population, seen, rng, seed)
    truth = population.with_columns(
        objid=pl.col("object_id"),
        k_correction=pl.col("redshift"),
        label=zoo.labels,
        in_sdss=pl.Series(known),
        has_redshift=pl.Series(with_redshift & known),
        measured=pl.Series(measured),
        in_simard=pl.Series(fitted),
        hst=hubble,
        psf_best=sdss.best_psf,
        n_fields=sdss.n_fields,
    )
    _whole(folder / "truth.parquet", truth.write_parquet)
    return folder


def _some(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Choose that share of n, at least one, shape (n,)."""
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.permutation(n)[: max(1, round(share * n))]] = True
    return chosen


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _gzipped(table: pl.DataFrame) -> bytes:
    return gzip.compress(table.write_csv().encode(), mtime=0)  # no date: the same seed, the same bytes


def _write_tables(folder: Path, sdss: SdssTables, simard: dict[str, pl.DataFrame]) -> None:
    for name, table in sdss.tables.items():
        _whole(folder / "skyserver" / f"{name}.parquet", table.write_parquet)
    for name, table in simard.items():
        _whole(folder / "vizier" / f"{name}.parquet", table.write_parquet)


def _mapping(rng: np.random.Generator, object_ids: pl.Series) -> pl.DataFrame:
    """Which image is whose: objid, sample, asset_id, and whether the zip has it.

    Some galaxies are in two samples; in that of the coadd by an id of its own.
    """
    n = object_ids.len()
    sample = np.where(rng.random(n) < _EXTRA, "extra", _ORIGINAL)
    again = np.flatnonzero(_some(rng, n, _COADDED))
    rows = np.concatenate([np.arange(n), again])
    numbers = 58 + np.cumsum(rng.integers(1, 4, rows.size))
    samples = np.concatenate([sample, np.full(again.size, "stripe82_coadd_1")])
    coadded = pl.Series(_COADD_ID + 65537 * again.astype(np.int64))
    table = pl.DataFrame(
        {
            "objid": pl.concat([object_ids, coadded.alias("object_id")]),
            "sample": samples,
            "asset_id": rng.permutation(numbers),
            "imaged": (samples == _ORIGINAL) & ~np.concatenate([_some(rng, n, _NO_IMAGE), np.zeros(again.size, bool)]),
        }
    )
    return table.sort("asset_id")


def _write_images(path: Path, population: pl.DataFrame, mapping: pl.DataFrame, size: int, seed: int) -> None:
    """Write the zip, as it is at Zenodo: images/<asset_id>.jpg, and what a Mac adds to a zip."""
    imaged = mapping.filter("imaged").select(object_id="objid", asset_id="asset_id")
    drawn = population.join(imaged, on="object_id", maintain_order="left")
    when = (2019, 12, 6, 0, 0, 0)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("images/", when), b"")
        for row, image in render(drawn, size, seed, field=FIELD_R90):
            data = simplejpeg.encode_jpeg(image, quality=75, colorspace="RGB", colorsubsampling="420")
            name = f"{drawn['asset_id'][row]}.jpg"
            archive.writestr(zipfile.ZipInfo(f"images/{name}", when), data)
        # What a Mac adds, and an image that the mapping doesn't name.
        archive.writestr(zipfile.ZipInfo(f"__MACOSX/images/._{name}", when), b"\0\5\26\7")
        archive.writestr(zipfile.ZipInfo("images/1.jpg", when), data)


def _write_record(files: Path) -> None:
    """Write what Zenodo's API says of its files; links are completed by whoever serves them."""
    entries = []
    for name in ("images_gz2.zip", "gz2_filename_mapping.csv"):
        with open(files / name, "rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        entries.append(
            {
                "key": name,
                "size": (files / name).stat().st_size,
                "checksum": f"md5:{digest}",
                "links": {"self": f"/records/3565489/files/{name}/content"},
            }
        )
    metadata = {"license": {"id": "cc-by-4.0"}}
    record = {"id": 3565489, "doi": "10.5281/zenodo.3565489", "metadata": metadata, "files": entries}
    _whole(files / "zenodo_record.json", lambda path: path.write_text(json.dumps(record, indent=1)))
