"""`reproduction.html`: Table 1 beside the paper's, reasons, θ, Figures 3 to 7, and what became of each stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure

from truemorph.bias.metrics import MINIMUM_PER_BIN
from truemorph.explain.study import PIXELS
from truemorph.findings import Finding, unique
from truemorph.plotting import plain_text
from truemorph.report.distributions import PANELS, cumulative_figure
from truemorph.report.gallery import jpeg_source
from truemorph.report.maps import profile_data
from truemorph.report.page import (
    Illustration,
    Light,
    Page,
    Pair,
    Section,
    Table,
    in_order,
    number,
    versions,
    with_error,
    write_illustrations,
    write_page,
)
from truemorph.reproduce.figures import maps, pairs, sersic_curves, styles
from truemorph.reproduce.paper import DDB, DISK_LIKE_AMONG_SMOOTH, GZ2B, HST_PAIRS, TABLE_1
from truemorph.reproduce.stages import FAILED, LACKS, Outcome, Stage, Work
from truemorph.reproduce.table1 import cells, frame_of, head, how_measured, other_numbers, titles

PAGE, FIGURES = "reproduction.html", "figures"
DRAWN = ("table1", "settings", "figure3", "figures5and6", "figure7", "figure4")
_TITLE = "Reproduction of Medina-Rosales, Cabrera-Vives & Miller (arXiv:2308.11007)"
_PAIRS_ON_PAGE = 12


def _prose(text: str, width: int = 14) -> Markup:
    """A cell of words, which wrap, in a table made for numbers."""
    return Markup('<div style="white-space: normal; text-align: left; min-width: {}rem">{}</div>').format(width, text)


def _answer(work: Work) -> str:
    drawn, fraction = work.result("catalogue"), work.options.fraction
    text = [f"{drawn['galaxies']:,} galaxies of {work.catalogue().metadata['source']}, at scale {fraction:.3g}."]
    if not work.have("table1"):
        return " ".join([*text, "Table 1 could not be made."])
    table = work.result("table1")
    rows = {row["name"]: row for row in table["rows"]}
    observed = with_error(rows[GZ2B]["bootstrap_mean"], rows[GZ2B]["bootstrap_std"])
    text.append(f"{table['measure']} of the volunteers' labels is {observed} (paper: CV18 {TABLE_1[GZ2B].cv18:.3f}).")
    if DDB in rows and rows[DDB]["one_class"]:
        text.append("DDB labels nearly all galaxies as one class, so its bias is not meaningful.")
    elif DDB in rows:
        row = rows[DDB]
        change = with_error(row["from_gz2b"], row["from_gz2b_std"], "+.3f")
        text.append(f"DDB changes it by {change} (paper: {number(row['paper_from_gz2b'], '+.3f')}).")
    thetas = [
        f"θ of {one['name'].upper()} is {with_error(one['theta'], one['stderr'], '.2f')} (paper: {one['paper']:.2f})"
        for one in table["theta"]
        if one["theta"] is not None
    ]
    return " ".join([*text, _in_order(table), *([f"{', '.join(thetas)}."] if thetas else [])])


def _in_order(table: dict[str, Any]) -> str:
    found = table["order"]
    if not found["pairs"]:
        return "No two rows of Table 1 can be put in order."
    return (
        f"Of the pairs of rows of Table 1 that the paper tells apart, {found['as_in_the_paper']} of {found['pairs']} "
        "stand in its order."
    )


def _checks(work: Work) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Findings of this reproduction, problems first; and checks that passed, with what they measured."""
    found: list[Finding] = []
    passed: list[tuple[str, str]] = []
    if not work.result("catalogue")["as_drawn_in_the_paper"]:
        found.append(
            Finding(
                "sample-not-the-papers",
                "caution",
                "This is not the paper's sample, so it shows that the stages run, not what the paper found.",
                "Run at full scale (`scale`) on Galaxy Zoo 2.",
            )
        )
    found += map(Finding.from_dict, work.result("catalogue")["findings"])
    for outcome in work.outcomes.values():
        if outcome.status == FAILED:
            text = f"Stage {outcome.name} failed: {outcome.text}."
            found.append(Finding("stage-failed", "problem", text, "Correct this, and run the same command again."))
        elif outcome.status == LACKS:
            text = f"Stage {outcome.name} lacks: {outcome.text}."
            found.append(Finding("stage-lacks-input", "caution", text, "Get this, and run the same command again."))
    if work.have("table1"):
        of_table, more = _of_table(work.result("table1"))
        found, passed = found + of_table, passed + more
    if work.have("theta"):
        found += map(Finding.from_dict, work.result("theta")["findings"])
    if work.have("maps"):
        maps_found = work.result("maps")
        for name, one in maps_found["random_weights"].items():
            if one["passes"]:
                passed.append((f"Maps of {name} against random weights", one["statement"]))
            else:
                text = f"{name}: {one['statement']}"
                found.append(Finding("maps-not-specific", "caution", text, "Do not interpret these maps."))
        if maps_found["not_checked"]:
            text = f"Grad-CAM maps could not be compared with those of random weights: {maps_found['not_checked']}."
            found.append(Finding("maps-not-checked", "caution", text, "Do not interpret these maps."))
    return in_order(unique(found)), passed


