"""Select rows and columns of a prepared catalogue for an estimate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.bias.binning import Groups
from truemorph.bias.estimate import Context, Estimate, make_estimate
from truemorph.bias.fields import fields_on_sky
from truemorph.bias.sample import Sample, numbered_fields
from truemorph.catalogs.catalogue import checksum, classes_of, columns_of_rule, gold_classes, is_simulated, rows_where
from truemorph.catalogs.columns import ADDED, FRACTIONS, OBSERVABLES, RESERVED, VOTES, names_position, names_votes
from truemorph.catalogs.physical import ALPHA_IS_SIZE, partial_radius
from truemorph.catalogs.positions import positions_of, repeated_positions, unit_vectors
from truemorph.catalogs.sampling import UNUSED
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.tables import SENTINELS, CatalogTable, missing_in, numeric_columns, without

_ERRORS = ("alpha_error", "radius_error", "psf_error")
_WORD = re.compile(r"\w+")
# Rank correlation above which columns are the same quantity; number of galaxies to tell.
_SAME_ORDER, _FEWEST_RANKED = 0.99, 10
_SURVEY_COLUMNS, _MOST_GROUPS, _FEWEST_IN_GROUP = ("survey", "source"), 12, 50


@dataclass(frozen=True)
class SelectedRows:
    """The selected galaxies of a catalogue: what an estimate uses, what else is known, and a column to bin by."""

    sample: Sample
    context: Context
    by: np.ndarray | None  # (N,); `Groups` of a column of text
    alpha_error: float  # relative error of α, 0 if unknown


def select_rows(
    catalogue: CatalogTable,
    where: Iterable[str] = (),
    intrinsic: Sequence[str] = (),
    gold: str | None = None,
    by: str | None = None,
    observables: Sequence[str] = (),
    weights: str = "balance",
    alpha_error: float | str | None = None,
) -> SelectedRows:
    """Select the galaxies of the sample that meet all conditions and have values in all named columns.

    Galaxies with split "unused" are not in the sample; they are selected only by a condition on `split`. `gold` is a
    column or a rule (see `gold_classes`), `observables` are columns on which the flip probability depends in addition
    to α, and `weights` says which weights to use (see `sample_weights`). The relative error of α is a number or a
    column, by default the catalogue's `alpha_error`.
    """
    source, conditions = str(catalogue.path or "catalogue"), list(where)
    named = [*intrinsic, *([by] if by else []), *observables]
    names = classes_of(catalogue)
    about = {
        "classes": names,
        "definition": f"{names[1]}: {catalogue.metadata.get('definition') or 'as in the labels'}",
        "alpha": catalogue.metadata.get("alpha"),
        "alpha_psf": catalogue.metadata.get("alpha_psf"),
        "where": conditions,
    }
    about |= {name: list(some) for name, some in (("observables", observables), ("intrinsic", intrinsic)) if some}
    about["rows_sha256"] = rows_hash(catalogue, conditions)
    classes, known = None, None
    frame, findings = filtered(catalogue.frame, conditions, named, source)
    findings = [*catalogue.findings, *findings]
    groups = groups_of(frame, by, source)
    numbers = named if groups is None else [*intrinsic, *observables]
    values = {name: numeric_columns(frame, [name], source)[:, 0] for name in numbers}
    if gold is not None:
        classes, definition, more = gold_classes(frame, gold, source)
        about["definition"] = f"{names[1]}: {definition}"
        findings += more
    if gold == "gold":
        about["definition"] = str(catalogue.metadata.get("gold_definition") or about["definition"])
        if catalogue.metadata.get("gold_experts"):
            about["gold_experts"] = catalogue.metadata["gold_experts"]
    if gold is not None:
        findings += images_of_gold(catalogue.metadata, gold)
    if gold is None:
        findings += partial_radius(str(about["alpha"] or "").split("/")[0].strip())
    else:
        findings += from_votes(str(about["definition"]))
    if "gold" in frame.columns:
        known = frame["gold"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        about["gold_definition"] = str(catalogue.metadata.get("gold_definition", "not stated"))
        if gold is None and not is_simulated(catalogue.metadata) and (count := np.isfinite(known).sum()):
            unused = f"T(α) was estimated without the {count:,} gold labels of its catalogue."
            findings.append(Finding("gold-unused", "caution", unused, 'Estimate it with them (`gold`="gold").'))
    if (
        gold is None
        and "psf_fwhm" in frame.columns
        and frame["psf_fwhm"].n_unique() == 1
        and frame["psf_fwhm"].null_count() == 0
    ):
        findings.append(ALPHA_IS_SIZE)
    sample = Sample.of(
        frame["label"].to_numpy(),
        frame["alpha"].to_numpy(),
        classes=names,
        weights=sample_weights(frame, weights, source),
        intrinsic=np.stack([values[name] for name in intrinsic], axis=1) if intrinsic else None,
        observables={name: values[name] for name in observables} or None,
        gold=classes,
        gold_probability=planned(frame, gold, "gold_probability"),
        gold_uncertain=planned(frame, gold, "gold_uncertain"),
    )
    sample = with_fields(sample, frame, source)
    context = Context(
        shown=known,
        columns={} if classes is None else properties(catalogue, frame, [*named, *columns_of_rule(frame, gold)]),
        votes=_votes(frame),
        seen=seen_in_images(frame, observables, source),
        groups=_surveys(frame) | ({} if groups is None else {str(by): frame[str(by)].to_numpy()}),
        about=about,
        findings=unique(findings),
    )
    error = mean_alpha_error(frame, alpha_error, gold is not None, source)
    return SelectedRows(sample, context, values[by] if by and groups is None else groups, error)


def mean_alpha_error(frame: pl.DataFrame, error: float | str | None, has_gold: bool, source: str) -> float:
    """Return the root mean square relative error of α; 0 if it is unknown, or not needed (with gold labels)."""
    if has_gold:
        if error is not None:
            raise InputError(
                f"{source}: fractions from gold labels do not need errors of α (`alpha_error`); leave it out"
            )
        return 0.0
    if error is None:
        error = "alpha_error" if "alpha_error" in frame.columns else 0.0
    if isinstance(error, str):
        values = numeric_columns(frame, [error], source)[:, 0]
        error = float(np.sqrt(np.nanmean(values**2))) if np.isfinite(values).any() else 0.0
    if not 0 <= error < 1:
        raise InputError(f"{source}: the relative error of α must be from 0 to 1; got {error:g} (`alpha_error`)")
    return error


def with_fields(sample: Sample, frame: pl.DataFrame, source: str) -> Sample:
    """Return a sample with the field of each gold label: of a column gold_field, or by positions, if there are any."""
    if sample.gold is None:
        return sample
    if "gold_field" in frame.columns:
        names = frame["gold_field"].cast(pl.String).fill_null("").to_numpy()
        return replace(sample, fields=numbered_fields(names, sample.known & (names != "")))
    with suppress(InputError):  # no positions
        return replace(sample, fields=fields_on_sky(unit_vectors(*positions_of(frame, source)), sample.known))
    return sample


def gold_sources(catalogue: CatalogTable) -> set[str]:
    """Return the columns of a catalogue that its stored gold labels came from, by the stored definitions."""
    metadata = catalogue.metadata
    texts = [metadata.get("gold_definition"), *metadata.get("gold_definitions", {}).values()]
    words = {word for text in texts for word in _WORD.findall(str(text or "").partition(": ")[2])}
    mapped = metadata.get("columns", {})
    words |= {word for name in words for word in _WORD.findall(str(mapped.get(name, "")))}
    return words | {f"{word}_input" for word in words}


def seen_in_images(frame: pl.DataFrame, without: Sequence[str], source: str) -> dict[str, np.ndarray]:
    """Return the properties of images that a catalogue has beside resolution, shape (N,), without those named."""
    names = [one for one in OBSERVABLES if one in frame.columns and one not in without]
    return {name: numeric_columns(frame, [name], source)[:, 0] for name in names}


def filtered(
    frame: pl.DataFrame, conditions: list[str], named: list[str], source: str
) -> tuple[pl.DataFrame, list[Finding]]:
    """Keep the rows of the sample that meet all conditions and have values in all named columns."""
    chosen, findings = rows_where(frame, conditions, source)
    frame = frame.filter(pl.Series(chosen))
    findings += repeated_positions(frame, source)
    unused = frame["split"] == UNUSED
    if unused.any() and not any("split" in one for one in conditions):
        left = f"{unused.sum():,} of {frame.height:,} galaxies are not in the sample (split {UNUSED}); not used here."
        findings.append(Finding("galaxies-not-in-sample", "note", left))
        frame = frame.filter(~unused)
    texts = [one for one in named if frame.schema.get(one) == pl.String]
    numbers = [one for one in named if one not in texts]
    findings += missing_in(frame, numbers, source)
    known = np.isfinite(numeric_columns(frame, numbers, source))
    known = np.column_stack([known, *(frame[one].is_not_null() for one in texts)])
    complete = known.all(axis=1)
    if not complete.any():
        raise InputError(f"{source}: no galaxy has a value in all of {', '.join(named)}")
    lacking = lacking_values(known, [*numbers, *texts])
    return frame.filter(pl.Series(complete)) if lacking else frame, [*findings, *lacking]


def lacking_values(known: np.ndarray, names: Sequence[str]) -> list[Finding]:
    """Say how many galaxies lack a value, and of which columns; `known`, shape (N, P), is true where there is one."""
    if known.all():
        return []
    missing = zip(names, (~known).sum(axis=0), strict=True)
    counted = ", ".join(f"{name} in {count:,}" for name, count in missing if count)
    left = f"{(~known.all(axis=1)).sum():,} of {len(known):,} galaxies lack a value and were left out ({counted})."
    return [Finding("rows-left-out", "note", left)]


def images_of_gold(metadata: Mapping[str, Any], gold: str, question: str | None = None) -> list[Finding]:
    """Warn of gold labels from the images of the observed labels, or say that their images are not recorded.

    `gold` is a rule, or "gold" for the catalogue's own, which `truemorph gold import` records.
    """
    stored = "gold_definition" in metadata if question is None else question in metadata.get("gold_definitions", {})
    if is_simulated(metadata) or (gold == "gold" and not stored):
        return []
    recorded = (
        "gold_from_same_images" in metadata if question is None else question in metadata.get("gold_same_images", {})
    )
    if gold == "gold" and recorded:
        return from_same_images(metadata, question)
    message = (
        "It is not recorded whether the experts saw better images than those of the observed labels. If they did not, "
        "they miss some of the same features, and the range is too narrow (20 or 40 % of the flips shared: it held the "
        "truth in 83 or 48 % of trials)."
    )
    action = "Import them with their source (`truemorph gold import`, `gold_source`)."
    return [Finding("gold-images-unknown", "note", message, action)]


def from_same_images(metadata: Mapping[str, Any], question: str | None = None) -> list[Finding]:
    """Warn of gold labels that people made from the images of the observed labels, if the catalogue's are such."""
    of_question = metadata.get("gold_same_images", {}).get(question)
    if not (count := metadata.get("gold_from_same_images") if question is None else of_question):
        return []
    if question is None and metadata.get("gold_experts"):  # the range includes their own bias
        return []
    message = (
        f"{count:,} gold labels come from the images that were labelled before, so experts miss some of the same "
        "features. In trials with 20 or 40 % of the flips shared, the range held "
        "the truth in 83 or 48 % of cases."
    )
    action = "Label better images, or measure the experts' own bias with degraded copies (docs/gold.md)."
    return [Finding("gold-from-same-images", "caution", message, action)]


