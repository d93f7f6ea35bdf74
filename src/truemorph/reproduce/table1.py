"""Table 1 of the test galaxies, with the paper's values, and the effect of choices that the paper does not specify."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.curves.formulas import RayleighTransition
from truemorph.bias.curves.transitions import DISK, SMOOTH
from truemorph.bias.likelihood import posterior
from truemorph.bias.metrics.label_bias import BiasResult
from truemorph.catalogs.label_sets import ONE_CLASS, LabelSet, nearly_one_class
from truemorph.catalogs.sampling import TEST, TRAIN
from truemorph.config import PRESETS
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.questions import SMOOTH_OR_DISK
from truemorph.report.measures import BiasTree, numbers_of, table_one
from truemorph.reproduce.catalogue import BEST_ALPHA, DEBIASED
from truemorph.reproduce.distributions import share_above
from truemorph.reproduce.models import LABELS, NETWORKS, intrinsic_columns
from truemorph.reproduce.paper import (
    BINS_CV14,
    DCV14,
    DDB,
    GZ2B,
    GZ2D,
    PAPER,
    RESNET_GZ2B,
    RESNET_GZ2D,
    SAMPLE,
    TABLE_1,
    THETA,
    TREE,
)
from truemorph.reproduce.stages import CATALOGUE, TEST_ROWS, Stage, Values, Work
from truemorph.results import with_error
from truemorph.tables import left_join, numeric_columns, read_table

GOLD = "gold labels"
# Models, and the labels that they are trained on.
MODELS = {RESNET_GZ2B: GZ2B, RESNET_GZ2D: GZ2D, DCV14: GZ2B, DDB: GZ2B}
# Label sets with a smaller fraction of the test galaxies do not restrict the galaxies of Table 1.
_ENOUGH = 0.5
_FEWEST = 10
_PAPERS = f"{PRESETS[PAPER].backbone}, {PRESETS[PAPER].image_size} pixels"
# Trees of CV18 and bins of CV14 to try, if they leave enough galaxies per bin.
_TREES = ((1, 4), (1, 8), (2, 4), (2, 8), (3, 5), (3, 8), (4, 4), (4, 8), (5, 8), (6, 4), (6, 7), (6, 8), (7, 8),
          (9, 8))  # fmt: skip
_BINS = (4, 8, 12, 20, 40)
_FEWEST_A_BIN = 4
_RESAMPLES = 20


@dataclass(frozen=True)
class Measured:
    """Test galaxies on which all label sets are measured, their labels by row of Table 1, and the tree of CV18."""

    frame: pl.DataFrame
    sets: dict[str, LabelSet]
    tree: BiasTree
    intrinsic: tuple[str, ...]  # columns of the tree; empty for CV14
    truths: dict[str, LabelSet] = field(default_factory=dict)  # gold labels, if the catalogue has some


def all_labels(work: Work) -> pl.DataFrame:
    """Return the test galaxies with the labels of each row of Table 1 (its name), and p(disk) of models ("p NAME")."""
    identity = pl.col("object_id").cast(pl.String)
    label, probability = pl.col("label").cast(pl.Float64), pl.col("p_disk").cast(pl.Float64)
    frame = work.catalogue(TEST_ROWS).frame.with_columns(identity, label.alias(GZ2B))
    if work.inputs.hart is not None:
        frame = left_join(frame, work.catalogue(DEBIASED).frame.select(identity, label.alias(GZ2D)))
    for name in filter(work.have, MODELS):
        labels = read_table(work.file(name, LABELS)).frame
        frame = left_join(frame, labels.select(identity, label.alias(name), probability.alias(f"p {name}")))
    return frame


@lru_cache(maxsize=1)
def measured(work: Work) -> Measured:
    """Return the test galaxies on which all label sets are measured."""
    frame = all_labels(work)
    intrinsic = intrinsic_columns(work, frame)
    sets = [name for name in TABLE_1 if name in frame.columns]
    # DCV14 is compared on the galaxies that have its columns.
    complete = [name for name in sets if frame[name].count() > _ENOUGH * frame.height and name != DCV14]
    frame = frame.drop_nulls(complete)
    if frame.height < _FEWEST:
        raise InputError(
            f"{frame.height} test galaxies have all labels; at least {_FEWEST} are needed: use a larger `scale`"
        )
    labels = {
        name: LabelSet.of_two(
            TABLE_1[name].labels, "observed" if name == GZ2B else "labels", frame[name].to_numpy(), SMOOTH_OR_DISK
        )
        for name in sets
    }
    truths = {}
    if "gold" in frame.columns and frame["gold"].count() >= _FEWEST:
        gold = frame["gold"].cast(pl.Float64).to_numpy()
        truths[GOLD] = LabelSet.of_two(GOLD, "truth", gold, SMOOTH_OR_DISK)
    return Measured(frame, labels, _tree(work, labels[GZ2B], frame, intrinsic), intrinsic, truths)


def _tree(work: Work, labels: LabelSet, frame: pl.DataFrame, intrinsic: tuple[str, ...]) -> BiasTree:
    """Return the tree: by the options; at full scale that of the lineage, below with at least 25 galaxies per bin."""
    options = work.options
    depth, bins = options.depth, options.bins
    if options.fraction == 1:
        depth = TREE[0] if depth is None else depth
        bins = (TREE[1] if intrinsic else BINS_CV14) if bins is None else bins
    columns = numeric_columns(frame, intrinsic, "the sample")
    return BiasTree.fitting(labels, frame["alpha"].to_numpy(), columns, options.bootstrap, options.seed, depth, bins)


def table_rows(measurement: Measured, bias: Mapping[str, BiasResult | None], pairs: list[Values]) -> list[Values]:
    """Return Table 1 (see `table_one`) with the paper's values; `bias` by label set; None for missing values.

    `one_class`: 97 % or more in one class. `from_gz2b`: value minus that of GZ2B for the same galaxies, with the error
    from paired resamples (see `compare_pairs`). `accuracy` and `precision` (macro-averaged): vs the labels that a model
    was trained on. With gold labels, `balanced_accuracy` and `fraction_rms` against them ("…: gold labels").
    """
    references = {
        measurement.sets[name].name: measurement.sets[trained_on]
        for name, trained_on in MODELS.items()
        if {name, trained_on} <= measurement.sets.keys()
    }
    sets = [*measurement.sets.values()]
    parts = {
        labels.name: np.column_stack([labels.p, np.where(labels.known, 1.0, np.nan)])
        for labels in (*sets, *measurement.truths.values())
    }
    table = table_one(sets, measurement.tree.alpha, bias, measurement.truths, parts, references)
    from_gz2b = {pair["later"]: (pair["difference"], pair["stderr"]) for pair in pairs if pair["earlier"] == GZ2B}
    rows = []
    for (name, labels), row in zip(measurement.sets.items(), table.iter_rows(named=True), strict=True):
        paper = TABLE_1[name]
        difference, error = from_gz2b.get(name, (None, None))
        added = {
            "name": name,
            "letter": paper.letter,
            "one_class": one_class(labels),
            "from_gz2b": difference,
            "from_gz2b_std": error,
            "paper": paper.cv18,
            "paper_std": paper.stderr,
        }
        rows.append(row | added)
    return rows


def one_class(labels: LabelSet) -> bool:
    """Return whether 97 % or more of the labels are of one class, so that their bias is not meaningful."""
    return not max(labels.fraction, 1 - labels.fraction) < ONE_CLASS


def _resampled(tree: BiasTree, labels: LabelSet, where: np.ndarray) -> np.ndarray:
    """Return CV18 of a label set for the galaxies `where`, then for the same resamples of each set; NaN if too few."""
    chosen = replace(labels, probabilities=np.where(where[:, None], labels.probabilities, np.nan))
    n, rng = where.size, np.random.default_rng([tree.seed, 18])
    draws = (None, *(rng.integers(0, n, n) for _ in range(tree.bootstrap)))
    values = [numbers_of(tree.bias(chosen, rows, bootstrap=0, permutations=0))["value"] for rows in draws]
    return np.array(values, float)  # None becomes NaN


def compare_pairs(measurement: Measured, tree: BiasTree) -> list[Values]:
    """Compare each pair of label sets on the galaxies that have both labels, with the paper's values.

    `difference` is the bias of the `later` row of Table 1 minus that of the `earlier` one, with `stderr` from paired
    resamples, if there are any; `paper` and `paper_stderr` (in quadrature) are those of the paper. `as_in_the_paper`:
    whether the sign is the same; None if the rows do not differ by more than their errors in the paper, if one of them
    has nearly one class, or for CV14.
    """
    pairs = []
    for (earlier, first), (later, second) in combinations(measurement.sets.items(), 2):
        both = first.known & second.known
        apart = _resampled(tree, second, both) - _resampled(tree, first, both)
        difference = apart[0]
        paper = TABLE_1[later].cv18 - TABLE_1[earlier].cv18
        paper_error = np.hypot(TABLE_1[later].stderr, TABLE_1[earlier].stderr)
        counts = abs(paper) > paper_error and np.isfinite(difference) and not (one_class(first) or one_class(second))
        pairs.append(
            {
                "earlier": earlier,
                "later": later,
                "galaxies": both.sum(),
                "difference": difference,
                "stderr": np.nanstd(apart[1:]) if np.isfinite(apart[1:]).any() else None,
                "paper": paper,
                "paper_stderr": paper_error,
                "as_in_the_paper": (difference > 0) == (paper > 0) if counts and tree.intrinsic.size else None,
            }
        )
    return pairs


def order(pairs: list[Values]) -> tuple[int, int]:
    """Count the pairs that have the paper's order, and all whose order can be compared with it."""
    verdicts = [pair["as_in_the_paper"] for pair in pairs if pair["as_in_the_paper"] is not None]
    return sum(verdicts), len(verdicts)