def _of_table(table: dict[str, Any]) -> tuple[list[Finding], list[tuple[str, str]]]:
    out: list[Finding] = []
    if table["measure"] != "CV18":
        text = f"Bias is measured as {table['measure']}, not CV18, because intrinsic columns are missing."
        out.append(Finding("intrinsic-missing", "caution", text, "Fetch the tables that have them."))
    crowd = next(row for row in table["rows"] if row["name"] == GZ2B)
    if crowd["objects_per_bin"] is not None and crowd["objects_per_bin"] < MINIMUM_PER_BIN:
        text = (
            f"The bins of {table['measure']} have {crowd['objects_per_bin']:.0f} galaxies: its value is mostly noise."
        )
        out.append(Finding("few-galaxies-per-bin", "caution", text, "Use a larger `scale`, or fewer `bins`."))
    for row in table["rows"]:
        if row["one_class"]:
            text = f"{row['labels']} calls {row['disk_fraction']:.1%} of the galaxies disk. Such labels cannot drift."
            out.append(Finding("nearly-one-class", "caution", text, "Train for more epochs, or at a larger `scale`."))
        if row["partial"]:
            text = (
                f"{row['labels']} labels {row['galaxies']:,} of the {table['galaxies']:,} galaxies: only its "
                "difference from GZ2B is measured on the same galaxies."
            )
            out.append(Finding("rows-not-labelled", "caution", text, "Check why the others are missing."))
    found = table["order"]
    if not found["pairs"]:
        return out, []
    if found["pairs"] == found["as_in_the_paper"]:
        return out, [("Order of the rows of Table 1", _in_order(table))]
    return [*out, Finding("order-differs", "caution", _in_order(table), "See why numbers may differ, below.")], []


def _tables(work: Work) -> list[Table]:
    out = []
    if work.have("table1"):
        table = work.result("table1")
        note = (
            f"{how_measured(table)}. Minus GZ2B: difference of plain values, error from resamples that both share. "
            "Floor: labels without a drift with α. Errors: resampled galaxies; other trainings add scatter."
        )
        lines = [cells(work, table, name) for name in TABLE_1]
        out.append(Table("Table 1 beside the paper's", head(table), lines, note))
        lines = [[*line[:3], _prose(line[3], 20)] for line in other_numbers(work, table)]
        out.append(Table("Other numbers of the paper", ["", "here", "paper", _prose("how", 20)], lines))
    if work.have("reasons"):
        heads = ["", _prose("in the paper"), _prose("here"), _prose("effect, measured here", 24)]
        lines = [
            [one["what"], _prose(one["paper"]), _prose(one["here"]), _prose(one["effect"], 24)]
            for one in work.result("reasons")["reasons"]
        ]
        out.append(Table("Why numbers may differ from the paper's", heads, lines))
    return out


