"""Simulate catalogues with known classes and without images, friendly or not, to test error bars."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field, FiniteFloat
from scipy.special import expit, logit

from truemorph.arguments import AtLeastOne, Count, Seed, validated
from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.bias.curves.transitions import DISK, Transition
from truemorph.errors import InputError
from truemorph.simulate.annotate import label_probabilities

# ln α is normal, as in Galaxy Zoo 2.
_MEDIAN, _WIDTH = 2.8, 0.45


@validated
def simulate_catalogue(
    n: AtLeastOne = 5000,
    seed: Seed = 0,
    *,
    transition: Transition | None = None,
    disk_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.7,
    trend: Literal["drift", "step", "wave", "features"] = "drift",
    drift: FiniteFloat = 0.0,
    gold: Count = 0,
    gold_choice: FiniteFloat = 0.0,
    weight_scatter: FiniteFloat = 0.0,
    alpha_error: FiniteFloat = 0.0,
    second_survey: Transition | None = None,
) -> pl.DataFrame:
    """Simulate observed labels of galaxies with known classes.

    Parameters
    ----------
    n : int
        Number of galaxies.
    seed : int
        Random seed.
    transition : Transition, optional
        p(ỹ | y, α); default Rayleigh with θ = 11.25. One with two observables uses α and `bulge_fraction`.
    disk_fraction : float
        True disk fraction at the median α, if the trend is "drift".
    trend : {"drift", "step", "wave", "features"}
        How p(disk) depends on u, the standardised ln α. "drift": logit p = logit(disk_fraction) + drift × u; "step":
        0.75, but 0.25 if u > 1.15; "wave": 0.5 + 0.3 sin 3u; "features": logit p = 0.9 - 1.8 b + 1.2 x2 + 0.8 x3,
        which does not depend on α.
    drift : float
        Slope of logit p(disk) per standard deviation of ln α.
    gold : int
        Number of galaxies with a gold label.
    gold_choice : float
        Selection of gold labels by `covariate`: log-odds per standard deviation; 0 is random.
    weight_scatter : float
        Standard deviation of the logarithm of the sampling weights.
    alpha_error : float
        Fractional error of the measured α; labels depend on the true α.
    second_survey : Transition, optional
        T(α) of a random half of the galaxies, which have `survey` 1.

    Returns
    -------
    polars.DataFrame
        A prepared catalogue: `object_id`, `label`, `alpha`, `split` ("train"), `gold` (null if unknown),
        `sampling_weight`, `survey`; `covariate`, the true class plus noise of standard deviation 1;
        `bulge_fraction`, `x2` and `x3`, standard normal; and `truth`.

    Raises
    ------
    InputError
        If there are more gold labels than galaxies, or an argument is outside its range.

    Examples
    --------
    >>> catalogue = simulate_catalogue(1000, seed=1, gold=100)
    >>> catalogue["gold"].count()
    100
    >>> bool(catalogue["label"].mean() < catalogue["truth"].mean())
    True
    """
    if gold > n:
        raise InputError(f"gold must be at most the number of galaxies, {n}; got {gold}")
    transition = transition or RayleighTransition(11.25)
    rng = np.random.default_rng(seed)
    u = rng.normal(size=n)
    alpha = np.exp(_MEDIAN + _WIDTH * u)
    bulge, x2, x3 = rng.normal(size=(3, n))
    p = {
        "drift": expit(logit(disk_fraction) + drift * u),
        "step": np.where(u > 1.15, 0.25, 0.75),
        "wave": 0.5 + 0.3 * np.sin(3 * u),
        "features": expit(0.9 - 1.8 * bulge + 1.2 * x2 + 0.8 * x3),
    }[trend]
    truth = (rng.random(n) < p).astype(int)
    survey = (rng.random(n) < 0.5).astype(int) if second_survey is not None else np.zeros(n, int)
    observables = np.column_stack([alpha, bulge])
    first, second = (
        label_probabilities(truth, observables if curve.n_observables else alpha, curve)[:, DISK]
        for curve in (transition, second_survey or transition)
    )
    labels = (rng.random(n) < np.where(survey, second, first)).astype(int)
    covariate = truth + rng.normal(size=n)
    # The largest of the log-weights plus Gumbel noise are a sample without replacement (Efraimidis & Spirakis 2006).
    keys = gold_choice * (covariate - covariate.mean()) / covariate.std() + rng.gumbel(size=n)
    has_gold = pl.Series(np.argsort(np.argsort(-keys)) < gold)
    return pl.DataFrame(
        {
            "object_id": np.arange(n),
            "label": labels,
            "alpha": alpha * np.exp(alpha_error * rng.normal(size=n)),
            "split": ["train"] * n,
            "sampling_weight": np.exp(weight_scatter * rng.normal(size=n)),
            "gold": None,
            "survey": survey,
            "covariate": covariate,
            "bulge_fraction": bulge,
            "x2": x2,
            "x3": x3,
            "truth": truth,
        }
    ).with_columns(gold=pl.when(has_gold).then("truth"))
