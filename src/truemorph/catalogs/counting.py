"""From counts of votes to fractions, where a table has those and not these."""

from __future__ import annotations

import polars as pl

from truemorph.catalogs.roles import FRACTIONS, ROLES, VOTES
from truemorph.errors import InputError


def count_votes(
    columns: dict[str, pl.Series],
    sources: dict[str, str | float],
    descriptions: dict[str, str],
    source: str,
    notes: list[str],
) -> None:
    """Add the number of votes and the fractions that follow from counts.

    A row's fractions are all of one kind: the table's own where it has `smooth_fraction`, else shares of its votes.

    Raises
    ------
    InputError
        If an answer has more votes than there are.
    """
    if not any(role in columns for role in VOTES):
        return
    if "vote_count" not in columns:
        if not {"smooth_votes", "disk_votes"} <= set(columns):
            return
        counted = [role for role in VOTES if role in columns]
        total = columns["smooth_votes"] + columns["disk_votes"]
        # Of an artefact nobody may have thought; the answers asked for are another matter.
        columns["vote_count"] = total + columns["artefact_votes"].fill_null(0) if "artefact_votes" in columns else total
        sources["vote_count"] = " + ".join(counted)
        descriptions["vote_count"] = ROLES["vote_count"].about
    total = columns["vote_count"].cast(pl.Float64)
    shares = {
        fraction: pl.select(pl.when(total > 0).then(columns[role].cast(pl.Float64) / total)).to_series()
        for fraction, role in zip(FRACTIONS, VOTES, strict=True)
        if role in columns
    }
    for fraction, share in shares.items():
        above = (share > 1 + 1e-6).fill_null(False)
        if above.any():
            row = int(above.arg_true()[0])
            raise InputError(
                f"{source}: row {row + 1} has more votes in {sources[fraction.replace('fraction', 'votes')]} than in "
                f"{sources['vote_count']}; name the votes of the first question alone"
            )
    if "smooth_fraction" not in shares:
        return
    nothing = pl.Series([None], dtype=pl.Float64).new_from_index(0, len(total))
    own = columns.get("smooth_fraction", nothing)
    filled = own.is_null() & shares["smooth_fraction"].is_not_null()
    if not filled.any():
        return
    if "smooth_fraction" not in columns:
        mixed = [fraction for fraction in FRACTIONS if fraction in columns]
        if mixed:
            notes.append(f"{source}: no smooth_fraction beside {' and '.join(mixed)}: all are shares of the votes")
            for fraction in mixed:
                del columns[fraction]
    else:
        notes.append(f"{source}: {filled.sum()} rows have votes but no fractions: shares of their votes taken")
    for fraction in FRACTIONS:
        if fraction not in columns and fraction not in shares:
            continue
        taken = pl.when(filled).then(shares.get(fraction, nothing)).otherwise(columns.get(fraction, nothing))
        if fraction not in columns:
            sources[fraction] = f"{fraction.replace('fraction', 'votes')} / vote_count"
            descriptions[fraction] = ROLES[fraction].about
        columns[fraction] = pl.select(taken).to_series()
