"""Methods to estimate T(α) and class fractions: of which questions, what they need, and which options they have.

An option that is not in this table is refused, so that every option that is given changes something.
"""

from collections.abc import Mapping
from typing import Any, Literal

from truemorph.errors import InputError

# Kinds of questions: asked of all galaxies, with two answers or more; or asked after answers to others.
Kind = Literal["two answers", "more answers", "asked after others"]

_CURVE = ("family", "false_disk", "compare", "bootstrap")
_ALONE = ("delta", "alpha_error")
_REGRESSION = ("gold", "intrinsic", "observables", "labels")
# Options of `truemorph transition` that each method uses, for each kind of question; a fraction below the first
# question is known from gold labels only, and so are those of more than two classes.
OPTIONS: dict[str, dict[Kind, tuple[str, ...]]] = {
    "likelihood": {"two answers": (*_CURVE, *_ALONE, "observables")},
    "binned": {"two answers": (*_CURVE, *_ALONE, "bins")},
    "conditional": {"two answers": (*_CURVE, *_ALONE, "observables", "intrinsic")},
    "gold": {"two answers": (*_CURVE, *_REGRESSION), "more answers": _REGRESSION, "asked after others": _REGRESSION},
}
# What a method cannot do without.
NEEDS = {"gold": "gold", "conditional": "intrinsic"}


def method_for(kind: Kind, given: Mapping[str, Any], method: str | None = None) -> str:
    """Return the method, by default by what is given, once it suits the kind of question and uses all options.

    `given` has the options that were given, by name.
    """
    names = [name for name, value in given.items() if value not in (None, (), [])]
    if method is None:
        alone = "likelihood" if kind == "two answers" else "gold"
        method = "gold" if "gold" in names else "conditional" if "intrinsic" in names and alone != "gold" else alone
    elif method in NEEDS and NEEDS[method] not in names:
        raise InputError(f"the method {method} needs `{NEEDS[method]}`; give it, or choose another `method`")
    of_kind = {user: options[kind] for user, options in OPTIONS.items() if kind in options}
    if method not in of_kind:
        raise InputError(
            f"the method {method} is for two answers to a question that everybody is asked; give gold labels (`gold`), "
            "and leave out `method`"
        )
    for name in names:
        if name not in of_kind[method]:
            users = [user for user, options in of_kind.items() if name in options]
            whose = f"of {', '.join(users)}, not of {method}" if users else "of two answers that everybody may give"
            raise InputError(f"`{name}` is an option {whose}, and would change nothing; leave it out")
    return method
