"""Distributions of a report (Figure 3): columns among smooth, disk and relabelled galaxies."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import image_folder
from truemorph.catalogs.physical import FWHM_PER_SIGMA
from truemorph.errors import InputError
from truemorph.explain.catalogue import RADIUS, with_geometry
from truemorph.findings import Finding
from truemorph.report.distributions import compare_distributions, cumulative_figure
from truemorph.report.evidence import Evidence
from truemorph.report.gathering import Gathered
from truemorph.report.illustrate import styles_for
from truemorph.report.options import ReportOptions
from truemorph.report.page import Illustration
from truemorph.tables import numeric_columns

SERSIC = "sersic_n"
_RESAMPLES = 300
# Galaxies without which a distribution says nothing.
_FEWEST = 10
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def distributions(found: Gathered, options: ReportOptions) -> tuple[list[Illustration], list[Finding]]:
    """Columns among smooth, disk and relabelled galaxies: those asked for, the Sérsic index where there is one."""
    frame, findings, every = found.evidence.frame, [], []
    for name in options.distributions or ([SERSIC] if SERSIC in frame.columns and not options.sersic else []):
        try:
            values = numeric_columns(frame, [name], str(found.path))[:, 0]
            every.append(_distribution(found.evidence, values, name, name, options))
        except InputError as problem:
            if options.distributions:
                raise
            findings.append(
                Finding("column-not-compared", "note", f"Column {name} was not compared between classes: {problem}.")
            )
    if options.sersic:
        values, measured = _measured_sersic(found, options)
        if np.isfinite(values).sum() >= _FEWEST:
            every.append(_distribution(found.evidence, values, SERSIC, "sersic_measured", options))
        findings.append(measured)
    return every, findings


def _distribution(
    evidence: Evidence, values: np.ndarray, column: str, name: str, options: ReportOptions
) -> Illustration:
    sets = {one.name: one.disk for one in evidence.sets if one.kind not in ("crowd", "probabilities")}
    boundary = options.boundary if name == SERSIC else None  # not of indices from pictures, which are too small
    said_column = "Sérsic index" if column == SERSIC else column
    compared = compare_distributions(
        values, evidence.crowd.disk, sets or {"labels": evidence.crowd.disk}, column=column, boundary=boundary,
        bootstrap=_RESAMPLES, seed=options.seed,
    )  # fmt: skip
    said = []
    for row in compared.table().iter_rows(named=True):
        if row["panel"] in ("smooth", "to_disk") and row["ks"] is not None:
            where = "smooth" if row["panel"] == "smooth" else "smooth to disk, beside the crowd's disks"
            said.append(
                f"{row['labels']} ({where}) {row['ks']:.2f} ± {row['ks_stderr']:.2f} (chance {row['ks_floor']:.2f})"
            )
    dropped = f" {compared.n_dropped:,} galaxies without a value are left out." if compared.n_dropped else ""
    more = f" Dotted: {boundary:g}, above which galaxies are mostly smooth." if boundary is not None else ""
    return Illustration(
        f"distribution_{_NO_NAME.sub('_', name)}",
        cumulative_figure(compared, styles_for(evidence)),
        f"Relative cumulative curves of {said_column} for smooth, relabelled and disk galaxies by label set.",
        f"{said_column} among galaxies labelled smooth, changed, and labelled disk (paper, Figure 3). Largest distance "
        f"from the crowd's curve (Kolmogorov-Smirnov): {'; '.join(said) or 'none'}.{more}{dropped}",
        compared.curves().join(compared.table(), on=["panel", "labels"], how="left", maintain_order="left"),
    )


def _measured_sersic(found: Gathered, options: ReportOptions) -> tuple[np.ndarray, Finding]:
    """Sérsic indices of some galaxies, measured on their pictures; NaN for the others."""
    from truemorph.images.sersic import GOOD, measure_sersic

    frame = found.evidence.frame.with_row_index("_row")
    if "image" not in frame.columns or not frame["image"].count():
        raise InputError(f"{found.path}: has no images to measure Sérsic indices on; prepare it with `images`")
    some = frame.filter(pl.col("image").is_not_null())
    if some.height > options.sersic:
        some = some.sample(options.sersic, seed=options.seed)
    root = image_folder(found.catalogue)
    paths = [root / one for one in some["image"]]
    sigma = None
    if options.field is not None:
        sized, _ = with_geometry(some, str(found.path), None, "psf_fwhm", options.field)
        sigma = _sigma_in_pixels(paths, sized[RADIUS].to_numpy())
    measured = measure_sersic(paths, sigma)
    good = (measured["flag"] == GOOD).to_numpy()
    values = np.full(frame.height, np.nan)
    values[some["_row"].to_numpy()[good]] = measured["sersic_n"].to_numpy()[good]
    text = (
        f"Sérsic indices were measured here on the pictures of {some.height:,} galaxies, {int(good.sum()):,} of them "
        + "well"
        + ("" if sigma is not None else ", without the PSF (`field` gives its width in pixels)")
        + ". The stretch of survey JPEGs cannot be undone exactly: on Galaxy Zoo's, n comes out at about half of it."
    )
    return values, Finding(
        "sersic-from-images",
        "caution",
        text,
        "Compare the curves with each other, not with n = 3; or use a catalogue of n.",
    )


def _sigma_in_pixels(paths: Sequence[Any], share: np.ndarray) -> np.ndarray:
    """σ of the PSF in pixels of each file, from its FWHM in sides of the file; 0 where unknown."""
    from truemorph.images.decode import decode, read_image_file

    out = np.zeros(len(paths))
    for number, (path, width) in enumerate(zip(paths, share, strict=True)):
        if np.isfinite(width):
            try:
                out[number] = width * min(decode(read_image_file(path), str(path)).shape[:2]) / FWHM_PER_SIGMA
            except InputError as problem:
                warnings.warn(str(problem), stacklevel=2)
    return out
