"""The report: everything put together and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.bias.binning import Bins
from truemorph.bias.curves.transitions import DISK, SMOOTH
from truemorph.catalogs.label_sets import FIFTHS, ONE_CLASS, LabelSet, fractions_by
from truemorph.errors import InputError
from truemorph.findings import Finding
from truemorph.io import plain, write_json
from truemorph.questions import slug
from truemorph.report.changes import CHANGE, changed_to
from truemorph.report.distributions import distributions
from truemorph.report.evidence import TRUTH, Evidence, argument
from truemorph.report.figures import (
    among_similar,
    at_fixed_alpha,
    bias_curve,
    capital,
    fractions,
    in_words,
    reliability_panels,
    styles_of,
)
from truemorph.report.gallery import changed_galaxies, changed_galaxies_section
from truemorph.report.gather import gather
from truemorph.report.lights import DATA, MODEL, lights
from truemorph.report.measures import agreement, moved_names
from truemorph.report.networks import ABOUT_MAPS, looks, training
from truemorph.report.options import ReportOptions
from truemorph.report.page import (
    Illustration,
    Page,
    Section,
    Table,
    checks_told,
    findings_of,
    folder_beside,
    verdict,
    write_illustrations,
    write_page,
)
from truemorph.results import Result, number, percent, text_table, with_error
from truemorph.tables import CatalogTable, to_astropy, write_table


@dataclass(frozen=True, repr=False)
class ReportResult(Result):
    """What a report says.

    `content` has `headline`, `answer`, `verdict`, `findings`, `passed`, `measured_on`, `measure`, `table`, `fractions`,
    `transition` and `changed`.
    """

    out: Path  # the page
    content: dict[str, Any]
    evidence: Evidence  # the label sets and what was measured of them
    findings: tuple[Finding, ...]

    def summary(self) -> str:
        """Return Table 1's main columns, the answer and the verdict as text."""
        fraction, name = self.evidence.fraction_column, self.evidence.quantity
        rows = [[row["labels"], number(row[fraction]), number(row["excess"])] for row in self.content["table"]]
        lines = text_table(["labels", name, f"{self.content['measure']} above floor"], rows)
        said, verdict = self.content, self.content["verdict"]
        after = [said["headline"], said["answer"], f"{verdict['text']} {verdict['reason']}", f"Next: {verdict['next']}"]
        return "\n".join([*lines, *after, f"open {self.out}"])

    def to_dict(self) -> dict[str, Any]:
        """Return what the page says as plain values, for JSON."""
        return self.content

    def to_table(self) -> Any:
        """Return Table 1 of the report."""
        return to_astropy(CatalogTable(self.evidence.table))

    def plot(self, ax: Any = None) -> Any:
        """Draw the corrected fraction against α, where T(α) could be fitted; returns matplotlib axes."""
        if self.evidence.estimate is None:
            raise InputError("this report has no estimate of T(α) to draw")
        return self.evidence.estimate.plot(ax)


