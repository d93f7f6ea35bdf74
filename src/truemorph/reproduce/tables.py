"""Bias of the labels, and Table 1 beside the paper's: stages, and the files that they write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from truemorph.catalogs.sampling import TEST
from truemorph.io import plain, write_json
from truemorph.report.page import Table, number, with_error
from truemorph.report.table1 import numbers_of
from truemorph.reproduce.catalogue import DEBIASED
from truemorph.reproduce.measured import MODELS, measured, on_frame, order, table_rows, titles, tree_of
from truemorph.reproduce.models import intrinsic_columns
from truemorph.reproduce.paper import (
    DCV14,
    DDB,
    DISK_LIKE_AMONG_SMOOTH,
    GZ2B,
    GZ2D,
    HST_PAIRS,
    TABLE_1,
    THETA,
)
from truemorph.reproduce.stages import Stage, Work
from truemorph.tables import CatalogTable, write_table

JSON, ECSV, MARKDOWN = "table1.json", "table1.ecsv", "table1.md"


def frame_of(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a table that any format takes; columns of which nothing is known are of numbers."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(pl.selectors.by_dtype(pl.Null).cast(pl.Float64))


def settings(work: Work, stages: tuple[str, ...]) -> dict[str, Any]:
    """What Table 1 and the reasons follow from: options, the stages that they use, and intrinsic columns."""
    options = work.options
    asked = {"depth": options.depth, "bins": options.bins, "bootstrap": options.bootstrap, "seed": options.seed}
    return {**asked, "from": work.keys(stages), "intrinsic": list(work.inputs.intrinsic)}


def _bias_from(work: Work) -> dict[str, Any]:
    return settings(work, ("catalogue", GZ2D))


def _measure_bias(work: Work, folder: Path) -> dict[str, Any]:
    """CV18 of both sets of people's labels, over the whole sample and each part of its split."""
    frames = {GZ2B: work.catalogue().frame}
    if work.have(GZ2D):
        frames[GZ2D] = work.catalogue(GZ2D, DEBIASED).frame
    rows, intrinsic = [], intrinsic_columns(work, frames[GZ2B])
    # One tree for all, that of the test galaxies: bias grows with the number of bins.
    common = tree_of(work, frames[GZ2B].filter(pl.col("split") == TEST), intrinsic)
    for name, frame in frames.items():
        for part in ("all", *frame["split"].unique().sort()):
            chosen = frame if part == "all" else frame.filter(pl.col("split") == part)
            tree, labels = on_frame(common, chosen, intrinsic, titles(work)[name])
            row = {"labels": titles(work)[name], "name": name, "galaxies_of": part, "measure": tree.measure}
            row |= {"depth": tree.depth, "bins": tree.bins, "galaxies": chosen.height}
            rows.append(row | numbers_of(tree.bias(labels)))
    write_table(CatalogTable(frame_of(plain(rows))), folder / "bias.ecsv")
    return {"rows": rows}


def _table_from(work: Work) -> dict[str, Any]:
    return settings(work, ("catalogue", GZ2D, "theta", *MODELS))


def thetas(work: Work) -> list[dict[str, Any]]:
    """θ of DDB and DCV14 here and in the paper."""
    rows = []
    for name, stage in ((DCV14, DCV14), (DDB, "theta")):
        found = work.result(stage) if work.have(stage) else {}
        rows.append(
            {
                "name": name,
                "theta": found.get("theta"),
                "stderr": found.get("stderr"),
                "paper": THETA[name],
                "how": "EM with the logistic regression" if name == DCV14 else f"{found.get('bins', 0):,} bins of α",
            }
        )
    return rows


def _make_table(work: Work, folder: Path) -> dict[str, Any]:
    found = measured(work)
    rows = table_rows(found, work.options.seed)
    for row in rows:
        paper = TABLE_1[row["name"]]
        row |= {"paper": paper.cv18, "paper_std": paper.stderr, "paper_from_gz2b": paper.cv18 - TABLE_1[GZ2B].cv18}
        row |= {"paper_accuracy": paper.accuracy, "paper_precision": paper.precision}
    result = {
        "measure": found.tree.measure,
        "intrinsic": list(found.intrinsic),
        "depth": found.tree.depth,
        "bins": found.tree.bins,
        "bootstrap": found.tree.bootstrap,
        "galaxies": found.frame.height,
        "alpha": work.catalogue().metadata["alpha"],
        "rows": rows,
        "order": order(rows),
        "theta": thetas(work),
    }
    result = plain(result)
    write_json(folder / JSON, result)
    metadata = {key: value for key, value in result.items() if key != "rows"}
    write_table(CatalogTable(frame_of(result["rows"]), {}, metadata), folder / ECSV)
    return result


