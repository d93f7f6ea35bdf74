"""Fit T(α) to a catalogue, and write the fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cyclopts import Parameter

from truemorph.bias.diagnosis import diagnose
from truemorph.bias.fitting import settings_for, solve
from truemorph.bias.likelihood import n_observables
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import Transition, family_of
from truemorph.catalogs.selected import select_rows
from truemorph.errors import InputError
from truemorph.findings import unique
from truemorph.tables import CatalogTable


def fit_catalogue(
    catalogue: CatalogTable, *, where: Iterable[str] = (), **options: Any
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels; also return the fit as it is written to a file.

    `where` has conditions that select rows; `options` are those of `settings_for`, for Rayleigh's family by default.
    """
    rows = select_rows(catalogue, where)
    fit = solve(rows.sample, settings_for(rows.sample, **{"family": "rayleigh", **options}))
    fit = replace(fit, findings=diagnose(fit).findings)
    findings = [one.to_dict() for one in unique(rows.context.findings, fit.findings)]
    return fit, fit.to_dict() | dict(rows.context.about) | {"findings": findings}


@Parameter(name="*", show_default=False)
@dataclass(frozen=True)
class KnownCurve:
    """A known T(α), given by family and parameters.

    Attributes
    ----------
    family : str, optional
        Family of a known T(α), used instead of a fit; give its parameters too.
    theta : float, optional
        Parameter of rayleigh, in units of α.
    scale : float, optional
        First parameter of weibull and fisk, in units of α.
    shape : float, optional
        Second parameter of weibull and fisk.
    psf : str, optional
        PSF width that defines α for theta or scale; an error if the catalogue's α uses the other.

    Examples
    --------
    >>> KnownCurve("rayleigh", theta=11.25, psf="sigma").text()
    'rayleigh:11.25:sigma'
    """

    family: Literal["rayleigh", "weibull", "fisk"] | None = None
    theta: float | None = None
    scale: float | None = None
    shape: float | None = None
    psf: Literal["sigma", "fwhm"] | None = None

    def text(self) -> str | None:
        """Return the curve as `read_fit` and run.toml take it; None if no family is given."""
        if self == KnownCurve():
            return None
        if self.family is None:
            raise InputError("`theta`, `scale`, `shape` and `psf` are for a known T(α): give its `family` too")
        wanted = tuple(family_of(self.family).free)
        given = {name: getattr(self, name) for name in ("theta", "scale", "shape") if getattr(self, name) is not None}
        if tuple(given) != wanted:
            raise InputError(
                f"family {self.family} needs {' and '.join(f'`{name}`' for name in wanted)}, and no others"
            )
        values = ",".join(repr(float(one)) for one in given.values())
        return ":".join([self.family, values, *([self.psf] if self.psf else [])])


def transition_or_curve(transition: Any, curve: KnownCurve) -> Any:
    """Return the fit or the known curve that was given; None if neither was."""
    text = curve.text()
    if text is not None and transition is not None:
        raise InputError("give a fit (`transition`) or a known T(α) (`family`), not both")
    return transition if text is None else text


def observables_of(described: Mapping[str, Any], transition: Transition) -> tuple[str, ...]:
    """Return the names of the columns on which T depends in addition to α, from its description."""
    names, wanted = tuple(described.get("observables", ())), n_observables(transition)
    if len(names) != wanted:
        raise InputError(
            f"T(α) depends on {wanted} column{'s' * (wanted != 1)} in addition to α, but {len(names)} are named; fit "
            'it with `truemorph transition`, or add their names to its description ("observables")'
        )
    return names
