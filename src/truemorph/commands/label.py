"""truemorph label: label images or a catalogue with a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from truemorph.arguments import BiasCurve, Fraction, Model, Names, Shard, Table, validated
from truemorph.bias.files import transition_described
from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.classifier import Classifier
from truemorph.classifiers.engines import EngineName, Precision
from truemorph.images.store import MAXIMUM_BAD_FRACTION
from truemorph.labelling.estimated import Estimated
from truemorph.labelling.label import LabelReport, label_table
from truemorph.labelling.run import LabelOptions
from truemorph.results import Result


@validated
def label_galaxies(
    model: Model,
    source: Table,
    out: Path,
    *,
    transition: BiasCurve | None = None,
    observed: Table | None = None,
    id: str | None = None,
    image_column: str | None = None,
    images: Path | None = None,
    tiles: Table | None = None,
    bands: Names = (),
    size: str | None = None,
    zero_point: float | None = None,
    convert: bool = False,
    hats: bool = False,
    copy: Names = (),
    engine: EngineName = "auto",
    precision: Precision = "auto",
    device: str = "auto",
    gate: Path | None = None,
    shard: Shard = (1, 1),
    max_bad: Fraction = MAXIMUM_BAD_FRACTION,
) -> LabelReport:
    """Label galaxies with a model: class probabilities, and posteriors where there are observed labels.

    If interrupted, run the same command again to resume. Several processes that run the same command share the work.
    Run it again with the same folder OUT when a survey has grown: it labels new and repaired inputs. Where other
    programs keep the cores busy, set the environment variable OMP_NUM_THREADS=1: a process then uses one thread, which
    halves its CPU time.

    Example: truemorph label model cat.parquet --out labels.parquet

    Parameters
    ----------
    model : path, Classifier or Estimate
        Model folder; or an estimate of truemorph transition (.json), which labels catalogues without images.
    source : path or table
        Catalogue; folder, list (.txt) or table of images; tar files; Parquet with images in it; HATS.
    out : path
        Table (.parquet, .fits, .ecsv, .vot, .csv), with rows that could not be labelled in NAME.problems.csv; or a
        folder, which keeps the partitions of the source.
    transition : path, fit or dict, optional
        T(α) for the posterior: a fit, or a known curve such as rayleigh:11.25; default the model's. A model trained
        without one gives no posterior. If it depends on columns beside α, they are read from the catalogue.
    observed : path or table, optional
        Prepared catalogue with observed labels of these galaxies, joined by id.
    id : str, optional
        Column of object ids.
    image_column : str, optional
        Column of image files, or of their contents.
    images : path, optional
        Folder of the files that a list or table names.
    tiles : path or table, optional
        Survey tiles from which images are cut out at the catalogue's positions: a pattern in quotes, such as
        'tiles/*-{band}_*.fits', or a table with columns file, band and, if not the first image, hdu.
    bands : sequence of str
        One or three bands of the tiles, comma-separated, red first, such as i,r,g; default the model's.
    size : str, optional
        Width of cut-outs: an angle, such as 40arcsec, or an expression, such as "6 * radius" (arcsec); default the
        model's.
    zero_point : float, optional
        AB magnitude of one unit of flux per pixel; default that of the tiles' headers.
    convert : bool
        Convert tiles of another pixel scale than the model's, or use those of other bands.
    hats : bool
        Write OUT as a HATS catalogue, which LSDB reads.
    copy : sequence of str
        Columns to copy to the labels, comma-separated.
    engine : str
        Software that runs the networks. auto is torch on a GPU, otherwise OpenVINO where it works, otherwise torch.
    precision : str
        auto is int8 where it has passed its test for this model, otherwise bf16 where the hardware has it; int8 needs
        openvino.
    device : str
        Where networks run: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.
    gate : path, optional
        Images on which int8 is compared with full precision before it is used; default those of the source.
    shard : (int, int)
        K/N, such as 3/64: label only the K-th of N groups of parts.
    max_bad : float
        Largest fraction of images that may be unreadable, and of rows that may have no label for any reason.

    Returns
    -------
    LabelReport
        Of all parts so far.

    Notes
    -----
    Columns: `object_id`, copied ones, `p_CLASS` of each class of the model, such as `p_disk` (p(y | x)), `p_spread`
    (standard deviation of p over members), `label` (argmax), `relation` ("new", "out_of_fold", "early_stopping",
    "in_sample"); where there are observed labels `observed_label`, `alpha`, `split`, `posterior_CLASS` (p(y | x, ỹ,
    α)), `posterior_label`, `label_quality` (posterior probability that the observed label is right); `unlike_training`
    (in what a galaxy differs from training galaxies; null if it is like them); and `model_hash`. By an estimate, p(y |
    x) is the class fraction, and with gold labels there is `regression_CLASS`, p(y | label, votes, α, …) by its
    regression, for its own galaxies (docs/labelling.md says when to use which).
    The posterior is null for galaxies whose label the model has seen (`relation` "in_sample"), or that lack a column
    that T depends on. Every column has a description, and copied columns keep their units and descriptions.
    Metadata of the table: model hash, T(α) of the posterior (`transition`) and of training (`trained_through`),
    definitions of α and of the labels, class fractions (`fractions`), and findings; see `write_table` for where the
    file holds them.

    Raises
    ------
    InputError
        If there is nothing to label, more images are bad than `max_bad`, the catalogue's α is in another unit than the
        model's, or other labels are in the way.
    TruemorphError
        If labels can't be written.

    Examples
    --------
    >>> import numpy as np, polars as pl, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "fit.json").write_text('{"family": "rayleigh", "parameters": {"theta": 9.0}, '
    ...     '"class_fractions": {"smooth": 0.3, "disk": 0.7}}')
    >>> catalogue = {"object_id": [1, 2], "label": [0, 1], "alpha": [4.0, 20.0], "split": ["train"] * 2}
    >>> pl.DataFrame(catalogue).write_parquet(folder / "cat.parquet")
    >>> report = label_galaxies(folder / "fit.json", folder / "cat.parquet", folder / "labels.parquet")
    >>> pl.read_parquet(report.out)["posterior_disk"].round(3).to_list()
    [0.679, 1.0]
    """
    return label_table(
        _labeller(model, device),
        LabelOptions(
            source=source,
            out=out,
            transition=None if transition is None else transition_described(transition),
            observed=observed,
            id_column=id,
            image_column=image_column,
            images=images,
            keep=copy,
            tiles=tiles,
            bands=bands,
            size=size or "",
            zero_point=zero_point,
            convert=convert,
            hats=hats,
            engine=engine,
            precision=precision,
            gate=gate,
            shard=shard,
            max_bad=max_bad,
        ),
    )


def _labeller(model: Any, device: str) -> Classifier:
    """Return what labels galaxies: a classifier, or an estimate."""
    if isinstance(model, Classifier):
        return replace(model, device=device)
    if isinstance(model, Result) or str(model).endswith(".json"):  # an estimate, whose module takes a second to import
        return Estimated.of(model)
    return load(model, device)
