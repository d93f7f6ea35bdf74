"""Colours, legends and literal text of all figures."""

from typing import Any

# Okabe & Ito's colours: apart in print and for most colour-blind readers.
BLUE, RED, GREEN, ORANGE, SKY, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "0.45", "black"
CYCLE = (BLUE, RED, GREEN, ORANGE, SKY, "#CC79A7", BLACK, GREY)
MARKERS = "o^sDvP*X"
ALPHA = r"resolution $\alpha$ (radius / PSF width)"


def plain_text(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign begins no formula, an underscore hides no legend entry."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def legend(ax: Any, **options: Any) -> None:
    """Add a legend with a light background, where it hides least."""
    # Where this place is asked for, matplotlib does not warn that to find it took more than a second.
    ax.legend(loc="best", fontsize=9, framealpha=0.8, edgecolor="none", handlelength=1.6, **options)