def from_votes(definition: str) -> list[Finding]:
    """Return a problem if gold labels are made of columns of votes, whose names are in their definition."""
    if not names_votes(definition):
        return []
    message = (
        f"The gold labels are made of volunteers' votes ({definition}), and have the bias that they are to measure."
    )
    return [Finding("gold-from-votes", "problem", message, "Give classes from experts or better images (`gold`).")]


def planned(frame: pl.DataFrame, gold: str | None, name: str) -> np.ndarray | None:
    """Return a column that `truemorph gold import` wrote beside `gold`, if these gold labels are used."""
    if gold != "gold" or name not in frame.columns:
        return None
    return np.nan_to_num(numeric_columns(frame, [name], "the catalogue")[:, 0], nan=0.0)


def sample_weights(frame: pl.DataFrame, weights: str, source: str) -> np.ndarray | None:
    """Return weights: of a sample balanced by label ("balance"), "none", or those of a column, such as 1 / Vmax."""
    if weights not in ("balance", "none"):
        return numeric_columns(frame, [weights], source)[:, 0]
    if weights == "none" or "sampling_weight" not in frame.columns or (frame["split"] == UNUSED).any():
        return None
    values = frame["sampling_weight"].cast(pl.Float64).to_numpy()
    return None if np.ptp(values) == 0 else values


