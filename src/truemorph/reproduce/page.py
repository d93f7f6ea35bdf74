"""`reproduction.html`: Table 1 here and in the paper, reasons for differences, θ and Figures 3 to 7."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from truemorph.explain.study import PIXELS
from truemorph.findings import Finding, unique
from truemorph.report.distributions import Distributions, cumulative_panels
from truemorph.report.figures import STYLE, Style
from truemorph.report.gallery import jpeg_source
from truemorph.report.networks import of_class, profile_data
from truemorph.report.page import (
    Illustration,
    Light,
    Page,
    Pair,
    Section,
    Table,
    first_sentence,
    in_order,
    number,
    with_error,
    write_illustrations,
    write_page,
)
from truemorph.reproduce.figures import KINDS, VERDICTS, pairs, read_explanations, sersic_curves
from truemorph.reproduce.paper import (
    DCV14,
    DDB,
    DISK_LIKE_AMONG_SMOOTH,
    GZ2B,
    GZ2D,
    HST_PAIRS,
    RESNET_GZ2B,
    RESNET_GZ2D,
    TABLE_1,
)
from truemorph.reproduce.stages import FAILED, LACKS, Stage, Work
from truemorph.reproduce.table1 import compared_order

_TITLE = "Reproduction of Medina-Rosales, Cabrera-Vives & Miller (arXiv:2308.11007)"
_PAIRS_ON_PAGE, _PAIRS = 12, 24
_WRAPPED = Markup('<div style="white-space: normal; text-align: left; min-width: {}rem">{}</div>')
_STYLES: dict[str, Style] = {
    TABLE_1[GZ2B].short: STYLE["observed"],
    TABLE_1[GZ2D].short: {"color": "#E69F00", "marker": "v", "ls": "-."},
    TABLE_1[RESNET_GZ2B].short: STYLE["naive"],
    TABLE_1[RESNET_GZ2D].short: {"color": "#CC79A7", "marker": "P", "ls": "--"},
    TABLE_1[DCV14].short: {"color": "#009E73", "marker": "X", "ls": ":"},
    TABLE_1[DDB].short: STYLE["debiased"],
}


def _table(title: str, head: list[str], rows: list[Any], widths: list[int], note: str = "") -> Table:
    """Make a table; cells of columns with a width, in rem, wrap."""

    def line(cells: Sequence[str]) -> list[str]:
        return [_WRAPPED.format(width, cell) if width else cell for cell, width in zip(cells, widths, strict=True)]

    return Table(title, line(head), [line(cells) for cells in rows], note)


def _answer(work: Work) -> str:
    drawn = work.result("catalogue")
    sample = f"{drawn['galaxies']:,} galaxies ({100 * work.options.fraction:.3g} % of the paper's sample)"
    if not work.have("table1"):
        return f"Table 1 could not be made for {sample}."
    table = work.result("table1")
    rows, measure = {row["name"]: row for row in table["rows"]}, table["measure"]
    ddb, bias = rows.get(DDB), {name: with_error(row["bootstrap_mean"], row["bootstrap_std"])
                                for name, row in rows.items()}  # fmt: skip
    if ddb is None or ddb["one_class"]:
        text = f"The bias of the volunteers' labels ({measure}) is {bias[GZ2B]}; DDB gives no labels to compare."
    else:
        change, error = ddb["from_gz2b"] or 0.0, ddb["from_gz2b_std"] or 0.0
        verb = "lowers" if change < -2 * error else "raises" if change > 2 * error else "does not significantly change"
        text = (
            f"Training through T(α) (DDB) {verb} the bias of the labels: {measure} is {bias[GZ2B]} for volunteers and "
            f"{bias[DDB]} for DDB."
        )
    thetas = "".join(
        f"θ of {one['name'].upper()} is {with_error(one['theta'], one['stderr'], '.2f')} (paper: {one['paper']:.2f}). "
        for one in table["theta"]
    )
    return (
        f"{text} Labels that do not depend on α would have {number(rows[GZ2B]['floor'])}. In the paper, CV18 is "
        f"{TABLE_1[GZ2B].cv18:.3f} for volunteers and {TABLE_1[DDB].cv18:.3f} for DDB. {compared_order(table)} "
        f"{thetas}Sample: {sample}."
    )


def _findings(work: Work) -> list[Finding]:
    """Return the findings of all stages, and stages without a result, problems first."""
    found = [Finding.from_dict(one) for outcome in work.outcomes.values() for one in outcome.result.get("findings", ())]
    for outcome in work.outcomes.values():
        if outcome.status == FAILED:
            text = f"Stage {outcome.name} failed: {outcome.text}."
            found.append(Finding("stage-failed", "problem", text, "Fix this, and run the same command again."))
        elif outcome.status == LACKS:
            text, action = f"Stage {outcome.name} lacks data: {outcome.text}.", "Provide the data, and run it again."
            found.append(Finding("stage-lacks-input", "caution", text, action))
    return in_order([one for one in unique(found) if one.severity != "note"])


def _table_1(work: Work) -> Table:
    """Table 1 here and in the paper; only the paper's values of rows that could not be made."""
    table = work.result("table1")
    rows, measure = {row["name"]: row for row in table["rows"]}, table["measure"]
    lines = []
    for name, paper in TABLE_1.items():
        known = rows.get(name, {}).get
        cells = [
            f"{paper.letter}) {paper.labels}",
            with_error(known("bootstrap_mean"), known("bootstrap_std"), ".4f"),
            with_error(paper.cv18, paper.stderr, ".4f"),
            with_error(known("from_gz2b"), known("from_gz2b_std"), "+.3f"),
            "–" if name == GZ2B else f"{paper.cv18 - TABLE_1[GZ2B].cv18:+.3f}",
            number(known("value")),
            with_error(known("floor"), known("floor_std")),
            number(known("excess")),
            number(known("galaxies"), ",d"),
            number(known("disk_fraction")),
        ]
        lines.append(cells)
    leaves = f"{2 ** table['depth']} leaves in {', '.join(table['intrinsic'])}, " if table["intrinsic"] else ""
    no_match = "" if measure == "CV18" else ". The paper's values are CV18 and cannot be compared with these"
    note = (
        f"{measure} on {table['galaxies']:,} test galaxies, {leaves}{table['bins']} bins of α, "
        f"mean ± standard deviation of {table['bootstrap']} bootstrap resamples; α = {table['alpha']}{no_match}. "
        "GZ2B: volunteers' labels. GZ2D: labels of the same galaxies, debiased by Hart et "
        "al. Single value: without bootstrap. Floor: mean value of labels that do not depend on α. Above floor: "
        "single value minus floor. Errors are from bootstrap; training again adds scatter."
    )
    head = ["labels", f"{measure} here", "CV18, paper", "minus GZ2B, here", "minus GZ2B, paper", "single value",
            "floor", "above floor", "galaxies", "disk fraction"]  # fmt: skip
    return _table("Table 1: here and in the paper", head, lines, [8] + 9 * [0], note)


