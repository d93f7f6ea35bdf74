"""truemorph report: one page of evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truemorph.arguments import Shown, validated
from truemorph.bias.estimate import Estimate
from truemorph.bias.population import PopulationFractions
from truemorph.classifiers.checkpoint import CONFIG
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.io import read_json
from truemorph.report.options import ReportOptions
from truemorph.report.questions import QuestionReport, report_questions
from truemorph.report.writing import ReportResult, make_report

_DEFAULTS = ReportOptions()


@validated
def write_report(
    *runs: Shown, out: Path = Path("report.html"), options: ReportOptions = _DEFAULTS
) -> ReportResult | QuestionReport:
    """Write one page of evidence: answer, verdict, Table 1, figures, and the galaxies that changed.

    Runs are shown side by side. Without runs, give a catalogue: the page then shows its labels, and corrected class
    fractions. These are those of the estimate that is given, or else that a run was trained through, or else made here
    from all that the catalogue offers, its gold labels included.

    Example: truemorph report model-naive model-debiased --intrinsic radius_kpc,M_r,redshift --out report.html

    Parameters
    ----------
    runs : path, Classifier, Estimate or PopulationFractions
        Run folders of truemorph train, and at most one estimate of truemorph transition (.json). Or estimates of
        questions (truemorph transition with a question), and runs of networks that answer them; these make a page of
        their own, with a section for each question.
    out : path
        Page to write (.html); figures, their data and labels go to NAME_files beside it.
    options : ReportOptions
        What the page shows.

    Returns
    -------
    ReportResult
        Of questions: QuestionReport.

    Raises
    ------
    InputError
        If a run or file can't be read, runs and catalogue don't go together, or a column is absent.

    Examples
    --------
    >>> import tempfile
    >>> from truemorph import simulate_catalogue
    >>> folder = Path(tempfile.mkdtemp())
    >>> simulate_catalogue(1000).write_parquet(folder / "cat.parquet")
    >>> chosen = ReportOptions(catalogue=folder / "cat.parquet", bootstrap=0)
    >>> write_report(out=folder / "report.html", options=chosen).content["measure"]
    'CV14'
    """
    if not runs and options.catalogue is None:
        raise InputError("give run folders, such as: truemorph report model-naive model-debiased; or a `catalogue`")
    questions = [run for run in runs if _of_question(run)]
    if not questions:
        return make_report(runs, out, options)
    if len(questions) < len(runs):
        raise InputError("questions have a page of their own; give other runs and estimates apart")
    return report_questions(questions, out, options)


def _of_question(source: Any) -> bool:
    """Whether a source is an estimate of a question, or its fractions, or a model of questions."""
    if isinstance(source, Classifier):
        return source.heads[0].question is not None
    if isinstance(source, Estimate | PopulationFractions):
        return isinstance(source, PopulationFractions) or "question" in source.fractions.about
    if (Path(source) / CONFIG).is_file():
        return bool(read_json(Path(source) / CONFIG).get("questions"))
    if not str(source).endswith(".json") or not Path(source).is_file():
        return False
    fractions = read_json(source).get("fractions")
    return isinstance(fractions, dict) and "question" in fractions
