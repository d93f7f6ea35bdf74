"""Whether gold labels come from a few fields on the sky, and from which.

Galaxies of one field (a pointing of HST, a plate of spectra) have more in common than others, so gold labels of a few
fields say less than as many of random galaxies.
"""

import numpy as np
from scipy.spatial import KDTree

from truemorph.bias.sample import Sample
from truemorph.findings import Finding

# Nearest galaxies of each gold label that are counted; standard errors of their number that show clustering.
_NEIGHBOURS, _SIGNIFICANT = 5, 5.0
# Gold labels belong to one field if they are nearer than so many times the usual distance to the third nearest one.
_LINKED, _THIRD = 3.0, 3
# From fewer fields, their scatter cannot be estimated.
FEWEST_FIELDS = 3


def fields_on_sky(points: np.ndarray, has_gold: np.ndarray) -> np.ndarray | None:
    """Return the field of each gold label, shape (N,), -1 elsewhere; None if they are spread like the galaxies.

    Positions are unit vectors, shape (N, 3), NaN if unknown. Gold labels are clustered if more of the galaxies nearest
    to them have gold labels than chance explains (Cuzick & Edwards 1990, JRSS B 52, 73). Fields are then groups of
    neighbouring gold labels (friends of friends).
    """
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    points, gold = points[rows], has_gold[rows]
    if gold.sum() <= _NEIGHBOURS or rows.size <= 2 * _NEIGHBOURS or gold.all():
        return None
    fraction = gold.mean()
    _, near = KDTree(points).query(points[gold], _NEIGHBOURS + 1)
    beside = near != np.flatnonzero(gold)[:, None]  # not the galaxy itself
    number = np.count_nonzero(gold[near] & beside)
    # Of pairs that may be counted twice, so this is the largest variance.
    scatter = fraction * (1 - fraction) * np.sqrt(2 * rows.size * _NEIGHBOURS)
    if number - fraction * np.count_nonzero(beside) < _SIGNIFICANT * scatter:
        return None
    from sklearn.cluster import DBSCAN  # takes a second

    third = np.median(KDTree(points[gold]).query(points[gold], _THIRD + 1)[0][:, -1])
    groups = DBSCAN(_LINKED * third, min_samples=1).fit_predict(points[gold])
    numbers = np.full(has_gold.size, -1)
    numbers[rows[gold]] = groups
    return numbers


def field_findings(sample: Sample) -> list[Finding]:
    """Say from how many fields gold labels are, if their galaxies are not spread like all galaxies."""
    if sample.fields is None:
        return []
    number = np.unique(sample.fields[sample.known & (sample.fields >= 0)]).size
    if number >= FEWEST_FIELDS:
        message = f"Gold labels are from {number} fields. Errors include how much true classes differ between fields."
        return [Finding("gold-in-fields", "note", message, "Gold labels from more fields make errors smaller.")]
    message = (
        f"Gold labels are from {number} field{'s' if number > 1 else ''} on the sky. How much true classes differ "
        "between fields cannot be measured, so errors do not include it: they hold for galaxies like those of "
        f"{'these fields' if number > 1 else 'this field'}."
    )
    action = "Give gold labels in at least five more fields, or of galaxies spread over the whole area."
    return [Finding("gold-in-few-fields", "caution", message, action)]