def _other_values(work: Work, curves: Distributions | None) -> Table:
    """The paper's other values: quantity, here, in the paper, definition."""
    table, lines = work.result("table1"), []
    how = {DCV14: "fitted by EM with the regression", DDB: "from bins of α of the training labels"}
    for one in table["theta"]:
        here = with_error(one["theta"], one["stderr"], ".2f")
        lines.append((f"θ of {one['name'].upper()}", here, f"{one['paper']:.2f}", how[one["name"]]))
    for row in (row for row in table["rows"] if row["paper_accuracy"] is not None):
        by_class = f"smooth {number(row['precision_smooth'])}, disk {number(row['precision_disk'])}"
        for what, more in (("accuracy", ""), ("precision", f"; macro-averaged ({by_class}), not defined in the paper")):
            values = (number(row[what]), number(row[f"paper_{what}"]))
            lines.append((f"{what} of {row['labels']}", *values, f"vs the labels that it was trained on{more}"))
    if curves is not None:
        values = (number(_disk_like(curves), ".2f"), f"about {DISK_LIKE_AMONG_SMOOTH:.2f}")
        lines.append(("fraction of GZ2B smooth with disk profiles", *values, "Sérsic index n ≤ 3"))
    if work.have("figure4"):
        seen = work.result("figure4")
        how_many = f"of {seen['changed']:,} test galaxies that change from smooth to disk with DDB"
        lines.append(("changed galaxies with HST image", f"{seen['with_better']:,}", str(HST_PAIRS[0]), how_many))
        given = any(seen["verdicts"].values())
        for what, n in zip(KINDS, HST_PAIRS[1:], strict=False):
            lines.append((f"… {what}", f"{seen['verdicts'][what]:,}" if given else "–", str(n), "by your verdicts"))
    return _table("Other values of the paper", ["quantity", "here", "paper", "definition"], lines, [8, 0, 0, 12])