def make_report(
    sources: Sequence[Any],
    out: Path,
    options: ReportOptions | None = None,
    *,
    title: str = "",
    context: Sequence[Finding] = (),
) -> ReportResult:
    """Write a page about runs, an estimate, or a catalogue alone.

    Sources are run folders of `truemorph train`, and an estimate of `truemorph transition` (.json, or in memory), whose
    numbers the page quotes. Figures as PDF and PNG, the data behind them, labels, and a list of all galaxies whose
    label changes go to `<name>_files` beside the page. `context` is what is known about these data beforehand.
    """
    options = options or ReportOptions()
    files = folder_beside(out)
    evidence = gather(sources, options, files)
    models = {model.name: model.classifier for model in evidence.models}
    styles, counted = styles_of(evidence), evidence.classes[1]
    trained, of_runs = training(models, styles, {counted: f"p({counted})"})
    curves, of_columns = distributions(evidence)
    maps, of_maps = looks(models, evidence.frame, evidence.catalogue, options, styles, evidence.classes)
    judged = lights(evidence, {MODEL: [*of_runs, *of_maps], DATA: [*of_columns, *context]})
    findings = findings_of(judged)
    examples, changed, drawn = changed_galaxies_section(evidence)
    names = ", ".join(model.name for model in evidence.models) or "labels and resolution"
    said = sentences(evidence)
    page = Page(
        title=title or f"{evidence.catalogue.metadata.get('source') or evidence.path.name}: {names}",
        headline=said["headline"],
        answer=said["answer"],
        remark=" ".join([said["remark"], *(one.message for one in context)]),
        verdict=verdict(findings, said["reason"], said["next"]),
        first=fractions(evidence),
        examples=examples,
        classes=evidence.classes,
        lights=judged,
        sections=_sections(evidence, changed, curves),
        appendix=_appendix(evidence, maps, trained),
    )
    write_illustrations([*page.figures, *drawn], files / "figures")
    write_table(CatalogTable(changed_galaxies(evidence)), files / "changed.ecsv")
    write_page(page, out)
    content: dict[str, Any] = plain(
        {
            "out": str(out),
            "headline": page.headline,
            "answer": page.answer,
            "verdict": page.verdict,
            **checks_told(judged),
            "measured_on": evidence.which,
            "classes": evidence.classes,
            "definition": evidence.catalogue.metadata.get("definition"),
            "measure": evidence.tree.measure,
            "table": evidence.table.to_dicts(),
            "fractions": evidence.correction.to_dicts(),
            "transition": None if evidence.estimate is None else evidence.estimate.to_dict(),
            "estimate": None if evidence.shown is None else evidence.shown.origin,
            "changed": int((evidence.everything[CHANGE] != "").sum()),
        }
    )
    write_json(files / "report.json", content)
    return ReportResult(out, content, evidence, findings)


def sentences(evidence: Evidence) -> dict[str, str]:
    """What the first screen says: `headline`, `answer`, `remark`; and `reason` and `next` of a good verdict."""
    by_alpha, counted = evidence.correction, evidence.classes[1]
    if evidence.by != "alpha":
        by_alpha = fractions_by(evidence.alpha, [evidence.observed]).rename(
            {"fraction": "labelled", "stderr": "labelled_stderr"}
        )
        by_alpha = by_alpha.with_columns(corrected=None, lowest=None)
    low, high = by_alpha.row(0, named=True), by_alpha.row(-1, named=True)
    headline, answer = _headline(evidence, low, high), list[str]()
    model = evidence.principal
    if model is not None:
        p = float(model.labels.p.mean())
        if max(p, 1 - p) >= ONE_CLASS:
            answer.append(headline)
            calls = f"calls {percent(max(p, 1 - p))} of the galaxies {evidence.classes[round(p)]}"
            headline = f"{model.name} {calls}: its labels carry little information."
    first, last = (evidence.correction.row(k, named=True) for k in (0, -1))
    if first["corrected"] is not None:
        places = ["", ""]
        if evidence.by != "alpha":
            ends_at = evidence.groups or [f"{row['mean']:.3g}" for row in (first, last)]
            places = [f" at {in_words([evidence.by])} {ends_at[k]}" for k in (0, -1)]
        ends = []
        for row, place in zip((first, last), places, strict=True):
            value, spans = percent(row["corrected"]), f"{100 * row['lowest']:.0f} to {percent(row['highest'])}"
            ends.append(f"{value} (range {spans}){place}" if evidence.from_gold else f"{spans} ({value}){place}")
        text = f"Corrected with gold labels, it is {' and '.join(ends)}"
        if not evidence.from_gold:
            text = f"Corrected from labels alone, it is {' and '.join(ends)}; in brackets by the estimate's assumption"
        if None not in (first["model"], last["model"]):
            by_model = " and ".join(percent(row["model"]) for row in (first, last))
            text += f"; the mean of the model's probabilities is {by_model}"
        if first["gold"] is not None and not evidence.from_gold:
            by_gold = " and ".join(percent(row["gold"], row["gold_stderr"]) for row in (first, last))
            text += f"; the truth is {by_gold}" if evidence.gold_name == TRUTH else f"; gold labels give {by_gold}"
        answer.append(text + ".")
    if evidence.estimate is not None and model is None:
        curve = evidence.estimate.curve
        low_total, high_total = curve.fraction_range[curve.classes[DISK]]
        value, spans = f"{curve.class_fractions[DISK]:.3f}", f"{low_total:.3f} to {high_total:.3f}"
        total = f"{value} (range {spans})" if evidence.from_gold else f"{spans} ({value})"
        answer.append(f"Of all galaxies of the estimate, it is {total}.")
    if evidence.corrected is not None:
        row = evidence.row(evidence.corrected)
        names = ("galaxies", *moved_names(evidence.classes))
        galaxies, there, back = (int(row[name] or 0) for name in names)
        change, other = (changed_to(evidence.classes, before, 1 - before) for before in (0, 1))
        and_back = f"{back or 'none':{',' if back else ''}} from {other}"
        and_back += ", by assumption" if not back and _never_second(evidence) else ""
        share = percent(there / max(galaxies, 1))
        answer.append(f"{there:,} of {galaxies:,} galaxies ({share}) change from {change}, {and_back}.")
    remark = (
        f"Poorly and well resolved: the lowest and the highest bin of α ({low['low']:.1f} to {low['high']:.1f} and "
        f"{high['low']:.1f} to {high['high']:.1f}) of {evidence.which}."
    )
    if evidence.shown is not None:
        remark += f" Estimate: {evidence.shown.origin}."
    own = evidence.catalogue.metadata
    if own.get("definition"):
        remark = f"Definition of {counted}: {own['definition'].rstrip('.')}. {remark}"
    return {"headline": headline, "answer": " ".join(answer), "remark": remark} | _when_good(evidence)


