"""Apply a mapping: convert a survey's columns to truemorph's names and units."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from truemorph.catalogs.catalogue import is_numeric
from truemorph.catalogs.columns import FRACTIONS, NAMED, VOTES, conversion, lenticulars, percent_of_light, which_rows
from truemorph.catalogs.expressions import Expression, column_expression, compute, read_expression
from truemorph.catalogs.mapping import PRESETS, Column, Mapping, resolve
from truemorph.errors import InputError, nearest
from truemorph.findings import Finding
from truemorph.tables import SENTINELS, CatalogTable, cleaned, without

# Needed for label and α, so that problems are errors. Other optional columns are left out, with a finding.
_REQUIRED = ("object_id", "smooth_fraction", "radius", "psf_fwhm")
_VITAL = {*_REQUIRED, "label", "alpha", *FRACTIONS, *VOTES, "vote_count"}
# Names of columns that are something else: the name of truemorph's column, a pattern, and what it seems to be.
_NAMES = {
    "psf_fwhm": (re.compile(r"sigma|(?:^|_)sig_?psf|psf_?sig(?:$|_)", re.IGNORECASE), "a sigma (FWHM = 2.3548 sigma)"),
    "radius": (re.compile(r"psf|seeing|fwhm", re.IGNORECASE), "a PSF width"),
}


@dataclass(frozen=True)
class MappedColumn:
    """One of truemorph's columns, in the catalogue's unit; what it was made of, and the table's columns in it."""

    values: pl.Series
    source: str
    description: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mapped:
    """A survey's table and its mapping, with the columns that have truemorph's names; missing numbers are null.

    `cleaned` is the table with the mapping's codes for missing values replaced by null.
    """

    table: CatalogTable
    table_name: str  # in messages
    mapping: Mapping
    columns: dict[str, MappedColumn]
    cleaned: pl.DataFrame
    findings: list[Finding]

    @property
    def frame(self) -> pl.DataFrame:
        """Values of all columns."""
        return pl.DataFrame([column.values.alias(name) for name, column in self.columns.items()])

    @property
    def sources(self) -> dict[str, str]:
        """The source of each column."""
        return {name: column.source for name, column in self.columns.items()}

    def numbers(self, name: str) -> np.ndarray:
        """Return the values of a column, shape (N,); NaN if missing or not found."""
        if name not in self.columns:
            return np.full(self.frame.height, np.nan)
        return np.asarray(self.columns[name].values, float)


def apply_mapping(table: CatalogTable, mapping: Mapping, table_name: str, own: Sequence[str]) -> Mapped:
    """Find, convert and check the columns that a mapping names; those in `own`, not joined, are preferred.

    A column that can't be used is a finding if it is optional and neither labels nor α need it, else an InputError.
    """
    resolved = resolve(mapping, table.frame.columns, own)
    if "label" in resolved and {"smooth_fraction", "smooth_votes"} & set(resolved):
        if not mapping.columns["label"].optional:
            both = f"labels ({resolved['label'].text}) and votes are both named"
            raise InputError(f"{table_name}: {both}; leave out one of them (`label`, or `smooth` and `disk`)")
        del resolved["label"]  # labels are made from votes if there are any
    if {"alpha", "radius", "psf_fwhm"} <= set(resolved) and mapping.columns["alpha"].optional:
        del resolved["alpha"]  # computed again, unless it was named
    columns: dict[str, MappedColumn] = {}
    clean = table.frame
    findings: list[Finding] = []
    for name, what in resolved.items():
        rule = mapping.columns[name]
        if what.lone and rule.missing:
            clean = clean.with_columns(without(clean[what.text], rule.missing))
        try:
            values, more = column_values(table, name, what, rule, table_name)
        except InputError as problem:
            if name in _VITAL or not rule.optional:
                raise
            unused = f"{problem}. The column was not used as {name}."
            more = [Finding("column-not-used", "caution", unused, "Correct it, or name another (`columns`).")]
        else:
            columns[name] = MappedColumn(values, what.text, _description(table, name, what, rule), what.columns)
        findings += more
    if "psf_fwhm" not in columns and mapping.psf_fwhm is not None:
        constant = pl.repeat(mapping.psf_fwhm, table.frame.height, eager=True)
        about = f"{NAMED['psf_fwhm'].description}, the same for all galaxies"
        columns["psf_fwhm"] = MappedColumn(constant, f"{mapping.psf_fwhm} arcsec", about)
    columns = count_votes(columns)
    columns = {name: columns[name] for name in NAMED if name in columns}
    return Mapped(table, table_name, mapping, columns, clean, findings)