def _findings(work: Work, table: Values) -> Iterator[Finding]:
    """Return what limits the comparison of Table 1 with the paper."""
    measure = table["measure"]
    networks = [work.result(name)["network"] for name in filter(work.have, NETWORKS)]
    if work.options.fraction < 1 or any(network != _PAPERS for network in networks):
        drawn = work.result("catalogue")["galaxies"]
        text = f"The sample has {drawn:,} galaxies, the paper's {sum(SAMPLE):,}"
        text += f"; networks are {networks[0]}, the paper's {_PAPERS}." if networks else "."
        action = "Compare differences of rows, not values; `scale`=paper has the paper's sample and networks."
        yield Finding("smaller-than-the-paper", "caution", text, action)
    if measure != "CV18":
        text = f"Bias is measured by {measure}, not CV18, because intrinsic columns are missing."
        yield Finding("intrinsic-missing", "caution", text, "Fetch the tables with these columns (`fetch`).")
    for row in table["rows"]:
        fractions = zip((1 - row["disk_fraction"], row["disk_fraction"]), SMOOTH_OR_DISK, strict=True)
        yield from nearly_one_class(row["labels"], *max(fractions))


def _make_table(work: Work, folder: Path) -> Values:
    measurement = measured(work)
    tree = measurement.tree
    bias = {label_set.name: tree.bias(label_set) for label_set in measurement.sets.values()}
    pairs = compare_pairs(measurement, tree)
    rows, of_observed = table_rows(measurement, bias, pairs), bias[measurement.sets[GZ2B].name]
    thetas = [(name, work.result(stage)) for name, stage in ((DCV14, DCV14), (DDB, "theta")) if work.have(stage)]
    result: Values = {
        "measure": tree.measure,
        "intrinsic": measurement.intrinsic,
        "depth": tree.depth,
        "bins": tree.bins,
        "bootstrap": tree.bootstrap,
        "galaxies": measurement.frame.height,
        "gold": sum(truth.known.sum() for truth in measurement.truths.values()),
        "alpha": work.catalogue().metadata["alpha"],
        "rows": rows,
        "pairs": pairs,
        "order": order(pairs),
        "theta": [
            {"name": name, "theta": fit["theta"], "stderr": fit["stderr"], "paper": THETA[name]} for name, fit in thetas
        ],
    }
    return result | {"findings": [*_findings(work, result), *(() if of_observed is None else of_observed.findings)]}


