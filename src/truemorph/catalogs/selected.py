"""Select rows and columns of a prepared catalogue for an estimate."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from truemorph.arrays import ratio
from truemorph.bias.binning import Groups
from truemorph.bias.estimate import Context
from truemorph.bias.regression.fields import fields_on_sky
from truemorph.bias.sample import Sample, numbered_fields
from truemorph.catalogs.catalogue import checksum, classes_of, from_votes, label_classes, rows_where
from truemorph.catalogs.columns import ADDED, FRACTIONS, OBSERVABLES, RESERVED, VOTES, names_position, names_votes
from truemorph.catalogs.other_labels import USUAL_VOTES, OtherLabels, Predictions
from truemorph.catalogs.paths import asked_of, gold_column, label_column, majority_paths, root_of, votes_at_gates
from truemorph.catalogs.physical import ALPHA_IS_SIZE, partial_radius
from truemorph.catalogs.positions import positions_of, repeated_positions, unit_vectors
from truemorph.catalogs.question_gold import (
    GoldLabels,
    experts_of,
    gold_of_label,
    gold_of_question,
    sparse_answers,
    told_apart,
)
from truemorph.catalogs.sampling import UNUSED
from truemorph.config import by_commas
from truemorph.errors import InputError
from truemorph.findings import Finding, unique
from truemorph.questions import Asked, log_odds, possible_votes
from truemorph.tables import SENTINELS, CatalogTable, missing_in, numeric_columns, without

_ERRORS = ("alpha_error", "radius_error", "psf_error")
_WORD = re.compile(r"\w+")
# Rank correlation above which columns are the same quantity; number of galaxies to tell.
_SAME_ORDER, _FEWEST_RANKED = 0.99, 10
_SURVEY_COLUMNS, _MOST_GROUPS, _FEWEST_IN_GROUP = ("survey", "source"), 12, 50


@dataclass(frozen=True)
class SampleOptions:
    """Which galaxies of a catalogue are in a sample, and what is used of them."""

    question: str | None = None  # by default the first of the catalogue's tree
    gold: str | None = None  # column or rule of gold labels; see `gold_labels`
    where: Sequence[str] = ()  # conditions
    by: str = "alpha"  # one or two columns of bins, comma-separated
    intrinsic: Sequence[str] = ()
    observables: Sequence[str] = ()  # columns on which the flip probability depends in addition to α
    weights: str = "balance"  # see `sample_weights`
    alpha_error: float | str | None = None  # relative error of α or its column; by default the catalogue's
    others: Sequence[OtherLabels | Predictions] = ()  # answers of others
    whole: CatalogTable | None = None  # the catalogue with the galaxies of which others have no answers

    def binned(self, frame: pl.DataFrame) -> list[str]:
        """Return the columns to bin by; none for α."""
        columns = [self.by] if self.by in frame.columns else by_commas(self.by)
        return [] if columns == ["alpha"] else columns

    def check(self, catalogue: CatalogTable, asked: Asked | None) -> None:
        """Raise an InputError if labels without gold labels cannot give this estimate."""
        if self.gold is not None:
            return
        if asked is not None:
            raise InputError(_why_no_number(catalogue, asked))
        if votes := [name for name in self.intrinsic if name in {*FRACTIONS, *VOTES} or names_votes(name)]:
            raise InputError(
                f"{catalogue.source}: {votes[0]} has votes, and the labels follow from votes; without gold labels "
                "intrinsic columns must be properties of galaxies, so leave it out, or give gold labels (`gold`)"
            )


def rows_of(catalogue: CatalogTable, options: SampleOptions) -> tuple[Sample, Context]:
    """Select the galaxies of the sample that meet all conditions and have values in all named columns.

    Galaxies with split "unused" are not in the sample; they are selected only by a condition on `split`.
    """
    source = catalogue.source
    asked = asked_of(catalogue, options.question)
    of = None if asked is None else asked.question
    if options.gold == gold_column(of):  # the catalogue's own, by the name of their column
        options = replace(options, gold="gold")
    gold = options.gold
    options.check(catalogue, asked)
    binned = options.binned(catalogue.frame)
    named = [*options.intrinsic, *binned, *options.observables]
    frame, findings = filtered(catalogue.frame, options.where, named, source)
    groups = groups_of(frame, options.by, source)
    read = None if gold is None else gold_labels(catalogue, frame, asked, gold)
    arrays, others = _arrays(frame, options, of, source), [other.log_odds(frame) for other in options.others]
    if asked is None:
        sample, facts = _sample_of_labels(catalogue, frame, read, arrays, others)
    else:
        assert read is not None
        asked, merging = sparse_answers(asked, read.numbers)
        findings += merging
        read = gold_labels(catalogue, frame, asked, str(gold))
        sample, facts = _sample_of_answers(frame, asked, read, arrays, others, source)
    about = _about(catalogue, asked, read, options)
    if read is not None:
        findings += [*read.findings, *images_of_gold(catalogue, str(gold), of)]
    if asked is None:
        findings += _of_label(catalogue, frame, gold, str(about["definition"]))
    context = Context(
        columns={} if read is None else properties(catalogue, frame, [*named, *read.columns]),
        seen=seen_in_images(frame, options.observables, source),
        groups=_surveys(frame) | ({} if groups is None else {options.by: frame[options.by].to_numpy()}),
        about=about,
        findings=unique(catalogue.findings, findings),
        by=np.squeeze(numeric_columns(frame, binned, source)) if groups is None and binned else groups,
        by_name=options.by,
        alpha_error=mean_alpha_error(frame, options.alpha_error, gold is not None, source),
        ids=None if gold is None else _ids(frame),
        **facts,
    )
    return with_fields(sample, frame, source), context


def _ids(frame: pl.DataFrame) -> np.ndarray:
    """Return ids as an array that can be stored without pickling."""
    ids = frame["object_id"]
    return ids.to_numpy() if ids.dtype.is_integer() else ids.cast(pl.String).to_numpy().astype(np.str_)


def _arrays(frame: pl.DataFrame, options: SampleOptions, question: str | None, source: str) -> dict[str, Any]:
    """Return the arguments of `Sample.of` that are the same for labels and for answers."""
    observables = numeric_columns(frame, options.observables, source)
    plan = ("gold_probability", "gold_uncertain")
    return {
        "weights": sample_weights(frame, options.weights, source),
        "intrinsic": numeric_columns(frame, options.intrinsic, source) if options.intrinsic else None,
        "observables": dict(zip(options.observables, observables.T, strict=True)) or None,
        **{name: planned(frame, options.gold, gold_column(question, name)) for name in plan},
    }


def _sample_of_labels(
    catalogue: CatalogTable,
    frame: pl.DataFrame,
    gold: GoldLabels | None,
    arrays: Mapping[str, Any],
    others: Sequence[np.ndarray],
) -> tuple[Sample, dict[str, Any]]:
    """Return the sample of labels of two classes, and what `Context` says of them; `arrays` are for `Sample.of`."""
    shown = np.asarray(frame["gold"], float) if "gold" in frame.columns else None
    numbers = None if gold is None else gold.numbers
    labels, alpha = frame["label"].to_numpy(), frame["alpha"].to_numpy()
    sample = Sample.of(labels, alpha, classes=label_classes(catalogue), gold=numbers, **arrays)
    if gold is not None:  # votes help to predict the true class
        votes = [*_log_odds_of_label(frame), *others]
        sample = replace(sample, log_odds=np.column_stack(votes) if votes else None)
    return sample, {"votes": _votes(frame), "shown": shown}


def _sample_of_answers(
    frame: pl.DataFrame,
    asked: Asked,
    gold: GoldLabels,
    arrays: Mapping[str, Any],
    others: Sequence[np.ndarray],
    source: str,
) -> tuple[Sample, dict[str, Any]]:
    """Return the sample of answers to a question, and what `Context` says of them; `arrays` are for `Sample.of`."""
    paths, alpha, uncertain = majority_paths(frame, asked, source), frame["alpha"].to_numpy(), arrays["gold_uncertain"]
    labels = np.array(asked.answers_of_paths)[paths]
    _check_gold_of_question(asked, gold.numbers, labels, source)
    unsure = np.maximum(gold.unsure, 0 if uncertain is None else uncertain)
    of_answers = {**arrays, "gold_uncertain": unsure, "observables": None}
    sample = Sample.of(labels, alpha, classes=asked.answers, gold=gold.numbers, of_question=True, **of_answers)
    question, classes_of_gold = told_apart(asked, gold.numbers, gold.paths)
    votes = votes_at_gates(frame, question, source)
    log_odds = np.column_stack([votes.log_odds, *others])
    of_t = {name: arrays[name] for name in ("observables", "gold_probability", "weights")}
    of_paths = Sample.of(votes, alpha, gold=classes_of_gold, **of_t)
    return replace(sample, paths=paths, log_odds=log_odds), {"asked": question, "of_paths": of_paths}


def gold_labels(catalogue: CatalogTable, frame: pl.DataFrame, asked: Asked | None, gold: str) -> GoldLabels:
    """Read gold labels of a question: "gold" for the catalogue's own, a column, or a rule.

    Of labels 0 and 1 (`asked` is None) see `gold_of_label`, of answers, also those to the first question, see
    `gold_of_question`.
    """
    metadata, source = catalogue.metadata, catalogue.source
    rule = gold_column(None if asked is None else asked.question) if gold == "gold" else gold
    if gold == "gold" and rule not in frame.columns:
        raise InputError(f"{source}: no column {rule!r}; add it with truemorph gold import, or give a rule (`gold`)")
    if asked is None:
        read = gold_of_label(frame, root_of(catalogue), rule, classes_of(catalogue)[1], source)
        stored = metadata.get("gold_definition")
    else:
        read = gold_of_question(frame, asked, rule, source)
        stored = metadata.get("gold_definitions", {}).get(asked.question)
    return replace(read, definition=stored or read.definition) if gold == "gold" else read


def _check_gold_of_question(asked: Asked, gold: np.ndarray, labels: np.ndarray, source: str) -> None:
    """Raise an InputError unless gold labels are of two classes, and tell where the question does not apply."""
    question, counts = asked.question, np.bincount(gold[gold >= 0], minlength=len(asked.answers))
    if np.count_nonzero(counts) < 2 or not counts[1:].any():
        counted = zip(asked.answers, counts, strict=True)
        have = ", ".join(f"{count:,} {name}" for name, count in counted if count) or "none"
        raise InputError(f"{source}: gold labels of {question!r} are {have}; there must be some of two classes")
    if not counts[0] and (outside := np.count_nonzero(labels == 0)):
        inside = ", ".join(f"'{path.name}'" for path in asked.paths if path.answer is not None)
        raise InputError(
            f"{source}: no gold label says that {question!r} does not apply, but by the volunteers' answers it does "
            f"not for {outside:,} of {labels.size:,} galaxies; give gold labels of such galaxies, too, or "
            "select those to which it applies by the volunteers' answers (`where`, such as "
            f'"{label_column(question)} IN ({inside})")'
        )


def _about(
    catalogue: CatalogTable, asked: Asked | None, gold: GoldLabels | None, options: SampleOptions
) -> dict[str, Any]:
    """Return what an estimate of these rows rests on; see `ABOUT`."""
    metadata, classes = catalogue.metadata, label_classes(catalogue)
    about: dict[str, Any] = {name: metadata.get(name) for name in ("alpha", "alpha_psf")}
    about["where"] = list(options.where)
    about |= {name: list(getattr(options, name)) for name in ("observables", "intrinsic") if getattr(options, name)}
    if options.others:
        about["other_labels"] = [other.name for other in options.others]
    if options.weights != SampleOptions.weights:
        about["weights"] = options.weights
    about["rows_sha256"] = rows_hash(options.whole or catalogue, options.where)
    if gold is not None:
        about["gold_rule"] = gold.rule
        if experts := experts_of(metadata, classes).get(gold.rule):
            about["gold_experts"] = experts
    stated = f"{classes[1]}: {metadata.get('definition') or 'as in the labels'}"
    definition = stated if gold is None else gold.definition
    if asked is not None:
        return about | {"question": asked.question, "tree": asked.tree.name, "gold_definition": definition}
    about |= {"classes": classes, "definition": definition}
    if "gold" in catalogue.frame.columns:
        about["gold_definition"] = str(metadata.get("gold_definition", "not stated"))
    return about


def _of_label(catalogue: CatalogTable, frame: pl.DataFrame, gold: str | None, definition: str) -> list[Finding]:
    """Return findings about radii, and gold labels that are not used or are made of votes."""
    if gold is not None:
        return from_votes(definition)
    findings = partial_radius(str(catalogue.metadata.get("alpha") or "").split("/")[0].strip())
    count = frame["gold"].count() if "gold" in frame.columns else 0
    if count and not catalogue.metadata.get("simulated"):
        unused = f"T(α) was estimated without the {count:,} gold labels of its catalogue."
        findings.append(Finding("gold-unused", "caution", unused, 'Estimate it with them (`gold`="gold").'))
    widths = frame["psf_fwhm"] if "psf_fwhm" in frame.columns else pl.Series([1, 2])
    return findings + ([ALPHA_IS_SIZE] if widths.n_unique() == 1 and widths.null_count() == 0 else [])


def _why_no_number(catalogue: CatalogTable, asked: Asked) -> str:
    """Say why labels alone give no fraction of a question, and which errors how many gold labels give."""
    if len(asked.questions) == 1:
        return (
            f"labels alone cannot tell fractions of the {len(asked.answers) - 1} answers to {asked.question!r} from "
            "their bias; give gold labels (`gold`). truemorph bias measures how answers drift with α"
        )
    paths = majority_paths(catalogue.frame, asked, catalogue.source)
    applies = float(np.mean(np.array([path.answer is not None for path in asked.paths])[paths]))
    # Half of the error of gold labels alone, as measured for bars (docs/statistics.md).
    errors = {n: 0.55 * np.sqrt(0.25 * 8 / max(n * applies, 1.0)) for n in (150, 300, 600)}
    expected = ", ".join(f"{n} of random galaxies {error:.2f}" for n, error in errors.items())
    return (
        f"labels alone give no fraction for {asked.question!r}: who was asked depends on the bias, and bars break what "
        "an inversion assumes (a constant fraction, no false answers, the right family): it is off by 0.2 to 0.9. Give "
        f"gold labels (`gold`); expected errors in 8 bins: {expected}. truemorph bias measures how answers drift with α"
    )


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
    if not sample.has_gold:
        return sample
    if "gold_field" in frame.columns:
        names = frame["gold_field"].cast(pl.String).fill_null("").to_numpy()
        return replace(sample, fields=numbered_fields(names, sample.known & (names != "")))
    with suppress(InputError):  # no positions
        return replace(sample, fields=fields_on_sky(unit_vectors(*positions_of(frame, source)), sample.known))
    return sample


def gold_sources(catalogue: CatalogTable) -> set[str]:
    """Return the columns of a catalogue that its stored gold labels came from."""
    metadata = catalogue.metadata
    words = {*metadata.get("gold_columns", ())}
    if "gold_columns" not in metadata:  # version 0.2 kept definitions only
        texts = [metadata.get("gold_definition"), *metadata.get("gold_definitions", {}).values()]
        words = {word for text in texts for word in _WORD.findall(str(text or "").partition(": ")[2])}
    mapped = metadata.get("columns", {})
    words |= {word for name in words for word in _WORD.findall(str(mapped.get(name, "")))}
    return words | {f"{word}_input" for word in words}


def seen_in_images(frame: pl.DataFrame, without: Sequence[str], source: str) -> dict[str, np.ndarray]:
    """Return the properties of images that a catalogue has beside resolution, shape (N,), without those named."""
    names = [observable for observable in OBSERVABLES if observable in frame.columns and observable not in without]
    return {name: numeric_columns(frame, [name], source)[:, 0] for name in names}


def filtered(
    frame: pl.DataFrame, conditions: Sequence[str], named: Sequence[str], source: str
) -> tuple[pl.DataFrame, list[Finding]]:
    """Keep the rows of the sample that meet all conditions and have values in all named columns."""
    chosen, findings = rows_where(frame, conditions, source)
    frame = frame.filter(chosen)
    findings += repeated_positions(frame, source)
    unused = frame["split"] == UNUSED
    if unused.any() and not any("split" in condition for condition in conditions):
        left = f"{unused.sum():,} of {frame.height:,} galaxies are not in the sample (split {UNUSED}); not used here."
        findings.append(Finding("galaxies-not-in-sample", "note", left))
        frame = frame.filter(~unused)
    texts = [name for name in named if frame.schema.get(name) == pl.String]
    numbers = [name for name in named if name not in texts]
    findings += missing_in(frame, numbers, source)
    has_value = np.isfinite(numeric_columns(frame, numbers, source))
    has_value = np.column_stack([has_value, *(frame[text].is_not_null() for text in texts)])
    complete = has_value.all(axis=1)
    if not complete.any():
        raise InputError(f"{source}: no galaxy has a value in all of {', '.join(named)}")
    if complete.all():
        return frame, findings
    missing = zip([*numbers, *texts], (~has_value).sum(axis=0), strict=True)
    counted = ", ".join(f"{name} in {count:,}" for name, count in missing if count)
    left = f"{(~complete).sum():,} of {frame.height:,} galaxies lack a value and were left out ({counted})."
    finding = Finding("rows-left-out", "note", left)
    if complete.mean() < 0.5:
        action = "Leave out these columns, or select the galaxies that have them (`where`): the rest is not counted."
        finding = Finding("most-left-out", "caution", left, action)
    return frame.filter(pl.Series(complete)), [*findings, finding]


def images_of_gold(catalogue: CatalogTable, gold: str, question: str | None) -> list[Finding]:
    """Warn of gold labels from the images of the observed labels, or say that their images are not recorded.

    `gold` is a rule, or "gold" for the catalogue's own, which `truemorph gold import` records.
    """
    metadata = catalogue.metadata
    stored = "gold_definition" in metadata if question is None else question in metadata.get("gold_definitions", {})
    if metadata.get("simulated") or (gold == "gold" and not stored):
        return []
    recorded = (
        "gold_from_same_images" in metadata if question is None else question in metadata.get("gold_same_images", {})
    )
    if gold == "gold" and recorded:
        return [*from_same_images(catalogue, question)]
    message = (
        "It is not recorded whether the experts saw better images than those of the observed labels. If they did not, "
        "they miss some of the same features, and the range is too narrow (20 or 40 % of the flips shared: it held the "
        "truth in 83 or 48 % of trials)."
    )
    action = "Import them with their source (`truemorph gold import`, `gold_source`)."
    return [Finding("gold-images-unknown", "note", message, action)]


def from_same_images(catalogue: CatalogTable, question: str | None) -> Iterator[Finding]:
    """Warn of gold labels that people made from the images of the observed labels, if the catalogue's are such."""
    metadata = catalogue.metadata
    of_question = metadata.get("gold_same_images", {}).get(question)
    if not (count := metadata.get("gold_from_same_images") if question is None else of_question):
        return
    experts = experts_of(metadata, label_classes(catalogue)).get(gold_column(question), {})
    if experts and all("upper" in missed for missed in experts.values()):  # the range includes their own bias
        return
    message = (
        f"{count:,} gold labels come from the images that were labelled before, so experts miss some of the same "
        "features. In trials with 20 or 40 % of the flips shared, the range held "
        "the truth in 83 or 48 % of cases."
    )
    action = "Label better images, or measure the experts' own bias with degraded copies (docs/gold.md)."
    yield Finding("gold-from-same-images", "caution", message, action)