def properties(catalogue: CatalogTable, frame: pl.DataFrame, named: list[str]) -> dict[str, np.ndarray]:
    """Return numeric columns that may be properties of the galaxies, except those that are named.

    These are not: ids, positions, votes, labels, gold labels and what they are made of, and what α is made of.
    """
    made = {*FRACTIONS, *VOTES, *ADDED, *RESERVED, "vote_count", "radius", "psf_fwhm", *_ERRORS, *named}
    made |= gold_sources(catalogue)
    found = {}
    for name, kind in frame.schema.items():
        of_votes, in_degrees = names_votes(name), catalogue.units.get(name) == "deg"
        if not kind.is_numeric() or name in made or of_votes or in_degrees or names_position(name):
            continue
        series = without(frame[name], SENTINELS)
        if name.startswith("gold") or (kind.is_integer() and series.drop_nulls().is_unique().all()):  # an id
            continue
        values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        if not any(_same_order(values, frame[one]) for one in ("alpha", "radius", "psf_fwhm") if one in frame.columns):
            found[name] = values
    return found


def _same_order(values: np.ndarray, other: pl.Series) -> bool:
    """Whether two columns rank the galaxies alike, as a radius in other units or in another band does."""
    from scipy.stats import rankdata  # takes a second

    both = np.column_stack([values, other.cast(pl.Float64).fill_null(np.nan).to_numpy()])
    both = both[np.isfinite(both).all(axis=1)]
    if len(both) < _FEWEST_RANKED or not np.ptp(both, axis=0).all():
        return False
    ranks = np.apply_along_axis(rankdata, 0, both)
    return bool(abs(np.corrcoef(ranks, rowvar=False)[0, 1]) > _SAME_ORDER)