def _dots(work: Work) -> Illustration:
    """Table 1 as a figure."""
    table, names, shown = work.result("table1"), titles(work, short=True), styles(work)
    rows = {row["name"]: row for row in table["rows"]}
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(reversed(TABLE_1)):
        paper, row = TABLE_1[name], rows.get(name)
        axes.errorbar(paper.cv18, place - 0.15, xerr=paper.stderr, fmt="o", mfc="none", color="0.45", capsize=2)
        if row is not None and row["bootstrap_mean"] is not None:
            style = shown[names[name]]
            axes.errorbar(row["bootstrap_mean"], place + 0.15, xerr=row["bootstrap_std"], fmt=style["marker"],
                          color=style["color"], capsize=2)  # fmt: skip
            axes.plot(row["floor"], place + 0.15, "|", color=style["color"], ms=12)
    axes.set_yticks(range(len(TABLE_1)), [plain_text(names[name]) for name in reversed(TABLE_1)])
    axes.set(xlabel=f"{table['measure']} (open: paper's CV18; strokes: labels without a drift)", xlim=(0, None))
    axes.grid(axis="y", color="0.9")
    text = f"{table['measure']} of each row of Table 1 here (filled, bootstrap) and in the paper (open)."
    return Illustration("table1", figure, text, text, frame_of(table["rows"]))


