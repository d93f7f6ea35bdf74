"""Colours, markers and lines of label sets, and text that matplotlib takes literally."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from truemorph.bias.plots import plain_text
from truemorph.report.measures import LabelSet

__all__ = ["ALPHA", "STYLE", "Style", "plain_text", "styles_of"]

ALPHA = r"resolution $\alpha = R_\mathrm{petro}/\sigma_\mathrm{PSF}$"


class Style(TypedDict):
    """How matplotlib draws a label set."""

    color: str
    marker: str
    ls: str


# Colours that stay apart in print and for most colour-blind readers (Okabe & Ito), with markers beside.
STYLE: dict[str, Style] = {
    "truth": {"color": "#000000", "marker": "o", "ls": "-"},
    "crowd": {"color": "#8a8a8a", "marker": "s", "ls": "--"},
    "naive": {"color": "#D55E00", "marker": "^", "ls": "-"},
    "debiased": {"color": "#0072B2", "marker": "D", "ls": "-"},
}
_MODELS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_MARKERS = "DPX*<>"
_LINES = {"probabilities": "-", "labels": "-", "posterior": ":", "column": "-."}


def styles_of(sets: Iterable[LabelSet], naive: Iterable[str] = ()) -> dict[str, Style]:
    """A style for each label set: the crowd grey, truth in the colour of text, a colour for each model.

    Parameters
    ----------
    sets : iterable of LabelSet
    naive : iterable of str
        Models that took labels at their word: orange, of which there is one.
    """
    styles: dict[str, Style] = {}
    colours: dict[str, tuple[str, str]] = {}
    naive, truths = list(naive), 0
    for one in sets:
        if one.kind == "crowd":
            styles[one.name] = STYLE["crowd"]
        elif one.kind == "truth":
            styles[one.name] = {
                **STYLE["truth"],
                "marker": "ov^s"[truths % 4],
                "ls": ("-", "--", ":", "-.")[truths % 4],
            }
            truths += 1
        else:
            owner = one.model or one.name
            if owner not in colours:
                if owner in naive[:1]:
                    colours[owner] = STYLE["naive"]["color"], STYLE["naive"]["marker"]
                else:
                    number = len([name for name in colours if name not in naive[:1]]) % len(_MODELS)
                    colours[owner] = _MODELS[number], _MARKERS[number]
            colour, marker = colours[owner]
            styles[one.name] = {"color": colour, "marker": marker, "ls": _LINES[one.kind]}
    return styles