def _headline(evidence: Evidence, low: dict[str, Any], high: dict[str, Any]) -> str:
    """How the observed labels change with resolution, from the rows of the lowest and the highest bin of α."""
    counted = evidence.classes[1]
    rise = high["labelled"] - low["labelled"]
    error = float(np.hypot(low["labelled_stderr"], high["labelled_stderr"]))
    if rise > 2 * error and low["corrected"] is not None and low["lowest"] > low["labelled"]:
        missed = 1 - low["labelled"] / max(low["corrected"], 1e-9)
        many = "most" if missed > 0.5 else "many" if missed > 0.2 else "some"
        who = "The simulated labels" if evidence.gold_name == TRUTH else "The observed labels"
        both = f"{percent(low['labelled'])} there and {percent(high['labelled'])} where galaxies are well resolved"
        return f"{who} miss {many} {counted} galaxies where resolution is poor: the {counted} fraction is {both}."
    course = "does not change" if abs(rise) <= 2 * error else "rises" if rise > 0 else "falls"
    both = f"{percent(low['labelled'])} in poorly and {percent(high['labelled'])} in well resolved galaxies"
    why = " This may be bias or a real trend." if course == "rises" else ""
    return f"The observed {counted} fraction {course} with resolution: it is {both}.{why}"


def _never_second(evidence: Evidence) -> bool:
    """Whether the T(α) that corrects says that galaxies of the first class never get the label of the second."""
    model, alpha = evidence.principal, np.array([1.0, 20.0])
    if model is not None:
        matrix = model.transition.matrix(argument(alpha, model.observables, along=True))
    elif evidence.estimate is not None and not evidence.estimate.about.get("observables"):
        matrix = evidence.estimate.curve.transition.matrix(alpha)
    else:
        return False
    return bool(np.all(np.asarray(matrix)[:, SMOOTH, DISK] == 0))