def _reasons(work: Work) -> Table:
    head = ["choice", "in the paper", "here", "effect of other choices, measured here"]
    lines = [[one[key] for key in ("what", "paper", "here", "effect")] for one in work.result("reasons")["reasons"]]
    return _table("Why values may differ from the paper's", head, lines, [6, 10, 10, 16])


def _other_trees(work: Work) -> list[Table]:
    """Table 1 with other numbers of leaves and bins, which the paper does not give."""
    reasons = work.result("reasons")["reasons"]
    swept = [one for reason in reasons if reason["what"] == "leaves and bins" for one in reason["numbers"]["settings"]]
    rows = [[one["setting"], *(number(row["bootstrap_mean"]) for row in one["rows"])] for one in swept]
    head = ["leaves and bins", *(TABLE_1[row["name"]].short for row in swept[0]["rows"])] if swept else []
    note = "Bias metric (bootstrap mean). Compare the order of the label sets, which should not depend on this choice."
    return [Table("Table 1 with other numbers of leaves and bins", head, rows, note)] if rows else []


def _disk_like(curves: Distributions) -> float | None:
    """Fraction of GZ2B's smooth galaxies with an index of at most 3, like disks."""
    smooth = curves.table.filter((pl.col("panel") == "smooth") & (pl.col("labels") == curves.observed_name))
    return 1 - smooth["share_above"][0] if smooth.height else None


def _sersic(curves: Distributions, circular: bool) -> Illustration:
    text = (
        "The paper's Figure 3: Sérsic index n of galaxies labelled smooth, changed from smooth to disk, and labelled "
        "disk. Which labels that figure has is inferred from the text. "
        + ("DCV14 is trained on this index, so its curves are circular. " if circular else "")
        + f"Of GZ2B's smooth galaxies, {number(_disk_like(curves), '.0%')} have n ≤ {curves.boundary:g}, like disks "
        f"(paper: about {DISK_LIKE_AMONG_SMOOTH:.0%}). {curves.n_dropped:,} of {curves.n_galaxies:,} galaxies have no "
        "index."
    )
    return Illustration("figure3", cumulative_panels(curves, _STYLES), text, curves.data())


def _maps(work: Work) -> list[Illustration]:
    from truemorph.explain.plots import mean_map_figure, profile_figure

    result = work.result("maps")
    found = read_explanations(result["models"], work.file("maps", ""))
    galaxies = next(iter(found.values())).galaxies
    about = "; ".join(f"{name}: {one.layer}, {one.cells}×{one.cells} cells" for name, one in found.items())
    colours = {title: style["color"] for title, style in _STYLES.items()}
    maps, profiles = [], []
    for name, of_map, letter in (("disk", 5, "a"), ("smooth", 6, "b")):
        own = of_class(found, name)
        if not any(one.galaxies for one in own.values()):
            continue
        text = f"mean Grad-CAM maps of test galaxies predicted {name} ({galaxies:,} test galaxies)"
        caption = f"The paper's Figure {of_map}: {text}. {about}. truemorph explain compares maps with random weights."
        maps.append(Illustration(f"figure{of_map}", mean_map_figure(own), caption))
        text = f"mean Grad-CAM intensity of galaxies predicted {name} against distance from the centre"
        caption = f"The paper's Figure 7{letter}: {text}, with standard errors."
        figure, data = profile_figure(own, PIXELS, colours), profile_data(own, PIXELS)
        profiles.append(Illustration(f"figure7{letter}", figure, caption, data))
    return maps + profiles


