"""All transition families by name, and their description as JSON can hold it."""

from __future__ import annotations

from typing import Any

from truemorph.bias.flexible import LogisticTransition, MonotoneTransition, TabulatedTransition
from truemorph.bias.transitions import (
    ConstantTransition,
    FiskTransition,
    MatrixTransition,
    RayleighTransition,
    Transition,
    WeibullTransition,
)
from truemorph.errors import InputError

FAMILIES: dict[str, Any] = {
    cls.family: cls
    for cls in (
        RayleighTransition,
        WeibullTransition,
        FiskTransition,
        ConstantTransition,
        MonotoneTransition,
        MatrixTransition,
        LogisticTransition,
        TabulatedTransition,
    )
}

# Families with a formula in α, whose likelihoods can be compared on labels alone.
SHAPES = ("rayleigh", "weibull", "fisk", "constant")


def transition_from_dict(described: dict[str, Any]) -> Transition:
    """Rebuild a transition from `{"family": ..., "parameters": {...}}`.

    Raises
    ------
    InputError
        If the family is unknown or its parameters don't fit.
    """
    family = described.get("family")
    if family not in FAMILIES:
        raise InputError(f"unknown transition family {family!r}; known: {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family](**described["parameters"])
    except (KeyError, TypeError) as problem:
        raise InputError(f"the {family} transition can't be rebuilt from {described}: {problem}") from problem


def transition_to_dict(transition: Transition) -> dict[str, Any]:
    """Describe a transition as JSON can hold it: `{"family": ..., "parameters": {...}}`."""
    return {"family": transition.family, "parameters": transition.parameters()}