def _when_good(evidence: Evidence) -> dict[str, str]:
    """Reason why a result is good, and what to do next."""
    reason, step = "", "Quote the corrected fractions with their range."
    if evidence.corrector is not None:
        for definition, truth in list(evidence.truths.items())[:1]:
            sets = evidence.corrector.best, evidence.observed
            own, labelled = (f"{evidence.row(label_set)[f'fraction_rms: {definition}']:.3f}" for label_set in sets)
            reason = f"The model's {evidence.quantity}s differ from the {truth.name} by {own} (rms over fifths of α), "
            reason += f"the observed ones by {labelled}."
        folder = evidence.corrector.classifier.folder
        step = f"Label more galaxies: truemorph label {folder} SOURCE --out labels.parquet"
        if evidence.gold_name == TRUTH:
            step = "Prepare your own galaxies: truemorph prepare VOTES --images FOLDER --out catalogue.parquet"
    return {"reason": reason, "next": step}


def _sections(evidence: Evidence, changed: Sequence[Section], curves: Sequence[Illustration]) -> list[Section]:
    """What is not folded, with sections about galaxies that change, and distributions of further columns."""
    out = []
    if evidence.estimate is not None:
        tables = [_fractions_table(evidence)]
        figures = [bias_curve(evidence, evidence.estimate)]
        if evidence.estimate.about.get("observables"):
            figures.append(at_fixed_alpha(evidence, evidence.estimate))
        out.append(Section("The bias curve", figures=figures, tables=tables))
    if evidence.options.intrinsic:
        out.append(Section("Does it hold among similar galaxies?", figures=[among_similar(evidence)]))
    if evidence.models:
        tables = [] if evidence.truth is None else [_confusion_table(evidence, evidence.truth)]
        out.append(Section("Calibration and confusion", figures=[reliability_panels(evidence)], tables=tables))
    out += changed
    if curves:
        out.append(Section("Do galaxies look like their class?", figures=curves))
    return [*out, Section("Table 1", tables=[_table_one(evidence)])]


def _fractions_table(evidence: Evidence) -> Table:
    head = [
        "α" if evidence.by == "alpha" else in_words([evidence.by]),
        "galaxies",
        "observed",
        "corrected",
        "error",
        "lowest",
        "highest",
        *([] if evidence.corrector is None else [evidence.corrector.name]),
    ]
    rows = []
    for b, row in enumerate(evidence.correction.iter_rows(named=True)):
        names = ["labelled", "corrected", "stderr", "lowest", "highest"]
        values = [row[name] for name in names + ([] if evidence.corrector is None else ["model"])]
        digits = ".1f" if evidence.by == "alpha" else ".3g"
        of_bin = evidence.groups[b] if evidence.groups else f"{row['low']:{digits}} to {row['high']:{digits}}"
        cells = [of_bin, f"{row['galaxies']:,}", *map(number, values)]
        rows.append(cells + ([with_error(row["gold"], row["gold_stderr"] or None)] if evidence.truths else []))
    note = "Error: standard error. Lowest and highest: the range of Figure 1."
    if evidence.estimate is not None:
        note += f" Assumed: {evidence.estimate.fractions.assumption}."
    return Table(f"{capital(evidence.quantity)}s", head + ([evidence.gold_name] if evidence.truths else []), rows, note)


def _confusion_table(evidence: Evidence, truth: LabelSet) -> Table:
    """Labels against gold labels in the lowest and the highest fifth of α."""
    best = [model.best for model in evidence.models] or ([] if evidence.corrected is None else [evidence.corrected])
    sets = [evidence.observed, *evidence.columns, *best]
    fifths, (first, second) = Bins.cut(evidence.alpha, FIFTHS), evidence.classes
    head, groups, cells = ["labels"], [("", 1)], {label_set.name: [label_set.name] for label_set in sets}
    for fifth in (0, fifths.count - 1):
        rows = fifths.index == fifth
        alpha = evidence.alpha[rows]
        head += [f"{one} called {one}" for one in (second, first)]
        groups.append((f"α {alpha.min():.1f} to {alpha.max():.1f}", 2))
        for each in sets:
            # Of galaxies of a class by gold labels, those that the label set calls so.
            shares = agreement(truth.of(rows), each.of(rows))
            cells[each.name] += [number(shares[f"precision_{slug(one)}"]) for one in (second, first)]
    note = f"Of the galaxies that are {second} ({first}) by the {truth.name}, the fraction labelled {second} ({first})."
    return Table("Confusion at the lowest and the highest resolution", head, list(cells.values()), note, groups)