OTHER_HEAD = ("", "here", "paper", "how")
_HEAD = ("labels", "galaxies", "disk fraction", "{} here", "paper", "minus GZ2B, here", "paper", "plain value", "floor",
         "above floor")  # fmt: skip


def head(table: dict[str, Any]) -> list[str]:
    """Columns of Table 1, for people."""
    return [name.format(table["measure"]) for name in _HEAD]


def cells(row: dict[str, Any]) -> list[str]:
    """A row of Table 1, for people."""
    other = row["name"] != GZ2B
    return [
        f"{row['letter']}) {row['labels']}",
        f"{row['galaxies']:,}",
        number(row["disk_fraction"]),
        with_error(row["bootstrap_mean"], row["bootstrap_std"], ".4f"),
        with_error(row["paper"], row["paper_std"], ".4f"),
        with_error(row["from_gz2b"], row["from_gz2b_std"], "+.3f") if other else "–",
        number(row["paper_from_gz2b"], "+.3f") if other else "–",
        number(row["value"]),
        with_error(row["floor"], row["floor_std"]),
        number(row["excess"]),
    ]


def absent_cells(work: Work, name: str) -> list[str]:
    """A row of which nothing is known here."""
    paper = TABLE_1[name]
    given = {4: with_error(paper.cv18, paper.stderr, ".4f"), 6: number(paper.cv18 - TABLE_1[GZ2B].cv18, "+.3f")}
    return [f"{paper.letter}) {titles(work)[name]}", *(given.get(k, "–") for k in range(1, len(_HEAD)))]


def other_numbers(work: Work, table: dict[str, Any]) -> list[list[str]]:
    """The paper's other numbers: what, here, in the paper, how."""
    lines = [
        [
            f"θ of {one['name'].upper()}",
            with_error(one["theta"], one["stderr"], ".2f"),
            f"{one['paper']:.2f}",
            one["how"],
        ]
        for one in table["theta"]
    ]
    rows = {row["name"]: row for row in table["rows"]}
    for name, paper in TABLE_1.items():
        if paper.accuracy is None:
            continue
        row = rows.get(name, {})
        by_class = [f"{k} {number(row.get(f'precision_{k}'))}" for k in ("smooth", "disk")]
        title = titles(work)[name]
        lines += [
            [f"accuracy of {title}", number(row.get("accuracy")), number(paper.accuracy), "against its crowd labels"],
            [f"precision of {title}", number(row.get("precision")), number(paper.precision),
             f"mean of both classes: {', '.join(by_class)}; the paper's kind isn't given"],
        ]  # fmt: skip
    if work.have("figure3"):
        share = number(work.result("figure3")["disk_like_among_smooth"], ".2f")
        lines.append(
            ["GZ2B smooth with disk-like profiles", share, f"about {DISK_LIKE_AMONG_SMOOTH:.2f}", "Sérsic index n ≤ 3"]
        )
    if work.have("figure4"):
        seen = work.result("figure4")
        how = f"of {seen['changed']:,} test galaxies that DDB moves from smooth to disk"
        lines.append(["changed and seen by HST", f"{seen['with_better']:,}", str(HST_PAIRS[0]), how])
    return lines


def how_measured(table: dict[str, Any]) -> str:
    """How the bias of Table 1 was measured, in a sentence."""
    lacking = [f"{row['labels']} {row['left_out']:,}" for row in table["rows"] if row["left_out"]]
    without = f" (test galaxies without a label: {', '.join(lacking)})" if lacking else ""
    leaves = f"{2 ** table['depth']} leaves of like {', '.join(table['intrinsic'])}, " if table["intrinsic"] else ""
    return (
        f"{table['measure']} on {table['galaxies']:,} test galaxies{without}, {leaves}{table['bins']} bins of α, "
        f"mean ± standard deviation of {table['bootstrap']} bootstrap resamples; α = {table['alpha']}"
        + ("" if table["measure"] == "CV18" else ". The paper's numbers are CV18: they can't be compared with these")
    )


def markdown(work: Work, table: dict[str, Any]) -> str:
    """Table 1 and the other numbers as Markdown."""
    first = Table("Table 1 beside the paper's", head(table), [cells(row) for row in table["rows"]])
    others = Table("", OTHER_HEAD, other_numbers(work, table))
    return (
        f"# {first.title}\n\n{first.markdown()}\n\n{how_measured(table)}.\n\n{others.markdown()}\n\n"
        "Paper: Medina-Rosales, Cabrera-Vives & Miller, arXiv:2308.11007.\n"
    )


STAGES = (
    Stage("bias", "bias of GZ2B and GZ2D", _bias_from, _measure_bias, ("catalogue",), (GZ2D,)),
    Stage("table1", "Table 1 beside the paper's", _table_from, _make_table, ("catalogue",), (GZ2D, "theta", *MODELS)),
)
