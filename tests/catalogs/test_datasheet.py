"""The datasheet describes the catalogue and its sources."""

import numpy as np
import polars as pl

from truemorph import Finding
from truemorph.catalogs.crossmatch import match_ids
from truemorph.catalogs.datasheet import datasheet
from truemorph.tables import CatalogTable

FUNNEL = [("rows in", 12_000), ("no votes", -1_500), ("near", 0), ("no radius", -10_300), ("rows out", 200)]
SOURCE = {"url": "https://example.org/v.csv", "licence": "CC BY 4.0", "query": "select `ra`\nfrom [PhotoObjAll]"}


def test_the_datasheet_describes_rows_labels_columns_and_settings():
    label = np.arange(200) % 4 // 3
    columns = {
        "image": pl.Series([None, *[f"images/{k}.jpg" for k in range(199)]]),
        "label": label,
        "split": np.repeat(["test", "train", "validation", "unused"], 50),
        "sampling_weight": np.where(label, 0.5, 1.5),
        "gold": pl.Series([1, 0, *[None] * 198]),
        "a|b": np.arange(200) % 50,
        "nothing": pl.Series([None] * 200, dtype=pl.Float64),
    }
    match = match_ids(pl.Series([1, 2]), pl.Series([2])).statistics
    metadata = {"alpha": "petroRad_r / sigma_PSF", "gold_definition": "disk: t_type >= -3", "image_root": "/mine"}
    metadata |= {
        "seed": 4,
        "drawn": True,
        "mapping": {"sample": [6, 4]},
        "matches": [{"tables": ["v.csv", "sdss"], **match}],
    }
    table = CatalogTable(pl.DataFrame(columns), {"a|b": "count"}, metadata, descriptions={"a|b": "all <b>votes</b>"})
    findings = (Finding("alpha-is-size", "caution", "one PSF"),)
    page = datasheet(table, "c.parquet", {"v.csv": SOURCE}, FUNNEL, findings)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for row in (
        r"| `a\|b` | count | int64 | 0 | all \<b>votes\</b> |",
        "| `nothing` | unknown | float64 | 200 (100.0 %) | unknown |",
        "| train | 50 | 37 (74.0 %) | 13 (26.0 %) |",
        "| all | 200 | 150 (75.0 %) | 50 (25.0 %) |",
        "| no votes | 1,500 | 10,500 |",
        "| rows out |  | 200 |",
        "| `seed` | 4 |",
        r"| `sample` | \[6, 4] |",
    ):
        assert row in rows
    facts = [metadata["alpha"], "2 galaxies", "t_type >= -3", "199 galaxies", "one PSF", "1 of 2", "sampling_weight"]
    facts += ["Votes: unknown", "v.csv", f"url: {SOURCE['url']}", "licence: CC BY 4.0", SOURCE["query"]]
    assert [fact for fact in facts if fact not in page] == []
    assert "/mine" not in page  # local folders are private
