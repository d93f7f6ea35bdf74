"""`reproduction.html`: Table 1 here and in the paper, statements of the paper, reasons for differences, figures."""

from pathlib import Path

import numpy as np

from truemorph.findings import Finding, findings_in, unique
from truemorph.io import write_file
from truemorph.questions import SMOOTH_OR_DISK
from truemorph.report.page import Light, Page, Section, Table, first_sentence, in_order, write_illustrations, write_page
from truemorph.reproduce.architecture import network_figure
from truemorph.reproduce.distributions import Distributions
from truemorph.reproduce.figures import (
    KINDS,
    colour_magnitude,
    explained,
    galaxy_from_space,
    hst_images,
    maps_and_profiles,
    sersic_curves,
    sersic_figure,
)
from truemorph.reproduce.models import LABELS, NETWORKS
from truemorph.reproduce.paper import DDB, DISK_LIKE_AMONG_SMOOTH, GZ2B, HST_PAIRS, SAMPLE, TABLE_1
from truemorph.reproduce.stages import FAILED, LACKS, Values, Work
from truemorph.reproduce.statements import (
    AGREES,
    CONTRADICTS,
    OPEN,
    TOLERANCE,
    Difference,
    Statement,
    differences,
    statements,
)
from truemorph.reproduce.table1 import GOLD
from truemorph.results import number, with_error

# Scores of `table_one` against a truth.
_AGAINST_GOLD = ("balanced_accuracy", "fraction_rms")
_VERBS = {AGREES: "lowers", CONTRADICTS: "raises", OPEN: "does not significantly change"}


def trainings(work: Work) -> list[Work]:
    """Return the work of each training of the networks that has a Table 1."""
    every = [work.of_training(number) for number in range(1, work.options.trainings + 1)]
    return [training for training in every if training.have("table1")]


def _answer(work: Work, judged: list[Statement]) -> str:
    drawn = work.result("catalogue")
    sample = f"{drawn['galaxies']:,} galaxies ({100 * drawn['galaxies'] / sum(SAMPLE):.2g} % of the paper's sample)"
    if not work.have("table1"):
        return f"Table 1 could not be made for {sample}."
    table = work.result("table1")
    rows, measure = _rows(work), table["measure"]
    bias = {name: with_error(row["bootstrap_mean"], row["bootstrap_std"]) for name, row in rows.items()}
    if DDB not in rows or rows[DDB]["one_class"]:
        text = f"The bias of the volunteers' labels ({measure}) is {bias[GZ2B]}; DDB gives no labels to compare."
    else:
        every = [_rows(training).get(DDB, {}) for training in trainings(work)]
        lower = [
            Difference("", "", -row["from_gz2b"], row["from_gz2b_std"] or 0.0)
            for row in every
            if row.get("from_gz2b") is not None and not row["one_class"]
        ]
        text = f"{measure} is {bias[GZ2B]} for volunteers and {bias[DDB]} for DDB."
        if len(lower) > 1:
            text = f"Training through T(α) (DDB) {_VERBS[Statement.of(lower).verdict]} the bias of the labels: {text}"
        else:
            text += " One training of the network cannot tell whether it lowers the bias: train it again (`seeds`)."
    text += f" Labels that do not depend on α would have {number(rows[GZ2B]['floor'])}."
    same, pairs = table["order"]
    if pairs:
        text += (
            f" In Table 1, {same} of {pairs} pairs of rows that differ by more than their errors in the paper have the "
            "same order here."
        )
    if judged:
        against = [statement.text for statement in judged if statement.verdict == CONTRADICTS]
        text += (
            f" Statements of the paper about its results: tested {len(judged)}, hold here "
            f"{sum(statement.verdict == AGREES for statement in judged)}, contradicted {len(against)}"
            f"{': ' if against else ''}{'; '.join(against)}."
        )
    return f"{text} Sample: {sample}."


def _rows(work: Work) -> dict[str, Values]:
    """Return the rows of Table 1 by name."""
    return {row["name"]: row for row in work.result("table1")["rows"]}


def _findings(work: Work) -> list[Finding]:
    """Return the findings of all stages, and stages without a result, problems first."""
    findings = list(findings_in(*(outcome.result for outcome in work.outcomes.values())))
    for outcome in work.outcomes.values():
        if outcome.status == FAILED:
            text = f"Stage {outcome.name} failed: {outcome.text}."
            findings.append(Finding("stage-failed", "problem", text, "Fix this, and run the same command again."))
        elif outcome.status == LACKS:
            text, action = f"Stage {outcome.name} lacks data: {outcome.text}.", "Provide the data, and run it again."
            findings.append(Finding("stage-lacks-input", "caution", text, action))
    findings.sort(key=lambda finding: finding.code != "smaller-than-the-paper")  # what limits all, first
    return in_order([finding for finding in unique(findings) if finding.severity != "note"])