def _pairs(work: Work) -> tuple[list[Pair], str, list[Illustration]]:
    """Return the pairs of Figure 4 for the page, their caption, and the figure for the folder."""
    from truemorph.report.figures import pairs_figure

    if not work.have("figure4"):
        missing = work.outcomes["figure4"]
        return [], f"Figure 4 is not available: {missing.text}." if missing.text else "", []
    found, shown = work.result("figure4"), list(islice(pairs(work), _PAIRS))
    n, spiral, lenticular = HST_PAIRS
    note = (
        f"The paper's Figure 4: test galaxies labelled smooth by volunteers and disk by DDB. Of {found['changed']:,} "
        f"galaxies, {found['with_better']:,} have an HST image. Left: image that the volunteers saw. Right: HST. In "
        f"the paper, {n} have one; {spiral} of these show spiral arms and {lenticular} are lenticular. truemorph does "
        f"not classify HST images: inspect them, and write {', '.join(KINDS)} beside each id in {VERDICTS}; the same "
        f"command then counts them (so far {', '.join(f'{one} {n}' for one, n in found['verdicts'].items())})."
    )
    if not shown:
        return [], note, []
    on_page = [
        Pair(f"{one['object_id']}: {one['title']}",
             [("seen by volunteers", jpeg_source(one["seen"])), ("HST", jpeg_source(one["better"]))])
        for one in shown[:_PAIRS_ON_PAGE]
    ]  # fmt: skip
    data = pl.DataFrame([{"object_id": one["object_id"], "title": one["title"]} for one in shown])
    text = "Galaxies that changed from smooth to disk. Top: image that the volunteers saw. Bottom: HST."
    return on_page, note, [Illustration("figure4", pairs_figure(shown), text, data)]


def _stages(work: Work) -> Table:
    rows = []
    for one in work.outcomes.values():
        status, took = ("done", f"{one.seconds:,.1f} s") if one.there else (one.status, "–")
        rows.append([one.name, one.title, status, took, one.text])
    note = f"Scale {work.options.fraction:g}, seed {work.options.seed}. Times are of the run that made the results."
    return _table("Stages", ["stage", "result", "status", "time", ""], rows, [0, 14, 0, 0, 24], note)


def _make(work: Work, folder: Path) -> dict[str, Any]:
    curves = sersic_curves(work) if work.have("table1") else None
    illustrations = [] if curves is None else [_sersic(curves, work.options.every_curve)]
    illustrations += _maps(work) if work.have("maps") else []
    shown, note, figure4 = _pairs(work)
    tables = [_table_1(work), _other_values(work, curves)] if work.have("table1") else []
    tables += [_reasons(work), *_other_trees(work)] if work.have("reasons") else []
    answer = _answer(work)
    page = Page(
        title=_TITLE,
        headline=first_sentence(answer),
        answer=answer.removeprefix(first_sentence(answer)).strip(),
        lights=[Light("Checks", _findings(work))],
        sections=[
            Section("Comparison with the paper", tables=tables),
            Section("Figures", figures=illustrations),
            *([Section("SDSS and HST images", note, pairs=shown)] if note else []),
            Section("Stages", tables=[_stages(work)]),
        ],
        appendix=[
            Section("Methods", include="equations.html"),
            Section("How to cite", include="citation.html"),
        ],
    )
    write_illustrations(illustrations + figure4, folder / "figures")
    write_page(page, folder / "reproduction.html")
    return {"answer": answer}


def page_stage(before: tuple[str, ...]) -> Stage:
    """Return the last stage, which shows the results of all others."""
    return Stage("page", "this page", _make, ("catalogue",), before)
