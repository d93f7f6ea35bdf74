"""Write an estimate; read it, or T(α) alone, from whatever holds it: a fit, its description, a file, a known curve."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel

from truemorph.bias.curves.families import KNOWN_CURVES, family_of, transition_from_dict, transition_to_dict
from truemorph.bias.curves.transitions import Transition
from truemorph.errors import InputError, reason
from truemorph.findings import Finding
from truemorph.io import (
    FORMAT_VERSION,
    PathLike,
    check_format,
    checked,
    file_hash,
    read_json,
    save_figure,
    write_json,
    written_whole,
)
from truemorph.results import Result

# Tables of fractions.
TABLES = (".csv", ".ecsv", ".fits", ".tex")


def load_transition(source: Any) -> Transition:
    """Return the bias curve T(α) of a fit.

    Parameters
    ----------
    source : path, TransitionFit, Estimate, dict or Transition
        File of `estimate_transition`, or what it and `fit_transition` return; a dict as in such a file; a known curve,
        "rayleigh:11.25"; or a T(α), which is returned.

    Returns
    -------
    Transition

    Raises
    ------
    InputError
        If there is no such file, or it holds no T(α).

    Examples
    --------
    >>> load_transition({"family": "rayleigh", "parameters": {"theta": 9.0}})
    RayleighTransition(theta=9.0, false_disk=0.0)
    """
    if hasattr(source, "transition"):  # a fit, an estimate or a model
        return source.transition
    if isinstance(source, Transition):
        return source
    return transition_from_dict(transition_described(source))


def read_fit(source: PathLike) -> dict[str, Any]:
    """Read T(α) in the format of a fit file, from a file or a known curve, "rayleigh:11.25:sigma" or "fisk:14,2.2".

    The file is of `truemorph transition`, or hand-written: `{"family": ..., "parameters": ...}`. A known curve has the
    PSF width in the definition of α, if the catalogue's must be the same.
    """
    name, *rest = str(source).split(":")
    if rest and name in KNOWN_CURVES:
        family, (values, *psf) = family_of(name), rest
        try:
            curve = family(**dict(zip(family.free, map(float, values.split(",")), strict=True)))
        except ValueError as problem:
            raise InputError(f"{source}: must be {name}:{','.join(family.free).upper()} ({problem})") from problem
        return transition_to_dict(curve) | ({"alpha_psf": psf[0]} if psf else {})
    described = read_json(source)
    check_format(described, source)
    try:
        check_fit(described)
    except (ValueError, AttributeError) as problem:
        raise InputError(f"{source}: not a transition written by `truemorph transition` ({problem})") from problem
    return described


def check_fit_name(out: PathLike) -> None:
    """Refuse a name that does not end in .json, or like a table."""
    if Path(out).suffix not in (".json", *TABLES):
        raise InputError(
            f"{out}: an estimate is written as .json, or as a table, {', '.join(TABLES)}; choose such a name"
        )


def write_fit(
    described: Mapping[str, Any], figure: Any, path: PathLike, draws: Mapping[str, Any] | None = None, table: Any = None
) -> None:
    """Write a fit as JSON; beside it its matplotlib figure as PNG, and draws of class fractions, if any, as NPZ.

    The JSON is last and has the checksum of the draws, so that draws of another estimate are never taken for its own.
    A `table` is written if the path is that of one: an astropy table, or for LaTeX rows of text.
    """
    check_fit_name(path)
    path = Path(path)
    if path.suffix in TABLES:
        _write_table(table, path)
    out = path.with_suffix(".json")
    beside = out.with_suffix(".npz")
    named = {}
    if draws:
        with written_whole(beside) as partial:
            np.savez_compressed(partial, **draws)
            named = {"draws": beside.name, "draws_sha256": file_hash(partial)}
    save_figure(figure, out.with_suffix(".png"))
    write_json(out, {"format_version": FORMAT_VERSION, **described, **named})


def _write_table(table: Any, path: Path) -> None:
    """Write a table for a publication."""
    from astropy.table import Table

    if path.suffix == ".fits":  # text in a header is short, and ASCII; the JSON has it
        table.meta.clear()
    if path.suffix == ".tex":
        table = Table(table)
        for name in table.colnames:
            table.rename_column(name, name.replace("_", " ").replace("α", r"$\alpha$"))
    with written_whole(path) as partial:
        table.write(partial, overwrite=True)


def read_arrays(described: Mapping[str, Any], path: PathLike) -> dict[str, np.ndarray]:
    """Read arrays that were written beside a fit, such as `fractions`, draws of shape (S, B, K); none if absent."""
    if "draws" not in described:
        return {}
    beside = Path(path).with_name(Path(str(described["draws"])).name)
    try:
        own = file_hash(beside)
        with open(beside, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if described.get("draws_sha256", own) != own:
            raise ValueError("they belong to another estimate")
    except Exception as problem:  # damaged archives raise many types
        raise InputError(
            f"{beside}: the draws of {path} can't be used ({reason(problem)}); copy both files, or make them again "
            "with `truemorph transition`"
        ) from problem
    return arrays


def _checked_fractions(fractions: Any) -> Any:
    """Check class fractions, which models that were trained on votes have as a list."""
    values = list(fractions.values() if isinstance(fractions, dict) else fractions or [1.0])
    if min(values) < 0 or not math.isclose(sum(values), 1, abs_tol=1e-3):
        raise ValueError("must be at least 0 and sum to 1")
    return fractions


class FitFile(BaseModel):
    """What is read from a fit file, or from the bias curve of a model; other keys are only shown."""

    parameters: dict[str, Any]
    classes: list[str] | None = None  # their names
    class_fractions: Annotated[dict[str, float] | list[float] | None, AfterValidator(_checked_fractions)] = None
    stderr: dict[str, float | None] = {}
    observables: list[str] = []
    findings: list[Finding] = []


def check_fit(described: Mapping[str, Any]) -> Transition:
    """Check T(α) in the format of a fit file, and return it; an InputError names what is wrong."""
    checked(FitFile, described, "transition:")
    return transition_from_dict(dict(described))


def transition_described(transition: Any) -> dict[str, Any]:
    """Return T(α) in the format of a fit file, from a path, a fit, an estimate, a bias curve or such a description."""
    if isinstance(transition, str | os.PathLike):
        return read_fit(transition)
    if isinstance(transition, Mapping):
        check_fit(transition)
        return dict(transition)
    if isinstance(transition, Result):  # a fit or an estimate
        return transition.to_dict()
    if isinstance(transition, Transition):
        return transition_to_dict(transition)
    raise InputError(f"`transition` must be a fit, a bias curve or a path to one; got {type(transition).__name__}")