def _table_1(work: Work) -> Table:
    """Table 1 here and in the paper; only the paper's values of rows that could not be made."""
    table = work.result("table1")
    rows, measure = _rows(work), table["measure"]
    lines = []
    for name, paper in TABLE_1.items():
        value = rows.get(name, {}).get
        cells = [
            f"{paper.letter}) {paper.labels}",
            with_error(value("bootstrap_mean"), value("bootstrap_std"), ".4f"),
            with_error(paper.cv18, paper.stderr, ".4f"),
            with_error(value("from_gz2b"), value("from_gz2b_std"), "+.3f"),
            "–" if name == GZ2B else f"{paper.cv18 - TABLE_1[GZ2B].cv18:+.3f}",
            number(value("accuracy")),
            number(paper.accuracy),
            number(value("precision")),
            number(paper.precision),
            with_error(value("floor"), value("floor_std")),
            number(value("galaxies"), ",d"),
            number(value("disk_fraction")),
            *([number(value(f"{score}: {GOLD}")) for score in _AGAINST_GOLD] if table["gold"] else ()),
        ]
        lines.append(cells)
    leaves = f"{2 ** table['depth']} leaves in {', '.join(table['intrinsic'])}, " if table["intrinsic"] else ""
    both = measure if measure == "CV18" else f"{measure}, CV18 (not comparable)"
    networks = [work.result(name) for name in filter(work.have, NETWORKS)]
    epochs = ", ".join(str(network["epochs"]) for network in networks)
    trained = f"Networks: {networks[0]['network']}, {epochs} epochs (settings: run.toml). " if networks else ""
    note = (
        f"{measure} on {table['galaxies']:,} test galaxies, {leaves}{table['bins']} bins of α, "
        f"mean ± standard deviation of {table['bootstrap']} bootstrap resamples; α = {table['alpha']}. "
        "Errors are from bootstrap, of the first training; training again adds scatter. "
        "GZ2B: volunteers' labels (Willett et al. 2013). "
        "GZ2D: labels of the same galaxies, debiased by Hart et al. (2016). DCV14 and DDB are trained on GZ2B. "
        "Accuracy and precision (macro-averaged, not defined in the paper) are vs the labels that a model was trained "
        "on. Floor: mean value of labels that do not depend on α; the paper's values probably include it. "
        "Rows with fewer galaxies are of those that have a label; their difference from GZ2B is for the same galaxies. "
        f"{trained}Seed {work.options.seed}."
    )
    head = ["labels", *4 * ["here", "paper"], "floor", "galaxies", "disk fraction"]
    groups = [("", 1), (both, 2), ("minus GZ2B", 2), ("accuracy", 2), ("precision", 2), ("", 3)]
    if table["gold"]:
        head += ["balanced accuracy", "rms of the disk fraction"]
        groups.append((f"vs {table['gold']:,} {GOLD}", 2))
    return Table("Table 1: here and in the paper", head, lines, note, groups)


def _other_values(work: Work, curves: Distributions | None) -> Table:
    """The paper's other values, here and in the paper."""
    lines = []
    for row in work.result("table1")["theta"]:
        here = with_error(row["theta"], row["stderr"], ".2f")
        lines.append([f"θ of {row['name'].upper()}", here, f"{row['paper']:.2f}"])
    if curves is not None:
        smooth = curves.table.filter(panel="smooth", labels=curves.observed_name)
        disk_like = 1 - smooth["share_above"][0] if smooth.height else None
        what = "fraction of GZ2B smooth with disk profiles (Sérsic index n ≤ 3)"
        lines.append([what, number(disk_like, ".2f"), f"about {DISK_LIKE_AMONG_SMOOTH:.2f}"])
    if work.have("figure4"):
        seen = work.result("figure4")
        lines.append(["changed galaxies with HST image", f"{seen['with_better']:,}", str(HST_PAIRS[0])])
        has_verdicts = any(seen["verdicts"].values())
        for what, n in zip(KINDS, (*HST_PAIRS[1:], "–"), strict=True):
            lines.append([f"… {what}, by your verdicts", str(seen["verdicts"][what]) if has_verdicts else "–", str(n)])
    return Table("Other values", ["quantity", "here", "paper"], lines)


def _each_training(work: Work) -> list[Table]:
    """Bias of the networks' labels in each training, if there are several."""
    every = [_rows(training) for training in trainings(work)]
    if len(every) < 2:
        return []
    lines = []
    for name in NETWORKS:
        values = [rows.get(name, {}).get("bootstrap_mean") for rows in every]
        biases = [value for value in values if value is not None]
        if not biases:
            continue
        scatter = np.std(biases, ddof=1) if len(biases) > 1 else None
        lines.append([f"{TABLE_1[name].letter}) {TABLE_1[name].labels}", *map(number, values), number(scatter)])
    head = ["labels", *(f"training {k}" for k in range(1, len(every) + 1)), "scatter"]
    note = (
        "Bootstrap means, each from other random numbers; scatter is their standard deviation. Labels of nearly one "
        "class have a value near 0, which means nothing."
    )
    return [Table("Each training of the networks", head, lines, note)] if lines else []