def _settings_figure(work: Work) -> list[Illustration]:
    """Table 1 with other trees and bins."""
    reasons = {one["what"]: one["numbers"] for one in work.result("reasons")["reasons"]} if work.have("reasons") else {}
    swept = reasons.get("leaves and bins", {}).get("settings")
    if not swept:
        return []
    names, shown = titles(work, short=True), styles(work)
    data = frame_of(
        [{"setting": one["setting"], "labels": names[row["name"]], **row} for one in swept for row in one["rows"]]
    )
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    places = {setting: place for place, setting in enumerate(data["setting"].unique(maintain_order=True))}
    for (name,), part in data.group_by("labels", maintain_order=True):
        style = shown[str(name)]
        axes.plot([places[one] for one in part["setting"]], part["bootstrap_mean"].to_list(), style["ls"],
                  color=style["color"], marker=style["marker"], label=plain_text(str(name)))  # fmt: skip
    axes.set_xticks(range(len(places)), [one.replace(", ", "\n") for one in places], fontsize=8)
    axes.set(ylabel=f"{work.result('table1')['measure']}, bootstrap mean", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    text = "The same labels measured with other leaves and bins, which the paper does not give: compare the order."
    return [Illustration("settings", figure, text, text, data.drop("name"))]


def _sersic(work: Work) -> Illustration:
    curves, found = sersic_curves(work), work.result("figure3")
    # The paper shows no galaxies that went from disk to smooth.
    shown = replace(curves, samples=tuple(one for one in curves.samples if one.panel != "to_smooth"))
    text = (
        "Figure 3: Sérsic index n of galaxies labelled smooth, changed from smooth to disk, and labelled disk. Of "
        f"GZ2B's smooth galaxies {number(found['disk_like_among_smooth'], '.0%')} have n ≤ {curves.boundary:g} (paper: "
        f"about {DISK_LIKE_AMONG_SMOOTH:.0%}). {found['without_index']:,} of {found['galaxies']:,} have no index."
    )
    far = "; ".join(
        f"{row['labels']} ({PANELS[row['panel']]}) {row['ks']:.2f}" for row in found["table"] if row["ks"] is not None
    )
    return Illustration(
        "figure3",
        cumulative_figure(shown, styles(work)),
        f"Cumulative curves of the Sérsic index. Distances from GZ2B's: {far}.",
        text,
        curves.curves().join(curves.table(), on=["panel", "labels"], how="left", maintain_order="left"),
    )


def _maps(work: Work) -> list[Illustration]:
    from truemorph.explain.plots import mean_map_figure, profile_figure

    found = maps(work)
    if not found:
        return []
    galaxies = next(iter(found.values())).galaxies
    layers = "; ".join(f"{name}: {one.layer}, {one.cells}×{one.cells} cells" for name, one in found.items())
    colours = {name: style["color"] for name, style in styles(work).items()}
    return [
        Illustration(
            "figures5and6", mean_map_figure(found), f"Mean Grad-CAM maps of {galaxies:,} galaxies by model and class.",
            "Figures 5 (disk) and 6 (smooth): mean Grad-CAM map of the test galaxies that each network puts into the "
            f"class, {galaxies:,} in all. {layers}.",
        ),
        Illustration(
            "figure7", profile_figure(found, PIXELS, colours),
            "Mean Grad-CAM intensity against distance from the centre, by model and class.",
            "Figure 7: mean intensity of the maps against distance from the centre; bands: standard errors.",
            profile_data(found, PIXELS),
        ),
    ]  # fmt: skip


def _pairs(work: Work) -> tuple[list[Pair], str, list[Illustration]]:
    """Figure 4: pairs for the page, what they are, and the figure for its folder."""
    from truemorph.report.figures import pairs_figure

    if not work.have("figure4"):
        missing = work.outcomes["figure4"]
        return [], f"Figure 4 {missing.status}: {missing.text}." if missing.text else "", []
    found, shown = work.result("figure4"), pairs(work)
    n, spiral, lenticular = HST_PAIRS
    note = (
        f"Figure 4: test galaxies that volunteers labelled smooth and DDB labels disk, {found['changed']:,} in all; "
        f"{found['with_better']:,} have an HST image. Left the image that volunteers saw, right HST's. Paper: {n}, of "
        f"which {spiral} show spiral arms and {lenticular} look lenticular; truemorph does not classify HST images."
    )
    if not shown:
        return [], note, []
    on_page = [
        Pair(f"{one['object_id']}: {one['title']}",
             [("seen by volunteers", jpeg_source(one["seen"])), ("HST", jpeg_source(one["better"]))])
        for one in shown[:_PAIRS_ON_PAGE]
    ]  # fmt: skip
    data = pl.DataFrame([{"object_id": one["object_id"], "title": one["title"]} for one in shown])
    text = "Galaxies that changed from smooth to disk: above the images that volunteers saw, below HST's."
    return on_page, note, [Illustration("figure4", pairs_figure(shown), text, text, data)]


def _stages(outcomes: dict[str, Outcome]) -> Table:
    rows = []
    for one in outcomes.values():
        status, took = ("done", f"{one.seconds:,.1f} s") if one.there else (one.status, "–")
        rows.append([one.name, _prose(one.title), status, took, _prose(one.text, 24)])
    return Table("Stages", ["", _prose("what"), "status", "time", ""], rows, "Time: when it was made.")


def _follows_from(work: Work) -> dict[str, Any]:
    absent = [(one.name, one.status, one.text) for one in work.outcomes.values() if not one.there]
    return {"from": work.keys(work.outcomes), "absent": absent}


def _make(work: Work, folder: Path) -> dict[str, Any]:
    illustrations = [_dots(work), *_settings_figure(work)] if work.have("table1") else []
    illustrations += [_sersic(work)] if work.have("figure3") else []
    illustrations += _maps(work)
    beside, note, figure4 = _pairs(work)
    answer, metadata, (findings, passed) = _answer(work), work.catalogue().metadata, _checks(work)
    settings = {
        "catalogue": metadata["source"],
        "votes": metadata["votes"],
        "α": metadata["alpha"],
        "scale": f"{work.options.fraction:g}",
        "bootstrap resamples": work.options.bootstrap,
        "seed": work.options.seed,
        **{f"training, {name}": value for name, value in work.inputs.training.items()},
    }
    page = Page(
        title=_TITLE,
        answer=answer,
        lights=[Light("Checks", findings, passed)],
        sections=[
            Section("Tables", tables=_tables(work)),
            Section("Figures", figures=illustrations),
            *([Section("Beside a better image", note, pairs=beside)] if note else []),
            Section("Stages", tables=[_stages(work.outcomes)]),
        ],
        appendix=[
            Section("Methods", include="equations.html"),
            Section("Settings", tables=[Table("", (), [[name, str(value)] for name, value in settings.items()])]),
            Section("How to cite", include="citation.html"),
        ],
        versions=versions(),
    )
    write_illustrations(illustrations + figure4, folder / FIGURES)
    write_page(page, folder / PAGE)
    return {
        "answer": answer,
        "findings": [one.to_dict() for one in findings],
        "passed": [{"name": name, "measured": measured} for name, measured in passed],
    }


def page_stage(before: tuple[str, ...]) -> Stage:
    """The last stage: whatever the others found, or lack."""
    return Stage("page", "the page", _follows_from, _make, ("catalogue",), before)
