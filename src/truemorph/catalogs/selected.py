"""Select rows and columns of a prepared catalogue for an estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import gold_classes, rows_where
from truemorph.catalogs.columns import ADDED, FRACTIONS, VOTES
from truemorph.catalogs.physical import ALPHA_IS_SIZE
from truemorph.catalogs.sampling import UNUSED
from truemorph.errors import InputError
from truemorph.findings import Finding, collect_findings, unique
from truemorph.missing import SENTINELS, without
from truemorph.tables import CatalogTable, numeric_columns

_SURVEY_COLUMNS, _MOST_SURVEYS = ("survey", "source"), 12
AS_LABELLED = "disk: as in the labels"


@dataclass(frozen=True)
class SelectedRows:
    """Columns of the selected galaxies, with one row per galaxy.

    Attributes
    ----------
    labels, alpha : array, shape (N,)
    weights : array, shape (N,), or None
        Sampling weights, if the galaxies are a sample balanced by label.
    intrinsic : array, shape (N, P), or None
    observables : array, shape (N, J), or None
    gold_probability : array, shape (N,), or None
        Probability of selection for a gold label, where the catalogue has it.
    gold_uncertain : array, shape (N,), or None
        1 where people could not tell the class or did not agree.
    gold : array of int, shape (N,), or None
        Gold labels to use; -1 if unknown.
    known : array, shape (N,), or None
        The catalogue's own column `gold`; NaN if unknown.
    by : array, shape (N,), or None
    columns : dict of str to array, shape (N,)
        Other numeric columns, to test whether galaxies with gold labels are representative; empty without gold labels.
    groups : (str, array of shape (N,)), or None
        Name and values of the column with the survey of each galaxy, if there is one.
    about : dict
        Definitions of α, labels and gold labels, and conditions on rows.
    findings : tuple of Finding
    """

    labels: np.ndarray
    alpha: np.ndarray
    weights: np.ndarray | None
    intrinsic: np.ndarray | None
    observables: np.ndarray | None
    gold: np.ndarray | None
    gold_probability: np.ndarray | None
    gold_uncertain: np.ndarray | None
    known: np.ndarray | None
    by: np.ndarray | None
    columns: dict[str, np.ndarray]
    groups: tuple[str, np.ndarray] | None
    about: dict[str, Any]
    findings: tuple[Finding, ...]

    def for_study(self) -> dict[str, Any]:
        """Return all fields except labels and α as keyword arguments of `study_transition`."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("labels", "alpha")}


def select_rows(
    catalogue: CatalogTable,
    where: Iterable[str] = (),
    intrinsic: Sequence[str] = (),
    gold: str | None = None,
    by: str | None = None,
    observables: Sequence[str] = (),
    weights: Literal["balance", "none"] = "balance",
) -> SelectedRows:
    """Select the galaxies of the sample that meet all conditions and have values in all named columns.

    Galaxies with split "unused" are not in the sample; they are selected only by a condition on `split`.

    Parameters
    ----------
    catalogue : CatalogTable
        Catalogue from `read_catalogue`.
    where : iterable of str
        Conditions on rows; see `rows_where`.
    intrinsic : sequence of str
        Intrinsic columns.
    gold : str, optional
        Gold labels: a column, or a rule such as "t_type>=-3" (see `gold_classes`).
    by : str, optional
        Another column.
    observables : sequence of str
        Columns on which the flip probability depends in addition to α.
    weights : {"balance", "none"}
        Whether to use the catalogue's sampling weights, which undo a selection by label.

    Raises
    ------
    InputError
        If no galaxy is left, or a column is missing.
    """
    with collect_findings() as sentinels:
        rows = _selected(catalogue, list(where), intrinsic, gold, by, observables)
    rows = replace(rows, findings=unique(sentinels, rows.findings))
    return replace(rows, weights=None) if weights == "none" else rows


