"""Rivals: what others do about biased or noisy labels, as plain functions of labels and columns."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from truemorph.bias.estimation import fit_transition
from truemorph.bias.leaves import RankedTable
from truemorph.bias.transitions import UNKNOWN, ConstantTransition
from truemorph.errors import require_extra


def constant_transition(labels: np.ndarray, alpha: np.ndarray) -> ConstantTransition:
    """Forward correction as for label noise that knows no α (Patrini et al. 2017, CVPR): the mean flip rate.

    Labels alone don't tell a constant flip rate from other class fractions. It is given the mean over galaxies of the
    Rayleigh T(α) fitted to them: all that a constant can know.
    """
    fit = fit_transition(labels, alpha)
    return ConstantTransition(flip=float(np.mean(fit.transition.flip_probability(alpha))))


def matched_fractions(
    fraction: np.ndarray,
    alpha: np.ndarray,
    intrinsic: np.ndarray | None,
    *,
    depth: int = 3,
    bins: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Vote fractions matched to those of the best-resolved galaxies of like intrinsic properties.

    In the spirit of Bamford et al. 2009, Willett et al. 2013 and Hart et al. 2016: galaxies are binned by intrinsic
    properties (here leaves of a k-d tree, as in CV18) and, in each, by α; fractions of each bin keep their order
    and take the distribution of the leaf's best-resolved bin. Assumes that vote distributions would be equal, were
    galaxies of a leaf equally well resolved.

    Parameters
    ----------
    fraction : array, shape (N,)
        Share of votes for disk, or labels (equal values are put in random order).
    alpha : array, shape (N,)
    intrinsic : array, shape (N, P), or None
        None: one leaf.
    depth, bins : int
        2^depth leaves, equal-count bins of α in each.
    seed : int

    Returns
    -------
    array, shape (N,)

    Examples
    --------
    >>> alpha = np.arange(8.0)
    >>> matched_fractions(np.array([0.05, 0.1, 0, 0.2, 0.9, 0.1, 0.7, 0.3]), alpha, None, bins=2)
    array([0.3, 0.7, 0.1, 0.9, 0.9, 0.1, 0.7, 0.3])
    """
    rng = np.random.default_rng([seed, 8])
    n = fraction.size
    order = np.lexsort((rng.random(n), fraction))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    if intrinsic is None:
        leaf = np.zeros(n, dtype=np.int64)
    else:
        table = RankedTable.of(alpha[:, None], intrinsic[:, :depth])
        leaf = np.empty(n, dtype=np.int64)
        leaf[table.rows] = table.cut(depth, bins).leaf
    out = fraction.astype(np.float64)
    for one in np.unique(leaf):
        members = np.flatnonzero(leaf == one)
        parts = np.array_split(members[np.argsort(alpha[members], kind="stable")], bins)
        best = np.sort(fraction[parts[-1]])
        for part in parts[:-1]:
            position = (np.argsort(np.argsort(rank[part])) + 0.5) / part.size
            out[part] = best[np.minimum((position * best.size).astype(np.int64), best.size - 1)]
    return out


def pruned_rows(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rows whose labels confident learning leaves in (Northcutt et al. 2021, JAIR; cleanlab).

    Parameters
    ----------
    labels : array of int, shape (N,)
    probabilities : array, shape (N, K)
        Out-of-fold p(ỹ | x).

    Returns
    -------
    array of bool, shape (N,)

    Raises
    ------
    InputError
        If cleanlab is not installed.
    """
    require_extra("benchmark")
    from cleanlab.filter import find_label_issues

    return ~find_label_issues(labels, probabilities, n_jobs=1)


def regressed_on_votes(
    fraction: np.ndarray, alpha: np.ndarray, intrinsic: np.ndarray | None, gold: np.ndarray, *, votes: bool = True
) -> np.ndarray:
    """Logit of p(disk) of every galaxy, by logistic regression of gold labels: no T(α) at all.

    Parameters
    ----------
    fraction, alpha : array, shape (N,)
        Share of votes for disk; resolution.
    intrinsic : array, shape (N, P), or None
    gold : array of int, shape (N,)
        Gold class, -1 where there is none.
    votes : bool, default True
        p(y | votes, α, z); p(y | α, z) without.

    Returns
    -------
    array, shape (N,)
    """
    known, log_alpha = gold != UNKNOWN, np.log(alpha)
    columns = [fraction, fraction**2, fraction * log_alpha] if votes else []
    columns += [log_alpha, log_alpha**2, *([] if intrinsic is None else intrinsic.T)]
    design = np.column_stack(columns)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return np.asarray(model.fit(design[known], gold[known]).decision_function(design))


def regressed_evidence(
    fraction: np.ndarray, alpha: np.ndarray, intrinsic: np.ndarray | None, gold: np.ndarray
) -> np.ndarray:
    """log p(votes | y, α, z) up to a constant, by Bayes' theorem from two regressions on gold labels, shape (N, 2).

    p(y | votes, α, z) / p(y | α, z) is proportional to p(votes | y, α, z); no shape of T and no distribution of votes
    is assumed. Parameters as of `regressed_on_votes`.
    """
    beside, without = (regressed_on_votes(fraction, alpha, intrinsic, gold, votes=votes) for votes in (True, False))
    evidence = np.column_stack([np.zeros(fraction.size), beside - without])
    return evidence - evidence.max(axis=1, keepdims=True)
