"""truemorph prepare: from a table of votes to a catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, SkipValidation

from truemorph.arguments import AS_GIVEN, Names, Rules, Seed, Table, validated
from truemorph.catalogs.crossmatch import LARGEST_RADIUS, read_join
from truemorph.catalogs.mapping import PRESETS, mapping_toml, narrowed, read_mapping, recognised_tree
from truemorph.catalogs.paths import answers_inside, count_experts, flat_tree, root_columns
from truemorph.catalogs.prepare import Preparation, TableSettings, prepare, read_tables, write_preparation
from truemorph.config import without_none
from truemorph.errors import InputError, check_used
from truemorph.findings import unique
from truemorph.images.tiles import open_tiles, write_cutouts
from truemorph.questions import Tree, packaged_trees, read_tree
from truemorph.results import PlainResult
from truemorph.tables import CatalogTable, read_table


def _as_texts(answers: Any) -> Any:
    return [f"{name}={column}" for name, column in answers.items()] if isinstance(answers, Mapping) else answers


if TYPE_CHECKING:
    Columns = Mapping[str, str]
    Described = Any
    Joins = Sequence[Any]
    Number = Any
    Numbers = Any
    Answers = Any
else:
    Columns, Described = Annotated[dict[str, str], SkipValidation], Annotated[Path, SkipValidation]
    Joins, Number = Annotated[Rules, SkipValidation], Annotated[str, SkipValidation]
    Numbers = Annotated[Sequence[str], SkipValidation, AS_GIVEN]
    # In Python also {"none": "n_none"}.
    Answers = Annotated[Names, BeforeValidator(_as_texts)]


@validated
def prepare_catalogue(
    table: Table | None = None,
    *,
    out: Path | None = None,
    preset: Described | None = None,
    join: Joins = (),
    match: Joins = (),
    within: float | None = None,
    nearest: Joins = (),
    id: str | None = None,
    smooth: str | None = None,
    disk: str | None = None,
    artifact: str | None = None,
    label: str | None = None,
    classes: Names | None = None,
    definition: str | None = None,
    radius: str | None = None,
    psf_fwhm: Number | None = None,
    alpha: str | None = None,
    columns: Columns | None = None,
    psf: Literal["sigma", "fwhm"] = "sigma",
    images: Path | None = None,
    tiles: Table | None = None,
    bands: Names = (),
    size: str | None = None,
    zero_point: float | None = None,
    where: Rules = (),
    keep: Rules = (),
    cosmology: str | None = None,
    sample: Numbers | None = None,
    split: Numbers | None = None,
    gold: str | None = None,
    question: Names = (),
    tree: Described | None = None,
    answers: Answers = (),
    experts: Names = (),
    dry_run: bool = False,
    seed: Seed = 0,
) -> Preparation | PlainResult:
    """Make a catalogue of labels, α and splits from a table of votes.

    Wherever a column is named, an SQL expression over columns can be given instead.

    Example: truemorph prepare gz2.fits --radius petroRad_r --psf-fwhm psfWidth_r --images jpegs --out cat.parquet

    Parameters
    ----------
    table : path or table
        Table of votes (.fits, .vot, .ecsv, .parquet, .csv, ...), or one in memory; see `read_table`.
    out : path, optional
        Catalogue to write (.parquet), with its datasheet and the list of dropped rows beside it.
    preset : str, path, Mapping or dict, optional
        gz2, gz2-debiased, gz-challenge, desi, gz-decals, gz-hubble, candels, truemorph or paper, or a TOML file that
        describes your table (a mapping); default: recognised by the columns.
    join : sequence of str, path, table or Join
        Tables to add by object id, FILE or FILE=COLUMN (repeatable).
    match : sequence of str, path, table or Join
        Tables to add by position, FILE or FILE=RA,DEC (repeatable).
    within : float, optional
        Largest separation for match, arcsec; default 2.
    nearest : sequence of str, path, table or Join
        Tables of which each galaxy takes the nearest row within a degree, such as the PSF at positions on the sky or of
        each tile, FILE or FILE=RA,DEC (repeatable).
    id : str, optional
        Column of object ids.
    smooth : str, optional
        Column of votes for smooth: fractions or numbers.
    disk : str, optional
        Column of votes for disk.
    artifact : str, optional
        Column of votes for star or artifact.
    label : str, optional
        Column of labels 0 (smooth) and 1 (disk), instead of votes.
    classes : (str, str), optional
        Names of classes 0 and 1, such as early-type,late-type; default smooth,disk.
    definition : str, optional
        What counts as a disk (class 1), such as "spirals and lenticulars"; default the preset's.
    radius : str, optional
        Column of Petrosian radii, arcsec.
    psf_fwhm : str, float or quantity, optional
        Column of the PSF's FWHM, or one number, arcsec.
    alpha : str, optional
        Column of α = radius / PSF width, instead of radius and PSF.
    columns : dict, optional
        Columns of other quantities by truemorph's names, such as {"redshift": "z"}.
    psf : str
        PSF width in α = radius / width: its sigma or its FWHM. Say which one if you give α itself.
    images : path, optional
        Folder of images. With tiles, to write them there; default OUT.cutouts.
    tiles : path or table, optional
        Survey tiles from which images are cut out (FITS) at the positions of the galaxies: a pattern in quotes, such as
        'tiles/*-{band}_*.fits', or a table with columns file, band and, if not the first image, hdu.
    bands : sequence of str
        One or three bands of the tiles, comma-separated, red first, such as i,r,g.
    size : str, optional
        Width of cut-outs: an angle, such as 40arcsec, or an expression, such as "6 * radius" (arcsec).
    zero_point : float, optional
        AB magnitude of one unit of flux per pixel; default that of the tiles' headers.
    where : sequence of str
        Select galaxies: COLUMN=VALUE, or SQL such as "petroMag_r < 17" (repeatable).
    keep : sequence of str
        As for where, but each rule is counted separately in the summary (repeatable).
    cosmology : str, optional
        One of astropy's, for radii in kpc and absolute magnitudes; default WMAP9.
    sample : str or (int, int), optional
        Numbers of smooth and disk galaxies to draw, such as 62225,59759; balanced; or all (default). The other galaxies
        stay in the catalogue with split "unused", and `sampling_weight` corrects for the selection.
    split : str or (float, float, float), optional
        Fractions or numbers of galaxies to train, validate and test on; default 0.8,0.1,0.1.
    gold : str, optional
        Gold labels: a column of 0 and 1, or a rule such as "t_type>=-3". The rule defines what a disk is. Rules such as
        "applies: t_type>=-3; bar: bar_length>0" are those of a question, if there is one (see truemorph transition).
    question : sequence of str
        Questions of the decision tree, comma-separated, such as bar,spiral, whose labels and votes are added.
    tree : path, Tree or dict, optional
        Decision tree: a survey's name or a TOML file; default that of the preset, or of the first survey whose columns
        the table has.
    answers : sequence of str or dict
        Of a question without a tree: its answers, such as none,minor,major, each with the column of its votes, as in
        none=n_none, or {"none": "n_none"}.
    experts : sequence of str
        Columns with the answer of each expert, instead of votes; or one such column of a table with a row for each.
    dry_run : bool
        Print how the table would be read, as TOML that can be edited and used as preset, and stop.
    seed : int
        Random seed.

    Returns
    -------
    Preparation
        With `dry_run`, the mapping.

    Raises
    ------
    InputError
        If a column is missing, ids repeat or would lose digits, a class is empty, or no row is left.

    Examples
    --------
    >>> import polars as pl
    >>> votes = pl.DataFrame({"id": range(10), "smooth": [0.8, 0.2] * 5, "r": 6.0, "fwhm": 1.2})
    >>> prepared = prepare_catalogue(votes, id="id", smooth="smooth", disk="1 - smooth", radius="r", psf_fwhm="fwhm")
    >>> prepared.funnel
    [('rows in', 10), ('rows out', 10)]
    >>> prepared.catalogue.frame["label"].to_list()
    [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    check_used("tiles", tiles is not None, bands=bands, size=size, zero_point=zero_point)
    check_used("match", bool(match), within=within)
    named = {
        "object_id": id,
        "smooth": smooth,
        "disk": disk,
        "artefact": artifact,
        "label": label,
        "radius": radius,
        "alpha": alpha,
    }
    by_position = [read_join(table, "sky", 2.0 if within is None else within) for table in match]
    settings = TableSettings(
        preset=preset,
        joins=[*join, *by_position, *(read_join(table, "nearest", LARGEST_RADIUS) for table in nearest)],
        columns={**(columns or {}), **without_none(named)},
        tree=tree,
        psf_fwhm=psf_fwhm,
        keep=keep,
        cosmology=cosmology,
        sample=sample,
        split=split,
        classes=classes,
        definition=definition,
        psf=psf,
        where=where,
        gold=gold,
        questions=question,
    )
    if table is None and not dry_run:
        raise InputError("name the table of votes, such as: truemorph prepare votes.csv --out cat.parquet")
    source = None if table is None else read_table(table)
    settings = replace(settings, tree=_tree(source, settings, answers))
    if experts and source is not None:
        if settings.tree is None:
            raise InputError("name the answers that experts gave (`answers`), and the question (`question`)")
        source = count_experts(source, read_tree(settings.tree), experts, id)
    if source is not None and settings.tree is not None:
        settings = _of_tree(read_tree(settings.tree), settings, source.frame.columns)
    if dry_run:
        return _mapping(source, settings)
    survey = cut = None
    if tiles is not None:
        if size is None or out is None:
            raise InputError("cut-outs of tiles need a `size`, such as 40arcsec, and `out`")
        survey = open_tiles(tiles, bands, zero_point)
        folder = out.with_name(f"{out.stem}.cutouts") if images is None else images
        cut = partial(write_cutouts, survey, size, folder.resolve())
    prepared = prepare(source, settings, images=images, seed=seed, cut=cut)
    if survey is not None:
        about = {"cutouts": survey.to_dict() | {"size": size}}
        catalogue = replace(prepared.catalogue, metadata=prepared.catalogue.metadata | about)
        prepared = replace(prepared, catalogue=catalogue, findings=unique(prepared.findings, survey.findings))
    return prepared if out is None else write_preparation(prepared, out)


def _tree(table: CatalogTable | None, settings: TableSettings, answers: Sequence[str]) -> Tree | str | None:
    """Return the tree that was named, that of a question's answers, or the first survey's whose columns a table has."""
    if answers:
        if len(settings.questions) != 1 or settings.tree is not None:
            raise InputError("`answers` are those of one question (`question`), without a tree; name it")
        return flat_tree(settings.questions[0], answers)
    described = settings.tree is not None or settings.preset is not None
    if table is None or not settings.questions or described or _names_labels(settings):
        return settings.tree
    return recognised_tree(settings.questions, table.frame.columns, settings.columns)


def _names_labels(settings: TableSettings) -> bool:
    """Whether the user named the columns of labels, or of votes for two classes."""
    return bool({"smooth", "disk", "label"} & settings.columns.keys())


def _of_tree(tree: Tree, settings: TableSettings, existing: Sequence[str]) -> TableSettings:
    """Let labels be the answers to a tree's first question, unless the user named other labels."""
    settings = replace(settings, tree=tree.name if tree in packaged_trees() else tree)
    if _names_labels(settings):
        return settings
    inside = answers_inside(tree)
    if len(inside) <= 2:
        votes, names = root_columns(tree, existing)
        return replace(settings, votes=votes, about=tree.about, classes=settings.classes or names)
    if settings.classes is not None:
        raise InputError("the classes are the answers to the question; leave out `classes`")
    preset = "truemorph" if settings.preset is None else settings.preset
    return replace(settings, about=tree.about, classes=inside, preset=preset)


def _mapping(table: CatalogTable | None, settings: TableSettings) -> PlainResult:
    """Return how a table would be read; without a table, a preset or mapping as it is."""
    if table is not None:
        joined, mapping = read_tables(table, settings)
        mapping = narrowed(mapping, joined.table.frame.columns, joined.own)
    elif settings.preset is not None:
        mapping = read_mapping(settings.preset)
    else:
        raise InputError(f"give a table, or a preset (`preset`: {', '.join(PRESETS)}, or a TOML file)")
    return PlainResult(mapping_toml(mapping).rstrip(), mapping.model_dump(mode="json", exclude_defaults=True))
