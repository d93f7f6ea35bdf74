"""truemorph report: one page of evidence."""

from __future__ import annotations

from pathlib import Path

from truemorph.arguments import Shown, validated
from truemorph.errors import InputError
from truemorph.report.options import ReportOptions
from truemorph.report.writing import ReportResult, make_report

_DEFAULTS = ReportOptions()


@validated
def write_report(*runs: Shown, out: Path = Path("report.html"), options: ReportOptions = _DEFAULTS) -> ReportResult:
    """Write one page of evidence: answer, verdict, fractions, figures, Table 1, and the galaxies that changed.

    Runs are shown side by side, and questions one after the other. Without runs and estimates, give a catalogue: the
    page then shows its labels, and corrected class fractions. These are those of the estimate that is given, or else
    that a run was trained through, or else made here from all that the catalogue offers, its gold labels included.

    Example: truemorph report model-naive model-debiased --intrinsic radius_kpc,M_r,redshift --out report.html

    Parameters
    ----------
    runs : path, Classifier or Estimate
        Run folders of truemorph train, and estimates of truemorph transition (.json), one of each question.
    out : path
        Page to write (.html); figures, their data and labels go to NAME_files beside it.
    options : ReportOptions
        What the page shows.

    Returns
    -------
    ReportResult

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
    >>> write_report(out=folder / "report.html", options=chosen).content["questions"][0]["measure"]
    'CV14'
    """
    if not runs and options.catalogue is None:
        raise InputError("give run folders, such as: truemorph report model-naive model-debiased; or a `catalogue`")
    return make_report(runs, out, options)