def _table_one(evidence: Evidence) -> Table:
    tree = evidence.tree
    head, groups = ["labels", "galaxies", evidence.quantity], [("", 3)]
    for truth in evidence.truths.values():
        head += ["balanced accuracy", f"error of {evidence.quantity} (rms)"]
        groups.append((f"vs {truth.name}", 2))
    head += ["above floor", "value", "bootstrap", "floor"]
    groups.append((f"drift with α ({tree.measure})", 4))
    head += ["accuracy", "precision", *(f"to {one}" for one in reversed(evidence.classes))]
    groups.append(("vs observed labels", 4))
    rows = []
    for row in evidence.table.iter_rows(named=True):
        cells = [row["labels"], number(row["galaxies"], ",d"), number(row[evidence.fraction_column])]
        for name in evidence.truths:
            cells += [number(row[f"balanced_accuracy: {name}"]), number(row[f"fraction_rms: {name}"])]
        cells += [number(row["excess"]), number(row["value"])]
        cells += [with_error(row["bootstrap_mean"], row["bootstrap_std"]), with_error(row["floor"], row["floor_std"])]
        cells += [number(row["accuracy"]), number(row["precision"])]
        rows.append([*cells, *(number(row[name], ",d") for name in moved_names(evidence.classes))])
    of = f" of similar {in_words(evidence.options.intrinsic)}" if evidence.options.intrinsic else ""
    note = (
        f"On {evidence.which}. {tree.measure} in {2**tree.depth} leaves{of}, {tree.bins} bins of α. Noise alone gives "
        "the floor; above floor is √(value² − floor²): bias, or a real change of class with α among similar galaxies. "
        f"Bootstrap: mean ± standard deviation of {tree.bootstrap} resamples, as in the paper's Table 1. Accuracy and "
        "precision vs observed labels say how alike labels are, not how good."
    )
    return Table("", head, rows, note, groups)


def _appendix(evidence: Evidence, maps: Sequence[Illustration], trained: Sequence[Section]) -> list[Section]:
    """Maps, intrinsic properties, training, settings, methods and how to cite."""
    out = []
    if maps:
        out.append(Section("Where the networks look (Grad-CAM)", ABOUT_MAPS, maps))
    out += trained
    return [
        *out,
        Section("Settings", tables=[_settings(evidence)]),
        Section("Methods", include="equations.html"),
        Section("How to cite", include="citation.html"),
    ]


def _settings(evidence: Evidence) -> Table:
    about = evidence.catalogue.metadata
    rows = {
        "catalogue": evidence.path.name,
        "α": about.get("alpha", "not stated"),
        "labels": f"{about.get('label_rule', 'not stated')}; votes: {about.get('votes', 'not stated')}",
        "definitions of gold labels": "; ".join(evidence.truths) or "none",
        "intrinsic columns": ", ".join(evidence.options.intrinsic) or "none",
        "measured on": evidence.which,
        "bootstrap resamples": evidence.tree.bootstrap,
        "seed": evidence.tree.seed,
    }
    if evidence.shown is not None:
        fit = evidence.shown.estimate.curve
        rows["estimate"] = evidence.shown.origin
        rows["T(α)"] = f"{fit.family} family, fitted by the {fit.method} method, assuming that {fit.assumption}"
    for model in evidence.models:
        through = model.classifier.described["transition"]
        errors = through.get("stderr") or {}
        values = [
            f"{name} = {with_error(value, errors.get(name), '.3f')}"
            for name, value in through["parameters"].items()
            if isinstance(value, int | float)
        ]
        how = "without a bias curve" if model.naive else f"through a {through['family']} T(α), {', '.join(values)}"
        assumed = through.get("assumption") or "no assumption recorded"
        rows[f"model {model.name}"] = f"{model.classifier.model_hash}, trained {how}; {assumed}"
    return Table("", (), [[name, str(value)] for name, value in rows.items()])