# What is chosen here, the effect of other choices, and the settings of a table; None if it can't be measured.
Reason = tuple[Any, ...] | None


def _swept(measurement: Measured, trees: Sequence[BiasTree]) -> tuple[str, list[Values]]:
    """Measure every label set with other trees; return the range of GZ2B and the order as text, and all means."""
    swept, orders = list[Values](), set[tuple[int, int]]()
    for tree in trees:
        resampled = replace(tree, bootstrap=min(_RESAMPLES, measurement.tree.bootstrap))
        means = {
            name: numbers_of(resampled.bias(labels))["bootstrap_mean"] for name, labels in measurement.sets.items()
        }
        if any(mean is not None for mean in means.values()):
            swept.append({"setting": f"{2**tree.depth} × {tree.bins}", "means": means})
            orders.add(order(compare_pairs(measurement, replace(tree, bootstrap=0))))
    values = [setting["means"][GZ2B] for setting in swept if setting["means"][GZ2B] is not None]
    effect = f"GZ2B {_span(f'{min(values):.3f}', f'{max(values):.3f}')}" if values else "too few galaxies"
    if shares := sorted(orders - {(0, 0)}, key=lambda counts: counts[0] / counts[1]):
        ends = ("{} of {}".format(*counts) for counts in (shares[0], shares[-1]))
        effect += f"; {_span(*ends)} pairs of rows in the paper's order"
    return effect, swept


