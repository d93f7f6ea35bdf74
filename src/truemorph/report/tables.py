"""Tables of a report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from truemorph.bias.binning import Bins
from truemorph.bias.population import QuotedFraction
from truemorph.catalogs.label_sets import FIFTHS
from truemorph.catalogs.paths import majority_paths
from truemorph.questions import slug
from truemorph.report.evidence import Evidence, numbers_of_bins
from truemorph.report.figures import capital, in_words
from truemorph.report.measures import agreement, moved_names
from truemorph.report.page import Table
from truemorph.results import between, number, with_error

# Votes for a question that selections of published work ask for.
_USUAL_CUT = 10
ENDS = ("lowest", "highest", "all")
_HEADS = {"labelled": "observed", "stderr": "error"}
_ESTIMATES = {"corrected": ENDS, "with predictions": ENDS[-1:]}  # and where their fractions are shown


def fraction_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Each fraction by the labels, corrected, by models and others: in the lowest and highest bin, and of all galaxies.

    Those of models, other groups and gold labels are of the galaxies that are measured, of the fraction named first.
    """
    question = evidence.question
    for labels, fractions in zip(_ESTIMATES, (evidence.fractions, evidence.with_predictions), strict=True):
        for name, quoted in ({} if fractions is None else fractions.ratios).items():
            about = {"question": question, "fraction": name}
            if fractions is evidence.fractions:
                yield about | {"labels": "observed"} | _at_ends(quoted, "labelled")
            corrected, low, high = (_at_ends(quoted, part) for part in ("fraction", "low", "high"))
            if name == evidence.quantity.name and fractions is evidence.fractions:
                corrected["all"], low["all"], high["all"] = evidence.total
            ranges = {f"{end}_range": (low[end], high[end]) for end in ENDS}
            yield about | {"labels": labels} | corrected | ranges
    for name, label_set in evidence.beside.items():
        value = evidence.in_bins(label_set)[0]
        about = {"question": question, "fraction": evidence.quantity.name, "labels": name}
        yield about | dict(zip(ENDS, (value[0], value[-2], value[-1]), strict=True))


def _at_ends(quoted: QuotedFraction, name: str) -> dict[str, float]:
    """Numbers of a fraction in the lowest and highest bin, and of all galaxies."""
    numbers = getattr(quoted, name)
    of_all = quoted.total[[field.name for field in fields(quoted)].index(name)]
    return dict(zip(ENDS, (numbers[0], numbers[-1], of_all), strict=True))


