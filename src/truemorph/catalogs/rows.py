"""Select and label the rows of a table, with the reason for each dropped row.

Labels follow Medina-Rosales et al. (arXiv:2308.11007), sections 2.2 and 2.5. Section 2.2 states the rule with the
classes exchanged; here a majority of "smooth" votes means smooth.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import as_ids, condition, object_ids, rows_where
from truemorph.catalogs.columns import FRACTIONS, which_rows
from truemorph.catalogs.mapped import Mapped
from truemorph.catalogs.paths import LARGEST_SUM, answers_inside
from truemorph.catalogs.physical import ALPHA_IS_SIZE, partial_radius, resolution
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.questions import Votes

LABEL_RULE = (
    "the larger of smooth_fraction and disk_fraction (0.5 where disk_fraction is missing); ties, and galaxies whose "
    "largest fraction is artefact_fraction, are excluded"
)
# Range of the median α of surveys in which galaxies can be classified by eye.
_USUAL_ALPHA = (2.0, 100.0)
# Numbers of votes are very unequal if their 90th percentile is this many times the 10th.
_UNEQUAL = 2.5


class Funnel:
    """Rows that are kept, and the reason for each dropped row: the first rule that drops it."""

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids
        self._rules: dict[str, bool] = {}
        self._reasons = np.full(len(ids), "", dtype=object)

    @property
    def kept(self) -> np.ndarray:
        """Rows that no rule has dropped, shape (N,) of bool."""
        return self._reasons == ""

    def drop(self, rule: str, broken: np.ndarray, *, always: bool = False) -> np.ndarray:
        """Drop rows that break a rule; return those not dropped before. `always` lists the rule in any case."""
        newly = broken & self.kept
        self._rules.setdefault(rule, always)
        self._reasons[newly] = rule
        return newly

    def steps(self) -> list[tuple[str, int]]:
        """Return rows in, rows dropped by each rule in order, and rows out."""
        counts = Counter(self._reasons)
        losses = [(rule, -counts[rule]) for rule, always in self._rules.items() if always or counts[rule]]
        return [("rows in", self._reasons.size), *losses, ("rows out", counts[""])]

    def dropped(self) -> pl.DataFrame:
        """List the dropped rows: `row` (from 1), `object_id`, `reason`."""
        rows = pl.DataFrame({"object_id": self.ids, "reason": self._reasons.tolist()})
        return rows.with_row_index("row", 1).filter(~self.kept)


def choose_rows(
    named: pl.DataFrame, mapped: Mapped, where: Sequence[str], votes: Votes | None
) -> tuple[Funnel, np.ndarray, list[Finding]]:
    """Select rows by the user's conditions, the mapping's cuts, and a valid label and resolution.

    `named` has the table's columns and truemorph's, with alpha. Labels, shape (N,), are -1 for dropped rows; of more
    than two classes, they follow from `votes` for the first question of a tree.
    """
    table_name = mapped.table_name
    funnel = Funnel(as_ids(mapped.columns["object_id"].values.alias(mapped.sources["object_id"]), table_name))
    selected, findings = rows_where(named, where, table_name)
    funnel.drop("not selected (where)", ~selected)
    for cut in mapped.mapping.cuts:
        keep, more = condition(cut.keep, named, f"{table_name}: cut {cut.name!r}")
        findings += more
        lost = funnel.drop(cut.name, ~keep.fill_null(False).to_numpy(), always=True)
        if unknown := (keep.is_null().to_numpy() & lost).sum():
            lacking = f"{unknown:,d} of the rows dropped by the rule {cut.name!r} lack a value that it needs."
            findings.append(Finding("rule-without-value", "note", lacking))
    # Ids are not checked in rows that are not selected.
    object_ids(funnel.ids.filter(funnel.kept), table_name, np.flatnonzero(funnel.kept))
    if votes is not None:
        labels, more = _labels_of_answers(funnel, votes)
        findings += more
    elif "label" in mapped.columns:
        labels = mapped.columns["label"].values.fill_null(-1).to_numpy()
        funnel.drop("no label", labels < 0)
    else:
        labels, more = _labels_from_votes(funnel, mapped)
        findings += more
    if "alpha" in mapped.columns:
        funnel.drop("no resolution α", ~(mapped.numbers("alpha") >= 0))
    else:
        for rule, name in (("no positive radius", "radius"), ("no positive PSF width", "psf_fwhm")):
            funnel.drop(rule, ~(mapped.numbers(name) > 0))
    labels = labels[funnel.kept]
    counts = np.bincount(labels, minlength=len(mapped.mapping.classes))
    if np.count_nonzero(counts) < 2:
        account = ", ".join(f"{rule}: {n:,d}" for rule, n in funnel.steps())
        have = " and ".join(f"{n} {name}" for n, name in zip(counts, mapped.mapping.classes, strict=True))
        left = f"{have} galaxies are left, and galaxies of two classes are needed ({account})"
        raise InputError(f"{table_name}: {left}; check the rules (`where`, `keep`) and the columns of votes")
    return funnel, labels, findings


def _labels_of_answers(funnel: Funnel, votes: Votes) -> tuple[np.ndarray, list[Finding]]:
    """Label galaxies by the answer with most votes; galaxies without votes, and artifacts, are dropped."""
    asked = votes.asked
    unasked = votes.columns.sum(axis=1) == 0
    findings = [*_not_asked(unasked, funnel.kept, repr(asked.question))]
    funnel.drop(f"no votes for {asked.question}", unasked)
    inside = answers_inside(asked.tree)
    of_paths = np.array([inside.index(path.answer) if path.answer in inside else -1 for path in asked.paths])
    labels = np.full(unasked.size, -1)
    kept = funnel.kept
    labels[kept] = of_paths[asked.votes(votes.columns[kept]).paths]
    funnel.drop("majority star or artefact", labels < 0)
    return labels, findings


def _not_asked(unasked: np.ndarray, selected: np.ndarray, of: str) -> Iterator[Finding]:
    """Return a finding if selected galaxies have no votes."""
    if not (dropped := np.count_nonzero(unasked & selected)):
        return
    lacking = f"{dropped:,d} of {selected.sum():,d} galaxies have no votes for {of} and were dropped."
    action = "If people were asked only after another answer, describe the questions before it too (`tree`)."
    yield Finding("galaxies-not-asked", "caution", lacking, action)


def _labels_from_votes(funnel: Funnel, mapped: Mapped) -> tuple[np.ndarray, list[Finding]]:
    fractions = np.stack([mapped.numbers(name) for name in FRACTIONS])
    selected, findings = funnel.kept, list[Finding]()
    for name, values in zip(FRACTIONS, fractions, strict=True):
        bad = selected & ((values < -1e-6) | (values > 1 + 1e-6))
        if bad.any():
            raise InputError(
                f"{mapped.table_name}: column {mapped.sources[name]} should hold vote fractions from 0 to 1; wrong in "
                f"{which_rows(bad, values)}; are they counts or percentages?"
            )
    sums = np.nansum(fractions, axis=0)
    many = selected & (sums > LARGEST_SUM)
    if many.any():
        above = f"{mapped.table_name}: vote fractions sum to more than 1 in {which_rows(many, sums.round(3))}."
        findings.append(Finding("fractions-above-one", "caution", above, "Check that they belong to one question."))
    first, second = classes = mapped.mapping.classes
    labels, reasons = labels_from_votes(fractions[0], fractions[1], fractions[2], classes)
    unasked = (np.nan_to_num(fractions) == 0).all(axis=0) & (reasons != "")
    findings += _not_asked(unasked, selected, f"{first} or {second}")
    for reason in np.unique(reasons[reasons != ""]):
        funnel.drop(reason, reasons == reason)
    if unknown := (np.isnan(fractions[1]) & funnel.kept).sum():
        lacking = (
            f"{unknown:,d} galaxies lack the fraction of votes for {second}: they are labelled {first} if that "
            "fraction is above 0.5, and stars or artifacts among them cannot be recognised."
        )
        findings.append(Finding("class-fraction-missing", "note", lacking))
    elif "artefact_fraction" not in mapped.columns:
        lacking = "The table has no fraction of votes for star or artifact, so no rows were dropped as artifacts."
        action = "If there is one, name it beside the other votes (`artifact`, `smooth`, `disk`)."
        findings.append(Finding("artifact-fraction-missing", "note", lacking, action))
    return labels, findings


def labels_from_votes(
    first: np.ndarray, second: np.ndarray, artefact: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Label galaxies by the largest vote fraction, NaN if unknown: 0, 1, or -1 for none, with the reason.

    If the `second` is unknown, the label is 0 where the first is above 0.5; if `artefact` is, no galaxy is dropped as
    an artefact.
    """
    rival = np.where(np.isnan(second), 0.5, second)
    labels = (rival > first).astype(int)
    reasons = np.full(first.shape, "", dtype=object)
    reasons[rival == first] = f"{classes[0]} and {classes[1]} tied"
    reasons[(rival == 0) & (first == 0)] = f"neither {classes[0]} nor {classes[1]} has votes"
    reasons[artefact > np.fmax(first, second)] = "majority star or artefact"
    reasons[np.isnan(first)] = "no vote fractions"
    labels[reasons != ""] = -1
    return labels, reasons


