"""Bias metrics CV14 and CV18: how much class fractions change with resolution.

Sources: CV14, eqs 17-18 of Medina-Rosales et al. (arXiv:2308.11007), after Cabrera, Miller & Schneider 2014
(ICPR); CV18, Cabrera-Vives, Miller & Schneider 2018 (AJ 156, 284). This module adds a floor: unbiased labels
do not give zero but about 1/sqrt(objects per bin), and a bootstrap inflates the value further. Every result has the
floor and the excess above it.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain
from typing import Any, Literal

import numpy as np

from truemorph.arrays import check_rows, float_array, rms
from truemorph.bias.binning import MINIMUM_PER_BIN, RankedTable
from truemorph.bias.curves.transitions import Array
from truemorph.bias.likelihood import check_labels, classes_in
from truemorph.bias.sample import check_whole
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings
from truemorph.io import plain
from truemorph.plotting import BLUE, GREY, SKY
from truemorph.progress import progress
from truemorph.results import Result, quantity_table, text_table

# Galaxies from which fewer threads work at once, to save memory.
_MANY = 2_000_000
Reference = Literal["last", "first"]
# Columns of a summary, and what the floor is.
COLUMNS = ("labels", "value", "bootstrap", "floor", "errors above", "above floor", "galaxies")
FLOOR = "the value of labels that do not depend on α (shuffled labels)"


class BiasResult(Result):
    """A bias metric with its error and floor.

    Attributes
    ----------
    measure : str
        "CV14" or "CV18".
    value : float
        The plain value (0 to 1).
    bootstrap_mean, bootstrap_std : float
        Mean and standard deviation (ddof 0) over bootstrap resamples; NaN with `bootstrap=0`. The mean lies
        above the value: resampling adds noise to every bin.
    floor, floor_std : float
        The value that labels without any dependence on α would give in these bins (root mean square over
        permutations), and its spread; NaN with `permutations=0`.
    excess : float
        sqrt(max(0, value² - floor²)): the bias above sampling noise. Clipped at 0, so its mean over samples without
        bias is positive; see `signed_excess`.
    objects_per_bin : float
        Mean number of galaxies in a bin.
    n_objects, n_dropped : int
        Galaxies used, and galaxies left out because a column was not finite.
    findings : tuple of Finding

    Examples
    --------
    >>> from truemorph import cv14
    >>> rng = np.random.default_rng(0)
    >>> alpha = rng.lognormal(2.3, 0.45, 4000)
    >>> labels = (rng.random(4000) < 0.7 * (1 - np.exp(-(alpha**2) / 200))).astype(int)
    >>> found = cv14(labels, alpha, bins=10)
    >>> found.measure, found.n_objects, bool(found.excess > 5 * found.bootstrap_std)
    ('CV14', 4000, True)
    """

    measure: str
    value: float
    bootstrap_mean: float
    bootstrap_std: float
    floor: float
    floor_std: float
    excess: float
    objects_per_bin: float
    n_objects: int
    n_dropped: int
    findings: Findings = ()

    @property
    def signed_excess(self) -> float:
        """The excess with the sign of value - floor: without bias its mean over samples is near 0."""
        difference = self.value**2 - self.floor**2
        return float(np.sign(difference) * np.sqrt(abs(difference)))

    @property
    def errors_above_floor(self) -> float:
        """value - floor, over the errors of both added in quadrature; about 2 or less is no sign of bias."""
        error = float(np.hypot(self.bootstrap_std, self.floor_std))
        return (self.value - self.floor) / error if error > 0 else np.nan

    def summary(self) -> str:
        """Return the value with its error, floor and excess as text."""
        about = f"{self.objects_per_bin:,.0f} galaxies per bin; floor: {FLOOR}"
        return "\n".join([*text_table(COLUMNS, [self.cells(self.measure)]), about])

    def cells(self, name: str) -> list[str]:
        """Return a row of a table with columns `COLUMNS`."""
        return [
            name,
            f"{self.value:.4f}",
            "–" if np.isnan(self.bootstrap_mean) else f"{self.bootstrap_mean:.4f} ± {self.bootstrap_std:.4f}",
            f"{self.floor:.4f}" + ("" if np.isnan(self.floor_std) else f" ± {self.floor_std:.4f}"),
            "–" if np.isnan(self.errors_above_floor) else f"{self.errors_above_floor:.1f}",
            f"{self.excess:.4f}",
            f"{self.n_objects:,}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return plain(asdict(self) | {name: getattr(self, name) for name in ("errors_above_floor", "signed_excess")})

    def to_table(self) -> Any:
        """Return a table with one row."""
        numbers = {
            "value": "root mean square deviation of class fractions from the best resolved bin",
            "bootstrap_mean": "mean over bootstrap resamples",
            "bootstrap_std": "standard deviation over bootstrap resamples",
            "floor": "value of labels that do not depend on α (shuffled labels)",
            "floor_std": "spread of the floor",
            "errors_above_floor": "value - floor, over the errors of both added in quadrature",
            "excess": "bias above the floor",
            "signed_excess": "the same, negative where the value is below the floor",
            "n_objects": "galaxies used",
            "n_dropped": "galaxies left out because a value is missing",
        }
        columns = {name: ([getattr(self, name)], about) for name, about in numbers.items()}
        return quantity_table(columns, measure=self.measure)

    _figure_size = 4.2, 2.6

    def draw(self, ax: Any) -> None:
        """Draw value, bootstrap, floor and excess as one bar each."""
        names = ["value\n(point: bootstrap)", "floor", "above floor"]
        ax.barh(names, [self.value, self.floor, self.excess], color=[GREY, SKY, BLUE], height=0.6)
        if np.isfinite(self.bootstrap_mean):
            ax.errorbar([self.bootstrap_mean], names[:1], xerr=[self.bootstrap_std], fmt="ko", ms=4)
        ax.invert_yaxis()
        ax.set(xlabel=f"{self.measure} (rms deviation of class fractions)", xlim=(0, None))


def _class_indicators(labels: np.ndarray) -> np.ndarray:
    """Return class memberships, shape (N, K), of classes or class probabilities."""
    if labels.ndim == 2 and labels.shape[1] >= 2:
        inside = np.all((labels >= -1e-6) & (labels <= 1 + 1e-6), axis=1)
        check_rows(inside, "label probabilities must lie in [0, 1]", labels)
        return labels
    n_classes = classes_in(labels)
    return np.eye(n_classes)[check_labels(labels, n_classes)]


def _drift(fractions: np.ndarray, reference: list[int]) -> float:
    """Return the rms deviation of fractions, shape (J, L, b, K), from each leaf's reference bin (eqs 17-18)."""
    at_reference = fractions[np.arange(len(reference)), :, reference][:, :, None]
    return rms(fractions - at_reference)


