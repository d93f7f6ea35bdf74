"""Select and label the rows of a table, with the reason for each dropped row.

Labels follow Medina-Rosales et al. (arXiv:2308.11007), sections 2.2 and 2.5. Section 2.2 states the rule with the
classes exchanged; here a majority of "smooth" votes means smooth.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import as_ids, condition, object_ids, rows_where
from truemorph.catalogs.columns import FRACTIONS, percent_of_light, which_rows
from truemorph.catalogs.mapped import Mapped
from truemorph.catalogs.mapping import Mapping
from truemorph.catalogs.physical import ALPHA_IS_SIZE, resolution
from truemorph.errors import InputError
from truemorph.findings import Finding

ROWS_IN, ROWS_OUT = "rows in", "rows out"
NOT_SELECTED, NO_LABEL = "not selected (where)", "no label"
NO_VOTES, TIED, ARTEFACT = "no vote fractions", "smooth and disk tied", "majority star or artefact"
NEITHER = "neither smooth nor disk has votes"
NO_RADIUS, NO_PSF = "no positive radius", "no positive PSF width"
IMPLAUSIBLE = "alpha above 10,000"
_LARGEST_ALPHA = 1e4
_LARGEST_SUM = 1.01  # maximum sum of a row's fractions; published fractions are rounded
# Range of the median α of surveys in which galaxies can be classified by eye.
_USUAL_ALPHA = (2.0, 100.0)


class Funnel:
    """Rows that are kept, and the reason for each dropped row.

    A row is counted under the first rule that drops it.

    Parameters
    ----------
    ids : polars.Series, shape (N,)

    Examples
    --------
    >>> funnel = Funnel(pl.Series([7, 8, 9, 10]))
    >>> funnel.drop("too faint", np.array([True, False, False, False]))
    array([ True, False, False, False])
    >>> funnel.drop("no radius", np.array([True, True, False, False]))
    array([False,  True, False, False])
    >>> funnel.steps()
    [('rows in', 4), ('too faint', -1), ('no radius', -1), ('rows out', 2)]
    """

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids
        self._rules: dict[str, bool] = {}
        self._reason = np.full(len(ids), -1)

    @property
    def kept(self) -> np.ndarray:
        """Rows that no rule has dropped, shape (N,) of bool."""
        return self._reason < 0

    def drop(self, rule: str, broken: np.ndarray, *, always: bool = False) -> np.ndarray:
        """Drop rows that break a rule.

        Parameters
        ----------
        rule : str
        broken : array of bool, shape (N,)
        always : bool
            List the rule even if it drops no rows.

        Returns
        -------
        array of bool, shape (N,)
            Rows that were not dropped before.
        """
        newly = broken & self.kept
        self._rules.setdefault(rule, always)
        self._reason[newly] = list(self._rules).index(rule)
        return newly

    def steps(self) -> list[tuple[str, int]]:
        """Return rows in, rows dropped by each rule in order, and rows out."""
        lost = np.bincount(self._reason[self._reason >= 0], minlength=len(self._rules))
        losses = [(rule, -int(n)) for (rule, always), n in zip(self._rules.items(), lost, strict=True) if n or always]
        return [(ROWS_IN, self._reason.size), *losses, (ROWS_OUT, int(self.kept.sum()))]

    def account(self) -> str:
        """Return the steps as one line of text."""
        return ", ".join(f"{rule}: {n:,d}" for rule, n in self.steps())

    def dropped(self) -> pl.DataFrame:
        """List the dropped rows: `row` (from 1), `object_id`, `reason`."""
        gone, rules = np.flatnonzero(~self.kept), list(self._rules)
        reasons = pl.Series([rules[one] for one in self._reason[gone]], dtype=pl.String)
        return pl.DataFrame({"row": gone + 1, "object_id": self.ids.filter(~self.kept), "reason": reasons})


def choose_rows(
    named: pl.DataFrame, mapped: Mapped, mapping: Mapping, where: Iterable[str], table_name: str
) -> tuple[Funnel, np.ndarray, list[Finding]]:
    """Select rows by the user's conditions, the mapping's cuts, and a valid label and resolution.

    Parameters
    ----------
    named : polars.DataFrame, N rows
        The table's columns and truemorph's, with alpha.
    mapped : Mapped
    mapping : Mapping
    where : iterable of str
        Conditions; see `rows_where`.
    table_name : str
        Name of the table in messages.

    Returns
    -------
    funnel : Funnel
    labels : array of int, shape (N,)
        -1 for dropped rows.
    findings : list of Finding

    Raises
    ------
    InputError
        If a rule can't be computed, ids of selected rows are missing or repeated, vote fractions are not between 0 and
        1, or no row is left.
    """
    findings: list[Finding] = []
    funnel = Funnel(as_ids(mapped.frame["object_id"].alias(str(mapped.sources["object_id"])), table_name))
    funnel.drop(NOT_SELECTED, ~rows_where(named, where, table_name))
    for cut in mapping.cuts:
        keep = condition(cut.keep, named, f"{table_name}: cut {cut.name!r}")
        lost = funnel.drop(cut.name, ~keep.fill_null(False).to_numpy(), always=True)
        unknown = int((keep.is_null().to_numpy() & lost).sum())
        if unknown:
            findings.append(
                Finding(
                    "rule-without-value",
                    "note",
                    f"{unknown:,d} of the rows dropped by the rule {cut.name!r} lack a value that it needs.",
                )
            )
    # Ids are not checked in rows that are not selected.
    object_ids(funnel.ids.filter(funnel.kept), table_name, np.flatnonzero(funnel.kept))
    if "label" in mapped.frame.columns:
        labels = mapped.frame["label"].fill_null(-1).to_numpy()
        funnel.drop(NO_LABEL, labels < 0)
    else:
        labels, more = _labels_from_votes(funnel, mapped, table_name)
        findings += more
    dropped = []
    for rule, name in ((NO_RADIUS, "radius"), (NO_PSF, "psf_fwhm")):
        source = mapped.sources[name] if name in mapped.found else name
        why = f"{source} is missing, zero or negative", "Correct the values to keep these rows."
        dropped.append((funnel.drop(rule, ~positive(mapped.numbers(name))), why))
    large = (named["alpha"] > _LARGEST_ALPHA).fill_null(False).to_numpy()
    why = f"α is above {_LARGEST_ALPHA:,g}", "Check their radii and PSF widths."
    dropped.append((funnel.drop(IMPLAUSIBLE, large), why))
    findings += [
        Finding(
            "rows-dropped",
            "caution",
            f"{table_name}: {which_rows(rows, funnel.ids)} were dropped because {reason}.",
            action,
        )
        for rows, (reason, action) in dropped
        if rows.any()
    ]
    counts = np.bincount(labels[funnel.kept], minlength=2)
    if not counts.all():
        lacking = f"no galaxy is labelled {'disk' if counts[0] else 'smooth'}" if counts.any() else "no rows left"
        raise InputError(f"{table_name}: {lacking} ({funnel.account()})")
    return funnel, np.where(funnel.kept, labels, -1), findings


def _labels_from_votes(funnel: Funnel, mapped: Mapped, table_name: str) -> tuple[np.ndarray, list[Finding]]:
    fractions = {name: mapped.numbers(name) for name in FRACTIONS}
    selected, findings = funnel.kept, []
    for name, values in fractions.items():
        bad = selected & ((values < -1e-6) | (values > 1 + 1e-6))
        if bad.any():
            raise InputError(
                f"{table_name}: column {mapped.sources[name]} should hold vote fractions between 0 and 1; wrong in "
                f"{which_rows(bad, values)}; are they counts or percentages?"
            )
    sums = np.nansum(list(fractions.values()), axis=0)
    many = selected & (sums > _LARGEST_SUM)
    if many.any():
        findings.append(
            Finding(
                "fractions-above-one",
                "caution",
                f"{table_name}: the vote fractions sum to more than 1 in {which_rows(many, sums.round(3))}.",
                "Check that they belong to one question.",
            )
        )
    labels, reasons = labels_from_votes(*fractions.values())
    for reason in np.unique(reasons[reasons != ""]):
        funnel.drop(str(reason), reasons == reason)
    unknown = int((np.isnan(fractions["disk_fraction"]) & funnel.kept).sum())
    if unknown:
        findings.append(
            Finding(
                "disk-fraction-missing",
                "note",
                f"{unknown:,d} galaxies lack the fraction of votes for features or disk: they are labelled smooth "
                "if the smooth fraction is above 0.5, and stars or artifacts among them cannot be recognised.",
            )
        )
    elif "artefact_fraction" not in mapped.sources:
        findings.append(
            Finding(
                "artifact-fraction-missing",
                "note",
                "The table has no fraction of votes for star or artifact, so no rows were dropped as artifacts.",
                "Name the column if there is one (`artifact`).",
            )
        )
    return labels, findings


def labels_from_votes(smooth: np.ndarray, disk: np.ndarray, artefact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label galaxies by the largest weighted vote fraction of the first question.

    Parameters
    ----------
    smooth, disk, artefact : array, shape (N,)
        Vote fractions between 0 and 1, NaN if unknown. If `disk` is unknown, the label is smooth above 0.5; if
        `artefact` is unknown, no galaxy is dropped as an artefact.

    Returns
    -------
    labels : array of int, shape (N,)
        0 = smooth, 1 = disk, -1 = no label.
    reasons : array of str, shape (N,)
        Why a galaxy has no label ("" if it has one).

    Examples
    --------
    >>> labels, reasons = labels_from_votes(
    ...     np.array([0.6, 0.3, 0.1, 0.7]), np.array([0.4, 0.6, 0.2, np.nan]), np.array([0.0, 0.1, 0.7, np.nan])
    ... )
    >>> labels
    array([ 0,  1, -1,  0])
    """
    rival = np.where(np.isnan(disk), 0.5, disk)
    labels = (rival > smooth).astype(np.int64)
    reasons = np.full(smooth.shape, "", dtype="<U40")
    reasons[rival == smooth] = TIED
    reasons[(rival == 0) & (smooth == 0)] = NEITHER
    reasons[artefact > np.fmax(smooth, disk)] = ARTEFACT
    reasons[np.isnan(smooth)] = NO_VOTES
    labels[reasons != ""] = -1
    return labels, reasons


