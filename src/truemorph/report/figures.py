"""Figures of the page, each with its caption, its text for those who can't see it, and the data behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from truemorph.bias.plots import binned_share, plot_families, plot_fit
from truemorph.bias.scores import calibration_error
from truemorph.bias.study import TransitionStudy
from truemorph.bias.transitions import CLASS_NAMES, DISK, SMOOTH
from truemorph.plotting import plain_text
from truemorph.report.evidence import Evidence, Model
from truemorph.report.label_sets import LabelSet
from truemorph.report.page import Illustration
from truemorph.report.table1 import confusion_by, fractions_by, reliability

ALPHA = r"resolution $\alpha = R_\mathrm{petro}/\sigma_\mathrm{PSF}$"
_POINTS = 12


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
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_MARKERS = "DPX*<>"
_LINES = {"probabilities": "-", "labels": "-", "posterior": ":", "column": "-."}


def styles_of(found: Evidence) -> dict[str, Style]:
    """How each label set, and each model, is drawn: volunteers grey, gold in the colour of text, a colour a model.

    Of naive models the first is orange.
    """
    naive = next((model.name for model in found.models if model.naive), None)
    styles: dict[str, Style] = {}
    others: list[str] = []
    golds = list(found.truths.values())
    for one in found.sets:
        owner = one.model or one.name
        if one.kind == "crowd":
            styles[one.name] = STYLE["crowd"]
        elif one.kind == "truth":
            number = [gold.name for gold in golds].index(one.name) % 4
            styles[one.name] = {**STYLE["truth"], "marker": "ov^s"[number], "ls": ("-", "--", ":", "-.")[number]}
        elif owner == naive:
            styles[one.name] = styles[owner] = {**STYLE["naive"], "ls": _LINES[one.kind]}
        else:
            others += [owner] if owner not in others else []
            number = others.index(owner) % len(_COLOURS)
            styles[one.name] = {"color": _COLOURS[number], "marker": _MARKERS[number], "ls": _LINES[one.kind]}
    return styles | {model.name: styles[model.probabilities.name] for model in found.models}


def illustrations(found: Evidence) -> list[Illustration]:
    """The bias pictures of a report."""
    styles = styles_of(found)
    every = [_fractions(found, styles)]
    if found.study is not None:
        every.append(_flips(found, found.study, styles))
    if found.leaves:
        every.append(_leaves(found))
    if found.models:
        every += [_reliability(found, styles), _confusion(found)]
    return every


def _numbers(values: pl.Series) -> str:
    return ", ".join("unknown" if value is None or np.isnan(value) else f"{value:.2f}" for value in values)


def _fractions(found: Evidence, styles: Mapping[str, Style]) -> Illustration:
    """Disk fraction of label sets against α and intrinsic columns, one panel a column."""
    tables = {"alpha": found.by_alpha}
    for name in found.intrinsic:
        tables[name] = fractions_by(found.frame[name].cast(pl.Float64).to_numpy(), found.curves)
    data = pl.concat([table.select(pl.lit(name).alias("column"), pl.all()) for name, table in tables.items()])
    across = min(len(tables), 2)
    lines = -(-len(tables) // across)
    figure = Figure(figsize=(max(5.2 * across, 8.4), 3.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, across, squeeze=False, sharey=True).ravel()
    for axes, (column, table) in zip(panels, tables.items(), strict=False):
        for name in table["labels"].unique(maintain_order=True):
            part, style = table.filter(pl.col("labels") == name), styles[name]
            axes.errorbar(
                part["mean"], part["disk_fraction"], part["stderr"], label=plain_text(name), ms=4.5, lw=1.3, **style
            )
        axes.set(xlabel=ALPHA if column == "alpha" else plain_text(column), ylim=(0, 1))
    caption = f"Disk fraction of {found.which} in five equal-count bins of resolution"
    caption += f", and of {', '.join(found.intrinsic)}" if found.intrinsic else ""
    caption += ". Errors: binomial."
    if found.study is not None and found.study.fractions.by == "alpha":
        one = found.study.fractions
        low, high = one.low[:, DISK], one.high[:, DISK]
        panels[0].fill_between(one.middles, low, high, color="#E69F00", alpha=0.25, lw=0, label="corrected through T")
        caption += " Orange: the volunteers' labels corrected through the fitted T(α), range over families, estimators"
        caption += " and θ ± σ."
        corrected = {
            "column": "alpha", "labels": "crowd labels inverted through T", "bin": np.arange(one.counts.size) + 1,
            "low": one.edges[:-1], "high": one.edges[1:], "mean": one.middles, "galaxies": one.counts,
            "disk_fraction": one.fractions[:, DISK], "stderr": one.stderr[:, DISK], "lowest": low, "highest": high,
        }  # fmt: skip
        data = pl.concat([data, pl.DataFrame(corrected)], how="diagonal_relaxed")
    for axes in panels[: len(tables) : across]:
        axes.set_ylabel("disk fraction")
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, ncols=min(3, len(names)), loc="outside upper center", fontsize=9)
    by_alpha = {one.name: found.by_alpha.filter(pl.col("labels") == one.name)["disk_fraction"] for one in found.curves}
    text = "; ".join(f"{name}: {_numbers(values)}" for name, values in by_alpha.items())
    return Illustration("fractions", figure, f"Disk fraction in five bins of resolution. {text}", caption, data)


def _flips(found: Evidence, study: TransitionStudy, styles: Mapping[str, Style]) -> Illustration:
    """What the labels say about T(α), and the T(α) that models were trained through."""
    fit, through = study.fit, {model.name: model for model in found.models if not model.naive}
    alpha = fit.alpha if fit.alpha.ndim == 1 else fit.alpha[:, 0]
    figure = Figure(figsize=(10.4, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    if study.families is None:
        plot_fit(fit, left, _POINTS)
    else:
        plot_families(study.families, left)
    left.set_title("fit to the labels", fontsize=10)
    grid = np.linspace(0, float(np.quantile(alpha, 0.99)), 200)
    for name, model in through.items():
        flips = model.transition.flip_probability(model.resolution(grid))
        right.plot(grid, flips, lw=1.6, color=styles[name]["color"], label=plain_text(name))
    for number, (definition, table) in enumerate(found.flipped.items()):
        right.errorbar(
            table["mean"], table["share"], table["stderr"], fmt="ov^s"[number % 4], ms=4.5,
            mfc="none" if number else None, color=STYLE["truth"]["color"],
            label=f"gold disks labelled smooth ({plain_text(definition)})",
        )  # fmt: skip
    right.set(xlabel=ALPHA, ylabel="p(labelled smooth | disk)", ylim=(-0.02, 1.02), xlim=(0, grid[-1]))
    right.set_title("flip probability that models were trained through", fontsize=10)
    if through or found.flipped:
        right.legend(frameon=False, fontsize=8)
    parameters = ", ".join(
        f"{name} {value:.2f} ± {fit.stderr[name]:.2f}" for name, value in fit.values.items() if name in fit.stderr
    )
    what = f"{fit.family}: {parameters or 'no parameters'}"
    return Illustration(
        "flips",
        figure,
        f"How often a disk is labelled smooth, against resolution. {what}.",
        f"Left: labels and the flip probabilities fitted to them ({what}; method {fit.method}). "
        "Right: T(α) that models were trained through."
        + (" Points on the right: galaxies with gold labels." if found.flipped else ""),
        _flip_data(found, study, through, alpha),
    )


def _flip_data(
    found: Evidence, study: TransitionStudy, through: Mapping[str, Model], alpha: np.ndarray
) -> pl.DataFrame:
    """`what`, `alpha`, `value`, `stderr` (of counted fractions)."""
    fit = study.fit
    counted: dict[str, Sequence[Any]] = {
        "labelled smooth": binned_share(alpha, fit.labels == SMOOTH, _POINTS, fit.data.weights),
        **{f"true disks labelled smooth, {definition}": [table[name] for name in ("mean", "share", "stderr")]
           for definition, table in found.flipped.items()},
    }  # fmt: skip
    fits = {fit.family: fit} if study.families is None else study.families.fits
    grid = np.linspace(0, float(np.quantile(alpha, 0.99)), 101)
    curves = {f"p(smooth | disk) fitted, {name}": (one.transition, grid) for name, one in fits.items()}
    curves |= {f"p(smooth | disk) of {name}": (one.transition, one.resolution(grid)) for name, one in through.items()}
    for what, (one, at) in curves.items():
        counted[what] = (grid, np.asarray(one.flip_probability(at), np.float64), None)
    parts = [
        pl.DataFrame({"alpha": x, "value": y, "stderr": error}).select(pl.lit(what).alias("what"), pl.all())
        for what, (x, y, error) in counted.items()
    ]
    return pl.concat(parts, how="vertical_relaxed")


def _leaves(found: Evidence) -> Illustration:
    """Drift above the floor in each intrinsic leaf, one panel a label set, at the leaf's medians of two columns."""
    leaves, columns = found.leaves, found.intrinsic
    across = min(len(leaves), 3)
    lines = -(-len(leaves) // across)
    figure = Figure(figsize=(3.6 * across + 1, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, across, squeeze=False, sharex=True, sharey=True).ravel()
    top = max(0.05, max(float(one.excess.max()) for one in leaves.values()))
    drawn: Any = None
    for axes, (name, one) in zip(panels, leaves.items(), strict=False):
        y = one.medians[:, 1] if len(columns) > 1 else np.zeros(len(one.medians))
        drawn = axes.scatter(
            one.medians[:, 0], y, c=one.excess, s=70, cmap="cividis", vmin=0, vmax=top, edgecolors="0.5", lw=0.4
        )
        total = float(np.sqrt(max(0.0, np.mean(one.values**2 - one.floors**2))))
        axes.set_title(f"{plain_text(name)}: {total:.3f}", fontsize=10)
        axes.set_xlabel(plain_text(columns[0]))
    for axes in panels[len(leaves) :]:
        axes.set_axis_off()
    for axes in panels[: len(leaves) : across]:
        axes.set_ylabel(plain_text(columns[1]) if len(columns) > 1 else "")
    figure.colorbar(drawn, ax=list(panels[: len(leaves)]), label="drift with α above the floor")
    rows = [
        {"labels": name, "leaf": leaf + 1, "galaxies": int(one.counts[leaf]), "value": float(one.values[leaf]),
         "floor": float(one.floors[leaf]), "excess": float(one.excess[leaf]),
         **dict(zip(columns, map(float, one.medians[leaf]), strict=True))}
        for name, one in leaves.items() for leaf in range(one.counts.size)
    ]  # fmt: skip
    worst = "; ".join(f"{name} {one.excess.max():.2f}" for name, one in leaves.items())
    return Illustration(
        "leaves",
        figure,
        f"Drift with resolution in each leaf of the intrinsic tree. Largest: {worst}",
        f"Where bias lies: CV18 above its floor in each of {2**found.tree.depth} leaves of like {', '.join(columns)}, "
        "at the leaf's medians of the first two. Above each panel: all leaves together (analytic floor).",
        pl.DataFrame(rows),
    )


def _reliability(found: Evidence, styles: Mapping[str, Style]) -> Illustration:
    """Observed frequency against probability: a panel for each thing that was compared with."""
    tables: dict[str, dict[str, pl.DataFrame]] = {}
    errors: dict[str, float] = {}
    for definition, truth in found.truths.items():
        sets = [one for model in found.models for one in (model.probabilities, model.posterior) if one is not None]
        panel = {one.name: reliability(one.disk, truth.disk) for one in sets if (one.known & truth.known).any()}
        errors |= {
            f"{one.name}, {definition}": calibration_error(truth.disk, one.disk) for one in sets if one.name in panel
        }
        if panel:
            tables[f"gold labels: {definition}"] = panel
    seen = {model.name: found.seen_by_crowd(model) for model in found.models}
    tables["volunteers' labels, through T(α)"] = {name: reliability(p, found.crowd.disk) for name, p in seen.items()}
    errors |= {f"{name}, volunteers' labels": calibration_error(found.crowd.disk, p) for name, p in seen.items()}
    figure = Figure(figsize=(4.4 * len(tables), 4.2), layout="constrained")
    for axes, (what, panel) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.5")
        for name, table in panel.items():
            axes.errorbar(
                table["probability"], table["observed"], table["stderr"], label=plain_text(name), ms=4.5, lw=1,
                **styles[name],
            )  # fmt: skip
        axes.set(xlabel="probability", ylabel="observed fraction", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_title(plain_text(what), fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    data = [
        table.select(pl.lit(what).alias("against"), pl.lit(name).alias("labels"), pl.all())
        for what, panel in tables.items()
        for name, table in panel.items()
    ]
    text = "; ".join(f"{name} {value:.3f}" for name, value in errors.items())
    return Illustration(
        "calibration",
        figure,
        f"Observed fraction against probability; calibration errors: {text}.",
        f"Of galaxies with p(disk) = 0.7, are 70 % disks? Calibration error (mean distance of probability and "
        f"fraction): {text}. The comparison with the volunteers' labels takes p through T(α) first, and needs no "
        "gold label.",
        pl.concat(data),
    )


def _confusion(found: Evidence) -> Illustration:
    """Confusion matrices in bins of α: a line for each label set, fractions of each reference class."""
    reference = next(iter(found.truths.values()), found.crowd)
    sets: list[LabelSet] = [model.labels for model in found.models]
    if found.truths:
        sets = [found.crowd, *found.columns, *sets]
    data = confusion_by(found.alpha, reference, sets)
    bins = data["bin"].n_unique()
    figure = Figure(figsize=(2.0 * bins + 1.4, 1.9 * len(sets) + 0.4), layout="constrained")
    panels = figure.subplots(len(sets), bins, squeeze=False)
    for row, (line, one) in enumerate(zip(panels, sets, strict=True)):
        for number, axes in enumerate(line, 1):
            part = data.filter((pl.col("labels") == one.name) & (pl.col("bin") == number)).sort("of", "as")
            share, count = part["share"].to_numpy().reshape(2, 2), part["galaxies"].to_numpy().reshape(2, 2)
            axes.imshow(np.nan_to_num(share), cmap="cividis", vmin=0, vmax=1)
            for of in range(2):
                for said in range(2):
                    colour = "#000001" if share[of, said] > 0.5 else "white"  # also on a dark page
                    text = f"{share[of, said]:.2f}\n{count[of, said]:,}" if count[of].sum() else "none"
                    axes.text(said, of, text, ha="center", va="center", fontsize=8, color=colour)
            axes.set_xticks([0, 1], CLASS_NAMES if row == len(sets) - 1 else [], fontsize=8)
            axes.set_yticks([0, 1], CLASS_NAMES if number == 1 else [], fontsize=8)
            if row == 0:
                axes.set_title(f"α {part['low'][0]:.1f} to {part['high'][0]:.1f}", fontsize=9)
        line[0].set_ylabel(plain_text(one.name), fontsize=8)
    figure.supylabel(f"class by {plain_text(reference.name)}", fontsize=9)
    right = data.filter((pl.col("of") == DISK) & (pl.col("as") == DISK) & (pl.col("bin") == 1))
    return Illustration(
        "confusion",
        figure,
        f"Confusion matrices against {reference.name} in four bins of α. Of disks in the least resolved, found: "
        + "; ".join(f"{row['labels']} {row['share']:.2f}" for row in right.iter_rows(named=True)),
        f"Lines: class by {reference.name}; columns: label given. Fraction of the line, and galaxies, in four "
        "equal-count bins of α.",
        data,
    )


def training_illustration(found: Evidence) -> list[Illustration]:
    """How each run learned: held-out loss, disk probabilities at both ends of α, and bias, by epoch."""
    runs = {model.name: model.run for model in found.models if model.run is not None}
    if not runs:
        return []
    styles = styles_of(found)
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, run in runs.items():
        colour = styles[name]["color"]
        mean = run.history.group_by("epoch").mean().sort("epoch")
        epoch = mean["epoch"] + 1
        left.plot(epoch, mean["held_out_loss"], color=colour, marker=".", label=plain_text(name))
        for column, line in (("fraction_disk_1", "--"), ("fraction_disk_5", "-")):
            if column in mean.columns:
                middle.plot(epoch, mean[column], line, color=colour, marker=".")
        for column in mean.columns:
            if column.endswith("_excess"):
                right.plot(epoch, mean[column], color=colour, marker=".", label=column[:4].upper())
    left.set(xlabel="epoch", ylabel="held-out loss")
    middle.set(xlabel="epoch", ylabel="mean p(disk)", ylim=(0, 1))
    right.set(xlabel="epoch", ylabel="drift with α above noise")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    data = [run.history.select(pl.lit(name).alias("run"), pl.all()) for name, run in runs.items()]
    return [
        Illustration(
            "training",
            figure,
            "Held-out loss, mean disk probability of the least and best resolved fifth, and bias, by epoch.",
            "By epoch, mean over members that were still training: held-out loss; mean p(disk) of the least (dashed) "
            "and the best resolved fifth (solid) of held-out galaxies; drift with α above sampling noise.",
            pl.concat(data, how="diagonal_relaxed"),
        )
    ]


def pairs_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Galaxies that changed label: what annotators saw above, a better image below (Figure 4).

    Parameters
    ----------
    rows : sequence of mapping
        `seen` and `better` (uint8 arrays (H, W, 3); `better` may be None), `title`.
    """
    across = min(len(rows), 6)
    lines = -(-len(rows) // across)
    figure = Figure(figsize=(1.75 * across, 4.0 * lines), layout="constrained")
    panels = figure.subplots(2 * lines, across, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for number, row in enumerate(rows):
        line, column = divmod(number, across)
        upper, lower = panels[2 * line, column], panels[2 * line + 1, column]
        upper.imshow(row["seen"])
        upper.set_title(plain_text(row["title"]), fontsize=8)
        if row["better"] is None:
            lower.text(0.5, 0.5, "no better\nimage", ha="center", va="center", fontsize=8, transform=lower.transAxes)
        else:
            lower.imshow(row["better"])
    return figure