def _span(*ends: str) -> str:
    return " to ".join(dict.fromkeys(ends))


def _intrinsic(work: Work, measurement: Measured) -> Reason:
    names, values = measurement.intrinsic, measurement.tree.intrinsic
    if not names:
        here = f"not available: {', '.join(work.inputs.intrinsic) or 'none given'}"
        return here, "CV14 instead of CV18: not comparable with the paper's values"
    n = len(names)
    orders = [range(n)[::-1], *(chosen for size in range(1, n) for chosen in combinations(range(n), size))]
    others = [values[:, list(chosen)] for chosen in orders]
    if "M_r" in names and "redshift" in measurement.frame.columns:
        # About z mag in r for early types, less for late types (Chilingarian et al. 2010, MNRAS 405, 1409).
        correction = np.where(np.array(names) == "M_r", measurement.frame.select(pl.col("redshift").cast(float)), 0)
        others.append(values - correction)
    trees = [replace(measurement.tree, intrinsic=columns) for columns in others]
    trees.append(replace(measurement.tree, intrinsic=values[:, :0], depth=0, bins=20))
    effect, _ = _swept(measurement, trees)
    return ", ".join(names), f"other columns, another order, or M_r with a K-correction: {effect}"


def _bins(work: Work, measurement: Measured) -> Reason:
    tree, tried = measurement.tree, _TREES if measurement.intrinsic else [(0, bins) for bins in _BINS]
    trees = [
        replace(tree, depth=depth, bins=bins)
        for depth, bins in tried
        if measurement.frame.height / (2**depth * bins) >= _FEWEST_A_BIN
    ]
    effect, swept = _swept(measurement, trees)
    return f"{2**tree.depth} × {tree.bins}", effect, *swept


def _in_parts(
    work: Work, splits: Sequence[str], measure: Callable[[pl.DataFrame], tuple[float | None, float | None]]
) -> str:
    """Measure GZ2B, and GZ2D if there is one, with errors, in the whole sample and in splits."""
    files, effects = {GZ2B: CATALOGUE} if work.inputs.hart is None else {GZ2B: CATALOGUE, GZ2D: DEBIASED}, []
    for name, part in product(files, ("all", *splits)):
        frame = work.catalogue(files[name]).frame.filter(pl.lit(part == "all") | (pl.col("split") == part))
        effects.append(f"{name.upper()}, {part} {with_error(*measure(frame))}")
    return "; ".join(effects)


def sersic_indices(work: Work, frame: pl.DataFrame) -> np.ndarray | None:
    """Return the Sérsic index of N galaxies, shape (N,), NaN where unknown; None if fewer than ten have one."""
    name = work.inputs.sersic_index
    if name not in frame.columns or frame[name].cast(pl.Float64, strict=False).count() < _FEWEST:
        return None
    return numeric_columns(frame, [name], "the sample")[:, 0]


def _evaluated_on(work: Work, measurement: Measured) -> Reason:
    """Measure GZ2B and GZ2D in the whole sample and in parts; one tree, because the value grows with its bins."""

    def measure(frame: pl.DataFrame) -> tuple[float | None, float | None]:
        columns = numeric_columns(frame, measurement.intrinsic, "the sample")
        return _bias(replace(measurement.tree, alpha=frame["alpha"].to_numpy(), intrinsic=columns), frame["label"])

    return "test galaxies", f"all with the same leaves and bins: {_in_parts(work, (TEST, TRAIN), measure)}"


def _bias(tree: BiasTree, labels: Any) -> tuple[float | None, float | None]:
    """Return CV18 of labels 0 and 1, shape (N,), and its error by bootstrap."""
    numbers = numbers_of(tree.bias(LabelSet.of_two("", "labels", np.asarray(labels, float), SMOOTH_OR_DISK)))
    return numbers["bootstrap_mean"], numbers["bootstrap_std"]


