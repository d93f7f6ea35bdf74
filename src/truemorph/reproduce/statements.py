"""What the paper states about its results, and whether the results here agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from truemorph.explain.study import PIXELS, Explanation
from truemorph.reproduce.distributions import PANELS, Distributions
from truemorph.reproduce.models import NETWORKS
from truemorph.reproduce.paper import DCV14, DDB, GZ2B, GZ2D, RESNET_GZ2B, RESNET_GZ2D, TABLE_1, THETA
from truemorph.reproduce.stages import Values, Work
from truemorph.results import with_error

AGREES, CONTRADICTS, OPEN = "agrees", "contradicts", "not significant"
# Labels of a network have the bias of those it learned if CV18 differs by less, at two errors. A convention: in the
# paper c - a, which it calls no difference, is 0.009 ± 0.013, and b - a, which is one, is -0.059 ± 0.014.
TOLERANCE = 0.05
# Networks as texts name them.
_SHORT = {row.labels: row.labels if name == DDB else f"network {row.letter}" for name, row in TABLE_1.items()}


class Difference(NamedTuple):
    """A statement of the paper, and the difference on which it rests, with the error that other galaxies would make."""

    text: str
    place: str
    value: float
    error: float
    paper: str = "–"
    equal: bool = False  # whether the paper says that there is no difference
    of_networks: bool = True  # which training again would change


class Statement(NamedTuple):
    """A statement of the paper, the difference on which it rests, here and in the paper, and whether it holds."""

    text: str
    place: str
    here: str
    paper: str
    verdict: str

    @classmethod
    def of(cls, trainings: Sequence[Difference]) -> Statement:
        """Judge the mean difference over trainings of the networks, by an error that contains their scatter.

        It is positive, as the paper says, if it exceeds two errors, and no difference if both ends are within the
        tolerance. From one training of a network nothing is judged.
        """
        first, values = trainings[0], np.array([difference.value for difference in trainings])
        scatter = values.std(ddof=1) if len(values) > 1 else 0.0
        value, error = values.mean(), np.hypot(np.mean([training.error for training in trainings]), scatter)
        if first.equal:
            inside, outside = abs(value) + 2 * error <= TOLERANCE, abs(value) - 2 * error > TOLERANCE
        else:
            inside, outside = value > 2 * error, value < -2 * error
        verdict = AGREES if inside else CONTRADICTS if outside else OPEN
        if first.of_networks and len(values) == 1:
            verdict = OPEN
        return cls(first.text, first.place, with_error(value, error, "+.3f"), first.paper, verdict)


def _table_1(table: Values, rows: dict[str, Values]) -> Iterator[Difference]:
    """Section 3.1: pairs of rows of Table 1, each for the galaxies that have both labels."""
    judged = {
        (pair["earlier"], pair["later"]): pair
        for pair in table["pairs"]
        if table["measure"] == "CV18" and pair["stderr"] is not None
    }
    for pair in ((GZ2B, DDB), (GZ2B, RESNET_GZ2B), (GZ2D, RESNET_GZ2D), (GZ2D, DCV14), (GZ2D, DDB), (DCV14, DDB)):
        if pair in judged and {*pair} <= rows.keys():
            entry, (first, second) = judged[pair], (TABLE_1[name] for name in pair)
            equal = pair[1] in (RESNET_GZ2B, RESNET_GZ2D)
            sign = 1 if equal else -1
            text = f"{second.labels} is less biased than {first.labels} ({first.letter} - {second.letter})"
            if equal:
                text = f"network {second.letter} has the bias of its labels ({second.letter} - {first.letter})"
            paper = with_error(sign * entry["paper"], entry["paper_stderr"], "+.3f")
            if not equal and abs(entry["paper"]) <= 2 * entry["paper_stderr"]:
                paper += ", within two errors"
            of_networks = not {*pair}.isdisjoint(NETWORKS)
            value = sign * entry["difference"]
            yield Difference(text, "3.1, Table 1", value, entry["stderr"], paper, equal, of_networks)
    # Errors are added in quadrature, as if the galaxies were independent.
    if {RESNET_GZ2B, RESNET_GZ2D} <= rows.keys():
        for score in ("accuracy", "precision"):
            apart = _minus(*(_score(rows[name], score) for name in (RESNET_GZ2B, RESNET_GZ2D)))
            paper = f"{getattr(TABLE_1[RESNET_GZ2B], score) - getattr(TABLE_1[RESNET_GZ2D], score):+.3f}"
            text = f"networks recreate GZ2B better than GZ2D ({score}, c - d)"
            yield Difference(text, "3.1", *apart, paper)
    if {GZ2B, GZ2D} <= rows.keys():
        disks = (rows[name]["disk_fraction"] for name in (GZ2D, GZ2B))
        apart = _minus(*((abs(disk - 0.5), _binomial(disk, rows[GZ2B]["galaxies"])) for disk in disks))
        yield Difference("GZ2D is less balanced than GZ2B", "3.1", *apart, of_networks=False)
    theta = {row["name"]: (row["theta"], row["stderr"]) for row in table["theta"] if row["stderr"] is not None}
    if {DDB, DCV14} <= theta.keys():
        paper = f"{THETA[DDB] - THETA[DCV14]:+.2f}"
        text = "θ of DDB is larger than that of DCV14"
        yield Difference(text, "3.1", *_minus(theta[DDB], theta[DCV14]), paper, of_networks=False)


def _minus(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return the difference of two independent values with errors, and its error."""
    return first[0] - second[0], np.hypot(first[1], second[1])


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of values, and its error."""
    return values.mean(), values.std(ddof=1) / np.sqrt(values.size)


def _binomial(share: float, n: float) -> float:
    return np.sqrt(share * (1 - share) / n)


def _score(row: Values, score: str) -> tuple[float, float]:
    """Return accuracy or precision of a row of Table 1, and its error.

    Precision is a mean over both classes; its error is computed as if it were that of each.
    """
    disk, galaxies = row["disk_fraction"], row["galaxies"]
    return row[score], _binomial(row[score], galaxies * (4 * disk * (1 - disk) if score == "precision" else 1))


def _figure_3(curves: Distributions) -> Iterator[Difference]:
    """Section 3.2: fractions of galaxies above the boundary of the Sérsic index."""
    above = {(panel, labels): (share, error) for panel, labels, _, share, error in curves.table.iter_rows()}
    debiased, ours = TABLE_1[GZ2D].labels, TABLE_1[DDB].labels
    whose = (
        ("smooth galaxies of DDB have n > 3 more often than those of GZ2D", ours, debiased),
        ("galaxies switched to disk by GZ2D have n > 3 more often than those by DDB", debiased, ours),
        ("disks of GZ2D have n > 3 more often than those of DDB", debiased, ours),
    )
    for letter, panel, (text, more, less) in zip("abc", PANELS, whose, strict=True):
        if {(panel, more), (panel, less)} <= above.keys():
            yield Difference(text, f"3.2, Fig. 3{letter}", *_minus(above[panel, more], above[panel, less]))


def _halves(explanation: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """Return the intensity of N maps in rings within and beyond half of the largest radius, shapes (N, B)."""
    rings = explanation.classes[0].rings[PIXELS]
    beyond = rings.middles > rings.edges[-1] / 2
    return rings.profiles[:, ~beyond], rings.profiles[:, beyond]


def _contrast(rings: np.ndarray) -> tuple[float, float]:
    """Return the range of the mean profile of N galaxies, shape (N, B), in units of its mean, and its error."""
    mean = rings.mean(axis=0)
    value = np.ptp(mean) / mean.mean()
    of_each = rings[:, mean.argmax()] - rings[:, mean.argmin()] - value * rings.mean(axis=1)
    return value, _mean(of_each)[1] / mean.mean()


def of_maps(maps: Mapping[str, Mapping[str, Explanation]], usable: set[str]) -> Iterator[Difference]:
    """Section 3.4: mean intensity of Grad-CAM maps by class and model, of the models that are `usable`."""
    ours = TABLE_1[DDB].labels
    for kind, letter in (("disk", "a"), ("smooth", "b")):
        place = f"3.4, Fig. 7{letter}"
        halves = {
            name: _halves(explanation)
            for name, explanation in maps.get(kind, {}).items()
            if name in usable and explanation.galaxies > 1
        }
        debiased = halves.pop(ours, None)
        for name, (inner, outer) in halves.items():
            text = f"{kind} maps of {_SHORT[name]} are fainter in the outer half of the radius than in the inner"
            yield Difference(text, place, *_mean(inner.mean(axis=1) - outer.mean(axis=1)))
            if debiased is None:
                continue
            text = f"{kind} maps of DDB are brighter in the outer half of the radius than those of {_SHORT[name]}"
            yield Difference(text, place, *_minus(*(_mean(half.mean(axis=1)) for half in (debiased[1], outer))))
            if kind == "smooth":
                text = f"smooth maps of DDB vary less with radius than those of {_SHORT[name]} (range / mean)"
                contrasts = (_contrast(np.hstack(both)) for both in ((inner, outer), debiased))
                yield Difference(text, place, *_minus(*contrasts))
        if kind == "smooth" and debiased is not None:
            inner, outer = (half[:, half.mean(axis=0).argmax()] for half in debiased)  # the brightest ring of each
            text = "smooth maps of DDB are brightest in the outer half of the radius"
            yield Difference(text, place, *_mean(outer - inner))


def differences(
    work: Work, curves: Distributions | None, maps: Mapping[str, Mapping[str, Explanation]]
) -> list[Difference]:
    """Return what the results of one training say of the paper's statements, without label sets of nearly one class."""
    table = work.result("table1")
    rows = {row["name"]: row for row in table["rows"] if not row["one_class"]}
    judged = [*_table_1(table, rows)]
    if curves is not None and {GZ2D, DDB} <= rows.keys():
        judged += _figure_3(curves)
    return [*judged, *of_maps(maps, {TABLE_1[name].labels for name in rows})]


def statements(trainings: Sequence[Sequence[Difference]]) -> list[Statement]:
    """Return the statements that the results can judge: those on which every training says something."""
    by_text = [{difference.text: difference for difference in training} for training in trainings]
    return [
        Statement.of([training[text] for training in by_text])
        for text in by_text[0]
        if all(text in training for training in by_text)
    ]
