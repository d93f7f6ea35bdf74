"""Prepare a catalogue for measuring and training from a table of votes, and account for every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.archives.provenance import origin
from truemorph.arrays import float_array
from truemorph.catalogs import physical, sampling
from truemorph.catalogs.catalogue import find_images, from_votes
from truemorph.catalogs.columns import ADDED, FRACTIONS, NAMED, RESERVED, free_name, percent_of_light
from truemorph.catalogs.crossmatch import Joined, join_tables, read_join
from truemorph.catalogs.datasheet import datasheet
from truemorph.catalogs.mapped import Mapped, MappedColumn, apply_mapping, check_required, vote_columns
from truemorph.catalogs.mapping import Mapping, detect_mapping, extended, named_columns, read_mapping
from truemorph.catalogs.paths import (
    answers_inside,
    described_path,
    gold_column,
    label_column,
    path_columns,
    root_of,
    tree_of_classes,
    votes_of_survey,
)
from truemorph.catalogs.positions import repeated_positions
from truemorph.catalogs.question_gold import gold_of_label, gold_of_question, is_of_question
from truemorph.catalogs.rows import LABEL_RULE, check_sizes, choose_rows, unequal_votes
from truemorph.config import without_none
from truemorph.errors import InputError
from truemorph.findings import Finding, Findings, unique
from truemorph.io import FORMAT_VERSION, PathLike, check_not_read, plain, write_file
from truemorph.plotting import legend
from truemorph.questions import Asked, Tree, read_tree
from truemorph.results import Result, text_facts
from truemorph.tables import CatalogTable, check_holds_metadata, name_of, read_table, to_astropy, write_table

# The first columns of a catalogue; truemorph's other columns and those of the table follow.
_FIRST = ("object_id", "image", "label", "alpha", *FRACTIONS, "radius", "psf_fwhm", "split", "sampling_weight")
# If these are only renamed or in truemorph's unit, the table's own columns are not copied too.
_STAND_FOR_SOURCE = {"object_id", "image", "radius", "psf_fwhm", *FRACTIONS}


# Makes images of the rows of a table: their folder, names (None if there is none) and findings.
Cutting = Callable[[pl.DataFrame], tuple[Path, list[str | None], list[Finding]]]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,d}" for name, n in counts.items())


class Preparation(Result):
    """A prepared catalogue, and the rows that were dropped.

    `dropped` has `row` (in the input, from 1), `object_id` and `reason`; `funnel` rows in, rows removed by each
    rule, and rows out; `origins` checksum, size and recorded provenance of each file.
    """

    catalogue: CatalogTable
    dropped: pl.DataFrame
    funnel: list[tuple[str, int]]
    findings: Findings
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    out: Path | None = None

    def summary(self) -> str:
        """Return counts of rows, labels and splits, and α, as text."""
        numbers, held = self.to_dict(), self.catalogue.metadata
        two = len(held["classes"]) == 2
        root = None if two else root_of(self.catalogue).question
        lines = [f"{rule:32s} {count:>9,d}" for rule, count in self.funnel]
        splits = {name: numbers["splits"][name] for name in sampling.SPLITS if name in numbers["splits"]}
        facts = [
            (root or "labels", _listed(numbers["labels"])),
            (held["classes"][1] if two else "definition", held["definition"] or "not defined"),
            *((name, _listed(answers)) for name, answers in numbers["questions"].items() if name != root),
            ("splits", _listed(splits)),
            ("votes", f"{held['votes']} ({held['preset']})"),
            ("α", held["alpha"]),
        ]
        if self.out is not None:
            facts.append(("wrote", f"{self.out}, and {numbers['datasheet']} beside it"))
        return "\n".join([*lines, *text_facts(facts)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        frame, metadata = self.catalogue.frame, self.catalogue.metadata
        labels = frame["label"].to_numpy()
        values = {
            "out": self.out,
            "funnel": dict(self.funnel),
            "labels": {name: (labels == k).sum() for k, name in enumerate(metadata["classes"])},
            "definition": metadata["definition"],
            "questions": {
                name: dict(sorted(frame[label_column(name)].value_counts().rows()))
                for name in metadata.get("questions", ())
            },
            "splits": dict(sorted(frame["split"].value_counts().rows())),
            "with_image": frame["image"].count(),
            "alpha": metadata["alpha"],
            "matches": metadata["matches"],
            "datasheet": None if self.out is None else f"{self.out.stem}.datasheet.md",
            "findings": self.findings,
        }
        return plain(values)

    def to_table(self) -> Any:
        """Return the catalogue as an astropy table with units and descriptions."""
        return to_astropy(self.catalogue)

    def draw(self, ax: Any) -> None:
        """Draw the distribution of α by label."""
        alpha, labels = (self.catalogue.frame[name].to_numpy() for name in ("alpha", "label"))
        edges = np.geomspace(max(alpha.min(), 0.1), max(alpha.max(), 0.2), 41)
        for k, name in enumerate(self.catalogue.metadata["classes"]):
            ax.hist(alpha[labels == k], bins=edges, histtype="step", label=f"labelled {name}")
        ax.set(xlabel=r"resolution $\alpha$", ylabel="galaxies", xscale="log")
        legend(ax)


def prepare(
    table: Any, settings: TableSettings, *, images: PathLike | None = None, seed: int = 0, cut: Cutting | None = None
) -> Preparation:
    """Make a catalogue; see `truemorph.prepare_catalogue`.

    `cut` makes the images of the galaxies that are kept, if they are not in a folder.
    """
    joined, kind = read_tables(table, settings)
    name, questions = joined.name, settings.questions
    mapped = apply_mapping(joined.table, kind, name, joined.own)
    tree, has_more = _tree(kind, name, questions), len(kind.classes) > 2
    check_required(mapped, has_more)
    cosmology = kind.cosmology or physical.COSMOLOGY
    columns = _derived(mapped, cosmology)
    derived = columns.keys() - mapped.columns.keys()
    mapped = replace(mapped, columns=columns)
    alpha = pl.Series("alpha", _alpha(mapped, settings.psf)).fill_nan(None)
    # Rules may use the table's columns (with missing values as null) and truemorph's, which take precedence.
    named = mapped.cleaned.with_columns(*mapped.frame).with_columns(alpha)
    votes, of_votes, about_root = None, list[Finding](), dict[str, str]()
    if has_more:
        of_root = tree.columns(tree.root.name, named.columns).columns[tree.root.name]
        about_root = {"votes": f"columns that the tree names: {', '.join(of_root)}"}
        votes, of_votes = votes_of_survey(named, tree, tree.root.name, name)
    funnel, labels, selection = choose_rows(named, mapped, settings.where, votes)
    kept = funnel.kept
    ids, galaxies = funnel.ids.filter(kept), named.filter(kept)
    gold_columns, of_gold, about_gold = _gold(galaxies, kind, tree, questions, settings.gold, name)
    if cut is None:
        root, paths, of_images = _images(joined, mapped, ids, kept, images)
    else:
        root, paths, of_images = cut(galaxies.with_columns(object_id=ids))
    own = mapped.frame.filter(kept).with_columns(image=pl.Series(paths, dtype=pl.String))
    split, weights, drawing = _draw(labels, ids.to_list(), own, kind, seed)
    answer_columns, of_questions = _answers(galaxies, tree, questions, name)
    made = {
        **own.to_dict(),
        "object_id": ids,
        "label": labels,
        "alpha": galaxies["alpha"],
        "split": split,
        "sampling_weight": weights,
        **answer_columns,
        **gold_columns,
    }
    about_votes = [*of_votes, *unequal_votes(mapped, kept), *of_questions]  # they limit every use of the catalogue
    metadata = {
        **_metadata(joined, mapped, settings),
        **about_root,
        "cosmology": cosmology if {"radius_kpc", "M_r"} & derived else None,
        "questions": list(questions) or None,
        "tree": tree.model_dump(mode="json", exclude_defaults=True),
        "image_root": str(root),
        "seed": int(seed),
        "drawn": bool((split == sampling.UNUSED).any()),
        "findings": [finding.to_dict() for finding in unique(about_votes) if finding.severity != "note"],
        **of_gold,
    }
    if not (has_more or kind.definition or settings.about):
        action = "Say it in a few words (`definition`), for whoever labels or uses these galaxies."
        what = f"What counts as {kind.classes[1]} is not stated."
        about_gold = [*about_gold, Finding("definition-missing", "note", what, action)]
    catalogue = _catalogue(mapped, kept, made, without_none(metadata))
    of_rows = [*about_votes, *check_sizes(mapped, kept), *of_images, *drawing, *about_gold]
    of_rows += repeated_positions(catalogue.frame, name)
    findings = unique(joined.findings, mapped.findings, selection, of_rows)
    origins = {str(file): origin(file) for file in joined.files if file is not None}
    return Preparation(catalogue, funnel.dropped(), funnel.steps(), findings, origins)


def _answers(
    galaxies: pl.DataFrame, tree: Tree, questions: Sequence[str], name: str
) -> tuple[dict[str, Any], list[Finding]]:
    """Return columns of labels and votes of questions, and findings about them."""
    answers, findings = dict[str, Any](), list[Finding]()
    for question in questions:
        votes, about = votes_of_survey(galaxies, tree, question, name)
        answers |= path_columns(votes)
        findings += about
    return answers, findings


def _gold(
    galaxies: pl.DataFrame, kind: Mapping, tree: Tree, questions: Sequence[str], gold: str | None, name: str
) -> tuple[dict[str, Any], dict[str, Any], list[Finding]]:
    """Return columns of gold labels by a rule, of the label or of a question, what is recorded of them, findings."""
    if gold is None:
        unused = "The column gold is kept as gold_input and is not used."
        kept = Finding("gold-column-kept", "note", unused, "If it has gold labels, name it (`gold`).")
        return {}, {}, [kept] if "gold" in galaxies.columns else []
    if questions and is_of_question(gold, galaxies):
        question, *more = questions
        if more:
            raise InputError(f"{name}: `gold` has rules for one question of {len(questions)}; give them to transition")
        read = gold_of_question(galaxies, Asked(tree, question), gold, name)
        about = {"gold_definitions": {question: read.definition}, "gold_columns": read.columns}
        return {gold_column(question): read.names}, about, read.findings
    read = gold_of_label(galaxies, Asked(tree, tree.root.name), gold, kind.classes[1], name)
    counted = f"{(read.numbers >= 0).sum():,d} of {read.numbers.size:,d} galaxies have gold labels."
    findings = [*read.findings, Finding("gold-labels", "note", counted), *from_votes(read.definition)]
    about = {"gold_definition": read.definition, "gold_columns": read.columns}
    return {"gold": pl.Series(read.numbers).replace(-1, None)}, about, findings


def _metadata(joined: Joined, mapped: Mapped, settings: TableSettings) -> dict[str, Any]:
    """Return what a catalogue says of its table: names, definitions and settings."""
    kind = mapped.mapping
    return {
        "kind": "catalogue",
        "format_version": FORMAT_VERSION,
        "truemorph_version": __version__,
        "source": joined.name,
        "preset": kind.name,
        "about": kind.about,
        "votes": kind.votes,
        "classes": list(kind.classes),
        "definition": kind.definition,
        "columns": mapped.sources,
        "mapping": kind.model_dump(mode="json", exclude_defaults=True, exclude={"lacking"}),
        "label_rule": _label_rule(mapped),
        "alpha": _definition_of_alpha(mapped.columns, settings.psf),
        "alpha_psf": settings.psf,
        "matches": joined.matches,
        "where": list(settings.where) or None,
        "simulated": joined.table.metadata.get("simulated") or None,
    }


def _label_rule(mapped: Mapped) -> str:
    classes = mapped.mapping.classes
    if len(classes) > 2:
        return "the answer with most votes; of tied ones, that which most galaxies have"
    if "label" not in mapped.columns:
        return LABEL_RULE
    return f"{mapped.sources['label']}: 0 {classes[0]}, 1 {classes[1]}"


def _tree(kind: Mapping, table_name: str, questions: Sequence[str]) -> Tree:
    """Return the tree of a survey; without one, that of the two classes of labels."""
    if kind.tree is None and questions:
        raise InputError(f"{table_name}: {kind.name} has no decision tree; name one (`tree`), or a TOML file")
    tree = tree_of_classes(kind.classes) if kind.tree is None else read_tree(kind.tree)
    if len(kind.classes) > 2 and (kind.tree is None or kind.classes != answers_inside(tree)):
        raise InputError(
            f"{table_name}: name two classes (`classes`); those of more are answers to a question (`answers`)"
        )
    return tree


@dataclass(frozen=True)
class TableSettings:
    """How a table is read: a preset or another mapping, and what differs from it."""

    preset: Mapping | dict[str, Any] | PathLike | None = None
    joins: Sequence[Any] = ()  # `Join`, or tables that are joined by object id
    # Columns that differ from the mapping's, where "smooth", "disk" and "artefact" stand for vote fractions or numbers
    # of votes, depending on the values; `votes` are such columns that a `tree` names, and `about` says of which survey.
    columns: dict[str, str] = field(default_factory=dict)
    votes: dict[str, str] = field(default_factory=dict)
    about: str | None = None
    tree: Tree | str | None = None
    psf_fwhm: Any = None
    keep: Sequence[str] = ()
    cosmology: str | None = None
    sample: Any = None
    split: Any = None
    classes: Any = None
    definition: str | None = None
    psf: physical.PsfUnit = "sigma"  # unit of α
    where: Sequence[str] = ()  # conditions
    gold: str | None = None  # column or rule of gold labels
    questions: Sequence[str] = ()  # of the tree, of which labels and votes are kept

    @property
    def content(self) -> dict[str, Any]:
        """What is not a column, as content of a mapping."""
        names = ("sample", "split", "cosmology", "classes", "definition", "about", "tree")
        options = {name: getattr(self, name) for name in names}
        options["cuts"] = [{"name": " ".join(rule.split()), "keep": rule} for rule in dict.fromkeys(self.keep)]
        options["votes"] = f"columns that the tree names: {', '.join(self.votes.values())}" if self.votes else None
        return without_none(options)


def read_tables(table: Any, settings: TableSettings) -> tuple[Joined, Mapping]:
    """Read and join the tables, and combine all settings in one mapping."""
    source = read_table(table)
    name = name_of(table) if source.path is None else source.path.name
    if source.metadata.get("kind") == "catalogue":
        raise InputError(f"{name}: is a prepared catalogue; prepare the table from which it was made")
    chosen, existing = settings.votes | settings.columns, source.frame.columns
    if settings.preset is None:
        telling = ("smooth_fraction" if key == "smooth" else key for key in chosen)
        base = detect_mapping(existing, name, telling)
    else:
        base = read_mapping(settings.preset)
    keys = {key: text for key, text in chosen.items() if key in ("object_id", "ra", "dec")}
    with_keys = extended(base, named_columns(keys, existing, name), name)
    joined = join_tables(source, map(read_join, settings.joins), with_keys, name)
    frame = joined.table.frame

    chosen, read_as = vote_columns(chosen, frame, name)
    content = settings.content
    if settings.psf_fwhm is not None:
        try:
            width = float_array(settings.psf_fwhm, "psf_fwhm", "arcsec").tolist()
            content |= {"psf_fwhm": width, "columns": {"psf_fwhm": False}}
        except InputError:
            chosen["psf_fwhm"] = str(settings.psf_fwhm)  # a column
    kind = extended(extended(base, named_columns(chosen, frame.columns, name), name), content, name)
    if len(kind.classes) == 2:
        kind = kind.model_copy(update={"definition": kind.definition.removeprefix(f"{kind.classes[1]}:").strip()})
    return replace(joined, findings=[*joined.findings, *(() if settings.votes else read_as)]), kind


def write_preparation(prepared: Preparation, out: PathLike) -> Preparation:
    """Write a catalogue (not as CSV), `<name>.datasheet.md` and `<name>.dropped.csv`; never over an input file."""
    out = Path(out)
    check_holds_metadata(out)
    dropped, sheet = (out.with_name(f"{out.stem}.{end}") for end in ("dropped.csv", "datasheet.md"))
    for target in (out, dropped, sheet):
        check_not_read(target, prepared.origins)
    write_table(prepared.catalogue, out)
    write_table(prepared.dropped, dropped)
    write_file(sheet, datasheet(prepared.catalogue, out.name, prepared.origins, prepared.funnel, prepared.findings))
    return replace(prepared, out=out)


def _derived(mapped: Mapped, cosmology: str) -> dict[str, MappedColumn]:
    """Return the columns, with `radius_kpc`, `M_r` and surface brightness if possible and not in the table."""
    columns, numbers = dict(mapped.columns), mapped.numbers
    redshift, dust = numbers("redshift"), numbers("extinction") if "extinction" in columns else 0.0
    dusty = f"minus {columns['extinction'].source}" if "extinction" in columns else "not corrected for extinction"
    at = f"at the distance of {columns['redshift'].source} ({cosmology})" if "redshift" in columns else ""

    def lacks(name: str, *needed: str) -> bool:
        return name not in columns and columns.keys() >= {*needed}

    def add(name: str, values: np.ndarray, source: str, about: str = "") -> None:
        described = f"{about or NAMED[name].description}: {source}"
        columns[name] = MappedColumn(pl.Series(values).fill_nan(None), source, described)

    if lacks("radius_kpc", "redshift", "radius"):
        kpc = physical.physical_radius_kpc(numbers("radius"), redshift, cosmology)
        add("radius_kpc", kpc, f"{columns['radius'].source} {at}", f"{columns['radius'].description}, in kpc")
    if lacks("alpha_error", "radius_error", "radius", "psf_fwhm"):
        relative = numbers("radius_error") / numbers("radius")
        source = columns["radius_error"].source
        if "psf_error" in columns:
            relative = np.hypot(relative, numbers("psf_error") / numbers("psf_fwhm"))
            source = f"{source} and {columns['psf_error'].source}"
        add("alpha_error", relative, source)
    if lacks("M_r", "redshift", "magnitude"):
        luminosity = physical.absolute_magnitude(numbers("magnitude"), redshift, dust, cosmology)
        add("M_r", luminosity, f"{columns['magnitude'].source}, {dusty}, {at}; no K-correction")
    size = "r50" if "r50" in columns else "radius"
    if lacks("surface_brightness", "magnitude", size):
        radius, magnitude = columns[size].source, columns["magnitude"].source
        percent = 50.0 if size == "r50" else float(percent_of_light(radius) or 100)
        brightness = physical.surface_brightness(numbers("magnitude"), numbers(size), percent / 100)
        add("surface_brightness", brightness, f"{magnitude}, mean within {radius} ({percent:g} % of the light)")
    if lacks("rest_surface_brightness", "redshift", "surface_brightness"):
        observed, dimmed = columns["surface_brightness"], f"minus 10 log10(1 + {columns['redshift'].source})"
        # (1 + z)^4 of Tolman 1930, PNAS 16, 511.
        undimmed = np.asarray(observed.values, float) - dust - 10 * np.log10(1 + redshift)
        add("rest_surface_brightness", undimmed, f"{observed.source}, {dusty}, {dimmed}; no K-correction")
    return columns


def _alpha(mapped: Mapped, psf: physical.PsfUnit) -> np.ndarray:
    """Compute α of every row, if the table does not have it; NaN if the radius or PSF width is not positive."""
    if "alpha" in mapped.columns:
        return mapped.numbers("alpha")
    radius, fwhm = mapped.numbers("radius"), mapped.numbers("psf_fwhm")
    usable = (radius > 0) & (fwhm > 0)
    alpha = np.full(radius.size, np.nan)
    alpha[usable] = physical.resolution(radius[usable], fwhm[usable], psf)
    return alpha


def _images(
    joined: Joined, mapped: Mapped, ids: pl.Series, kept: np.ndarray, images: PathLike | None
) -> tuple[Path, list[str | None], list[Finding]]:
    """Find the images of the kept rows; return their folder, relative paths and findings."""
    column = mapped.columns.get("image")
    names = None if column is None or not column.values.filter(kept).count() else column.values
    # Names are relative to the table that has them.
    path = next(
        (joined.added[name] for name in (column.columns if column else ()) if name in joined.added), joined.table.path
    )
    beside = Path.cwd() if path is None else path.resolve().parent
    total = len(ids)
    if images is None and names is None:
        return beside, [None] * total, []
    root = (beside if images is None else Path(images)).resolve()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of images")
    paths = find_images(ids, names, root)
    if names is not None:  # of all rows, because those that were dropped have images too
        paths = list(compress(paths, kept))
    absent = paths.count(None)
    if absent == total:
        first = f"{ids[0]}.jpg" if names is None else names.filter(kept).drop_nulls()[0]
        raise InputError(f"{root}: none of {total:,d} images was found (first: {first}); give their folder (`images`)")
    lacking = f"{absent:,d} of {total:,d} galaxies have no image in {root.name}, so no network can use them."
    action = "Add their images, or name another folder (`images`)."
    return root, paths, [Finding("images-missing", "caution", lacking, action)] if absent else []


def _draw(
    labels: np.ndarray, ids: list[Any], frame: pl.DataFrame, kind: Mapping, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Draw the mapping's sample among complete galaxies; return split ("unused" if not drawn), weights, findings."""
    complete, lacking = sampling.candidates(frame, kind.drawn_with)
    chosen, weights, drawing = complete, np.ones(labels.size), None
    if kind.sample is not None and kind.sample != "all":
        chosen, drawing = sampling.draw_sample(np.where(complete, labels, -1), ids, kind.sample, seed)
        weights[complete] = sampling.sampling_weights(labels[complete], chosen[complete])
    split = np.full(labels.size, sampling.UNUSED, dtype="<U10")
    drawn = list(compress(ids, chosen))
    split[chosen], splitting = sampling.split_galaxies(drawn, kind.split or sampling.FRACTIONS_OF_SPLIT, seed)
    findings = [finding for finding in (drawing, splitting) if finding is not None]
    if not complete.all():
        lacked = ", ".join(f"{n:,d} lack {column}" for column, n in lacking)
        drawn_from = f"The sample is drawn among {complete.sum():,d} of {complete.size:,d} galaxies: {lacked}."
        findings.append(Finding("sample-of-complete", "note", drawn_from))
    return split, weights, findings


