"""All transition families by name, and their description as JSON can hold it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np

from truemorph.bias import flexible, transitions
from truemorph.bias.flexible import TabulatedTransition
from truemorph.bias.transitions import FlipTransition, Transition
from truemorph.errors import InputError
from truemorph.findings import Finding

# Every class with a `family` in the two modules of families.
FAMILIES: dict[str, Any] = {
    vars(one)["family"]: one
    for module in (transitions, flexible)
    for one in vars(module).values()
    if isinstance(one, type) and isinstance(vars(one).get("family"), str)
}
_CURVES = {name: one for name, one in FAMILIES.items() if issubclass(one, FlipTransition) and one.varies}
# Families whose likelihoods can be compared on labels alone; and those of them with a formula in α.
COMPARED = tuple(_CURVES)
WITH_FORMULA = tuple(name for name, one in _CURVES.items() if one.free)

_KINDS = ("scale", "shape", "probability")
_KNOTS = 400
# A class gives the curve that was saved if flip probabilities differ by less.
_SAME = 1e-6


def family_of(family: str | type[FlipTransition]) -> Any:
    """Return the class of a family.

    Parameters
    ----------
    family : str or subclass of FlipTransition
        The name of a family of this package, or a class, which may be one of your own.

    Raises
    ------
    InputError
        If no family has this name, or the class is not a family.

    Examples
    --------
    >>> family_of("rayleigh").free
    {'theta': 'scale'}
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            raise InputError(f"unknown family {family!r}; families to fit: {', '.join(FAMILIES)}, or a class")
        return FAMILIES[family]
    if family in FAMILIES.values():
        return family
    if not (isinstance(family, type) and issubclass(family, FlipTransition)):
        raise InputError(f"a family is one of {', '.join(FAMILIES)}, or a subclass of FlipTransition; got {family!r}")
    about, name, free = family.__name__, getattr(family, "family", None), getattr(family, "free", None)
    if not isinstance(name, str) or name in FAMILIES:
        raise InputError(f"{about}: `family` must be a name that no other family has; got {name!r}")
    if not isinstance(free, dict) or not set(free.values()) <= set(_KINDS):
        raise InputError(f"{about}: `free` must name the kind of each parameter, one of {', '.join(_KINDS)}")
    known: dict[str, Any] = {one.name: one for one in fields(family)} if is_dataclass(family) else {}
    lacking = [one for one in (*free, "false_disk") if one not in known]
    if lacking:
        raise InputError(f"{about}: must be a dataclass with a field {lacking[0]}")
    unknown = [
        one.name
        for one in known.values()
        if one.name not in (*free, "false_disk") and one.default is MISSING and one.default_factory is MISSING
    ]
    if unknown:
        raise InputError(f"{about}: {unknown[0]} must be in `free`, or have a default")
    return family


def transition_to_dict(transition: Transition) -> dict[str, Any]:
    """Describe a transition as JSON can hold it: `{"family": ..., "parameters": {...}}`.

    A family of your own also has its `class`, "module:name", where that can be imported, and T(α) as a `table`.
    """
    described = {"family": transition.family, "parameters": transition.parameters()}
    if type(transition) in FAMILIES.values():
        return described
    own = type(transition)
    path = f"{own.__module__}:{own.__qualname__}"
    if own.__module__ == "__main__" or _imported(path) is not own:
        path = ""
    return {**described, "class": path, "table": _table(transition).parameters()}


def transition_from_dict(described: dict[str, Any]) -> Transition:
    """Rebuild a transition from `{"family": ..., "parameters": {...}}`.

    Raises
    ------
    InputError
        If the family is unknown or its parameters don't fit.
    """
    return _rebuilt(described)[0]


def described_findings(described: dict[str, Any]) -> tuple[Finding, ...]:
    """Say where a described transition is rebuilt from its table, because its class can't be used."""
    return _rebuilt(described)[1]


def _rebuilt(described: dict[str, Any]) -> tuple[Transition, tuple[Finding, ...]]:
    family = described.get("family")
    if not ("class" in described or "table" in described):
        if family not in FAMILIES:
            raise InputError(f"unknown transition family {family!r}; known: {', '.join(FAMILIES)}")
        return _made(FAMILIES[family], described, "parameters"), ()
    own = _imported(described.get("class"))
    if own is not None and own.family != family:
        own = None
    table = _made(TabulatedTransition, described, "table") if described.get("table") else None
    if own is None and table is None:
        raise InputError(f"the class {described.get('class')!r} of the {family} transition can't be imported")
    if own is not None:
        made = _made(own, described, "parameters")
        if table is None or np.allclose(made.matrix(table.knots), table.values, rtol=0, atol=_SAME):
            return made, ()
    assert table is not None
    if own is not None:
        found = Finding(
            "family-changed",
            "caution",
            f"The class {described['class']} no longer gives the curve that was saved, so the table of T(α) that was "
            "saved with it is used.",
            "Fit the bias curve again (`transition`).",
        )
    else:
        found = Finding(
            "family-as-table",
            "note",
            f"The class of the {family} family cannot be imported, so files keep its curve as a table of T(α) at "
            f"{len(table.knots)} values of α, linear between them.",
            "Define the class in a module that can be imported to keep its formula.",
        )
    return table, (found,)


def _made(family: Any, described: dict[str, Any], key: str) -> Any:
    try:
        return family(**described[key])
    except (KeyError, TypeError) as problem:
        raise InputError(
            f"the {described.get('family')} transition can't be rebuilt from {described.get(key)}: {problem}"
        ) from problem


def _imported(path: Any) -> type[FlipTransition] | None:
    """The subclass of FlipTransition of this path, "module:name"; None where there is none.

    Nothing is run but the import of a module.
    """
    module, _, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not all(one.isidentifier() for one in (*module.split("."), *name.split("."))):
        return None
    try:
        found: Any = sys.modules[module] if module in sys.modules else importlib.import_module(module)
        for one in name.split("."):
            found = getattr(found, one)
    except Exception:  # a module may raise anything
        return None
    return found if isinstance(found, type) and issubclass(found, FlipTransition) else None


def _table(transition: Transition) -> TabulatedTransition:
    """T(α) at values of α that are dense where its scales are."""
    kinds = getattr(transition, "free", {})
    scales = [float(getattr(transition, name)) for name, kind in kinds.items() if kind == "scale"] or [10.0]
    knots = np.concatenate([[0.0], np.geomspace(0.01 * min(scales), 100 * max(scales), _KNOTS - 1)])
    return TabulatedTransition(tuple(knots.tolist()), transition.matrix(knots))
