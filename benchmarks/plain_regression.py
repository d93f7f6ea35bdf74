"""The baseline of tables with gold labels: logistic regression of gold labels by scikit-learn.

On the columns of truemorph's regression (labels, ln α, its square, labels × ln α, others), without bin effects.
Galaxies with a gold label keep their class. The range is 1.96 standard deviations of refits to resampled gold labels,
with drawn classes.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

RESAMPLES = 40


def design(labels, alpha, columns=()):
    """Terms of the regression, standardised, shape (N, R)."""
    u = np.log(np.maximum(alpha, alpha[alpha > 0].min()))
    member = np.eye(int(labels.max()) + 1)[labels][:, 1:]
    return StandardScaler().fit_transform(np.column_stack([member, u, u**2, member * u[:, None], *columns]))


def probabilities(terms, gold, rows, n_classes):
    """p of all classes of all galaxies, from the gold labels of some rows."""
    model = LogisticRegression(max_iter=1000).fit(terms[rows], gold[rows])
    p = np.zeros((len(terms), n_classes))
    p[:, model.classes_] = model.predict_proba(terms)
    return p


def fractions(terms, gold, cut, n_classes=2, quantity=None, seed=0):
    """A fraction in bins (default that of class 1), and the ends of its 95 % range, shape (B,) each."""
    rng, known = np.random.default_rng([seed, 60]), np.flatnonzero(gold >= 0)
    own, rest = np.eye(n_classes), gold < 0

    def in_bins(p):
        counts = np.stack([cut.sums(np.where(rest, p[:, k], own[gold, k])) for k in range(n_classes)], axis=1)
        shares = counts / counts.sum(axis=1, keepdims=True)
        return shares[:, 1] if quantity is None else quantity.of(shares)

    middle, draws = in_bins(probabilities(terms, gold, known, n_classes)), []
    for _ in range(RESAMPLES):
        rows = rng.choice(known, known.size)
        if np.unique(gold[rows]).size < 2:
            continue
        p = probabilities(terms, gold, rows, n_classes)
        drawn = (rng.random((len(p), 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
        draws.append(in_bins(own[drawn]))
    error = 1.96 * np.nanstd(draws, axis=0)
    return middle, np.maximum(middle - error, 0.0), np.minimum(middle + error, 1.0)


def scores(terms, gold, cut, true, **options):
    """Error of a fraction in bins, whether its range contains the truth, and the width of the range."""
    middle, low, high = fractions(terms, gold, cut, **options)
    return middle - true, (low - 1e-9 <= true) & (true <= high + 1e-9), high - low
