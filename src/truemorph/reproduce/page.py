"""`reproduction.html`: Table 1 here and in the paper, reasons for differences, θ and Figures 3 to 7."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.explain.study import PIXELS
from truemorph.findings import Finding, unique
from truemorph.plotting import BLUE, GREEN, GREY, MARKERS, ORANGE, RED, SKY
from truemorph.report.distributions import Distributions, cumulative_panels
from truemorph.report.figures import Style
from truemorph.report.gallery import jpeg_source
from truemorph.report.maps import profile_data
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
    versions,
    with_error,
    write_illustrations,
    write_page,
)
from truemorph.reproduce.figures import KINDS, VERDICTS, explained, pairs, sersic_curves
from truemorph.reproduce.models import NETWORKS
from truemorph.reproduce.paper import DDB, DISK_LIKE_AMONG_SMOOTH, GZ2B, HST_PAIRS, TABLE_1
from truemorph.reproduce.stages import FAILED, LACKS, Work
from truemorph.reproduce.table1 import compared_order

_TITLE = "Reproduction of Medina-Rosales, Cabrera-Vives & Miller (arXiv:2308.11007)"
_PAIRS_ON_PAGE, _PAIRS = 12, 24
_COLOURS = (GREY, ORANGE, RED, SKY, GREEN, BLUE)
_LINES = ("--", "-.", "-", "--", ":", "-")
_STYLES: dict[str, Style] = {
    one.short: {"color": color, "marker": marker, "ls": line}
    for one, color, marker, line in zip(TABLE_1.values(), _COLOURS, MARKERS, _LINES, strict=False)
}


def _answer(work: Work) -> str:
    drawn = work.result("catalogue")
    sample = f"{drawn['galaxies']:,} galaxies ({100 * work.options.fraction:.3g} % of the paper's sample)"
    if not work.have("table1"):
        return f"Table 1 could not be made for {sample}."
    table = work.result("table1")
    rows, measure = {row["name"]: row for row in table["rows"]}, table["measure"]
    bias = {name: with_error(row["bootstrap_mean"], row["bootstrap_std"]) for name, row in rows.items()}
    if DDB not in rows or rows[DDB]["one_class"]:
        text = f"The bias of the volunteers' labels ({measure}) is {bias[GZ2B]}; DDB gives no labels to compare."
    else:
        change, error = rows[DDB]["from_gz2b"] or 0.0, rows[DDB]["from_gz2b_std"] or 0.0
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
        f"{text} Labels that do not depend on α would have {number(rows[GZ2B]['floor'])}. {compared_order(table)} "
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
            number(known("accuracy")),
            number(paper.accuracy),
            number(known("precision")),
            number(paper.precision),
            with_error(known("floor"), known("floor_std")),
            number(known("galaxies"), ",d"),
            number(known("disk_fraction")),
        ]
        lines.append(cells)
    leaves = f"{2 ** table['depth']} leaves in {', '.join(table['intrinsic'])}, " if table["intrinsic"] else ""
    no_match = "" if measure == "CV18" else ". The paper's values are CV18 and cannot be compared with these"
    networks = [work.result(name) for name in NETWORKS if work.have(name)]
    epochs = ", ".join(str(one["epochs"]) for one in networks)
    trained = f"Networks: {networks[0]['network']}, {epochs} epochs (settings: run.toml). " if networks else ""
    note = (
        f"{measure} on {table['galaxies']:,} test galaxies, {leaves}{table['bins']} bins of α, "
        f"mean ± standard deviation of {table['bootstrap']} bootstrap resamples; α = {table['alpha']}{no_match}. "
        "Errors are from bootstrap; training again adds scatter. GZ2B: volunteers' labels. GZ2D: labels of the same "
        "galaxies, debiased by Hart et al. Accuracy and precision (macro-averaged, not defined in the paper) are vs "
        "the labels that a model was trained on. Floor: mean value of labels that do not depend on α; the paper's "
        f"values probably include it. {trained}Seed {work.options.seed}."
    )
    head = ["labels", *4 * ["here", "paper"], "floor", "galaxies", "disk fraction"]
    groups = [("", 1), (measure, 2), ("minus GZ2B", 2), ("accuracy", 2), ("precision", 2), ("", 3)]
    return Table("Table 1: here and in the paper", head, lines, note, groups)


def _other_values(work: Work, curves: Distributions | None) -> Table:
    """The paper's other values, here and in the paper."""
    lines = []
    for one in work.result("table1")["theta"]:
        here = with_error(one["theta"], one["stderr"], ".2f")
        lines.append([f"θ of {one['name'].upper()}", here, f"{one['paper']:.2f}"])
    if curves is not None:
        values = (number(_disk_like(curves), ".2f"), f"about {DISK_LIKE_AMONG_SMOOTH:.2f}")
        lines.append(["fraction of GZ2B smooth with disk profiles (Sérsic index n ≤ 3)", *values])
    if work.have("figure4"):
        seen = work.result("figure4")
        lines.append(["changed galaxies with HST image", f"{seen['with_better']:,}", str(HST_PAIRS[0])])
        given = any(seen["verdicts"].values())
        for what, n in zip(KINDS, HST_PAIRS[1:], strict=False):
            lines.append([f"… {what}, by your verdicts", str(seen["verdicts"][what]) if given else "–", str(n)])
    return Table("Other values", ["quantity", "here", "paper"], lines)