def planned(frame: pl.DataFrame, gold: str | None, name: str) -> np.ndarray | None:
    """Return a column that `truemorph gold import` wrote beside `gold`, if these gold labels are used."""
    if gold != "gold" or name not in frame.columns:
        return None
    return np.nan_to_num(numeric_columns(frame, [name], "the catalogue")[:, 0])


def sample_weights(frame: pl.DataFrame, weights: str, source: str) -> np.ndarray | None:
    """Return weights: of a sample balanced by label ("balance"), "none", or those of a column, such as 1 / Vmax."""
    if weights not in ("balance", "none"):
        return numeric_columns(frame, [weights], source)[:, 0]
    if weights == "none" or "sampling_weight" not in frame.columns or (frame["split"] == UNUSED).any():
        return None
    values = np.asarray(frame["sampling_weight"], float)
    return None if np.ptp(values) == 0 else values


def properties(catalogue: CatalogTable, frame: pl.DataFrame, named: list[str]) -> dict[str, np.ndarray]:
    """Return numeric columns that may be properties of the galaxies, except those that are named.

    These are not: ids, positions, votes, labels, gold labels and what they are made of, and what α is made of.
    """
    made = {*FRACTIONS, *VOTES, *ADDED, *RESERVED, "vote_count", "radius", "psf_fwhm", *_ERRORS, *named}
    made |= gold_sources(catalogue)
    columns = {}
    for name, kind in frame.schema.items():
        of_votes, in_degrees = names_votes(name), catalogue.units.get(name) == "deg"
        if not kind.is_numeric() or name in made or of_votes or in_degrees or names_position(name):
            continue
        series = without(frame[name], SENTINELS)
        if name.startswith("gold") or (kind.is_integer() and series.drop_nulls().is_unique().all()):  # an id
            continue
        values = np.asarray(series, float)
        if not any(
            _same_order(values, frame[column]) for column in ("alpha", "radius", "psf_fwhm") if column in frame.columns
        ):
            columns[name] = values
    return columns