def check_required(mapped: Mapped, has_labels: bool) -> None:
    """Check that a table has all columns that a catalogue needs or its mapping requires, unless it has labels."""
    mapping, table_name, existing = mapped.mapping, mapped.table_name, mapped.table.frame.columns
    names, have = list(NAMED), set(mapped.columns)
    if has_labels or "label" in have:
        have |= {"smooth_fraction"}
    if "alpha" in have:
        have |= {"radius", "psf_fwhm"}
    promised = {name for name, column in mapping.columns.items() if not column.optional}
    # Columns that the mapping requires come first: a misspelt one explains the others.
    for name in sorted({*promised, *_REQUIRED} - have, key=lambda name: (name not in promised, names.index(name))):
        argument = NAMED[name].argument
        sought = list(mapping.columns[name].candidates()) if name in mapping.columns else []
        what, near = f"no {name} ({NAMED[name].description})", name
        if sought:
            what = f"no column {' or '.join(expression.text for expression in sought[:3])} ({name})"
            near = next((column for column in sought[0].columns if column not in existing), name)
        kind = f"{'preset' if mapping.name in PRESETS else 'mapping'} {mapping.name}"
        advice = f"{mapping.lacking[name]}; " if name in mapping.lacking else ""
        how = f"with `{argument}`" if argument else "in a mapping"
        how += ", or give α itself (`alpha`)" if name in ("radius", "psf_fwhm") else ""
        raise InputError(f"{table_name}: {what} for {kind}; {advice}name yours {how} ({nearest(near, existing)})")


def _description(table: CatalogTable, name: str, what: Expression, rule: Column) -> str:
    stated = rule.description or (table.descriptions.get(what.text) if what.lone else None)
    percent = percent_of_light(what.text)
    if stated is None and name == "radius" and percent:
        return f"radius of {percent} % of the Petrosian light ({what.text})"
    return stated or NAMED[name].description


def column_values(
    table: CatalogTable, name: str, what: Expression, rule: Column, table_name: str
) -> tuple[pl.Series, list[Finding]]:
    """Compute one of truemorph's columns in the catalogue's unit by the mapping's `rule`; return findings too."""
    kind = NAMED[name].kind
    where = f"{table_name}: column {what.text}"
    sentinels = () if kind in ("id", "file") else SENTINELS  # not measurements
    frame, findings = cleaned(table.frame, what.columns, table_name, rule.missing, sentinels)
    series = frame[what.text] if what.lone else compute(what, frame, f"{table_name}: {name}")
    if kind == "id":
        return series, findings
    if kind == "file":
        if series.dtype.is_nested() or series.dtype == pl.Binary:
            raise InputError(f"{where} ({series.dtype}) holds no file names")
        return series.cast(pl.String), findings
    if kind == "label":
        return _labels(series, where), findings
    pattern, seems = _NAMES.get(name, (None, ""))
    if pattern is not None and what.lone and pattern.search(what.text):
        raise InputError(
            f"{where} seems to be {seems}, but was given as {name} (`{name}`); name another column or an "
            f'expression, or confirm it as "1 * {what.text}"'
        )
    factor, more = _factor(table, name, what, rule, where)
    numbers, impossible = _without_impossible(_numbers(series, where) * factor, name, where)
    if kind == "count" and (numbers == numbers.round()).all():
        numbers = numbers.cast(pl.Int64)  # weighted votes are not whole numbers
    return numbers, findings + more + impossible


def _numbers(series: pl.Series, where: str) -> pl.Series:
    if series.dtype.is_nested() or series.dtype.is_temporal() or series.dtype == pl.Binary:
        raise InputError(f"{where} should hold numbers, not {series.dtype}")
    numbers = series.cast(pl.Float64, strict=False)
    bad = numbers.is_null() & series.is_not_null()
    if bad.any():
        raise InputError(f"{where} should hold numbers; correct or empty those in {which_rows(bad, series)}")
    return numbers.set(~numbers.is_finite(), None)


def _without_impossible(numbers: pl.Series, name: str, where: str) -> tuple[pl.Series, list[Finding]]:
    """Replace impossible values by null, with a finding; raise an error if most values are impossible."""
    low, high = NAMED[name].limits
    bad = ((numbers < low) | (numbers > high)).fill_null(False)
    if not bad.any():
        return numbers, []
    if bad.sum() > numbers.count() / 2:
        raise InputError(
            f"{where} can't be {name} ({NAMED[name].description}): outside {low:g} to {high:g} in "
            f"{which_rows(bad, numbers)}; name another column"
        )
    outside = f"{where}: values outside {low:g} to {high:g} were treated as missing in {which_rows(bad, numbers)}."
    finding = Finding("values-impossible", "caution", outside, "Check the column and its unit.")
    return numbers.set(bad, None), [finding]


