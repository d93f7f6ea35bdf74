"""truemorph transition: the bias curve T(α) of a catalogue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truemorph.arguments import (
    AtLeastOne,
    Count,
    Edges,
    Family,
    Names,
    NotNegative,
    Rules,
    Seed,
    Table,
    Tables,
    listed,
    validated,
)
from truemorph.bias.estimate import Estimate, make_estimate
from truemorph.bias.files import check_fit_name
from truemorph.bias.methods import method_for
from truemorph.bias.result import DELTA, Settings
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.other_labels import with_other_labels
from truemorph.catalogs.paths import asked_of, kind_of
from truemorph.catalogs.selected import SampleOptions, rows_of
from truemorph.tables import read_table


@validated
def estimate_transition(
    catalogue: Table,
    *,
    out: Path | None = None,
    family: Family | None = None,
    method: Literal["likelihood", "binned", "conditional", "gold"] | None = None,
    gold: str | None = None,
    intrinsic: Names = (),
    observables: Names = (),
    delta: NotNegative | None = None,
    alpha_error: float | str | None = None,
    false_disk: float | Literal["fit"] | None = None,
    bins: AtLeastOne | None = None,
    by: str | None = None,
    fraction_bins: Edges | None = None,
    compare: Annotated[bool | None, Parameter(negative="--no-compare")] = None,
    where: Rules = (),
    weights: str = "balance",
    question: str | None = None,
    labels: Tables = (),
    bootstrap: Count | None = None,
    seed: Seed = 0,
) -> Estimate:
    """Estimate the bias curve T(α) and the corrected fractions of a question's answers, with errors and checks.

    Labels alone cannot separate bias from a real trend with resolution; a few hundred gold labels can. Where a question
    is asked after others, such as bars, gold labels are needed; fractions are then those of the galaxies to which it
    applies, and T(α) is that of the paths to its answers.

    Example: truemorph transition cat.parquet --gold "t_type>=-3" --out transition.json

    Parameters
    ----------
    catalogue : path or table
        Prepared catalogue.
    out : path, optional
        Write the result here (.json), with figures beside it (.png). A name that ends in .tex, .csv, .ecsv or .fits is
        that of a table of the fractions, beside the same .json; .tex has what is printed.
    family : str or subclass of FlipTransition, optional
        rayleigh (the paper's), weibull, fisk, monotone, constant, matrix, logistic; or best: the one of lowest AIC. In
        Python, also your own class. Default: the best of the first three with gold labels, otherwise rayleigh.
    method : str, optional
        Default: gold, conditional or likelihood, depending on what is given; binned is the paper's.
    gold : str, optional
        Gold labels: a column of 0 and 1 or of class names, a rule such as "t_type>=-3", or rules with names such as
        "applies: t_type>=-3 AND axis_ratio>0.5; bar: bar_length>0". T(α) tells apart the paths that they name.
    intrinsic : sequence of str
        Columns of intrinsic properties that classes may depend on, comma-separated.
    observables : sequence of str
        Columns that the flip probability depends on beside α, comma-separated.
    delta : float, optional
        From labels alone, the range spans trends in which the logit of the class fraction changes by so much per
        standard deviation of ln α, by default 0.5; use 1 where your definition of the class is narrower than the
        labels', or unknown.
    alpha_error : float or str, optional
        Relative error of α, a number such as 0.1 or a column; default the catalogue's `alpha_error`, if there is one.
        From labels alone, the range then spans what such errors do to the curve.
    false_disk : float or "fit", optional
        p(disk | smooth): a number, or fit.
    bins : int, optional
        Bins of the binned method; default: 64 galaxies in each, as in the paper.
    by : str, optional
        Column to bin the fractions by, or two, such as "redshift,mass"; default α. A column of text, such as
        depth_tier, gives the fractions of each group.
    fraction_bins : int or sequence of float, optional
        Largest number of bins of the fractions, of each of two columns; each bin has 50 galaxies or more. Default 8 in
        all. Or edges, such as 0.01,0.03,0.06, between which all galaxies must be.
    compare : bool, optional
        Fit the other families of curves too; default yes, if there are others.
    where : sequence of str
        Select galaxies: COLUMN=VALUE, or SQL such as "petroMag_r < 17" (repeatable).
    weights : str
        balance uses the sampling weights of a sample that was drawn by label; none does not, as in the paper. Or a
        column of weights, such as 1 / Vmax.
    question : str, optional
        Question of the catalogue's decision tree, such as bar; default its first, such as smooth or disk.
    labels : path or table, optional
        Answers of others, which with gold labels help the votes to predict the true answer (repeatable): the folder of
        a run of truemorph train, or its labels of these galaxies, out of fold; tables such as debiased votes or
        predictions of Zoobot, with the columns that a tree names.
    bootstrap : int, optional
        Number of bootstrap resamples, to check the error; default none.
    seed : int
        Random seed.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        If a column is absent, no galaxy is selected, or the fit can't be made.

    Examples
    --------
    >>> from truemorph import simulate_catalogue
    >>> galaxies = simulate_catalogue(4000, gold=400)
    >>> estimate = estimate_transition(galaxies, gold="gold", compare=False)
    >>> bool(abs(estimate.fit.class_fractions[1] - galaxies["truth"].mean()) < 4 * estimate.fit.stderr["disk_fraction"])
    True
    """
    if out is not None:
        check_fit_name(out)  # before the fit, not after
    table = read_catalogue(catalogue)
    asked = asked_of(table, question)
    others = listed(labels)
    values = {
        "gold": gold,
        "intrinsic": intrinsic,
        "observables": observables,
        "labels": others,
        "family": family,
        "false_disk": false_disk,
        "compare": compare,
        "bootstrap": bootstrap,
        "delta": delta,
        "alpha_error": alpha_error,
        "bins": bins,
    }
    chosen = method_for(kind_of(asked), values, method)
    galaxies, joined = with_other_labels(table, asked, [_answers(source, catalogue) for source in others])
    options = SampleOptions(
        question, gold, where, by or "alpha", intrinsic, observables, weights, alpha_error, joined, table
    )
    sample, context = rows_of(galaxies, options)
    settings = Settings(chosen, family, bins, false_disk, DELTA if delta is None else delta, seed=seed)
    estimate = make_estimate(
        sample,
        settings,
        context=context,
        fraction_bins=fraction_bins,
        compare=compare is not False,
        bootstrap=bootstrap or 0,
    )
    if out is not None:
        estimate.write(out)
    return estimate


def _answers(source: Any, catalogue: Any) -> Any:
    """Return a table of answers; of a run, a model's labels of the catalogue."""
    if not isinstance(source, str | Path) or not (Path(source) / "config.json").is_file():
        return source
    from truemorph.classifiers.checkpoint import load
    from truemorph.labelling.label import label_table  # engines take a second to import
    from truemorph.labelling.run import LabelOptions

    with TemporaryDirectory(prefix="truemorph-") as folder:
        out = Path(folder) / "labels.parquet"
        label_table(load(source), LabelOptions(source=catalogue, out=out))
        return replace(read_table(out), path=Path(source))
