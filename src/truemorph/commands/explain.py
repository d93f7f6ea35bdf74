"""truemorph explain: the pixels that classifiers use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from truemorph.arguments import AtLeastOne, Count, Model, Names, Seed, Table, validated
from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.errors import InputError
from truemorph.explain.catalogue import ExplainResult, chosen_galaxies, named_models, with_radii, write_explanations
from truemorph.tables import name_of


@validated
def explain_classifier(
    *models: Model,
    catalogue: Table,
    out: Path,
    layer: str | None = None,
    classes: Names = (),
    rows: Literal["test", "all"] = "test",
    galaxies: Count = 2000,
    radius_column: str | None = None,
    field: str | None = None,
    rings: AtLeastOne = 16,
    bootstrap: AtLeastOne = 1000,
    draws: Count = 5,
    device: str = "auto",
    seed: Seed = 0,
) -> ExplainResult:
    """Map the pixels that classifiers use: Grad-CAM maps, radial profiles, differences between models.

    Example: truemorph explain naive debiased --catalogue cat.parquet --out explained

    Parameters
    ----------
    models : path or Classifier
        Model folders of truemorph train; one or more.
    catalogue : path or table
        Prepared catalogue with images.
    out : path
        Folder for summary.json, profiles and differences (.ecsv), galaxies.parquet, maps.fits and figures.
    layer : str, optional
        Layer of the backbone; default the deepest with maps of 7×7 cells or more.
    classes : sequence of str
        Explain only galaxies that are predicted to be of these classes, comma-separated; default all. Of a network that
        answers several questions, each galaxy has a predicted class for each.
    rows : str
        Explain test galaxies, or all, each with the members that were not trained on its label.
    galaxies : int
        Largest number of galaxies to explain, drawn at random; 0 for all.
    radius_column : str, optional
        Column of radii in arcsec, for profiles in units of the radius; needs `field`.
    field : str, optional
        Width of an image file in arcsec: a number or a column.
    rings : int
        Number of rings of a radial profile.
    bootstrap : int
        Number of bootstrap resamples for the errors of differences.
    draws : int
        Number of networks with random weights to compare the maps with; 0 for none.
    device : str
        Where networks run: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.
    seed : int
        Random seed.

    Returns
    -------
    ExplainResult

    Raises
    ------
    InputError
        If a model can't be explained, a column is absent, or there are no galaxies.

    Examples
    --------
    >>> explain_classifier(catalogue="cat.parquet", out=Path("explained"))
    Traceback (most recent call last):
        ...
    truemorph.errors.InputError: give one model folder or more, such as: truemorph explain model --catalogue cat.parquet
    """
    if not models:
        raise InputError("give one model folder or more, such as: truemorph explain model --catalogue cat.parquet")
    if draws == 1:
        raise InputError("`draws` is 0 (no check of the maps) or at least 2; got 1")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder (`out`)")
    from truemorph.explain.study import compare, explain, galaxies_of  # needs the networks

    named = {name: replace(model, device=device) for name, model in named_models(models).items()}
    table = read_catalogue(catalogue)
    name = str(table.path or name_of(catalogue))
    frame = chosen_galaxies(table.frame, name, rows, galaxies, seed)
    frame = with_radii(frame, name, radius_column, field)
    source = galaxies_of(frame, image_folder(table))
    explanations = explain(
        named, source, frame.height, layer=layer, rings=rings, classes=classes, draws=draws, seed=seed
    )
    about = {
        "catalogue": name,
        "rows": rows,
        "galaxies": frame.height,
        "radius_column": radius_column,
        "field": field,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    return write_explanations(explanations, compare(explanations, bootstrap, seed), out, about)