def _reasons(work: Work) -> Section:
    """The open choices, and Table 1 with other numbers of leaves and bins."""
    reasons = work.result("reasons")["reasons"]
    items = [
        f"{one['what']}. In the paper: {one['paper']}. Here: {one['here']}. Measured effect of other choices: "
        f"{one['effect']}."
        for one in reasons
    ]
    swept = next(one["numbers"]["settings"] for one in reasons if one["what"] == "leaves and bins")
    tables = []
    if swept:
        rows = [[one["setting"], *(number(row["bootstrap_mean"]) for row in one["rows"])] for one in swept]
        head = ["leaves × bins", *(TABLE_1[row["name"]].short for row in swept[0]["rows"])]
        note = "Bootstrap means. Compare the order of the label sets, which should not depend on this choice."
        tables.append(Table("Table 1 with other numbers of leaves and bins", head, rows, note))
    return Section("Why values may differ from the paper's", items=items, tables=tables)


def _disk_like(curves: Distributions) -> float | None:
    """Fraction of GZ2B's smooth galaxies with an index of at most 3, like disks."""
    smooth = curves.table.filter((pl.col("panel") == "smooth") & (pl.col("labels") == curves.observed_name))
    return 1 - smooth["share_above"][0] if smooth.height else None


def _sersic(curves: Distributions, circular: bool) -> Illustration:
    text = (
        "The paper's Figure 3: Sérsic index n of galaxies labelled smooth, changed from smooth to disk, and labelled "
        "disk. Which labels that figure has is inferred from the text. "
        + ("DCV14 is trained on this index, so its curves are circular. " if circular else "")
        + f"{curves.n_dropped:,} of {curves.n_galaxies:,} galaxies have no index."
    )
    alternative = "Cumulative distributions of the Sérsic index, with distances from GZ2B."
    return Illustration("figure3", cumulative_panels(curves, _STYLES), alternative, text, curves.data())


def _maps(work: Work) -> list[Illustration]:
    from truemorph.explain.plots import mean_map_figure, profile_figure

    colours = {title: style["color"] for title, style in _STYLES.items()}
    maps, profiles = [], []
    for name, of_map, letter in (("disk", 5, "a"), ("smooth", 6, "b")):
        found = explained(work, name)
        if not any(one.galaxies for one in found.values()):
            continue
        about = "; ".join(f"{model}: {one.layer}, {one.cells}×{one.cells} cells" for model, one in found.items())
        text = f"mean Grad-CAM maps of test galaxies predicted {name}"
        caption = f"The paper's Figure {of_map}: {text}. {about}. truemorph explain compares maps with random weights."
        maps.append(Illustration(f"figure{of_map}", mean_map_figure(found), f"By model, {text}.", caption))
        text = f"mean Grad-CAM intensity of galaxies predicted {name} against distance from the centre"
        caption = f"The paper's Figure 7{letter}: {text}, with standard errors."
        figure, data = profile_figure(found, PIXELS, colours), profile_data(found, PIXELS)
        profiles.append(Illustration(f"figure7{letter}", figure, f"By model, {text}.", caption, data))
    return maps + profiles


def _pairs(work: Work) -> tuple[list[Section], list[Illustration]]:
    """Return Figure 4 as a section of the page, and as a figure for the folder."""
    from truemorph.report.figures import pairs_figure

    title = "SDSS and HST images"
    if not work.have("figure4"):
        missing = work.outcomes["figure4"].text
        return ([Section(title, f"Figure 4 is not available: {missing}.")] if missing else []), []
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
        return [Section(title, note)], []
    on_page = [
        Pair(f"{one['object_id']}: {one['title']}",
             [("seen by volunteers", jpeg_source(one["seen"])), ("HST", jpeg_source(one["better"]))])
        for one in shown[:_PAIRS_ON_PAGE]
    ]  # fmt: skip
    data = pl.DataFrame([{"object_id": one["object_id"], "title": one["title"]} for one in shown])
    text = "Galaxies that changed from smooth to disk. Top: image that the volunteers saw. Bottom: HST."
    figure = Illustration("figure4", pairs_figure(shown), text, text, data)
    return [Section(title, note, pairs=on_page)], [figure]


def make_page(work: Work, folder: Path) -> dict[str, Any]:
    """Write the page, which shows the results of all stages, and its figures."""
    tables, figures = [], []
    if work.have("table1"):
        curves = sersic_curves(work)
        tables += [_table_1(work), _other_values(work, curves)]
        figures += [] if curves is None else [_sersic(curves, work.options.every_curve)]
    figures += _maps(work) if work.have("maps") else []
    hst, figure4 = _pairs(work)
    answer = _answer(work)
    page = Page(
        title=_TITLE,
        headline=first_sentence(answer),
        answer=answer.removeprefix(first_sentence(answer)).strip(),
        lights=[Light("Checks", _findings(work))],
        sections=[
            Section("Comparison with the paper", tables=tables),
            *([_reasons(work)] if work.have("reasons") else []),
            Section("Figures", figures=figures),
            *hst,
        ],
        appendix=[
            Section("Methods", include="equations.html"),
            Section("How to cite", include="citation.html"),
        ],
        versions=versions(),
    )
    write_illustrations(figures + figure4, folder / "figures")
    write_page(page, folder / "reproduction.html")
    return {"answer": answer}
