"""What all figures share: colours, axes, and text drawn as it is. matplotlib loads when one is drawn."""

from __future__ import annotations

from typing import Any

# Okabe & Ito's colours: apart in print and for most colour-blind readers.
BLUE, RED, GREY = "#0072B2", "#D55E00", "0.45"


def plain_text(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign begins no formula, an underscore hides no legend entry."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def axes_or_new(ax: Any, size: tuple[float, float] = (5.5, 3.6)) -> Any:
    """Return the given matplotlib axes, or those of a new figure."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").add_subplot()