def unequal_votes(mapped: Mapped, kept: np.ndarray) -> Iterator[Finding]:
    """Return a finding if the galaxies that are kept have very different numbers of votes."""
    if not {"vote_count", "smooth_votes"} <= set(mapped.columns):
        return
    total = pl.Series(mapped.numbers("vote_count")[kept])
    few, many = (total.filter(total > 0).quantile(part) or 0.0 for part in (0.1, 0.9))
    if many <= _UNEQUAL * few:
        return
    unequal = (
        f"The number of votes varies strongly between galaxies: from {few:.0f} (10th percentile) to {many:.0f} "
        "(90th). Majorities of few votes are wrong more often, so one bias curve does not describe all."
    )
    action = 'Prepare only galaxies with similar numbers of votes (`where`, such as "vote_count >= 20").'
    yield Finding("vote-counts-differ", "caution", unequal, action)


def check_sizes(mapped: Mapped, kept: np.ndarray) -> Iterator[Finding]:
    """Check that radii and PSF widths have plausible values.

    A median α outside 2 to 100 is an InputError if the table does not state the radius's unit.
    """
    low, high = _USUAL_ALPHA
    widths, has_alpha = mapped.numbers("psf_fwhm")[kept], "alpha" in mapped.columns
    alpha = mapped.numbers("alpha")[kept] if has_alpha else resolution(mapped.numbers("radius")[kept], widths)
    if has_alpha and np.ptp(alpha) == 0:
        raise InputError(
            f"{mapped.table_name}: all galaxies have the same resolution, {alpha[0]:.3g} (`alpha`); give the column of "
            "α, or those of radius and PSF width (`radius`, `psf_fwhm`)"
        )
    middle = np.median(alpha)
    text = "" if low <= middle <= high else f"median of α is {middle:.3g}, outside {low:g} to {high:g}"
    if has_alpha:
        action = "Check that it is the Petrosian radius over the width of the PSF (`alpha`)."
        if text:
            yield Finding("alpha-unusual", "caution", f"The {text}.", action)
        return
    radius, psf, width = mapped.sources["radius"], mapped.sources["psf_fwhm"], np.median(widths)
    if text:
        if radius in mapped.table.frame.columns and radius not in mapped.table.units:
            raise InputError(
                f"{mapped.table_name}: the {text}; is {radius} in arcsec, and {psf} a FWHM in arcsec? Name other "
                f'columns (`radius`, `psf_fwhm`), convert them ("60 * {radius}"), or confirm the radius as '
                f'"1 * {radius}"'
            )
        action = f"Check that {radius} is the Petrosian radius and {psf} the FWHM of the PSF."
        yield Finding("alpha-unusual", "caution", f"The {text}.", action)
    smallest, largest = mapped.mapping.psf_range or (0, np.inf)
    if not smallest <= width <= largest:
        usual = f"this survey ({mapped.mapping.name}) has {smallest:g} to {largest:g} arcsec"
        unusual = f"The median FWHM of the PSF is {width:.3g} arcsec, but {usual}."
        action = "If it is a sigma, multiply it by 2.3548 (`psf_fwhm`)."
        yield Finding("psf-unusual", "caution", unusual, action)
    if np.ptp(widths) == 0:
        yield ALPHA_IS_SIZE
    yield from partial_radius(radius)