def _definition_of_alpha(columns: dict[str, MappedColumn], psf: physical.PsfUnit) -> str:
    if "alpha" in columns:
        return f"column {columns['alpha'].source} of the table, said to be in units of the PSF's {psf}"
    radius, fwhm = _source(columns["radius"]), _source(columns["psf_fwhm"])
    if psf == "sigma":
        return f"{radius} / sigma_PSF, sigma_PSF = {fwhm} / 2.3548"
    return f"{radius} / FWHM_PSF, FWHM_PSF = {fwhm}"


def _source(column: MappedColumn) -> str:
    """Return the column, expression (in brackets) or number from which a column was made."""
    return f"({column.source})" if column.columns and column.columns != (column.source,) else column.source


def _catalogue(mapped: Mapped, kept: np.ndarray, made: dict[str, Any], metadata: dict[str, Any]) -> CatalogTable:
    """Assemble the computed columns, the mapped columns, and the table's other columns."""
    absent = pl.Series([None] * kept.sum(), dtype=pl.Float64)
    first = _FIRST if len(metadata["classes"]) == 2 else [name for name in _FIRST if name not in FRACTIONS]
    own = {name: made.get(name, absent) for name in (*first, *made)}
    same = {
        column.source
        for name, column in mapped.columns.items()
        if column.columns == (column.source,) and name in {*_STAND_FOR_SOURCE, column.source}
    }
    carried = mapped.table.frame.filter(kept).drop(same)
    reserved = {*own, *ADDED, *NAMED, *RESERVED}
    renamed = {name: free_name(f"{name}_input", carried.columns) for name in carried.columns if name in reserved}
    units, descriptions = (
        {renamed.get(name, name): text for name, text in texts.items() if name in carried.columns}
        for texts in (mapped.table.units, mapped.table.descriptions)
    )
    described = {name: column.description for name, column in NAMED.items()} | ADDED
    descriptions |= {name: described.get(name) or described_path(name) for name in own}
    descriptions |= {name: column.description for name, column in mapped.columns.items()}
    units |= {name: NAMED[name].unit for name in mapped.columns if NAMED[name].unit}
    frame = pl.concat([pl.DataFrame(own), carried.rename(renamed)], how="horizontal")
    return CatalogTable(frame, units, metadata, descriptions=descriptions)
