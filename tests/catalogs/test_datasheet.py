"""The datasheet describes the catalogue and its sources; special characters do not break its tables."""

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.crossmatch import match_ids
from truemorph.catalogs.datasheet import datasheet
from truemorph.findings import Finding
from truemorph.tables import CatalogTable

markdown_it = pytest.importorskip("markdown_it")


def read(page):
    """Tables (by first header cell) and other texts of a rendered Markdown page."""
    tables, texts, rows = {}, [], None
    for token in markdown_it.MarkdownIt("commonmark").enable("table").parse(page):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "table_close":
            tables[rows[0][0]], rows = rows[1:], None
        elif token.type == "inline":
            (texts if rows is None else rows[-1]).append("".join(child.content for child in token.children))
    return tables, texts


def catalogue(metadata=None, **columns):
    frame = pl.DataFrame(
        {
            "object_id": 587722981748572353 + np.arange(200),
            "image": pl.Series([None, *[f"images/{k}.jpg" for k in range(199)]]),
            "label": np.arange(200) % 4 // 3,
            "split": np.repeat(["test", "train", "validation", "unused"], 50),
            "sampling_weight": np.where(np.arange(200) % 4 // 3, 0.5, 1.5),
            "gold": pl.Series([1, 0, *[None] * 198]),
            **columns,
        }
    )
    return CatalogTable(frame, {"alpha": "", "votes": "count"}, metadata or {}, descriptions={"votes": "all votes"})


def test_the_datasheet_describes_rows_labels_columns_and_settings():
    metadata = {"alpha": "petroRad_r / sigma_PSF", "gold_definition": "disk: t_type >= -3", "image_root": "/mine"}
    match = match_ids(pl.Series([1, 2]), pl.Series([2])).statistics
    metadata |= {
        "seed": np.int64(4),
        "mapping": {"sample": [6, 4]},
        "matches": [{"tables": ["votes.csv", "sdss.parquet"], **match}],
    }
    funnel = [("rows in", 12_000), ("no votes", -1_500), ("near", 0), ("no radius", -10_300), ("rows out", 200)]
    table = catalogue(metadata, votes=np.arange(200) % 50, nothing=pl.Series([None] * 200, dtype=pl.Float64))
    source = {"url": "https://example.org/v.csv", "licence": "CC BY 4.0", "query": "select `ra`\nfrom [PhotoObjAll]"}
    findings = [Finding("alpha-is-size", "caution", "one PSF")]
    page = datasheet(table, "c.parquet", funnel, findings, {"v.csv": source})
    tables, texts = read(page)
    columns = {row[0]: row[1:] for row in tables["column"]}
    assert columns["votes"] == ["count", "int64", "0", "all votes"]
    assert columns["image"][:3] == ["", "text", "1 (0.5 %)"]
    assert columns["nothing"][::2] == ["unknown", "200 (100.0 %)"]
    assert tables["split"][0] == ["train", "50", "37 (74.0 %)", "13 (26.0 %)"]
    assert tables["split"][-1] == ["all", "200", "150 (75.0 %)", "50 (25.0 %)"]
    losses, left = [row[1] for row in tables["rule"]], [row[2] for row in tables["rule"]]
    assert losses == ["", "1,500", "", "10,300", ""]
    assert left == ["12,000", "10,500", "10,500", "200", "200"]
    assert tables["setting"] == [["seed", "4"], ["sample", "[6, 4]"]]
    facts = [metadata["alpha"], "2 galaxies", "t_type >= -3", "199 galaxies", "one PSF", "1 of 2", "sampling_weight"]
    assert [fact for fact in facts if not any(fact in line for line in texts)] == []
    assert "/mine" not in page  # local folders are private
    assert {"Votes: unknown", "v.csv", f"url: {source['url']}", "licence: CC BY 4.0"} <= set(texts)
    assert source["query"] in page


def test_names_with_special_characters_do_not_break_tables():
    names = ["a|b", "`c`", "_d_", "e\nf", "*g*", "<b>h</b>", "[i](j)", "back\\slash"]
    table = catalogue(**dict.fromkeys(names, 1.5))
    about = dict(zip(names, names, strict=True))
    table = CatalogTable(table.frame, about, descriptions=about)
    note = "x | <b>y</b> `z"
    tables, texts = read(datasheet(table, "c", [], [Finding("votes-read-as", "note", note)], {}))
    shown = [" ".join(name.split()) for name in names]
    rows = tables["column"][-len(names) :]
    assert [row[0] for row in rows] == shown
    assert [row[4].strip("_") for row in rows] == [name.strip("_") for name in shown]
    assert any(note in line for line in texts)
