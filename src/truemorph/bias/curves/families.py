"""The families of T(α) by name, and their format in files."""

from typing import Any

import numpy as np

from truemorph.bias.curves.formulas import (
    ConstantTransition,
    FiskTransition,
    MatrixTransition,
    MonotoneTransition,
    RayleighTransition,
    TabulatedTransition,
    WeibullTransition,
)
from truemorph.bias.curves.logistic import LogisticTransition
from truemorph.bias.curves.paths import TreeTransition
from truemorph.bias.curves.shifted import ShiftedTransition
from truemorph.bias.curves.transitions import FlipTransition, Transition
from truemorph.errors import InputError, reason

FAMILIES: dict[str, Any] = {
    one.family: one
    for one in (
        RayleighTransition,
        WeibullTransition,
        FiskTransition,
        ConstantTransition,
        MatrixTransition,
        MonotoneTransition,
        TabulatedTransition,
        LogisticTransition,
        TreeTransition,
    )
}

# Curves that can be given with their parameters, such as "rayleigh:11.25". The range from labels alone spans these
# families, unless the labels reject them.
KNOWN_CURVES = ("rayleigh", "weibull", "fisk")
# Candidates, which are compared by their likelihood.
COMPARED = (*KNOWN_CURVES, "monotone")

_KINDS = ("scale", "shape", "probability")

_KNOTS = 400  # of the table of your own family


def family_of(family: str | type[FlipTransition]) -> Any:
    """Return the class of a family from its name, or check that a class, which may be your own, is one."""
    if isinstance(family, str):
        if family not in FAMILIES:
            raise InputError(f"unknown family {family!r}; families to fit: {', '.join(FAMILIES)}, or a class")
        return FAMILIES[family]
    if family in FAMILIES.values():
        return family
    if not (isinstance(family, type) and issubclass(family, FlipTransition)):
        raise InputError(f"family must be {', '.join(FAMILIES)}, or a subclass of FlipTransition; got {family!r}")
    about, name, free = family.__name__, getattr(family, "family", None), getattr(family, "free", None)
    if not isinstance(name, str) or name in FAMILIES:
        raise InputError(f"{about}: `family` must be a unique name; got {name!r}")
    if not isinstance(free, dict) or not set(free.values()) <= set(_KINDS):
        raise InputError(f"{about}: `free` must name the kind of each parameter, one of {', '.join(_KINDS)}")
    return family


def transition_to_dict(transition: Transition) -> dict[str, Any]:
    """Describe a transition for JSON: `{"family": ..., "parameters": {...}}`; your own family also has a `table`.

    Parameters of a curve that observables shift include `slopes` and `center`.
    """
    if isinstance(transition, ShiftedTransition):
        return {**transition_to_dict(transition.curve), "parameters": transition.parameters()}
    described = {"family": transition.family, "parameters": transition.parameters()}
    if type(transition) in FAMILIES.values():
        return described
    # At values of α that are dense near its scales.
    free = getattr(transition, "free", {})
    scales = [getattr(transition, name) for name, kind in free.items() if kind == "scale"] or [10.0]
    knots = np.concatenate([[0.0], np.geomspace(0.01 * min(scales), 100 * max(scales), _KNOTS - 1)])
    return {**described, "table": TabulatedTransition(knots.tolist(), transition.matrix(knots)).parameters()}


def transition_from_dict(described: dict[str, Any]) -> Transition:
    """Rebuild a transition from `{"family": ..., "parameters": {...}}`, or from its table."""
    family, key = (described.get("family"), "parameters") if "table" not in described else ("tabulated", "table")
    if family not in list(FAMILIES):
        raise InputError(f"unknown transition family {family!r}; known: {', '.join(FAMILIES)}")
    try:
        parameters = dict(described[key])
        if family == "tree" and "nodes" in parameters:  # their name in version 0.2
            parameters["asked"] = parameters.pop("nodes")
        if family == "logistic":  # version 0.2 also said which columns are logarithms: α alone
            parameters.pop("log", None)
        slopes = described["parameters"].get("slopes")
        if slopes is None:
            return FAMILIES[family](**parameters)
        curve = {name: parameter for name, parameter in parameters.items() if name not in ("slopes", "center")}
        return ShiftedTransition(FAMILIES[family](**curve), slopes, described["parameters"]["center"])
    except (KeyError, TypeError) as problem:
        raise InputError(
            f"the {family} transition can't be rebuilt from {described.get(key)}: {reason(problem)}"
        ) from problem