def check_sizes(
    mapped: Mapped, mapping: Mapping, kept: np.ndarray, units: dict[str, str], table_name: str
) -> list[Finding]:
    """Check that radii and PSF widths have plausible values.

    Parameters
    ----------
    mapped : Mapped
    mapping : Mapping
    kept : array of bool, shape (N,)
    units : dict of str to str
        Units stated in the table.
    table_name : str

    Returns
    -------
    findings : list of Finding

    Raises
    ------
    InputError
        If the median α is outside 2 to 100 and the table does not state the radius's unit: then the unit or the column
        is most likely wrong.
    """
    radius, widths, findings = mapped.sources["radius"], mapped.numbers("psf_fwhm")[kept], []
    middle, (low, high) = np.median(resolution(mapped.numbers("radius")[kept], widths)), _USUAL_ALPHA
    if not low <= middle <= high:
        found = f"the median of α is {middle:.3g}, outside {low:g} to {high:g}"
        if mapped.found["radius"].lone and radius not in units:
            raise InputError(
                f"{table_name}: {found}; is {radius} a Petrosian radius in arcsec, and {mapped.sources['psf_fwhm']} a "
                "FWHM in arcsec? Name other columns (`radius`, `psf_fwhm`), convert them (for arcmin, "
                f'"60 * {radius}"), or confirm the radius (`radius`) as "1 * {radius}"'
            )
        findings.append(
            Finding(
                "alpha-unusual",
                "caution",
                f"{found[0].upper()}{found[1:]}.",
                f"Check that {radius} is the Petrosian radius and {mapped.sources['psf_fwhm']} the FWHM of the PSF.",
            )
        )
    if mapping.psf_range is not None and not mapping.psf_range[0] <= np.median(widths) <= mapping.psf_range[1]:
        findings.append(
            Finding(
                "psf-unusual",
                "caution",
                f"The median FWHM of the PSF is {np.median(widths):.3g} arcsec, but this survey ({mapping.name}) has "
                f"{mapping.psf_range[0]:g} to {mapping.psf_range[1]:g} arcsec.",
                "If it is a sigma, multiply it by 2.3548 (`psf_fwhm`).",
            )
        )
    if np.ptp(widths) == 0:
        findings.append(ALPHA_IS_SIZE)
    percent = percent_of_light(str(radius))
    if percent:
        findings.append(
            Finding(
                "radius-not-petrosian",
                "note",
                f"α uses {radius}, the radius of {percent} % of the light, not the Petrosian radius: θ cannot be "
                "compared with the paper's.",
                "Name a Petrosian radius if there is one (`radius`).",
            )
        )
    return findings


def label_rule(mapped: Mapped, kept: np.ndarray) -> str:
    """Describe how labels were made."""
    if "label" in mapped.frame.columns:
        return f"{mapped.sources['label']}: 0 smooth, 1 disk"
    disk = mapped.numbers("disk_fraction")[kept]
    rules = []
    if not np.isnan(disk).all():
        rules.append("the larger of smooth_fraction and disk_fraction")
    if np.isnan(disk).any():
        where = " where disk_fraction is missing" if rules else ""
        rules.append(f"smooth if smooth_fraction is above 0.5{where}")
    artefacts = ", and galaxies whose largest fraction is artefact_fraction," * ("artefact_fraction" in mapped.sources)
    return "; ".join([*rules, f"ties{artefacts} are excluded"])


def positive(values: np.ndarray) -> np.ndarray:
    """Return which values are finite and above zero."""
    return np.isfinite(values) & (values > 0)
