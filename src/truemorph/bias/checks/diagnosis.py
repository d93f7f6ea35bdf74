"""What limits an estimate of T(α): one function that looks at the finished fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import xlogy

from truemorph.bias.checks.calibration import Calibration, calibration
from truemorph.bias.checks.selection import selection_findings
from truemorph.bias.curves.transitions import DISK, log_of
from truemorph.bias.result import SIGNIFICANT_GAIN, TransitionFit
from truemorph.bias.sample import Sample
from truemorph.findings import Finding, Findings, unique

# R² of log α on intrinsic columns above which bias is hard to separate.
_EXPLAINED = 0.95


def diagnose(
    fit: TransitionFit, rejected: Finding | None = None, tested: str = "", sample: Sample | None = None
) -> tuple[Findings, Calibration]:
    """Return what limits an estimate, most important first, and its goodness of fit.

    `rejected` says that another family describes it better, `tested` that gold labels show constant class fractions.
    The `sample`, by default that of the fit, has the columns by which gold labels may have been selected.
    """
    sample = sample or fit.sample
    flat = [] if fit.method == "gold" else [_flat_fractions_assumed(fit, tested)]  # first: it limits everything
    selected = selection_findings(sample) if sample.has_gold else []
    of_alpha = fit.method in ("likelihood", "binned") and not fit.sample.observable_names
    drift = _drift_findings(fit) if of_alpha else []
    fitted = calibration(fit)
    failed = f"The fit failed on {fit.failed_resamples} bootstrap resamples, which were left out."
    action = "Use more galaxies if many failed."
    findings = unique(
        flat,
        _identification_findings(fit),
        selected,
        _estimate_findings(fit),
        drift,
        [Finding("resamples-failed", "note", failed, action)] if fit.failed_resamples else (),
        # Both may reject the family; the comparison names a better one.
        fitted.findings if rejected is None else (rejected,),
    )
    return findings, fitted


def _flat_fractions_assumed(fit: TransitionFit, tested: str) -> Finding:
    """Return the assumption of an estimate without gold labels, and the range of the fraction without it."""
    if tested:
        message = f"This estimate from labels alone assumes that the true fractions do not depend on α. Here {tested}."
        return Finding("flat-fractions-tested", "note", message)
    counted = fit.sample.classes[DISK]
    low, high = fit.fraction_range[counted]
    fixed = " at fixed intrinsic columns" if fit.method == "conditional" else ""
    trend = "" if fit.drift is None else f" if their logit changes by up to {fit.drift.delta:g} per σ of ln α"
    message = (
        "Labels alone cannot separate bias from a real change of class fractions with resolution. This estimate "
        f"assumes that the true fractions do not depend on α{fixed}; the {counted} fraction may lie anywhere from "
        f"{low:.2f} to {high:.2f}{trend}."
    )
    return Finding("flat-fractions-assumed", "caution", message, "Give gold labels (`gold`), which settle it.")


def _identification_findings(fit: TransitionFit) -> Iterator[Finding]:
    """Return findings where labels alone cannot separate bias from class fractions."""
    if fit.method == "conditional" and fit.sample.explained > _EXPLAINED:
        variance = f"{fit.sample.explained:.1%} of the variance of log α (more than {_EXPLAINED:.0%})"
        message = f"The intrinsic columns explain {variance}, so bias is hard to separate from real differences."
        action = "Use columns that do not set α, such as the axis ratio (`intrinsic`), or gold labels (`gold`)."
        yield Finding("columns-determine-alpha", "caution", message, action)
    if fit.sample.observable_names and fit.method == "likelihood":
        message = (
            "From labels alone, a bias curve of several observables cannot be separated from class fractions that "
            "depend on them."
        )
        action = "Give gold labels (`gold`), or intrinsic columns (`intrinsic`) on which classes depend."
        yield Finding("observables-not-identified", "caution", message, action)


def _estimate_findings(fit: TransitionFit) -> Iterator[Finding]:
    """Return findings where the data may not determine the estimate."""
    for name in getattr(fit.transition, "free", ()):
        value, error = fit.values[name], fit.stderr[name]
        if not error < 0.5 * value:
            stated = f"{error:.2g}" if np.isfinite(error) else "unknown"
            message = f"{name} = {value:.3g} is uncertain (error {stated}): the likelihood is nearly flat."
            action = "Use more galaxies, gold labels (`gold`), or a family with fewer parameters (`family`)."
            yield Finding("parameter-uncertain", "caution", message, action)
    if fit.family == "monotone" and fit.method not in ("gold", "conditional"):
        message = (
            "The monotone family assumes that the best resolved galaxies are labelled without bias, which labels "
            "alone cannot show."
        )
        action = "Give gold labels (`gold`), or compare with a family that has a formula (`family`)."
        yield Finding("best-resolved-unbiased-assumed", "caution", message, action)
    if fit.at_bound:
        message = (
            "A class fraction is 0 or 1: labels alone cannot separate bias from a missing class here. The errors of "
            "the other parameters are at this fixed fraction."
        )
        yield Finding("fraction-at-bound", "caution", message, "Give gold labels (`gold`).")


def _drift_findings(fit: TransitionFit) -> Iterator[Finding]:
    """Return findings if the labels do not drift with α, or no T(α) explains some of them."""
    labels, weights = fit.labels, fit.sample.weights
    resolved, (first, second) = fit.alpha > 0, fit.sample.classes[:2]
    impossible = int(np.sum(~resolved & (labels == DISK)))
    if impossible:
        message = f"{impossible:,} galaxies at α = 0 are labelled {second}, although nothing can be seen there."
        yield Finding("seen-at-alpha-zero", "caution", message, "Check their radii.")
    seen = log_of(fit.label_probabilities[np.arange(labels.size), labels])
    totals = np.bincount(labels[resolved], weights=weights[resolved], minlength=fit.sample.n_classes)
    gain = float((weights * seen)[resolved].sum() - np.sum(xlogy(totals, totals / totals.sum())))
    gain *= weights.sum() ** 2 / (weights.size * np.sum(weights**2))  # weighted rows weigh as fewer
    falls = gain < SIGNIFICANT_GAIN and np.ptp(fit.alpha[resolved]) > 0
    if falls and np.corrcoef(labels[resolved] == DISK, np.log(fit.alpha[resolved]))[0, 1] * labels.size**0.5 < -3:
        message = f"The {second} fraction of the labels falls with α, the opposite of resolution bias."
        action = f"Check that {first} and {second} are not exchanged; otherwise give gold labels (`gold`)."
        yield Finding("drift-reversed", "problem", message, action)
    elif gain < SIGNIFICANT_GAIN:
        message = (
            f"The labels do not drift significantly with α: the log-likelihood is {gain:.1f} above that of constant "
            f"fractions, so {next(iter(fit.space.names), fit.family)} is an upper limit at most."
        )
        action = "Do not correct these labels unless gold labels (`gold`) show a bias."
        yield Finding("no-drift", "caution", message, action)
