"""Pictures of the results in this room; matplotlib loads when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from truemorph.bias.binning import Bins, proportion_error
from truemorph.bias.likelihood import observed_log_probabilities
from truemorph.bias.transitions import DISK, SMOOTH
from truemorph.plotting import BLUE, GREY, RED, axes_or_new


def binned_share(
    alpha: np.ndarray, member: np.ndarray, bins: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean α, share of members and its error (`proportion_error`) in equal-count bins of α."""
    cut = Bins.cut(alpha, min(bins, alpha.size), weights)
    share, counts = cut.means(member.astype(np.float64)[:, None])[:, 0], cut.effective_counts()
    return cut.middles, share, proportion_error(share, counts)


def plot_fit(fit: Any, ax: Any, bins: int) -> Any:
    """Binned labels and the fitted curves; flips of gold disks where there are any."""
    ax = axes_or_new(ax)
    alpha, trusted, weights = fit.data.resolution, fit.data.gold, fit.data.weights
    if trusted is not None and np.any(trusted == DISK):
        disks = trusted == DISK
        middle, share, error = binned_share(alpha[disks], fit.labels[disks] == SMOOTH, bins, weights[disks])
        ax.errorbar(middle, share, error, fmt="o", ms=4, color="0.25", label="gold disks labelled smooth")
        curve = _binned_mean(alpha[disks], np.asarray(fit.transition.flip_probability(fit.alpha[disks])))
        ax.plot(*curve, color=RED, label=f"p(smooth | disk), {fit.family}")
        ax.set(ylabel="p(labelled smooth | disk)")
    else:
        middle, share, error = binned_share(alpha, fit.labels == SMOOTH, bins, weights)
        ax.errorbar(middle, share, error, fmt="o", ms=4, color="0.25", label="labels")
        fractions = fit.class_fractions if fit.probabilities is None else fit.probabilities
        with np.errstate(divide="ignore"):
            log_fractions = np.broadcast_to(np.log(fractions), (alpha.size, fit.transition.n_classes))
        seen = np.exp(observed_log_probabilities(log_fractions, fit.alpha, fit.transition))[:, SMOOTH]
        ax.plot(*_binned_mean(alpha, seen), color=RED, label=f"{fit.family} fit")
        flips = np.asarray(fit.transition.flip_probability(fit.alpha))
        ax.plot(*_binned_mean(alpha, flips), color=BLUE, lw=1, label="p(smooth | disk)")
        ax.axhline(fit.class_fractions[SMOOTH], ls="--", lw=1, color=RED, label="true smooth fraction")
        ax.set(ylabel="fraction labelled smooth")
    ax.set(xlabel=r"resolution $\alpha$", ylim=(-0.02, 1.02), xlim=(0, float(np.quantile(alpha, 0.995))))
    ax.legend(frameon=False, fontsize=8)
    return ax


def _binned_mean(alpha: np.ndarray, values: np.ndarray, points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Mean of values in narrow bins: a curve, also where other columns than α enter."""
    order = np.argsort(alpha, kind="stable")
    parts = np.array_split(order, min(points, order.size))
    return np.array([alpha[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


def plot_fractions(found: Any, ax: Any, known: Mapping[str, Any], label_class: int) -> Any:
    """Fraction of one class: as labelled, corrected with its error and range, and known ones."""
    ax = axes_or_new(ax)
    x, c = found.middles, label_class
    ax.fill_between(x, found.low[:, c], found.high[:, c], color=BLUE, alpha=0.15, lw=0, label="range")
    ax.errorbar(x, found.fractions[:, c], found.stderr[:, c], fmt="D-", ms=4, color=BLUE, label="corrected")
    ax.plot(x, found.labelled[:, c], "s--", ms=4, color=GREY, label="as labelled")
    for label, values in known.items():
        ax.plot(x, np.asarray(values), "ko-", ms=4, lw=1, label=label)
    name = r"resolution $\alpha$" if found.by == "alpha" else found.by
    ax.set(xlabel=name, ylabel="disk fraction" if c == DISK else "class fraction", ylim=(-0.02, 1.02))
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_calibration(found: Any, ax: Any) -> Any:
    """Observed against fitted probability in bins."""
    ax = axes_or_new(ax, (4.2, 3.8))
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    ax.errorbar(found.fitted, found.observed, found.stderr, fmt="o", ms=4, color=BLUE, label=found.what)
    ax.set(xlabel="fitted", ylabel="observed", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_families(found: Any, ax: Any, bins: int = 12) -> Any:
    """Flip probabilities of all families compared, over the data of the first."""
    first = next(iter(found.fits.values()))
    ax = plot_fit(first, ax, bins)
    ax.set(title="")
    for number, (name, fit) in enumerate(list(found.fits.items())[1:]):
        alpha = fit.data.resolution
        flips = np.asarray(fit.transition.flip_probability(fit.alpha))
        ax.plot(*_binned_mean(alpha, flips), lw=1, color=f"C{number + 2}", label=f"p(smooth | disk), {name}")
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_aic(found: Any, ax: Any) -> Any:
    """AIC of each family above the best one's."""
    ax = axes_or_new(ax, (4.2, 2.6))
    rows = found.rows()
    ax.barh([row["family"] for row in rows], [row["delta_aic"] for row in rows], color=BLUE, height=0.6)
    for number, row in enumerate(rows):
        ax.annotate(
            f"{row['delta_aic']:.1f}", (row["delta_aic"], number), (4, 0), textcoords="offset points", va="center"
        )
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="AIC above the best")
    return ax


def plot_bias(found: Any, ax: Any) -> Any:
    """Value, bootstrap and floor of a bias measure as one bar each."""
    ax = axes_or_new(ax, (4.2, 2.6))
    names = ["value", "floor", "excess"]
    heights = [found.value, found.floor, found.excess]
    ax.barh(names, heights, color=[BLUE, GREY, RED], height=0.6)
    if np.isfinite(found.bootstrap_mean):
        ax.errorbar([found.bootstrap_mean], ["value"], xerr=[found.bootstrap_std], fmt="ko", ms=4, label="bootstrap")
        ax.legend(frameon=False, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="bias (rms deviation of class fractions)", xlim=(0, None))
    return ax