def _finite_rows(
    labels: Any, alpha: Any, intrinsic: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return memberships (M, K), observables (M, J), intrinsic columns (M, P), and how many rows with gaps fell out.

    Rows are shuffled, so that equal values fall at random, not in the order of the file, which may be that of labels.
    """
    labels, observables = float_array(labels, "labels"), float_array(alpha, "alpha")
    n = observables.shape[0]
    columns = np.zeros(n) if intrinsic is None else float_array(intrinsic, "intrinsic")
    columns, observables, by_label = (np.atleast_2d(array.T).T for array in (columns, observables, labels))
    if not len(labels) == n == len(columns):
        sizes = f"{len(labels)}, {n} and {len(columns)}"
        raise InputError(f"labels, alpha and intrinsic must have one row a galaxy; got {sizes} rows")
    finite = [np.isfinite(array).all(axis=1) for array in (by_label, observables, columns)]
    rows = np.flatnonzero(np.all(finite, axis=0))
    if rows.size == 0:
        raise InputError(f"none of the {n} galaxies has finite values in every column")
    if (constant := np.flatnonzero(np.ptp(observables[rows], axis=0) == 0)).size:
        which, action = "alpha", "check their radii and PSF widths"
        if observables.shape[1] > 1:
            which, action = f"observable {constant[0] + 1} of {observables.shape[1]}", "leave it out"
        raise InputError(f"{which} is the same for all galaxies; {action}")
    members = _class_indicators(labels[rows])
    shuffled = rng.permutation(rows.size)
    return members[shuffled], observables[rows[shuffled]], columns[rows[shuffled]], n - rows.size


def cv14(
    labels: Array,
    alpha: Array,
    bins: int = 20,
    *,
    reference: Reference | Sequence[Reference] = "last",
    bootstrap: int = 100,
    permutations: int = 20,
    seed: int = 0,
) -> BiasResult:
    """Drift of class fractions with resolution (eqs 17-18).

    CV14 = sqrt(mean_k σ_k²), σ_k² = mean over equal-count bins l of (f̃_lk - f_k)², where f_k is the fraction
    in the least biased bin.

    Parameters
    ----------
    labels : array, shape (N,) of int, or (N, K) of float
        Classes 0, 1, …; or class probabilities, whose means are then the fractions.
    alpha : array, shape (N,) or (N, J)
        Resolution, or several observables (averaged over); rows with non-finite values are left out and
        counted.
    bins : int, default 20
        Equal-count bins of each observable.
    reference : "last" (default), "first", or one per column
        The least biased bin: the last in resolution, the first in magnitude.
    bootstrap : int, default 100
        Resamples for the error; 0 for none.
    permutations : int, default 20
        Shuffles of the labels within leaves for the floor, the value of labels that do not depend on α; 0 for none.
    seed : int, default 0
        Seed of bootstrap and shuffles.

    Returns
    -------
    BiasResult

    Raises
    ------
    InputError
        If shapes disagree, labels are not classes or probabilities, there are fewer galaxies than bins, or a number
        is out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> alpha = rng.lognormal(2.3, 0.45, 5000)
    >>> labels = (rng.random(5000) < 0.6 * (1 - np.exp(-alpha**2 / 200))).astype(int)
    >>> r = cv14(labels, alpha, bins=10, bootstrap=0)
    >>> bool(r.excess > 5 * r.floor)
    True
    """
    return cv18(
        labels, alpha, None, 0, bins, reference=reference, bootstrap=bootstrap, permutations=permutations, seed=seed
    )


def cv18(
    labels: Array,
    alpha: Array,
    intrinsic: Array | None,
    depth: int = 6,
    bins: int = 8,
    *,
    reference: Reference | Sequence[Reference] = "last",
    bootstrap: int = 100,
    permutations: int = 20,
    seed: int = 0,
) -> BiasResult:
    """Drift of class fractions with resolution among galaxies of like intrinsic properties.

    CV18 = sqrt(mean over observables, classes and leaves of Σ_l (f_l - f_ref)² / b): a k-d tree of 2^depth
    leaves over the intrinsic columns, in each leaf b equal-count bins of each observable, and the least
    biased bin of the same leaf as reference. The reference bin is counted in b.

    Parameters
    ----------
    labels : array, shape (N,) of int, or (N, K) of float
        Classes 0, 1, …; or class probabilities.
    alpha : array, shape (N,) or (N, J)
        Observables, for example resolution alone, or apparent magnitude and resolution.
    intrinsic : array, shape (N, P) or (N,)
        Intrinsic properties in the order in which they split, for example log R_petro / kpc, M_r, redshift; None with
        depth 0, which is CV14.
    depth, bins : int
        Tree levels and bins a leaf; choose them for at least 25 galaxies a bin (2^depth × bins bins).
    reference, bootstrap, permutations, seed
        As for `cv14`.

    Returns
    -------
    BiasResult
        Rows with a non-finite value are left out and counted.

    Raises
    ------
    InputError
        If shapes disagree, labels are not classes or probabilities, a leaf has fewer galaxies than bins, or a number
        is out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> alpha = rng.lognormal(2.3, 0.45, 5000)
    >>> magnitude = rng.normal(-21, 1, 5000)
    >>> labels = (rng.random(5000) < 1 / (1 + np.exp(-magnitude - 21))).astype(int)
    >>> r = cv18(labels, alpha, magnitude, depth=3, bins=5, bootstrap=0)
    >>> bool(abs(r.value - r.floor) < 4 * r.floor_std)
    True
    """
    check_whole(2, bins=bins)
    check_whole(0, depth=depth, bootstrap=bootstrap, permutations=permutations, seed=seed)
    rng = np.random.default_rng(seed)
    members, observables, columns, n_dropped = _finite_rows(labels, alpha, intrinsic, rng)
    n, n_observables = observables.shape
    names = [reference] * n_observables if isinstance(reference, str) else list(reference)
    if len(names) != n_observables:
        raise InputError(f"`reference`: needs one for each of {n_observables} observables; got {len(names)}")
    if wrong := [name for name in names if name not in ("first", "last")]:
        raise InputError(f"`reference`: must be first or last; got {wrong[0]!r}")
    at = [bins - 1 if name == "last" else 0 for name in names]
    table = RankedTable(observables, columns[:, :depth])
    shares = list(np.ascontiguousarray(members[table.rows].T))
    n_classes = np.count_nonzero(members.any(axis=0))
    del members, observables, columns  # of 10^7 galaxies, half a gigabyte
    cut = table.cut(depth, bins)
    value = _drift(cut.fractions(shares), at)
    in_leaves = np.argsort(cut.leaf, kind="stable")

    def resample(generator: np.random.Generator) -> float:
        draws = np.asarray(generator.integers(0, n, n))
        try:
            return _drift(table.cut(depth, bins, draws).fractions(shares), at)
        except InputError:  # a leaf of this resample has fewer galaxies than bins
            return np.nan

    def permute(generator: np.random.Generator) -> float:
        """Shuffle objects within their leaves."""
        shuffled, permutation = generator.permutation(n), np.empty(n, int)
        permutation[in_leaves] = shuffled[np.argsort(cut.leaf[shuffled], kind="stable")]
        return _drift(cut.fractions([column[permutation] for column in shares]), at)

    # numpy sorts and gathers outside the interpreter lock; each resample has random numbers of its own, so results
    # don't depend on threads.
    with ThreadPoolExecutor(min(4 if n < _MANY else 2, os.cpu_count() or 1)) as pool:
        runs = chain(pool.map(resample, rng.spawn(bootstrap)), pool.map(permute, rng.spawn(permutations)))
        values = progress(bootstrap + permutations, "bootstrap and floor", "resamples", of=runs)
        resampled, permuted = np.split(np.fromiter(values, float), [bootstrap])
    resampled = resampled[np.isfinite(resampled)]
    # Variances add, so the floor to subtract in quadrature is the root mean square.
    floor = float(np.sqrt(np.mean(permuted**2))) if permutations else np.nan
    smallest = int(np.diff(cut.edges, axis=1).min())
    findings = [*_limits(bootstrap - len(resampled), bootstrap, bins, smallest, n_dropped)]
    if n_classes < 2:
        message = "All labels are of one class, so they cannot show any drift."
        findings.append(Finding("one-class", "problem", message, "Check them; for a model, use its probabilities."))
    return BiasResult(
        measure="CV14" if intrinsic is None else "CV18",
        value=value,
        bootstrap_mean=float(np.mean(resampled)) if resampled.size else np.nan,
        bootstrap_std=float(np.std(resampled)) if resampled.size else np.nan,
        floor=floor,
        floor_std=float(np.std(permuted)) if permutations else np.nan,
        excess=float(np.sqrt(np.maximum(0.0, value**2 - floor**2))),
        objects_per_bin=n / (2**depth * bins),
        n_objects=n,
        n_dropped=n_dropped,
        findings=tuple(findings),
    )


def _limits(failed: int, bootstrap: int, bins: int, smallest: int, n_dropped: int) -> Iterator[Finding]:
    """Return findings about resamples that failed, the smallest bin, and galaxies that were left out."""
    if failed:
        message = f"{failed} of {bootstrap} bootstrap resamples had a leaf too small for {bins} bins and were left out."
        action = "Use fewer bins (`bins`) or a smaller tree (`depth`)."
        yield Finding("resamples-failed", "note", message, action)
    if smallest < MINIMUM_PER_BIN:
        smaller = f"{smallest} galaxies (at least {MINIMUM_PER_BIN} are recommended)"
        message = f"The bias metric's smallest bin has {smaller}: its value is mostly sampling noise."
        action = "Quote the excess above the floor, or use fewer bins (`bins`) or a smaller tree (`depth`)."
        yield Finding("few-galaxies-per-bin", "caution", message, action)
    if n_dropped:
        message = f"{n_dropped:,} galaxies were left out: no label (the question may not apply) or value in a column."
        yield Finding("rows-left-out", "note", message)