def _pairs(work: Work) -> Table:
    """Differences of all pairs of rows of Table 1, here and in the paper."""
    lines = []
    for pair in work.result("table1")["pairs"]:
        first, second = (TABLE_1[pair[name]] for name in ("earlier", "later"))
        same = {True: "yes", False: "no", None: "–"}[pair["as_in_the_paper"]]
        here = with_error(pair["difference"], pair["stderr"], "+.3f")
        paper = with_error(pair["paper"], pair["paper_stderr"], "+.3f")
        lines.append([f"{second.letter} - {first.letter}", f"{pair['galaxies']:,}", here, paper, same])
    note = (
        "Bias of the later row minus that of the earlier one, for the galaxies that have both labels. Errors are from "
        "paired resamples; those of the paper are added in quadrature. The order counts for pairs that differ by more "
        "than their errors in the paper."
    )
    return Table(
        "Pairs of rows of Table 1", ["pair", "galaxies", "here", "paper", "order as in the paper"], lines, note
    )


def _statements(judged: list[Statement]) -> Table:
    """What the paper states about its results, and whether it holds here."""
    note = (
        "Means over the trainings of the networks; errors contain their scatter, and that of other galaxies. A "
        "statement holds (agrees), or is contradicted, if the sign of a difference is certain to two errors. That a "
        f"network has the bias of its labels holds if the difference is within {TOLERANCE:g} at two errors, and is "
        "contradicted if it is beyond. From one training, statements on networks stay open. Maps: mean Grad-CAM "
        "intensity, as in Figure 7, within and beyond half of its radius, which is half the width of the image, so "
        "that corners are in no ring. That maps are brightest in one half compares the brightest ring of each half of "
        "the mean profile; range / mean is that of this profile."
    )
    head = ["statement of the paper", "section", "difference here", "in the paper", "verdict"]
    return Table("Statements of the paper", head, judged, note)


def _reasons(work: Work) -> Section:
    """The open choices, and Table 1 with other numbers of leaves and bins."""
    reasons = list(work.result("reasons")["reasons"])
    if work.have("figure4"):  # the archive decides how many pairs there are
        seen = work.result("figure4")
        pairs = f"{seen['with_better']:,} of {seen['changed']:,} changed galaxies; {HST_PAIRS[0]} in the paper"
        here, effect = "mosaics of CDS (hips2fits)", f"number of pairs: {pairs}"
        reasons.append({"what": "archive of HST images", "paper": "MAST", "here": here, "effect": effect})
    text = "{what}. In the paper: {paper}. Here: {here}. Measured effect of other choices: {effect}."
    tables = []
    if swept := [setting for reason in reasons for setting in reason.get("settings", ())]:
        rows = [[setting["setting"], *map(number, setting["means"].values())] for setting in swept]
        head = ["leaves × bins", *(TABLE_1[name].labels for name in swept[0]["means"])]
        note = "Bootstrap means. Compare the order of the label sets, which should not depend on this choice."
        tables.append(Table("Table 1 with other numbers of leaves and bins", head, rows, note))
    return Section(
        "Why values may differ from the paper's", items=[text.format(**reason) for reason in reasons], tables=tables
    )


def _maps(work: Work) -> dict[str, Values]:
    """Return maps and profiles by predicted class."""
    return {name: explained(work, name) for name in SMOOTH_OR_DISK} if work.have("maps") else {}


def make_page(work: Work, folder: Path) -> Values:
    """Write the page, which shows the results of all stages, and its figures."""
    curves = sersic_curves(work) if work.have("table1") else None
    maps = _maps(work)
    said = [differences(training, sersic_curves(training), _maps(training)) for training in trainings(work)]
    judged = statements(said) if said else []
    tables: list[Table] = []
    if work.have("table1"):
        tables = [_table_1(work), _statements(judged), *_each_training(work), _pairs(work), _other_values(work, curves)]
    figures = [*galaxy_from_space(work), *network_figure(work)]
    figures += [] if curves is None else [sersic_figure(curves, work.options.every_curve)]
    figures += [*colour_magnitude(work), *maps_and_profiles(maps)]
    hst, figure4 = hst_images(work)
    answer, findings = _answer(work, judged), _findings(work)
    if any(finding.code == "archive-simulated" for finding in findings):
        answer = f"Simulated galaxies: no statement about the real ones. {answer}"
    page = Page(
        title="Reproduction of Medina-Rosales, Cabrera-Vives & Miller (arXiv:2308.11007)",
        headline=first_sentence(answer),
        answer=answer.removeprefix(first_sentence(answer)).strip(),
        lights=[Light("Checks", findings)],
        sections=[
            Section("Comparison with the paper", tables=tables),
            *([_reasons(work)] if work.have("reasons") else []),
            Section("Figures", figures=figures),
            *hst,
        ],
        appendix=[Section("Methods", include="equations.html"), Section("How to cite", include="citation.html")],
    )
    if work.have(DDB):
        write_file(folder / "debiased.parquet", work.file(DDB, LABELS).read_bytes())
    write_illustrations(figures + figure4, folder / "figures")
    write_page(page, folder / "reproduction.html")
    return {"answer": answer, "statements": [statement._asdict() for statement in judged]}