def overview_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of all questions: each fraction by label set, in the lowest and highest bin, and of all galaxies."""
    sets = list(dict.fromkeys(row["labels"] for row in rows))
    by_set = {(row["fraction"], row["labels"]): row for row in rows}
    shown = {label_set: _ESTIMATES.get(label_set, ENDS[:2]) for label_set in sets}
    cells = [
        [name, *(range_cell(by_set.get((name, label_set)), end) for label_set in sets for end in shown[label_set])]
        for name in dict.fromkeys(row["fraction"] for row in rows)
    ]
    head = ["fraction", *(end for label_set in sets for end in shown[label_set])]
    groups = [("", 1), *((label_set, len(shown[label_set])) for label_set in sets)]
    note = "In the lowest and highest bin of each estimate, and of all galaxies; corrected fractions with their ranges."
    if "with predictions" in sets:
        note += " With predictions: by the same gold labels, where the models' predictions help to predict classes."
    return Table("Fractions", head, cells, note, groups)


def range_cell(row: Mapping[str, Any] | None, end: str) -> str:
    """A fraction with its range in brackets, if it has one; a dash without a row."""
    if row is None:
        return "–"
    ends = np.array(row.get(f"{end}_range") or (None, None), float)
    around = f" ({between(ends[0], ends[1], '.2f')})" if np.isfinite(ends).all() else ""
    return number(row[end]) + around


def bins_table(evidence: Evidence) -> Table:
    """Fractions in the bins of the estimate, or fifths of α; the one named first also by models, others and gold."""
    own = evidence.fractions
    rows = list[list[str]]()
    several = len(own.ratios) > 1
    apart = any(fraction.tells_apart for fraction in own.ratios.values())
    beside = [(name, evidence.in_bins(labels)[0]) for name, labels in evidence.beside.items()]
    for name, fraction in own.ratios.items():
        for b, galaxies in enumerate(own.counts):
            row = {"fraction": name} if several else {}
            row |= {own.by_name: own.bin_edges(b), "galaxies": f"{galaxies:,}"}
            if own.of_some is not None:
                row["applies to"] = with_error(own.of_some.fraction[b], own.of_some.stderr[b], ".2f")
            if own.applies is not None and own.gold_counts is not None:
                row["gold labels"] = f"{own.gold_counts[b]:,}"
            row |= {_HEADS.get(of, of): number(values[b]) for of, values in numbers_of_bins(fraction).items()}
            if apart:
                row["of a population"] = between(fraction.population_low[b], fraction.population_high[b])
            rows.append(
                [*row.values(), *(number(of[b]) if name == evidence.quantity.name else "–" for _, of in beside)]
            )
    head = [*row, *(name for name, _ in beside)]
    note = f"Error: standard error. Lowest and highest: the range of these galaxies. Assumed: {own.assumption}."
    note += " Of a population: the range where these galaxies are a random sample of others." if apart else ""
    if beside:
        note += f" {capital(', '.join(name for name, _ in beside))}: of {evidence.which}."
    return Table("Fractions" if several else f"{capital(evidence.quantity.name)}s", head, rows, note)


def confusion_table(evidence: Evidence) -> Table:
    """Labels against gold labels in the lowest and the highest fifth of α."""
    assert evidence.truth is not None
    truth = evidence.view(evidence.truth)
    names = evidence.answer, evidence.other
    labelled = evidence.observed, *evidence.others, *(model.best for model in evidence.models)
    sets = [evidence.view(labels) for labels in labelled]
    fifths = Bins.cut(evidence.alpha, FIFTHS)
    head = ["labels"]
    groups = [("", 1)]
    cells = {label_set.name: [label_set.name] for label_set in sets}
    for fifth in (0, fifths.count - 1):
        rows = fifths.index == fifth
        alpha, gold = evidence.alpha[rows], truth.of(rows)
        head += [f"{name} called {name}" for name in names]
        groups.append((f"α {alpha.min():.1f} to {alpha.max():.1f}, {gold.known.sum():,} with gold labels", 2))
        for each in sets:
            # Of galaxies of a class by gold labels, those that the label set calls so.
            shares = agreement(gold, each.of(rows))
            cells[each.name] += [number(shares[f"precision_{slug(name)}"]) for name in names]
    note = f"Of the galaxies that are {names[0]} ({names[1]}) by the {truth.name}, the fraction labelled so."
    note += " Only those to which the question applies by these labels too." if evidence.is_gated else ""
    return Table("Confusion at the lowest and the highest resolution", head, list(cells.values()), note, groups)


def label_sets_table(evidence: Evidence) -> Table:
    """Table 1: drift with α of each label set, and how it compares with gold labels and the observed ones."""
    tree, name = evidence.tree, evidence.quantity.name
    head, groups = ["labels", "galaxies", name], [("", 3)]
    for truth in evidence.truths.values():
        head += ["balanced accuracy", f"error of {name} (rms)"]
        groups.append((f"vs {truth.name}", 2))
    head += ["above floor", "value", "bootstrap", "floor"]
    groups.append((f"drift with α ({tree.measure})", 4))
    head += ["accuracy", "precision", *(f"to {name}" for name in (evidence.answer, evidence.other))]
    groups.append(("vs observed labels", 4))
    rows = []
    for row in evidence.table.iter_rows(named=True):
        cells = [row["labels"], number(row["galaxies"], ",d"), number(row[f"{slug(evidence.answer)}_fraction"])]
        for definition in evidence.truths:
            cells += [number(row[f"balanced_accuracy: {definition}"]), number(row[f"fraction_rms: {definition}"])]
        cells += [
            number(row["excess"]),
            number(row["value"]),
            with_error(row["bootstrap_mean"], row["bootstrap_std"]),
            with_error(row["floor"], row["floor_std"]),
            number(row["accuracy"]),
            number(row["precision"]),
        ]
        rows.append([*cells, *(number(row[moved], ",d") for moved in moved_names((evidence.other, evidence.answer)))])
    of = f"{2**tree.depth} leaves of similar {in_words(evidence.options.intrinsic)}, " if tree.depth else ""
    where = "" if evidence.question is None else ", where the question applies by the more probable class of each set"
    note = (
        f"On {evidence.which}{where}. {tree.measure} in {of}{tree.bins} bins of α. Noise alone "
        "gives the floor; above floor is √(value² − floor²): bias, or a real change of class with α among similar "
        f"galaxies. Bootstrap: mean ± standard deviation of {tree.bootstrap} resamples, as in the paper's Table 1. "
        "Accuracy and precision vs observed labels say how alike labels are, not how good."
    )
    return Table("", head, rows, note, groups)


def asked_table(evidence: Evidence) -> Table:
    """Who was asked at which resolution: the selection that cuts in the number of votes make."""
    asked, votes = evidence.asked, evidence.votes
    assert asked is not None
    reached = np.take(
        [path.answer is not None for path in asked.paths], majority_paths(evidence.frame, asked, evidence.source)
    )
    total = votes.sum(axis=1)
    enough = total >= _USUAL_CUT
    cut = Bins.cut(evidence.alpha, FIFTHS)
    majority = np.where(enough, evidence.answers_shown[votes.argmax(axis=1)], np.nan)
    columns = [cut.averages(values)[0] for values in (reached, total, enough, majority)]
    rows = [
        [f"{low:.1f} to {high:.1f}", number(path), number(mean, ".1f"), number(part), number(answered)]
        for low, high, path, mean, part, answered in zip(cut.edges[:-1], cut.edges[1:], *columns, strict=True)
    ]
    head = [
        "α",
        "on the majority path",
        "votes for the question",
        f"at least {_USUAL_CUT} votes",
        f"{evidence.answer} among these, by majority",
    ]
    note = (
        "A selection by the number of votes selects by α, and by how the answer changes what volunteers say before. "
        "The corrected fractions use all galaxies."
    )
    return Table("Who was asked (fraction of the galaxies)", head, rows, note)


def settings_table(every: Sequence[Evidence]) -> Table:
    """What a page rests on."""
    first = every[0]
    about = first.catalogue.metadata
    rows = dict[str, Any]()
    if first.has_galaxies:
        rows |= {
            "catalogue": Path(first.source).name,
            "α": about.get("alpha", "not stated"),
            "labels": f"{about.get('label_rule', 'not stated')}; votes: {about.get('votes', 'not stated')}",
            "intrinsic columns": ", ".join(first.options.intrinsic) or "none",
            "bootstrap resamples": first.tree.bootstrap,
            "seed": first.tree.seed,
        }
    for evidence in every:
        of = f" ({evidence.title})" if len(every) > 1 else ""
        if evidence.has_galaxies:
            rows[f"measured on{of}"] = evidence.which
            rows[f"definitions of gold labels{of}"] = "; ".join(evidence.truths) or "none"
        fit = evidence.estimate.curve
        rows[f"estimate{of}"] = evidence.origin
        how = f"fitted by the {fit.method} method, assuming that {fit.assumption}"
        rows[f"T(α){of}"] = f"{fit.family} family, {how}"
        for model in evidence.models:
            through = model.curve
            errors = through.get("stderr") or {}
            values = [
                f"{name} = {with_error(value, errors.get(name), '.3f')}"
                for name, value in through["parameters"].items()
                if isinstance(value, int | float)
            ]
            how = "without a bias curve" if model.naive else f"through a {through['family']} T(α) {', '.join(values)}"
            assumed = through.get("assumption") or "no assumption recorded"
            rows[f"model {model.name}{of}"] = f"{model.classifier.model_hash}, trained {how}; {assumed}"
    return Table("", (), [[name, str(value)] for name, value in rows.items()])
