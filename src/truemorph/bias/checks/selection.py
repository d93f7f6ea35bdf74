"""Check whether galaxies with gold labels are like all galaxies.

Experts often classify bright, nearby or peculiar galaxies first.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import chdtrc

from truemorph.bias.binning import Bins
from truemorph.bias.regression.fields import field_findings
from truemorph.bias.regression.gold import quadratic
from truemorph.bias.sample import Sample
from truemorph.findings import Finding
from truemorph.questions import NOT_APPLICABLE

# Significance level of the checks, about 2.6 standard errors.
LEVEL = 0.01
_STRATA = 100
_PARTS = 4
_GOLD_PER_PART = 20
_NOTICEABLE = 0.02
# A gap in α without gold labels that is worth a finding, as a part of all galaxies.
_GAP = 0.05
# Correlation of gold and observed labels, where galaxies are well resolved, below which something is wrong.
_LEAST_AGREEMENT = 0.3
# Gold labels of the less well resolved half that must equal the observed ones to look like copies.
_FEWEST_COPIES = 10


def selection_findings(sample: Sample) -> list[Finding]:
    """Return findings on which galaxies have a gold label: other labels than all galaxies, copies of them, gaps in α.

    Labels of gold rows are compared with those of all rows at the same α and intrinsic columns (see `_excess`), unless
    their selection is known, in four parts of the range of α so that excesses of opposite sign do not cancel. The
    fraction of gold rows may vary with α and these columns.
    """
    findings = [*_copies(sample), *_unlike(sample), *field_findings(sample)]
    if sample.probability is not None:
        return [*findings, *_known_selection(sample.probability, sample.known)]
    return [
        *_not_random(sample),
        *findings,
        *_gaps("α", sample.alpha, sample.known),
        *(
            gap
            for k, column in enumerate(sample.intrinsic.T, 1)
            for gap in _gaps(f"intrinsic column {k}", column, sample.known)
        ),
    ]


def depends_on_votes(votes: np.ndarray, sample: Sample) -> list[Finding]:
    """Warn if gold rows have other fractions of votes for the second class, shape (N,), than all rows at the same α.

    Unless their labels, which follow from the votes, show it already.
    """
    return [] if _not_random(sample) else _not_random(sample, votes)


def _not_random(sample: Sample, votes: np.ndarray | None = None) -> list[Finding]:
    """Compare labels, or fractions of votes, of gold rows with those of all rows at the same α, without rows of NaN."""
    observed = sample.observed if votes is None else np.column_stack([1 - votes, votes])
    good = np.isfinite(observed).all(axis=1)
    observed, alpha, has_gold, weights = observed[good], sample.alpha[good], sample.known[good], sample.weights[good]
    if not has_gold.any():
        return []
    stratum = _strata(alpha, has_gold)
    part = _parts(stratum, has_gold)
    parts, controls = [part == number for number in np.unique(part[has_gold])], _columns_given(sample)[good]
    excesses = (_excess(observed[rows], stratum[rows], has_gold[rows], weights[rows], controls[rows]) for rows in parts)
    chi_squared, differences = zip(*excesses, strict=True)
    p_value = float(chdtrc(len(parts) * (observed.shape[1] - 1), max(0.0, sum(chi_squared))))
    worst = int(np.argmax(chi_squared))
    difference, rows = differences[worst], parts[worst]
    if p_value >= LEVEL or np.abs(difference[1:]).max() < _NOTICEABLE:
        return []
    label = 1 if difference.size == 2 else int(np.argmax(np.abs(difference)))
    fraction = np.average(observed[rows & has_gold, label], weights=weights[rows & has_gold])
    named, gold, every = sample.classes[label], f"{fraction:.1%}", f"{fraction - difference[label]:.1%}"
    shown = f"{gold} of those with a gold label are labelled {named}, but {every} of all"
    if votes is not None:
        shown = f"{gold} of the votes for those with a gold label are for {named}, but {every} of the votes for all"
    elif named == NOT_APPLICABLE:
        shown = (
            f"by the labels, the question does not apply to {gold} of those with a gold label, but to {every} of all"
        )
    message = (
        f"Galaxies with a gold label have other observed {'labels' if votes is None else 'votes'} than all galaxies at "
        f"the same α (p = {p_value:.1g}): at α from {alpha[rows].min():.3g} to {alpha[rows].max():.3g}, {shown}. So "
        "they are not a random part of all galaxies, and estimates from them can be biased."
    )
    action = (
        "If only some of the galaxies could get a gold label, such as the brightest, leave out the others (`where`). "
        "If they were selected by a column, give it (`intrinsic`). Otherwise give gold labels to a random part of the "
        "galaxies, or to galaxies that are selected with known probabilities (`truemorph gold plan`)."
    )
    return [Finding("gold-not-random", "problem", message, action)]


def equal_labels(sample: Sample) -> bool:
    """Whether all gold labels equal the observed ones, also of poorly resolved galaxies, where labels are biased."""
    has_gold = sample.known
    if np.sum(has_gold & (sample.alpha <= np.median(sample.alpha))) < _FEWEST_COPIES:
        return False
    return bool(np.all(sample.gold[has_gold] == sample.labels[has_gold]))


def _copies(sample: Sample) -> Iterator[Finding]:
    """Warn if gold labels are likely to be copies of the observed ones."""
    if not equal_labels(sample):
        return
    message = (
        f"All {sample.known.sum():,} gold labels equal the observed labels, at every α. The labels may be unbiased, "
        "but more likely the gold labels are copies of them, or rest on the same votes."
    )
    action = "Check where the gold labels come from; give classes from experts or better images."
    yield Finding("gold-equals-labels", "caution", message, action)


def _unlike(sample: Sample) -> Iterator[Finding]:
    """Warn if gold labels hardly agree with the observed ones above the median of α, where these should be right."""
    rows = sample.known & (sample.alpha > np.median(sample.alpha))
    gold, labels = sample.gold[rows], sample.labels[rows]
    if sample.n_classes != 2 or gold.size < _GOLD_PER_PART or not gold.std() * labels.std():
        return
    agreement, error = np.corrcoef(gold, labels)[0, 1], 1 / np.sqrt(gold.size - 3)  # Fisher's, of artanh
    if np.tanh(np.arctanh(np.clip(agreement, -0.99, 0.99)) + 1.645 * error) > _LEAST_AGREEMENT:
        return
    message = (
        f"Even where galaxies are better resolved, {gold.size:,} gold labels hardly agree with the observed labels "
        f"(correlation {agreement:.2f} ± {error:.2f}): rows may be mismatched, classes exchanged or defined otherwise."
    )
    action = "Check which galaxies and classes the gold labels are of: ids, order of answers, definition."
    yield Finding("gold-unlike-labels", "caution", message, action)


def _gaps(name: str, alpha: np.ndarray, has_gold: np.ndarray) -> Iterator[Finding]:
    """Say where no galaxy has a gold label: runs in α, or in a column, that are longer than chance would give."""
    n, n_gold = alpha.size, int(has_gold.sum())
    # At random, one of n gold labels begins a gap longer than a fraction t with probability n (1 - t)^n at most.
    longest = max(_GAP, 1 - (LEVEL / n_gold) ** (1 / n_gold))
    order = np.sort(alpha)
    limits = np.concatenate([[-np.inf], np.unique(alpha[has_gold]), [np.inf]])
    begin, end = np.searchsorted(order, limits[:-1], "right"), np.searchsorted(order, limits[1:], "left")
    wide = np.flatnonzero(end - begin > longest * n)
    if not wide.size:
        return
    where = ", ".join(f"from {order[begin[k]]:.3g} to {order[end[k] - 1]:.3g}" for k in wide)
    message = (
        f"No galaxy has a gold label at {name} {where}, where {(end - begin)[wide].sum() / n:.0%} of the galaxies are. "
        "Fractions and T(α) there are extrapolations, and fractions of all galaxies rest on them."
    )
    action = "Give gold labels there too, or leave these galaxies out (`where`)."
    yield Finding("gold-gap", "caution", message, action)


def _known_selection(probability: np.ndarray, has_gold: np.ndarray) -> Iterator[Finding]:
    """Return that gold labels were chosen with known probabilities, and whether some galaxies could not be chosen."""
    chosen, never = probability[has_gold], int(np.sum(probability == 0))
    chances = f"known probabilities ({chosen.min():.2g} to {chosen.max():.2g})"
    message = f"Galaxies were selected for gold labels with {chances}, which the estimate takes into account."
    yield Finding("selection-known", "note", message)
    if never:
        message = (
            f"{never:,} of {probability.size:,} galaxies could not be selected for a gold label, for lack of an image "
            "for example. Their classes are predicted from galaxies of the same label and α."
        )
        action = "Leave them out (`where`), or find their images."
        yield Finding("gold-cannot-reach", "caution", message, action)


def balance_findings(columns: Mapping[str, np.ndarray], sample: Sample) -> list[Finding]:
    """Warn if gold rows differ from all rows at the same α in a column that the estimate does not use.

    Each is tested as in `selection_findings`, at fixed label too, at a level of 1 % divided by the number of columns;
    NaN are left out. Columns that most galaxies lack can't be covariates.
    """
    from scipy.stats import rankdata  # takes a second

    has_gold, stratum = sample.known, _strata(sample.alpha, sample.known)
    controls = np.column_stack([sample.observed[:, 1:], _columns_given(sample)])
    unbalanced = []
    for name, values in columns.items():
        good = np.isfinite(values)
        if good.mean() < 0.5 or (has_gold & good).sum() < _GOLD_PER_PART or np.ptp(values[good]) == 0:
            continue
        ranks = (rankdata(values[good]) / good.sum() - 0.5) * np.sqrt(12)  # of standard deviation 1
        both = np.column_stack([-ranks, ranks])
        chi_squared, difference = _excess(both, stratum[good], has_gold[good], sample.weights[good], controls[good])
        if chdtrc(1, max(0.0, chi_squared)) < LEVEL / len(columns) and abs(difference[1]) > _NOTICEABLE:
            unbalanced.append((name, difference[1]))
    if not unbalanced:
        return []
    unbalanced.sort(key=lambda pair: -abs(pair[1]))
    named = ", ".join(f"{name} ({difference:+.2f} σ)" for name, difference in unbalanced)
    message = (
        f"The galaxies with a gold label differ from all galaxies at the same α in {named}. If the true class depends "
        "on such a column, the class fractions are biased."
    )
    action = "Give these columns as covariates (`intrinsic`), or the probabilities of selection (`gold_probability`)."
    return [Finding("gold-unbalanced", "caution", message, action)]


def _columns_given(sample: Sample) -> np.ndarray:
    """Return the intrinsic columns and their squares, standardised, shape (N, 2 P)."""
    return np.column_stack([np.empty((sample.labels.size, 0)), *map(quadratic, sample.intrinsic.T)])


def _strata(alpha: np.ndarray, has_gold: np.ndarray) -> np.ndarray:
    """Return each row's stratum: equal-count bins of α, with five gold rows or more in the mean."""
    count = int(np.clip(has_gold.sum() // 5, 1, _STRATA))
    return Bins.cut(alpha, count).index


def _parts(stratum: np.ndarray, has_gold: np.ndarray) -> np.ndarray:
    """Return each row's part of the range of α: consecutive strata with equal numbers of gold rows."""
    drawn = np.bincount(stratum[has_gold], minlength=stratum.max() + 1)
    count = int(np.clip(drawn.sum() // _GOLD_PER_PART, 1, _PARTS))
    middle = np.cumsum(drawn) - 0.5 * drawn
    return np.minimum(count * middle / drawn.sum(), count - 1).astype(int)[stratum]


def _excess(
    observed: np.ndarray, stratum: np.ndarray, has_gold: np.ndarray, weights: np.ndarray, controls: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return χ² and the mean difference, shape (K,), between labels of gold rows and those of their strata.

    If gold rows are a random part of the rows, their labels (0 and 1, or vote fractions) are a sample without
    replacement, of m of the n rows of a stratum. Their sum then has the variance m (n - m) / (n (n - 1)) Σ (label -
    mean)² (Mantel & Haenszel 1959, JNCI 22, 719; here for K classes and weights). What `controls`, (N, Q), predict
    of the labels within strata is subtracted.
    """
    strata, index, size = np.unique(stratum, return_inverse=True, return_counts=True)
    drawn = np.bincount(index[has_gold], minlength=strata.size)
    total = np.bincount(index, weights=weights)

    def centred(columns: np.ndarray) -> np.ndarray:
        sums = np.array([np.bincount(index, weights=weights * column) for column in columns.T])
        return columns - (sums.reshape(-1, strata.size) / total).T[index]

    left, design, scale = centred(observed), centred(controls), np.sqrt(weights)[:, None]
    left -= design @ np.linalg.lstsq(scale * design, scale * left, rcond=None)[0]
    residual = weights[:, None] * left
    excess = residual[has_gold].sum(axis=0)
    scale = drawn * (size - drawn) / (size * np.maximum(size - 1.0, 1.0))
    covariance = residual.T @ (residual * scale[index, None])
    chi_squared = excess @ np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ excess
    return float(chi_squared), excess / weights[has_gold].sum()