def _theta(work: Work, measurement: Measured) -> Reason:
    fit = work.result("theta")
    theta = with_error(fit["theta"], fit["stderr"], ".2f")
    effect = "; ".join(
        f"{other['how']} {with_error(other['theta'], other['stderr'], '.2f')}" for other in fit["others"]
    )
    here = f"{fit['bins']:,} bins of {fit['galaxies'] // fit['bins']} galaxies: {theta}"
    return here, effect


def _psf(work: Work, measurement: Measured) -> Reason:
    if "psfWidth_r_best" not in measurement.frame.columns:
        return None
    alpha = measurement.frame.select(BEST_ALPHA).to_series().to_numpy()
    effect, _ = _swept(measurement, [replace(measurement.tree, alpha=alpha)])
    here = "field of the image that the volunteers saw"
    return here, f"with the best PSF of all fields, as in the code of CV18: {effect}"


def _figure_3(work: Work, measurement: Measured) -> Reason:
    """Measure the fraction of smooth galaxies with disk profiles, among test galaxies and in the whole sample."""
    if sersic_indices(work, measurement.frame) is None:
        return None

    def measure(frame: pl.DataFrame) -> tuple[float, float]:
        index = numeric_columns(frame, [work.inputs.sersic_index], "the sample")[:, 0]
        above, error = share_above(index[(frame["label"] == SMOOTH).to_numpy() & np.isfinite(index)])
        return 1 - above, error

    effect = f"fraction of smooth galaxies with n ≤ 3: {_in_parts(work, (TEST,), measure)}"
    return "test galaxies, which all models label", effect


def _posterior(work: Work, measurement: Measured) -> Reason:
    """Measure the labels of models trained through T(α) by their posterior after the volunteers' label."""
    observed, effects = measurement.sets[GZ2B].labels, []
    for name in filter(measurement.sets.__contains__, (DCV14, DDB)):
        p = measurement.frame[f"p {name}"].to_numpy()
        finite, transition = np.isfinite(p), RayleighTransition(work.result(name)["theta"])
        after = np.full(p.size, np.nan)
        both = np.column_stack([1 - p, p])[finite]
        after[finite] = posterior(both, observed[finite], measurement.tree.alpha[finite], transition)[:, DISK] > 0.5
        effects.append(f"{name.upper()} {with_error(*_bias(measurement.tree, after))}")
    return ("p(y | x) > 0.5", f"by the posterior p(y | x, ỹ, α): {'; '.join(effects)}") if effects else None


_LINEAGE = "published code of the same lineage"
# Each choice, what the paper says about it, and the measurement of its effect.
_CHOICES: dict[str, tuple[str, Callable[[Work, Measured], Reason]]] = {
    "intrinsic columns": (f"not given; {_LINEAGE}: radius in kpc, M_r, redshift, in this order", _intrinsic),
    "leaves and bins": (f"not given; {_LINEAGE}: 8 leaves, 8 bins; CV14 10 bins", _bins),
    "galaxies on which bias is measured": (
        f"not given; {_LINEAGE} has at least 190 galaxies a bin, which is the test set",
        _evaluated_on,
    ),
    "estimator of θ": (
        f"1525 bins of 64 galaxies, midpoints, no weights; {_LINEAGE}: least squares (SLSQP), α in σ of the PSF",
        _theta,
    ),
    "field of the PSF width": ("not given", _psf),
    "galaxies of Figure 3": ("not given", _figure_3),
    "labels of DCV14 and DDB (rows e and f)": ("not given for DCV14; from the image alone for DDB", _posterior),
}


def _make_reasons(work: Work, folder: Path) -> Values:
    measurement, reasons = measured(work), []
    for what, (paper, measure) in _CHOICES.items():
        if (reason := measure(work, measurement)) is not None:
            here, effect, *settings = reason
            reasons.append({"what": what, "paper": paper, "here": here, "effect": effect, "settings": settings})
    return {"reasons": reasons}


STAGES = (
    Stage("table1", "Table 1, with the paper's values", _make_table, ("catalogue",), ("theta", *MODELS)),
    Stage("reasons", "why values may differ from the paper's", _make_reasons, ("catalogue", "theta", "table1")),
)  # fmt: skip
