"""truemorph train: train a classifier through T(α)."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import SkipValidation

from truemorph.arguments import Names, Rules, Table, Tables, listed, validated
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.sampling import TEST
from truemorph.classifiers.checkpoint import CONFIG, UNFINISHED
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.engines import engine_for
from truemorph.classifiers.train import TrainingResult, read_curves, train_on_catalogue
from truemorph.config import TrainingConfig, run_config, run_toml
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings
from truemorph.labelling.sources import open_source, proof_of
from truemorph.results import PlainResult
from truemorph.tables import CatalogTable

if TYPE_CHECKING:
    Settings = TrainingConfig | dict[str, Any]
else:
    Settings = Annotated[TrainingConfig, SkipValidation]


@validated
def train_classifier(
    catalogue: Table,
    *,
    out: Path | None = None,
    transition: Tables | None = None,
    question: Names = (),
    labels: str | None = None,
    where: Rules = (),
    preset: Literal["quick", "standard", "paper", "dcv14"] | None = None,
    cache: Path | None = None,
    settings: Annotated[
        Settings | None,
        Parameter(
            name="*",
            group=Group("Settings (defaults depend on the preset: see --dry-run)", sort_key=10),
            show_default=False,
        ),
    ] = None,
    int8: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> TrainingResult | PlainResult | None:
    """Train a classifier through the bias curve T(α) to predict the unbiased class.

    If interrupted, run the same command again to resume.

    Example: truemorph train cat.parquet --transition transition.json --preset quick --out model

    Parameters
    ----------
    catalogue : path or table
        Prepared catalogue.
    out : path
        Run folder to write.
    transition : path, fit or dict, optional
        Estimate of truemorph transition (repeatable, one of each question: one network then answers all), or a known
        T(α): rayleigh:THETA, weibull:SCALE,SHAPE or fisk:SCALE,SHAPE, with :sigma or :fwhm if the catalogue's α must be
        in units of that width. Default: T(α) is fitted to the labels here.
    question : sequence of str
        With labels naive or gold: questions of the catalogue's decision tree, such as bar,spiral; default its first,
        such as smooth or disk.
    labels : str, optional
        What to train on. By default the observed labels, through T(α); then the gold labels behind the estimate, if
        that improves the prediction of those left out. observed: without these gold labels. naive: the observed labels
        as if they were correct. A column such as gold, or rules as for transition: gold labels alone.
    where : sequence of str
        Fit T(α) only to these galaxies: COLUMN=VALUE, or SQL (repeatable).
    preset : str, optional
        Settings that are not given come from this preset: standard (default with a GPU), quick (default without),
        paper (only to compare with the paper's Table 1), or dcv14 (logistic regression).
    cache : path, optional
        Folder that keeps decoded images for the next run.
    settings : TrainingConfig or dict, optional
        Settings of the network and its training, such as {"epochs": 30}.
    int8 : bool
        Also make int8 networks, and use them for labelling if they pass their test on 10,000 test galaxies.
    overwrite : bool
        Replace a finished model in the run folder.
    dry_run : bool
        Show all settings, as a file for --config, and stop.

    Returns
    -------
    TrainingResult
        With `dry_run`, the settings. With several processes, None in all but the first.

    Raises
    ------
    InputError
        If settings contradict each other, or the catalogue can't be trained on.
    CheckpointError
        If the run folder can't be written, or an unfinished run in it can't be read.

    Examples
    --------
    >>> import tempfile
    >>> from truemorph import simulate_catalogue
    >>> settings = {"features": ["covariate"]}
    >>> train_classifier(simulate_catalogue(2000), out=tempfile.mkdtemp(), preset="dcv14", settings=settings).rows
    2000
    """
    in_memory = not isinstance(catalogue, str | Path)
    if dry_run and out is None:
        out = Path("model")
    curves = listed(transition)
    paths = tuple(str(curve) for curve in curves if isinstance(curve, str | Path))
    run = run_config(
        "table in memory" if in_memory else catalogue,
        settings,
        out=None if out is None else str(out),
        transition=paths,
        question=tuple(question),
        labels=labels,
        where=tuple(where),
        preset=preset,
        cache=cache,
    )
    if dry_run:
        read_curves(run, curves)
        return PlainResult(run_toml(run).rstrip(), run.model_dump(mode="json"))
    folder = Path(run.out)
    if (folder / CONFIG).is_file() and not (folder / UNFINISHED).exists() and not overwrite:
        raise InputError(
            f"{run.out}: holds a finished model; choose another folder (`out`), or replace it (`overwrite`)"
        )
    table = read_catalogue(catalogue) if in_memory else None
    result = train_on_catalogue(run, table, curves)
    if result is None or not result.model.uses_images:
        return result
    if find_spec("openvino") is not None:
        engine_for(result.model)  # converts the networks for labelling, while torch is there
    if int8:
        table = table or read_catalogue(run.catalogue)
        result = replace(result, findings=result.findings + _tested_in_int8(result.model, table))
    return result


def _tested_in_int8(model: Classifier, catalogue: CatalogTable) -> Findings:
    """Make int8 networks, and test them on galaxies that did not train the model; a finding if they are not used."""
    try:
        held_out = open_source(replace(catalogue, frame=catalogue.frame.filter(split=TEST)))
        engine_for(model, "openvino", "int8", proof_of(held_out, model.config))
    except InputError as problem:
        action = "Label in bf16, or give more images to `truemorph label` (`gate`)."
        return (Finding("int8-not-used", "caution", f"Labelling will not use int8: {problem}.", action),)
    return ()