def _same_order(values: np.ndarray, other: pl.Series) -> bool:
    """Whether two columns rank the galaxies alike, as a radius in other units or in another band does."""
    both = pl.DataFrame({"a": values, "b": other.cast(pl.Float64)}).fill_nan(None).drop_nulls()
    if both.height < _FEWEST_RANKED:
        return False
    return bool(abs(both.select(pl.corr("a", "b", method="spearman")).item()) > _SAME_ORDER)


def _votes(frame: pl.DataFrame) -> np.ndarray | None:
    """Return the fraction of votes for the second class among those for both, NaN if unknown."""
    if not {"smooth_fraction", "disk_fraction"} <= set(frame.columns):
        return None
    votes = np.asarray(frame.select("smooth_fraction", "disk_fraction"), float)
    return ratio(votes[:, 1], votes.sum(axis=1))


def _log_odds_of_label(frame: pl.DataFrame) -> list[np.ndarray]:
    """Return the log-odds of the votes of which labels were made, shape (N, P), if they are known.

    Fractions count as those of 40 votes where their number is unknown.
    """
    if not set(FRACTIONS) <= set(frame.columns) or not frame["smooth_fraction"].count():
        return []
    fractions = np.asarray(frame.select(FRACTIONS), float)
    number = frame.get_column("vote_count", default=pl.repeat(None, frame.height, eager=True))
    number = number.cast(pl.Float64).fill_nan(None).fill_null(USUAL_VOTES)
    return [log_odds(possible_votes(fractions) * number.to_numpy()[:, None])]


def _surveys(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return the survey of each galaxy by the name of the column that has it, if there are only a few."""
    for name in _SURVEY_COLUMNS:
        if name in frame.columns and 2 <= frame[name].n_unique() <= _MOST_GROUPS:
            return {name: frame[name].cast(pl.String).fill_null("").to_numpy()}
    return {}


def groups_of(frame: pl.DataFrame, by: str, source: str) -> Groups | None:
    """Return the groups that a column of text names: at most 12, of 50 galaxies or more; None of other columns."""
    if frame.schema.get(by) != pl.String:
        return None
    groups = Groups.of(frame[by].to_numpy())
    counts = np.bincount(np.asarray(groups, int))
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


def rows_hash(catalogue: CatalogTable, where: Sequence[str]) -> str:
    """Return a checksum of ids, labels and α of the rows of a catalogue on which an estimate rests."""
    with suppress(InputError):
        frame, _ = filtered(catalogue.frame, where, [], "")
        return checksum(frame)
    return ""  # no such rows
