"""`reproduction.html`: Table 1 here and in the paper, reasons for differences, θ and Figures 3 to 7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from truemorph.bias.metrics import MINIMUM_PER_BIN
from truemorph.config import source_of
from truemorph.explain.study import PIXELS
from truemorph.findings import Finding, unique
from truemorph.plotting import plain_text
from truemorph.report.distributions import PANELS, cumulative_panels
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
from truemorph.reproduce.figures import KINDS, VERDICTS, pairs, read_explanations, sersic_curves, styles
from truemorph.reproduce.models import NETWORKS, as_in_the_paper
from truemorph.reproduce.paper import DDB, DISK_LIKE_AMONG_SMOOTH, GZ2B, HST_PAIRS, TABLE_1
from truemorph.reproduce.stages import FAILED, LACKS, Stage, Work
from truemorph.reproduce.table1 import frame_of, titles

_TITLE = "Reproduction of Medina-Rosales, Cabrera-Vives & Miller (arXiv:2308.11007)"
_PAIRS_ON_PAGE, _PAIRS = 12, 24
_WRAPPED = Markup('<div style="white-space: normal; text-align: left; min-width: {}rem">{}</div>')


def _table(title: str, head: list[str], rows: list[Any], widths: list[int], note: str = "") -> Table:
    """Make a table; cells of columns with a width, in rem, wrap."""

    def line(cells: Sequence[str]) -> list[str]:
        return [_WRAPPED.format(width, cell) if width else cell for cell, width in zip(cells, widths, strict=True)]

    return Table(title, line(head), [line(cells) for cells in rows], note)


def _answer(work: Work) -> str:
    drawn, source = work.result("catalogue"), work.catalogue().metadata["source"]
    sample = f"{drawn['galaxies']:,} galaxies of {source} ({100 * work.options.fraction:.3g} % of the paper's sample)"
    if not work.have("table1"):
        return f"Table 1 could not be made for {sample}."
    table = work.result("table1")
    rows, measure = {row["name"]: row for row in table["rows"]}, table["measure"]
    observed, ddb = rows[GZ2B], rows.get(DDB)
    values = [with_error(one["bootstrap_mean"], one["bootstrap_std"]) for one in (observed, ddb) if one]
    if ddb is None or ddb["one_class"]:
        text = [f"The bias of the volunteers' labels ({measure}) is {values[0]}."]
        text += ["DDB labels nearly all galaxies as one class."] if ddb else []
    else:
        change, error = ddb["from_gz2b"] or 0.0, ddb["from_gz2b_std"] or 0.0
        verb = "lowers" if change < -2 * error else "raises" if change > 2 * error else "does not significantly change"
        text = [
            f"Training through T(α) (DDB) {verb} the bias of the labels: {measure} is {values[0]} for volunteers and "
            f"{values[1]} for DDB."
        ]
    text.append(
        f"Labels that do not depend on α would have {number(observed['floor'])}. In the paper, CV18 is "
        f"{TABLE_1[GZ2B].cv18:.3f} for volunteers and {TABLE_1[DDB].cv18:.3f} for DDB."
    )
    thetas = [
        f"{with_error(one['theta'], one['stderr'], '.2f')} for {one['name'].upper()} (paper: {one['paper']:.2f})"
        for one in table["theta"]
        if one["theta"] is not None
    ]
    text += [_in_order(table), *([f"θ is {' and '.join(thetas)}."] if thetas else []), f"Sample: {sample}."]
    return " ".join(text)


def _in_order(table: dict[str, Any]) -> str:
    found = table["order"]
    if not found["pairs"]:
        return "No two rows of Table 1 can be compared with the paper's order."
    return (
        f"Of {found['pairs']} pairs of rows of Table 1 that differ by more than their errors in the paper, "
        f"{found['as_in_the_paper']} have the same order here."
    )


def _checks(work: Work) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Return findings, problems first, and checks that passed with their measured values."""
    found: list[Finding] = []
    passed: list[tuple[str, str]] = []
    if not as_in_the_paper(work):
        text = "The sample differs from the paper's: this page shows that stages run, but does not test the paper."
        action = "Run at full scale (`scale`) on Galaxy Zoo 2."
        found.append(Finding("sample-not-the-papers", "caution", text, action))
    stages = [work.result(name) for name in ("catalogue", "theta") if work.have(name)]
    known = [Finding.from_dict(one) for result in stages for one in result["findings"]]
    found += [one for one in known if one.severity != "note"]
    for outcome in work.outcomes.values():
        if outcome.status == FAILED:
            text = f"Stage {outcome.name} failed: {outcome.text}."
            action = "Fix this, and run the same command again."
            found.append(Finding("stage-failed", "problem", text, action))
        elif outcome.status == LACKS:
            text = f"Stage {outcome.name} lacks data: {outcome.text}."
            action = "Provide the data, and run the same command again."
            found.append(Finding("stage-lacks-input", "caution", text, action))
    if work.have("table1"):
        table = work.result("table1")
        measure, compared = table["measure"], table["order"]
        if measure != "CV18":
            text = f"Bias is measured by {measure}, not CV18, because intrinsic columns are missing."
            action = "Fetch the tables with these columns (`fetch`)."
            found.append(Finding("intrinsic-missing", "caution", text, action))
        per_bin = table["rows"][0]["objects_per_bin"]
        if per_bin is not None and per_bin < MINIMUM_PER_BIN:
            text = f"Bins have only {per_bin:.0f} galaxies, so {measure} is mostly sampling noise."
            found.append(Finding("few-galaxies-per-bin", "caution", text, "Use a larger `scale`, or fewer `bins`."))
        for row in table["rows"]:
            if row["one_class"]:
                text = f"{row['labels']}: {row['disk_fraction']:.1%} are labelled disk: {measure} is meaningless."
                action = "Train for more epochs, or at a larger `scale`."
                found.append(Finding("nearly-one-class", "caution", text, action))
            if row["partial"]:
                text = (
                    f"{row['labels']}: only {row['galaxies']:,} of the {table['galaxies']:,} galaxies have a label. "
                    "Compare the difference from GZ2B, which is measured on the same galaxies."
                )
                found.append(Finding("rows-not-labelled", "caution", text, "Check why the others have none."))
        if compared["pairs"] > compared["as_in_the_paper"]:
            action = "The table below gives reasons why values may differ."
            found.append(Finding("order-differs", "caution", _in_order(table), action))
        elif compared["pairs"]:
            passed.append(("Order of the rows of Table 1", _in_order(table)))
    if work.have("maps"):
        maps, action = work.result("maps"), "Do not interpret these maps."
        for name, one in maps["random_weights"].items():
            if one["passes"]:
                passed.append((f"Grad-CAM maps of {name} vs random weights", one["statement"]))
            else:
                found.append(Finding("maps-not-specific", "caution", f"{name}: {one['statement']}", action))
        if maps["not_checked"]:
            text = f"Grad-CAM maps could not be compared with those of random weights: {maps['not_checked']}."
            found.append(Finding("maps-not-checked", "caution", text, action))
    return in_order(unique(found)), passed