def _selected(
    catalogue: CatalogTable,
    conditions: list[str],
    intrinsic: Sequence[str],
    gold: str | None,
    by: str | None,
    observables: Sequence[str],
) -> SelectedRows:
    source = str(catalogue.path or "catalogue")
    frame = catalogue.frame.filter(pl.Series(rows_where(catalogue.frame, conditions, source)))
    if frame.height == 0:
        raise InputError(f"{source}: no galaxy meets {' and '.join(conditions)}")
    findings = []
    unused = frame["split"] == UNUSED
    if unused.any() and not any("split" in one for one in conditions):
        findings.append(
            Finding(
                "galaxies-not-in-sample",
                "note",
                f"{unused.sum():,} of {frame.height:,} galaxies are not in the sample (split {UNUSED}); not used here.",
            )
        )
        frame = frame.filter(~unused)
    if wanted := [*intrinsic, *([by] if by else []), *observables]:
        values = np.isfinite(numeric_columns(frame, wanted, source))
        if not values.all(axis=1).any():
            raise InputError(f"{source}: no galaxy has a value in all of {', '.join(wanted)}")
        if not values.all():
            missing = {name: int((~column).sum()) for name, column in zip(wanted, values.T, strict=True)}
            named = ", ".join(f"{name} in {count:,}" for name, count in missing.items() if count)
            findings.append(
                Finding(
                    "rows-left-out",
                    "note",
                    f"{int((~values.all(axis=1)).sum()):,} of {frame.height:,} galaxies were left out because a value "
                    f"is missing ({named}).",
                )
            )
            frame = frame.filter(pl.Series(values.all(axis=1)))
    about = {
        "definition": AS_LABELLED,
        "alpha": catalogue.metadata.get("alpha"),
        "alpha_psf": catalogue.metadata.get("alpha_psf"),
        "where": conditions,
        **({"observables": list(observables)} if observables else {}),
    }
    classes, known = None, None
    if gold is not None:
        classes, about["definition"] = gold_classes(frame, gold, source)
        if gold == "gold" and catalogue.metadata.get("gold_definition"):
            about["definition"] = str(catalogue.metadata["gold_definition"])
        if gold == "gold":
            findings += from_same_images(catalogue.metadata)
            if catalogue.metadata.get("gold_experts"):
                about["gold_experts"] = catalogue.metadata["gold_experts"]
    if "gold" in frame.columns:
        known = frame["gold"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        about["gold_definition"] = str(catalogue.metadata.get("gold_definition", "not stated"))
        if gold is None and np.isfinite(known).any():
            findings.append(
                Finding(
                    "gold-unused",
                    "caution",
                    f"The catalogue has gold labels for {int(np.isfinite(known).sum()):,} galaxies; this estimate does "
                    "not use them.",
                    'Estimate T(α) with them (`gold`="gold").',
                )
            )
    if "psf_fwhm" in frame.columns and frame["psf_fwhm"].n_unique() == 1 and frame["psf_fwhm"].null_count() == 0:
        findings.append(ALPHA_IS_SIZE)
    return SelectedRows(
        labels=frame["label"].to_numpy(),
        alpha=frame["alpha"].to_numpy(),
        weights=_weights(frame),
        intrinsic=numeric_columns(frame, intrinsic, source) if intrinsic else None,
        observables=numeric_columns(frame, observables, source) if observables else None,
        gold=classes,
        gold_probability=_planned(frame, gold, "gold_probability", 0.0),
        gold_uncertain=_planned(frame, gold, "gold_uncertain", 0.0),
        known=known,
        by=numeric_columns(frame, [by], source)[:, 0] if by else None,
        columns={} if classes is None else _other_numbers(frame, {*intrinsic, *observables, *([by] if by else [])}),
        groups=_groups(frame),
        about=about,
        findings=tuple(findings),
    )


def from_same_images(metadata: Mapping[str, Any]) -> list[Finding]:
    """Warn of gold labels that people made from the images that volunteers saw, if the catalogue's are such."""
    count = metadata.get("gold_from_same_images")
    if not count:
        return []
    return [
        Finding(
            "gold-from-same-images",
            "caution",
            f"{count:,} gold labels come from the images that volunteers saw, so experts miss some of the same disks. "
            "In trials with 20 or 40 % of the flips shared, the range held the truth in 83 or 48 % of cases.",
            "Label better images, or measure the experts' own bias with degraded copies (docs/gold.md).",
        )
    ]


def _planned(frame: pl.DataFrame, gold: str | None, name: str, missing: float) -> np.ndarray | None:
    """Return a column that `truemorph gold import` wrote beside `gold`, if these gold labels are used."""
    if gold != "gold" or name not in frame.columns:
        return None
    return frame[name].cast(pl.Float64).fill_null(missing).to_numpy()


def _weights(frame: pl.DataFrame) -> np.ndarray | None:
    """Return sampling weights, if these rows are a sample balanced by label."""
    if "sampling_weight" not in frame.columns or (frame["split"] == UNUSED).any():
        return None
    weights = frame["sampling_weight"].to_numpy()
    return None if np.ptp(weights) == 0 else weights


def _other_numbers(frame: pl.DataFrame, named: set[str]) -> dict[str, np.ndarray]:
    """Return numeric columns that are neither named nor made from the labels."""
    made = {"object_id", "label", *FRACTIONS, *VOTES, "vote_count", *ADDED, *named}
    numbers = [name for name, kind in frame.schema.items() if kind.is_numeric() and name not in made]
    return {name: without(frame[name], SENTINELS).cast(pl.Float64).fill_null(np.nan).to_numpy() for name in numbers}


def _groups(frame: pl.DataFrame) -> tuple[str, np.ndarray] | None:
    """Return the survey of each galaxy, if a column has it and there are only a few."""
    for name in _SURVEY_COLUMNS:
        if name in frame.columns and 2 <= frame[name].n_unique() <= _MOST_SURVEYS:
            return name, frame[name].cast(pl.String).fill_null("").to_numpy()
    return None
