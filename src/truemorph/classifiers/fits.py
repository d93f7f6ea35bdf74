"""Fit T(α) to a catalogue; read and write fits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import Parameter

from truemorph.bias.estimation import fit_transition
from truemorph.bias.likelihood import n_observables
from truemorph.bias.result import TransitionFit
from truemorph.bias.transitions import Transition, family_of, transition_from_dict, transition_to_dict
from truemorph.catalogs.selected import select_rows
from truemorph.errors import InputError
from truemorph.findings import unique
from truemorph.io import read_json, write_json
from truemorph.results import Result
from truemorph.tables import CatalogTable


def fit_catalogue(
    catalogue: CatalogTable,
    *,
    family: str = "rayleigh",
    method: str | None = None,
    bins: int = 1525,
    where: Iterable[str] = (),
) -> tuple[TransitionFit, dict[str, Any]]:
    """Fit T(α) to a catalogue's labels.

    Parameters
    ----------
    catalogue : CatalogTable
    family, method, bins
        As in `fit_transition`.
    where : iterable of str
        Conditions that select rows.

    Returns
    -------
    fit : TransitionFit
    described : dict
        The fit as it is written to a file.

    Raises
    ------
    InputError
        If no galaxy is selected, or the fit can't be made.
    """
    rows = select_rows(catalogue, where)
    fit = fit_transition(rows.labels, rows.alpha, family, method, bins, weights=rows.weights)
    findings = [one.to_dict() for one in unique(rows.findings, fit.findings)]
    return fit, fit.to_dict() | rows.about | {"findings": findings}


def check_fit_path(out: Path) -> None:
    """Check that the name of a fit ends in .json.

    Raises
    ------
    InputError
    """
    if out.suffix != ".json":
        raise InputError(f"{out}: a fit is written as JSON and PNG; choose a name that ends in .json")


def write_fit(described: dict[str, Any], figure: Any, out: Path) -> Path:
    """Write a fit as JSON, and its matplotlib figure as PNG beside it."""
    check_fit_path(out)
    write_json(out, described)
    figure.savefig(out.with_suffix(".png"), dpi=150)
    return out


def read_fit(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a fit written by `truemorph transition`, or a hand-written `{"family": ..., "parameters": ...}`.

    Raises
    ------
    InputError
        If the file is missing, not JSON, or not a transition.
    """
    described: dict[str, Any] = read_json(path)
    try:
        transition_from_dict(described)
    except (ValueError, AttributeError) as problem:
        raise InputError(f"{path}: not a transition written by `truemorph transition` ({problem})") from problem
    return described


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
    >>> KnownCurve("rayleigh", theta=11.25, psf="sigma").described()
    {'family': 'rayleigh', 'parameters': {'theta': 11.25, 'false_disk': 0.0}, 'alpha_psf': 'sigma'}
    """

    family: Literal["rayleigh", "weibull", "fisk"] | None = None
    theta: float | None = None
    scale: float | None = None
    shape: float | None = None
    psf: Literal["sigma", "fwhm"] | None = None

    def described(self) -> dict[str, Any] | None:
        """Return T(α) in the format of a fit file; None if no family is given.

        Raises
        ------
        InputError
            If the parameters are not those of the family, or out of range.
        """
        parameters = {"theta": self.theta, "scale": self.scale, "shape": self.shape}
        given = {name: value for name, value in parameters.items() if value is not None}
        if self.family is None:
            if given or self.psf is not None:
                raise InputError(f"`{next(iter(given), 'psf')}` is for a known T(α): give its `family` too")
            return None
        cls = family_of(self.family)
        if set(given) != set(cls.free):
            wanted, got = (" and ".join(f"`{name}`" for name in names) or "nothing" for names in (cls.free, given))
            raise InputError(f"family {self.family} needs {wanted}; got {got}")
        return transition_to_dict(cls(**given)) | ({} if self.psf is None else {"alpha_psf": self.psf})


def observables_of(described: Mapping[str, Any], transition: Transition) -> tuple[str, ...]:
    """Return the names of the columns on which T depends in addition to α.

    Parameters
    ----------
    described : mapping
        T(α) in the format of a fit file.
    transition : Transition
        The same T(α) as an object.

    Raises
    ------
    InputError
        If T depends on such columns and their names are missing.
    """
    names, wanted = tuple(described.get("observables", ())), n_observables(transition)
    if len(names) != wanted:
        raise InputError(
            f"T(α) depends on {wanted} column{'s' * (wanted != 1)} in addition to α, but {len(names)} are named; fit "
            'it with `truemorph transition`, or add their names to its description ("observables")'
        )
    return names


def transition_described(transition: Any) -> dict[str, Any]:
    """Return T(α) in the format of a fit file.

    Parameters
    ----------
    transition : path, TransitionFit, TransitionStudy, Transition or dict

    Raises
    ------
    InputError
        If it is none of these.
    """
    if isinstance(transition, str | os.PathLike):
        return read_fit(transition)
    if isinstance(transition, Mapping):
        transition_from_dict(dict(transition))
        return dict(transition)
    if isinstance(transition, Result):  # a fit or a study
        return transition.to_dict()
    if hasattr(transition, "log_flip_probability") or hasattr(transition, "log_matrix"):
        return transition_to_dict(transition)
    raise InputError(f"`transition` must be a fit, a bias curve or a path to one; got {type(transition).__name__}")