def _table_1(work: Work) -> Table:
    """Table 1 here and in the paper; only the paper's values of rows that could not be made."""
    table = work.result("table1")
    rows, measure = {row["name"]: row for row in table["rows"]}, table["measure"]
    lines = []
    for name, title in titles(work).items():
        paper, known = TABLE_1[name], rows.get(name, {}).get
        cells = [
            f"{paper.letter}) {title}",
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
    lacking = [f"{row['labels']} {row['left_out']:,}" for row in table["rows"] if row["left_out"]]
    without = f" (without a label: {', '.join(lacking)})" if lacking else ""
    leaves = f"{2 ** table['depth']} leaves in {', '.join(table['intrinsic'])}, " if table["intrinsic"] else ""
    no_match = "" if measure == "CV18" else ". The paper's values are CV18 and cannot be compared with these"
    note = (
        f"{measure} on {table['galaxies']:,} test galaxies{without}, {leaves}{table['bins']} bins of α, "
        f"mean ± standard deviation of {table['bootstrap']} bootstrap resamples; α = {table['alpha']}{no_match}. "
        "GZ2B: volunteers' labels. GZ2D: labels of the same galaxies, debiased by Hart et "
        "al. Single value: without bootstrap. Floor: mean value of labels that do not depend on α. Above floor: "
        "single value minus floor. Errors are from bootstrap; training again adds scatter."
    )
    head = ["labels", f"{measure} here", "CV18, paper", "minus GZ2B, here", "minus GZ2B, paper", "single value",
            "floor", "above floor", "galaxies", "disk fraction"]  # fmt: skip
    return _table("Table 1: here and in the paper", head, lines, [8] + 9 * [0], note)


def _other_values(work: Work) -> Table:
    """The paper's other values: quantity, here, in the paper, definition."""
    table = work.result("table1")
    lines = []
    for one in table["theta"]:
        here = with_error(one["theta"], one["stderr"], ".2f")
        lines.append((f"θ of {one['name'].upper()}", here, f"{one['paper']:.2f}", one["how"]))
    rows, names = {row["name"]: row for row in table["rows"]}, titles(work)
    for name, paper in TABLE_1.items():
        if paper.accuracy is None:
            continue
        known, title = rows.get(name, {}).get, names[name]
        by_class = f"smooth {number(known('precision_smooth'))}, disk {number(known('precision_disk'))}"
        lines += [
            (f"accuracy of {title}", number(known("accuracy")), number(paper.accuracy), "vs the labels that it was "
             "trained on"),
            (f"precision of {title}", number(known("precision")), number(paper.precision),
             f"vs the same, macro-averaged ({by_class}); the paper does not define it"),
        ]  # fmt: skip
    if work.have("figure3"):
        fraction = number(work.result("figure3")["disk_like_among_smooth"], ".2f")
        paper_says = f"about {DISK_LIKE_AMONG_SMOOTH:.2f}"
        lines.append(("fraction of GZ2B smooth with disk profiles", fraction, paper_says, "Sérsic index n ≤ 3"))
    if work.have("figure4"):
        seen = work.result("figure4")
        how = f"of {seen['changed']:,} test galaxies that change from smooth to disk with DDB"
        lines.append(("changed galaxies with HST image", f"{seen['with_better']:,}", str(HST_PAIRS[0]), how))
        given = any(seen["verdicts"].values())
        for what, n in zip(("arms", "lenticular"), HST_PAIRS[1:], strict=True):
            lines.append((f"… {what}", f"{seen['verdicts'][what]:,}" if given else "–", str(n), "by your verdicts"))
    return _table("Other values of the paper", ["quantity", "here", "paper", "definition"], lines, [8, 0, 0, 12])


def _reasons(work: Work) -> Table:
    head = ["choice", "in the paper", "here", "effect of other choices, measured here"]
    lines = [[one[key] for key in ("what", "paper", "here", "effect")] for one in work.result("reasons")["reasons"]]
    return _table("Why values may differ from the paper's", head, lines, [6, 10, 10, 16])


def _dots(work: Work) -> Illustration:
    """Draw Table 1."""
    table, names, shown = work.result("table1"), titles(work, short=True), styles(work)
    rows = {row["name"]: row for row in table["rows"]}
    figure = Figure(figsize=(4.8, 3.8), layout="constrained")
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
    axes.set(xlabel=f"bias metric {table['measure']}", xlim=(0, None))
    axes.grid(axis="y", color="0.9")
    keys = (
        ("here", "o", "0.2", "0.2"),
        ("paper (CV18)", "o", "0.45", "none"),
        ("floor", "|", "0.2", "0.2"),
    )
    legend = [Line2D([], [], ls="", marker=mark, color=edge, mfc=face, label=text) for text, mark, edge, face in keys]
    figure.legend(handles=legend, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    text = (
        f"Table 1: {table['measure']} here and in the paper, with bootstrap errors. The floor is the mean value of "
        "labels that do not depend on α."
    )
    return Illustration("table1", figure, text, text, frame_of(table["rows"]))


def _settings_figure(work: Work) -> list[Illustration]:
    """Draw Table 1 with other numbers of leaves and bins."""
    reasons = work.result("reasons")["reasons"] if work.have("reasons") else []
    swept: list[Any] = next((one["numbers"]["settings"] for one in reasons if one["what"] == "leaves and bins"), [])
    if not swept:
        return []
    names, shown = titles(work, short=True), styles(work)
    data = frame_of(
        [{"setting": one["setting"], "labels": names[row["name"]], **row} for one in swept for row in one["rows"]]
    )
    figure = Figure(figsize=(4.8, 1.6 + 0.3 * len(swept)), layout="constrained")
    axes = figure.add_subplot()
    for (name,), part in data.group_by("labels", maintain_order=True):
        style = shown[str(name)]
        axes.plot(part["bootstrap_mean"].to_list(), range(len(swept)), style["ls"], color=style["color"],
                  marker=style["marker"], label=plain_text(str(name)))  # fmt: skip
    axes.set_yticks(range(len(swept)), [one["setting"] for one in swept])
    axes.set(xlabel=f"bias metric {work.result('table1')['measure']} (bootstrap mean)", xlim=(0, None))
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    text = "Table 1 with other numbers of leaves and bins, which the paper does not give: compare the order of rows."
    return [Illustration("settings", figure, text, text, data.drop("name"))]


def _sersic(work: Work) -> Illustration:
    curves, found = sersic_curves(work), work.result("figure3")
    text = (
        "The paper's Figure 3: Sérsic index n of galaxies labelled smooth, changed from smooth to disk, and labelled "
        "disk. Which labels that figure has is inferred from the text. "
        + ("DCV14 is trained on this index, so its curves are circular. " if work.options.every_curve else "")
        + f"Of GZ2B's smooth galaxies, {number(found['disk_like_among_smooth'], '.0%')} have n ≤ {curves.boundary:g}, "
        f"like disks (paper: about {DISK_LIKE_AMONG_SMOOTH:.0%}). {found['without_index']:,} of {found['galaxies']:,} "
        "galaxies have no index."
    )
    far = "; ".join(
        f"{row['labels']} ({PANELS[row['panel']]}) {row['ks']:.2f}"
        for row in curves.table.iter_rows(named=True)
        if row["ks"] is not None
    )
    return Illustration(
        "figure3",
        cumulative_panels(curves, styles(work)),
        f"Cumulative distributions of the Sérsic index. KS distances from GZ2B: {far}.",
        text,
        curves.data(),
    )


def _maps(work: Work) -> list[Illustration]:
    from truemorph.explain.plots import mean_map_figure, profile_figure

    found = read_explanations(work.file("maps", ""))
    galaxies = next(iter(found.values())).galaxies
    layers = "; ".join(f"{name}: {one.layer}, {one.cells}×{one.cells} cells" for name, one in found.items())
    colours = {name: style["color"] for name, style in styles(work).items()}
    out = []
    for name, of_map, letter in (("disk", 5, "a"), ("smooth", 6, "b")):
        own = {model: replace(one, classes=tuple(some for some in one.classes if some.name == name))
               for model, one in found.items()}  # fmt: skip
        if not any(one.galaxies for one in own.values()):
            continue
        out += [
            Illustration(
                f"figure{of_map}", mean_map_figure(own), f"Mean Grad-CAM maps of galaxies predicted {name}, by model.",
                f"The paper's Figure {of_map}: mean Grad-CAM maps of test galaxies predicted {name} ({galaxies:,} test "
                f"galaxies). {layers}.",
            ),
            Illustration(
                f"figure7{letter}", profile_figure(own, PIXELS, colours),
                f"Mean Grad-CAM intensity of galaxies predicted {name} against distance from the centre, by model.",
                f"The paper's Figure 7{letter}: mean Grad-CAM intensity of galaxies predicted {name} against distance "
                "from the centre, with standard errors.",
                profile_data(own, PIXELS),
            ),
        ]  # fmt: skip
    return sorted(out, key=lambda one: one.name)


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
    return on_page, note, [Illustration("figure4", pairs_figure(shown), text, text, data)]


def _stages(work: Work) -> Table:
    rows = []
    for one in work.outcomes.values():
        status, took = ("done", f"{one.seconds:,.1f} s") if one.there else (one.status, "–")
        rows.append([one.name, one.title, status, took, one.text])
    note = "Cached stages show the time of the run that made them."
    return _table("Stages", ["stage", "result", "status", "time", ""], rows, [0, 14, 0, 0, 24], note)


def _training(work: Work) -> list[Section]:
    """List the settings of the networks, each with its source."""
    trained = [work.result(name) for name in NETWORKS if work.have(name)]
    if not trained:
        return []
    lines = [[name, str(value), source_of(name, value)] for name, value in trained[-1]["training"].items()]
    return [Section("Training of the networks", tables=[Table("", ["setting", "value", "source"], lines)])]


def _follows_from(work: Work) -> dict[str, Any]:
    absent = [(one.name, one.status, one.text) for one in work.outcomes.values() if not one.there]
    return {"from": work.keys(work.outcomes), "absent": absent}


def _make(work: Work, folder: Path) -> dict[str, Any]:
    illustrations = [_dots(work), *_settings_figure(work)] if work.have("table1") else []
    illustrations += [_sersic(work)] if work.have("figure3") else []
    illustrations += _maps(work) if work.have("maps") else []
    shown, note, figure4 = _pairs(work)
    tables = [_table_1(work), _other_values(work)] if work.have("table1") else []
    tables += [_reasons(work)] if work.have("reasons") else []
    answer, metadata, (findings, passed) = _answer(work), work.catalogue().metadata, _checks(work)
    settings = {
        "catalogue": metadata["source"],
        "votes": metadata["votes"],
        "α": metadata["alpha"],
        "scale": f"{work.options.fraction:g}",
        "bootstrap resamples": work.options.bootstrap,
        "seed": work.options.seed,
    }
    page = Page(
        title=_TITLE,
        headline=first_sentence(answer),
        answer=answer.removeprefix(first_sentence(answer)).strip(),
        lights=[Light("Checks", findings, passed)],
        sections=[
            Section("Comparison with the paper", tables=tables),
            Section("Figures", figures=illustrations),
            *([Section("SDSS and HST images", note, pairs=shown)] if note else []),
            Section("Stages", tables=[_stages(work)]),
        ],
        appendix=[
            Section("Methods", include="equations.html"),
            Section("Settings", tables=[Table("", (), [[name, str(value)] for name, value in settings.items()])]),
            *_training(work),
            Section("How to cite", include="citation.html"),
        ],
        versions=versions(),
    )
    write_illustrations(illustrations + figure4, folder / "figures")
    write_page(page, folder / "reproduction.html")
    return {
        "answer": answer,
        "findings": [one.to_dict() for one in findings],
        "passed": [{"name": name, "measured": measured} for name, measured in passed],
    }


def page_stage(before: tuple[str, ...]) -> Stage:
    """Return the last stage, which shows the results of all others."""
    return Stage("page", "this page", _follows_from, _make, ("catalogue",), before)