def _labels(series: pl.Series, where: str) -> pl.Series:
    """Return labels 0 and 1; null for -1."""
    labels = series.cast(pl.Float64) if is_numeric(series) else series.is_not_null().cast(pl.Float64) * 2
    bad = ~(labels.is_in([-1.0, 0.0, 1.0]) | labels.is_nan()).fill_null(True)
    if bad.any():
        raise InputError(
            f"{where} should hold labels 0 and 1; wrong in {which_rows(bad, series)}; give an "
            "expression (`label`), such as \"CASE WHEN class = 'spiral' THEN 1 WHEN class = 'elliptical' THEN 0 END\""
            f"{lenticulars(series.unique())}"
        )
    return labels.cast(pl.Int64, strict=False).replace(-1, None)


def _factor(table: CatalogTable, name: str, what: Expression, rule: Column, where: str) -> tuple[float, list[Finding]]:
    """Return the conversion factor to the catalogue's unit, and findings."""
    unit = NAMED[name].unit
    stated = table.units.get(what.text) if what.lone else None
    column_unit = stated or rule.unit
    if column_unit:
        factor = conversion(column_unit, unit)
        if factor is None:
            raise InputError(
                f"{where} is in {column_unit!r}, which astropy can't convert to {unit or 'a number'}; name another, or "
                f'convert it with an expression: "0.4 * {what.text}"'
            )
        if stated and rule.unit and conversion(rule.unit, unit) != factor:
            used = f"{where} has the unit {stated}, not the mapping's {rule.unit}."
            return factor, [Finding("unit-conflict", "caution", used, "Check which of them is correct.")]
        return factor, []
    # Pixels are multiplied by their scale, and a ratio of two lengths is dimensionless.
    for column in () if what.lone or not unit else what.columns:
        if conversion(table.units.get(column, ""), unit) not in (None, 1):
            raise InputError(
                f"{where} uses {column}, which is in {table.units[column]}; give the unit of the result in a mapping, "
                f'such as unit = "{unit}"'
            )
    return 1.0, []


def vote_columns(chosen: dict[str, str], frame: pl.DataFrame, table_name: str) -> tuple[dict[str, str], list[Finding]]:
    """Replace "smooth", "disk" and "artefact" by fractions or numbers of votes; mixtures of both are an InputError."""
    texts = {name: chosen[name] for name in ("smooth", "disk", "artefact") if name in chosen}
    if not texts:
        return chosen, []
    columns = []
    for name, text in texts.items():
        what = column_expression(text) if text in frame.columns else read_expression(text, name)
        columns.append(compute(what, frame, table_name).cast(pl.Float64, strict=False).to_numpy())
    votes = np.stack(columns)[:, sum(columns) > 0]
    sums = votes.sum(axis=0)
    kind, counted = "fraction", "fractions"
    if sums.size and np.mean(sums <= 1.01) < 0.9:  # a few bad fractions are reported elsewhere
        kind, counted = "votes", "numbers"
        if (votes % 1).any():  # percentages, or fractions and numbers together
            first, text = next(iter(texts.items()))
            text = text if text in frame.columns else f"({text})"
            raise InputError(
                f"{table_name}: {', '.join(texts.values())} are neither fractions nor whole numbers of votes; if "
                f'they are percentages, set `{first}` to "{text} / 100", and the others likewise'
            )
    named = {f"{name}_{kind}" if name in texts else name: text for name, text in chosen.items()}
    return named, [Finding("votes-read-as", "note", f"Votes were read as {counted} from {', '.join(texts.values())}.")]


def count_votes(columns: dict[str, MappedColumn]) -> dict[str, MappedColumn]:
    """Add the number of votes and, if the table has no smooth fraction, vote fractions from counts."""
    columns = dict(columns)
    answers = [name for name in VOTES if name in columns]
    if "vote_count" not in columns and {"smooth_votes", "disk_votes"} <= set(answers):
        # A missing count of artefacts means no votes.
        total = columns["smooth_votes"].values + columns["disk_votes"].values
        if "artefact_votes" in answers:
            total += columns["artefact_votes"].values.fill_null(0)
        source = " + ".join(columns[name].source for name in answers)
        columns["vote_count"] = MappedColumn(total, source, NAMED["vote_count"].description)
    if "vote_count" not in columns or "smooth_votes" not in answers:
        return columns
    if "smooth_fraction" in columns and columns["smooth_fraction"].values.count():
        return columns
    # The two kinds of fractions must not be mixed.
    columns = {name: column for name, column in columns.items() if name not in FRACTIONS}
    total = columns["vote_count"].values.replace(0, None)
    for votes in answers:
        part = columns[votes].values / total
        name = votes.replace("votes", "fraction")
        columns[name] = MappedColumn(part, f"{votes} / vote_count", NAMED[name].description)
    return columns
