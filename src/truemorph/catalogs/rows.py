"""Which rows of a table become galaxies of a catalogue, with which label, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import rows_where
from truemorph.catalogs.columns import Mapped
from truemorph.catalogs.expressions import compute, read_expression
from truemorph.catalogs.funnel import NO_PSF, NO_RADIUS, NOT_SELECTED, Funnel
from truemorph.catalogs.mapping import Mapping
from truemorph.catalogs.roles import FRACTIONS, part_of_light
from truemorph.catalogs.votes import labels_from_votes
from truemorph.errors import InputError

_MOST = 1.01  # of a row's fractions together: published ones are rounded


def select_rows(named: pl.DataFrame, mapping: Mapping, where: Iterable[str], source: str, notes: list[str]) -> Funnel:
    """Apply the rules that were asked for, and then the mapping's cuts."""
    funnel = Funnel(named.height)
    funnel.drop(NOT_SELECTED, ~rows_where(named, where, source))
    for cut in mapping.cuts:
        about = f"{source}: cut {cut.name!r}"
        keep = compute(read_expression(cut.keep, about), named, about)
        if keep.dtype not in (pl.Boolean, pl.Null):
            raise InputError(f"{about}: keep = {cut.keep!r} gives {keep.dtype}, not true or false; write a comparison")
        lost = funnel.drop(cut.name, ~keep.fill_null(False).cast(pl.Boolean).to_numpy(), show=True)
        unknown = int((keep.is_null().to_numpy() & lost).sum())
        if unknown:
            notes.append(f"cut {cut.name!r}: {unknown} of the rows it drops lack a value that it needs")
    return funnel


def label_rows(funnel: Funnel, mapped: Mapped, ids: pl.Series, source: str, notes: list[str]) -> np.ndarray:
    """Drop rows without a label or a resolution; labels of rows that are left, -1 elsewhere."""
    fractions = {role: mapped.numbers(role) for role in FRACTIONS}
    selected = funnel.kept
    for role, values in fractions.items():
        bad = np.flatnonzero(selected & ((values < -1e-6) | (values > 1 + 1e-6)))
        if bad.size:
            raise InputError(
                f"{source}: column {mapped.sources[role]} holds vote fractions, between 0 and 1; {bad.size} rows do "
                f"not (first: row {bad[0] + 1}, {values[bad[0]]:g}); are they counts or percentages?"
            )
    known = np.stack([np.nan_to_num(values) for values in fractions.values()]).sum(axis=0)
    many = selected & (known > _MOST)
    if many.any():
        row = int(many.argmax())
        notes.append(
            f"{source}: fractions of {many.sum()} rows sum to more than 1 (first: row {row + 1}, {known[row]:.4g}); "
            "they should be of one question, unless they are debiased"
        )
    labels = np.full(selected.size, -1)
    reasons = np.full(selected.size, "", dtype="<U32")
    labels[selected], reasons[selected] = labels_from_votes(*(values[selected] for values in fractions.values()))
    for reason in np.unique(reasons[reasons != ""]):
        funnel.drop(str(reason), reasons == reason)
    for rule, role, option in ((NO_RADIUS, "radius", "--radius"), (NO_PSF, "psf_fwhm", "--psf-fwhm")):
        values = mapped.numbers(role)
        newly = funnel.drop(rule, ~positive(values))
        if newly.any():
            row = int(newly.argmax())
            column = mapped.sources[role] if isinstance(mapped.sources[role], str) else option
            notes.append(
                f"{source}: {newly.sum()} rows dropped, column {column} is missing, zero or negative "
                f"(first: row {row + 1}, id {ids[row]}, {values[row]:g}); mend them to keep them"
            )
    if not funnel.kept.any():
        lost_to = ", ".join(f"{rule}: {-n}" for rule, n in funnel.steps()[1:-1])
        raise InputError(f"{source}: no rows left ({lost_to})")
    return labels


def remarks(mapped: Mapped, kept: np.ndarray, notes: list[str]) -> None:
    """Say what is unusual in votes, widths and radii."""
    unknown = int((np.isnan(mapped.numbers("disk_fraction")) & kept).sum())
    if unknown:
        notes.append(
            f"{unknown} rows lack the features-or-disk fraction: labelled smooth above 0.5; "
            "the star-or-artefact rule needs it"
        )
    elif "artefact_fraction" not in mapped.sources:
        notes.append("no star-or-artefact fraction in this table: none dropped as such")
    if np.ptp(mapped.numbers("psf_fwhm")[kept]) == 0:
        notes.append("one PSF width for all galaxies: alpha is then only a size in other units")
    part = part_of_light(str(mapped.sources["radius"]))
    if part:
        notes.append(
            f"alpha is made from {mapped.sources['radius']}, the radius of {part} % of the light, not the Petrosian "
            "radius; theta is in its units and can't be compared with the paper's"
        )


def label_rule(mapped: Mapped, kept: np.ndarray) -> str:
    """Phrase how labels were made of the votes."""
    disk = mapped.numbers("disk_fraction")[kept]
    rules = []
    if not np.isnan(disk).all():
        rules.append("the larger of smooth_fraction and disk_fraction")
    if np.isnan(disk).any():
        where = " where disk_fraction is missing" if rules else ""
        rules.append(f"smooth if smooth_fraction is above 0.5{where}")
    ties = "ties left out" + (
        ", and where artefact_fraction is the largest" if "artefact_fraction" in mapped.sources else ""
    )
    return "; ".join([*rules, ties])


def positive(values: np.ndarray) -> np.ndarray:
    """Which values are finite and above zero."""
    return np.isfinite(values) & (values > 0)
