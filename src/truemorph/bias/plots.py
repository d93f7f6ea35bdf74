"""Figures of bias results; matplotlib loads when one is drawn."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np

from truemorph.bias.binning import Bins, proportion_error
from truemorph.bias.curves.transitions import DISK, SMOOTH
from truemorph.plotting import ALPHA, BLACK, BLUE, GREY, ORANGE, RED, SKY, legend, plain_text

_BINS = 12


def plot_fit(fit: Any, ax: Any, others: Mapping[str, Any] | None = None) -> None:
    """Draw the labels and the bias curve; from labels alone with its range, beside other families as one band."""
    if fit.class_fractions.size != 2 or fit.sample.asked is not None:
        _plot_matrix(fit, ax)
        return
    first, second = fit.sample.classes
    alpha, has_gold = fit.sample.alpha, fit.sample.has_gold
    rows = fit.sample.gold == DISK if has_gold else np.ones(alpha.size, bool)
    cut = Bins.cut(alpha[rows], _BINS, fit.sample.gold_weights[rows])
    fraction, error, _ = cut.averages(fit.labels[rows] == SMOOTH)
    points = cut.middles, fraction, error

    def curve(transition: Any) -> tuple[np.ndarray, np.ndarray]:
        return _binned_mean(alpha[rows], transition.flip_probability(fit.sample.argument[rows]))

    def band(transitions: Any, label: str, color: str) -> None:
        drawn = [curve(transition) for transition in transitions]
        if drawn:
            values = [y for _, y in drawn]
            low, high = np.min(values, axis=0), np.max(values, axis=0)
            ax.fill_between(drawn[0][0], low, high, color=color, alpha=0.3, lw=0, label=label)

    if fit.drift is not None:
        band((curve for curve, _, _ in fit.drift.alternatives.values()), "range of the bias curve", SKY)
    band((other.transition for name, other in (others or {}).items() if name != fit.family), "other families", ORANGE)
    ax.plot(*curve(fit.transition), color=BLUE, lw=2.2, label=f"bias curve ({fit.family})")
    if has_gold:
        ax.errorbar(*points, fmt="o", ms=4, color=BLACK, label="gold labels")
        ax.set(ylabel=f"fraction of class {second} labelled {first}")
    else:
        ax.errorbar(*points, fmt="s", ms=4, color=GREY, label="observed labels")
        steps = 120 if fit.probabilities is None else _BINS  # at fixed α it scatters with the intrinsic columns
        seen = _binned_mean(alpha, fit.label_probabilities[:, SMOOTH], steps)
        ax.plot(*seen, color=RED, lw=1.2, label="fit to observed labels")
        ax.set(ylabel=f"fraction labelled {first}")
    ax.set(xlabel=ALPHA, ylim=(-0.02, 1.02), xlim=(0, float(np.quantile(alpha, 0.995))))
    legend(ax)


def _plot_matrix(fit: Any, ax: Any) -> None:
    """Draw how often galaxies of each of K classes get another class as label."""
    right = np.einsum("nkk->kn", fit.transition.matrix(fit.sample.argument))
    for name, values in zip(fit.sample.classes, right, strict=True):
        ax.plot(*_binned_mean(fit.sample.alpha, 1 - values), label=plain_text(name))
    ax.set(xlabel=ALPHA, ylabel="fraction with another label", ylim=(-0.02, 1.02))
    legend(ax)


def _binned_mean(alpha: np.ndarray, values: np.ndarray, points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Mean of values in narrow bins: a curve, also where other columns than α enter."""
    cut = Bins.cut(alpha, points)
    return cut.middles, cut.means(values)


def plot_fractions(result: Any, ax: Any, gold: Mapping[str, Any], gold_stderr: np.ndarray | None = None) -> None:
    """Draw the fraction: observed, corrected with its error and range, and those of gold labels."""
    ranges = "95 % range" if result.method == "gold" else "range with systematics"
    shown, named, parts = result.ratios, result.columns, [(slice(None), "")]
    if result.edges.ndim == 3:  # a line for each part of the first column
        lows, index = np.unique(result.edges[:, 0, 0], return_inverse=True)
        means = [result.middles[index == k, 0].mean() for k in range(lows.size)]
        parts = [(index == k, f", {plain_text(named[0])} = {mean:.3g}") for k, mean in enumerate(means)]
        shown = dict([next(iter(shown.items()))])
    alone = len(shown) * len(parts) == 1
    lines = ((name, fit, rows, of) for name, fit in shown.items() for rows, of in parts)
    for (name, fraction, rows, of), color, line in zip(lines, cycle((BLUE, ORANGE, RED, SKY)), cycle(("-", ":", "-."))):
        x = result.middles[rows] if result.edges.ndim == 1 else result.middles[rows, 1]
        of = of or ("" if alone else f", {name.removesuffix(' fraction').replace('fraction ', 'class ')}")
        low, high, value, stderr, labelled = (
            array[rows]
            for array in (fraction.low, fraction.high, fraction.fraction, fraction.stderr, fraction.labelled)
        )
        # No lines between groups.
        line, dashed, area = ("none", "none", ax.vlines) if result.groups else (line, "--", ax.fill_between)
        area(x, low, high, color=SKY if alone else color, alpha=0.3, lw=8 if result.groups else 0, label=ranges + of)
        ax.errorbar(x, value, stderr, marker="D", ls=line, ms=4, color=color, label=f"corrected{of}")
        ax.plot(x, labelled, marker="s", ls=dashed, ms=4, color=GREY if alone else color, label=f"observed labels{of}")
    for label, values in gold.items() if result.edges.ndim == 1 else ():
        ax.errorbar(result.middles, np.asarray(values), gold_stderr, fmt="o", ms=4, color=BLACK, label=label)
    by = ALPHA if named[-1] == "alpha" else plain_text(named[-1])
    ylabel = next(iter(shown)) if len(shown) == 1 else "fraction" if result.quantities else "class fraction"
    ax.set(xlabel=by, ylabel=ylabel, ylim=(-0.02, max(1.02, ax.get_ylim()[1])))
    if result.groups:
        ax.set_xticks(result.middles, map(plain_text, result.groups))
        ax.set_xlim(result.edges[0], result.edges[-1])
    legend(ax)


# Colour, marker and line of each label set.
_STYLES = {
    "observed labels": (GREY, "s", "--"),
    "model labels": (RED, "^", "-"),
    "model probabilities": (ORANGE, "v", "-"),
    "posterior probabilities": (BLUE, "D", "-"),
    "gold labels": (BLACK, "o", "-"),
}


def plot_label_sets(
    measure: str, results: Mapping[str, Any], fractions: Mapping[str, Any], quantity: str, ax: Any
) -> None:
    """Draw the fraction of each label set in bins of α, with the bias metric in the legend."""
    alpha = fractions["alpha"]
    for name, result in results.items():
        value = np.asarray(fractions[name])
        error = proportion_error(value, result.n_objects / len(alpha))
        color, marker, line = _STYLES.get(name, _STYLES["observed labels"])
        label = f"{name}, {result.value:.3f}"
        ax.errorbar(alpha, value, error, color=color, marker=marker, ls=line, ms=4, lw=1.2, label=label)
    ax.set(xlabel=ALPHA, ylabel=quantity, ylim=(-0.02, 1.02))
    legend(ax, title=f"labels, {measure}", title_fontsize=9)