def _votes(frame: pl.DataFrame) -> np.ndarray | None:
    """Return the fraction of votes for the second class among those for both, NaN if unknown."""
    if not {"smooth_fraction", "disk_fraction"} <= set(frame.columns):
        return None
    votes = frame.select(pl.col("smooth_fraction", "disk_fraction").cast(pl.Float64).fill_null(np.nan)).to_numpy()
    total = votes.sum(axis=1)
    return np.divide(votes[:, 1], total, out=np.full(total.size, np.nan), where=total > 0)


def _surveys(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return the survey of each galaxy by the name of the column that has it, if there are only a few."""
    for name in _SURVEY_COLUMNS:
        if name in frame.columns and 2 <= frame[name].n_unique() <= _MOST_GROUPS:
            return {name: frame[name].cast(pl.String).fill_null("").to_numpy()}
    return {}


def groups_of(frame: pl.DataFrame, by: str | None, source: str) -> Groups | None:
    """Return the groups that a column of text names: at most 12, of 50 galaxies or more; None of other columns."""
    if by is None or frame.schema.get(by) != pl.String:
        return None
    groups = Groups.of(frame[by].to_numpy())
    counts = np.bincount(np.asarray(groups, dtype=np.int64))
    if counts.size > _MOST_GROUPS:
        raise InputError(
            f"{source}: column {by!r} names {counts.size:,} groups; at most {_MOST_GROUPS} are possible, so merge some "
            "of them, or select some (`where`)"
        )
    if counts.min() < _FEWEST_IN_GROUP:
        raise InputError(
            f"{source}: group {groups.names[counts.argmin()]!r} of {by!r} has {counts.min()} galaxies, fewer than "
            f"{_FEWEST_IN_GROUP}; merge it with another, or leave it out (`where`)"
        )
    return groups


def estimate_catalogue(
    catalogue: CatalogTable,
    family: Any = None,
    *,
    where: Iterable[str] = (),
    intrinsic: Sequence[str] = (),
    gold: str | None = None,
    by: str | None = None,
    observables: Sequence[str] = (),
    weights: str = "balance",
    alpha_error: float | str | None = None,
    **options: Any,
) -> Estimate:
    """Estimate T(α) and class fractions from the selected rows of a catalogue; `options` are those of `make_estimate`.

    The other arguments are those of `select_rows`.
    """
    rows = select_rows(catalogue, where, intrinsic, gold, by, observables, weights, alpha_error)
    options |= {"by": rows.by, "by_name": by or "alpha", "alpha_error": rows.alpha_error}
    return make_estimate(rows.sample, family, context=rows.context, **options)


def rows_hash(catalogue: CatalogTable, where: Iterable[str] = ()) -> str:
    """Return a checksum of ids, labels and α of the rows of a catalogue on which an estimate rests."""
    with suppress(InputError):
        frame, _ = filtered(catalogue.frame, list(where), [], "")
        return checksum(frame)
    return ""  # no such rows
