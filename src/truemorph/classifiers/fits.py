"""Fit T(α) to a catalogue; read and write fits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import AfterValidator, BaseModel

from truemorph.bias.estimation import fit_transition
from truemorph.bias.likelihood import n_observables
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import Transition, family_of, transition_from_dict, transition_to_dict
from truemorph.catalogs.selected import select_rows
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.io import FORMAT_VERSION, check_format, checked, read_json, save_figure, write_json
from truemorph.results import Result
from truemorph.tables import CatalogTable


def fit_catalogue(
    catalogue: CatalogTable, *, where: Iterable[str] = (), **options: Any
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels; also return the fit as it is written to a file.

    `where` has conditions that select rows; `options` are those of `fit_transition`, for Rayleigh's family by default.
    """
    rows = select_rows(catalogue, where)
    fit = fit_transition(rows.labels, rows.alpha, weights=rows.weights, **{"family": "rayleigh", **options})
    findings = [one.to_dict() for one in unique(rows.findings, fit.findings)]
    return fit, fit.to_dict() | rows.about | {"findings": findings}


def write_fit(described: dict[str, Any], figure: Any, out: Path) -> Path:
    """Write a fit as JSON, and its matplotlib figure as PNG beside it."""
    write_json(out, {"format_version": FORMAT_VERSION, **described})
    save_figure(figure, out.with_suffix(".png"))
    return out


def read_fit(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Read T(α) in the format of a fit file, from a file or a known curve, "rayleigh:11.25:sigma" or "fisk:14,2.2".

    The file is of `truemorph transition`, or hand-written: `{"family": ..., "parameters": ...}`. A known curve has the
    PSF width in the definition of α, if the catalogue's must be the same.
    """
    name, *rest = str(source).split(":")
    if rest and name in ("rayleigh", "weibull", "fisk"):
        family, (values, *psf) = family_of(name), rest
        try:
            known = family(**dict(zip(family.free, map(float, values.split(",")), strict=True)))
        except ValueError as problem:
            raise InputError(f"{source}: must be {name}:{','.join(family.free).upper()} ({problem})") from problem
        return transition_to_dict(known) | ({"alpha_psf": psf[0]} if psf else {})
    described = read_json(source)
    check_format(described, source)
    try:
        check_fit(described)
    except (ValueError, AttributeError) as problem:
        raise InputError(f"{source}: not a transition written by `truemorph transition` ({problem})") from problem
    return described


def _checked_fractions(fractions: Any) -> Any:
    """Check class fractions, which models that were trained on votes have as a list."""
    values = list(fractions.values() if isinstance(fractions, dict) else fractions or [1.0])
    if min(values) < 0 or not math.isclose(sum(values), 1, abs_tol=1e-3):
        raise ValueError("must be at least 0 and sum to 1")
    return fractions


class FitFile(BaseModel):
    """What is read from a fit file, or from the bias curve of a model; other keys are only shown."""

    parameters: dict[str, Any]
    class_fractions: Annotated[dict[str, float] | list[float] | None, AfterValidator(_checked_fractions)] = None
    stderr: dict[str, float | None] = {}
    observables: list[str] = []
    findings: list[Finding] = []


def check_fit(described: Mapping[str, Any]) -> Transition:
    """Check T(α) in the format of a fit file, and return it; an InputError names what is wrong."""
    checked(FitFile, described, "transition:")
    return transition_from_dict(dict(described))


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
    known = curve.text()
    if known is not None and transition is not None:
        raise InputError("give a fit (`transition`) or a known T(α) (`family`), not both")
    return transition if known is None else known


def observables_of(described: Mapping[str, Any], transition: Transition) -> tuple[str, ...]:
    """Return the names of the columns on which T depends in addition to α, from its description."""
    names, wanted = tuple(described.get("observables", ())), n_observables(transition)
    if len(names) != wanted:
        raise InputError(
            f"T(α) depends on {wanted} column{'s' * (wanted != 1)} in addition to α, but {len(names)} are named; fit "
            'it with `truemorph transition`, or add their names to its description ("observables")'
        )
    return names


def transition_described(transition: Any) -> dict[str, Any]:
    """Return T(α) in the format of a fit file, from a path, a fit, a study, a bias curve or such a description."""
    if isinstance(transition, str | os.PathLike):
        return read_fit(transition)
    if isinstance(transition, Mapping):
        check_fit(transition)
        return dict(transition)
    if isinstance(transition, Result):  # a fit or a study
        return transition.to_dict()
    if hasattr(transition, "log_flip_probability") or hasattr(transition, "log_matrix"):
        return transition_to_dict(transition)
    raise InputError(f"`transition` must be a fit, a bias curve or a path to one; got {type(transition).__name__}")
