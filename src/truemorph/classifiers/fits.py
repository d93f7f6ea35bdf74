"""Fit T(α) to the labels of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from truemorph.bias.checks.diagnosis import diagnose
from truemorph.bias.fitting import settings_for, solve
from truemorph.bias.result import Settings, TransitionFit
from truemorph.catalogs.selected import SampleOptions, rows_of
from truemorph.findings import unique
from truemorph.tables import CatalogTable

_RAYLEIGH = Settings(family="rayleigh")


def fit_catalogue(
    catalogue: CatalogTable, settings: Settings = _RAYLEIGH, where: Sequence[str] = ()
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels; also return the fit as it is written to a file.

    `where` has conditions that select rows.
    """
    sample, context = rows_of(catalogue, SampleOptions(where=where))
    fit = solve(sample, settings_for(sample, settings))
    fit = replace(fit, findings=diagnose(fit)[0])
    findings = [finding.to_dict() for finding in unique(context.findings, fit.findings)]
    return fit, fit.to_dict() | dict(context.about) | {"findings": findings}
