"""The datasheet describes the catalogue and its sources; special characters do not break its tables."""

import datetime

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.crossmatch import match_ids, match_sky
from truemorph.catalogs.datasheet import datasheet
from truemorph.findings import Finding
from truemorph.tables import CatalogTable

markdown_it = pytest.importorskip("markdown_it")


def read(page):
    """Tables (by first header cell), bullets and headings of a rendered Markdown page."""
    tables, bullets, headings, kind = {}, [], [], None
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(page)
    for token in tokens:
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "table_close":
            tables[rows[0][0]] = rows[1:]
        elif token.type == "inline":
            shown = "".join(child.content for child in token.children)
            (rows[-1] if kind in ("th_open", "td_open") else bullets if kind == "list" else headings).append(shown)
        elif token.type.endswith("_open"):
            kind = "list" if token.type == "list_item_open" or (kind == "list" and token.type[0] == "p") else token.type
    return tables, bullets, headings


def catalogue(**more):
    n = 200
    frame = pl.DataFrame(
        {
            "object_id": 587722981748572353 + np.arange(n),
            "image": pl.Series([None, *[f"images/{k}.jpg" for k in range(n - 1)]]),
            "label": np.arange(n) % 4 // 3,
            "alpha": np.linspace(2, 42, n),
            "redshift": pl.Series([None, float("nan"), *np.linspace(0.01, 0.2, n - 2)]),
            "votes": np.arange(n) % 50,
            "split": np.repeat(["test", "train", "validation", "unused"], n // 4),
            "sampling_weight": np.where(np.arange(n) % 4 // 3, 0.5, 1.5),
            "clean": np.arange(n) % 2 == 0,
            "day": [datetime.date(2024, 1, 1 + k % 30) for k in range(n)],
            "nothing": pl.Series([None] * n, dtype=pl.Float64),
            "kind": pl.Series(["E", "S"] * (n // 2), dtype=pl.Enum(["E", "S"])),
            "spectrum": pl.Series([[1.0, 2.0]] * n),
            "gold": pl.Series([1, 0, *[None] * (n - 2)]),
        }
    )
    return CatalogTable(frame, **more)


def test_the_datasheet_describes_columns():
    table = catalogue(units={"votes": "count"}, descriptions={"alpha": "R_petro / sigma_PSF"})
    rows = read(datasheet(table))[0]["column"]
    assert [row[0] for row in rows] == table.frame.columns
    got = {row[0]: tuple(row[1:]) for row in rows}
    assert got["alpha"] == ("none", "float64", "0", "2 to 42, median 22", "R_petro / sigma_PSF")
    assert got["votes"] == ("count", "int64", "0", "0 to 49, median 24.5", "unknown")
    assert got["redshift"][2:4] == ("2 (1.0 %)", "0.01 to 0.2, median 0.105")
    assert got["image"][:4] == ("", "text", "1 (0.5 %)", "199 distinct")
    assert got["object_id"][0] == ""
    assert got["object_id"][3].endswith("587722981748572353 to 587722981748572552")
    assert (got["nothing"][0], got["clean"][1], got["nothing"][2]) == ("unknown", "boolean", "200 (100.0 %)")
    assert got["label"][3] == "0: 150 (75.0 %), 1: 50 (25.0 %)"
    assert got["kind"][1:4] == ("enum", "0", "E: 100 (50.0 %), S: 100 (50.0 %)")
    assert got["day"][3] == "2024-01-01 to 2024-01-30"


def test_the_datasheet_counts_labels_by_split():
    assert read(datasheet(catalogue()))[0]["split"] == [
        ["train", "50", "37 (74.0 %)", "13 (26.0 %)"],
        ["validation", "50", "38 (76.0 %)", "12 (24.0 %)"],
        ["test", "50", "38 (76.0 %)", "12 (24.0 %)"],
        ["unused", "50", "37 (74.0 %)", "13 (26.0 %)"],
        ["all", "200", "150 (75.0 %)", "50 (25.0 %)"],
    ]


def test_the_datasheet_has_metadata_row_counts_matches_and_findings():
    ids, sky = match_ids(pl.Series([1, 2]), pl.Series([2])), match_sky([1], [2], [1], [2])
    alpha = "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548"
    metadata = {"alpha": alpha, "gold_definition": "disk: t_type >= -3", "image_root": "/mine", "seed": np.int64(4)}
    metadata["matches"] = [
        {"tables": ["votes.csv", other], **match.statistics}
        for other, match in (("sdss.parquet", ids), ("simard.parquet", sky))
    ]
    funnel = [
        ("rows in", 12_000),
        ("no vote fractions", -1_500),
        ("near", 0),
        ("no radius", -10_300),
        ("rows out", 200),
    ]
    page = datasheet(
        catalogue(metadata=metadata),
        funnel=funnel,
        findings=[Finding("alpha-is-size", "caution", "one PSF for all galaxies")],
    )
    tables, bullets, _ = read(page)
    for fact in (alpha, "2 galaxies have one; definition: disk: t_type >= -3", "199 galaxies", "`sampling_weight`"):
        assert any(fact.strip("`") in line for line in bullets), fact
    assert any("one PSF for all galaxies" in line for line in bullets)
    assert any("votes.csv with sdss.parquet" in line and "1 of 2" in line for line in bullets)
    assert any("votes.csv with simard.parquet" in line and "1 of 1" in line for line in bullets)
    assert tables["setting"] == [["seed", "4"]]
    assert "/mine" not in page  # local folders are private
    assert tables["rule"] == [
        ["rows in", "", "12,000"],
        ["no vote fractions", "1,500", "10,500"],
        ["near", "", "10,500"],
        ["no radius", "10,300", "200"],
        ["rows out", "", "200"],
    ]


def test_the_datasheet_lists_sources():
    votes = {"url": "https://example.org/v.csv", "date": "2025-03-04", "sha256": "ab" * 32, "bytes": 123_456}
    votes |= {"licence": "CC BY 4.0", "citation": "Willett et al. 2013, MNRAS 435, 2835", "checked": True}
    query = "select `ra`\nfrom [PhotoObjAll]"
    provenance = {"votes.csv.gz": votes, "photometry.parquet": {"query": query}, "mine.csv": {}}
    page = datasheet(catalogue(), provenance=provenance)
    _, bullets, headings = read(page)
    values = [line.partition(": ")[2] for line in bullets]
    assert {votes["url"], votes["date"], votes["sha256"], "123,456 bytes", "true"} <= set(values)
    assert values.count("CC BY 4.0") == values.count(votes["citation"]) == 2  # for the table and the catalogue
    assert {*provenance} <= set(headings)
    assert query in page


def test_missing_information_is_shown_as_unknown():
    page = datasheet(CatalogTable(pl.DataFrame({"alpha": [1.0]})))
    _, bullets, headings = read(page)
    assert {"Motivation", "Composition", "Collection", "Uses", "Findings"} <= set(headings)
    unknown = {line.partition(": ")[0] for line in bullets if line.endswith(": unknown")}
    assert {"Votes", "Label", "Resolution α", "Licence of this catalogue", "Please cite"} <= unknown


def test_names_with_special_characters_do_not_break_tables():
    names = ["a|b", "`c`", "_d_", "e\nf", "*g*", "<b>h</b>", "[i](j)", "back\\slash"]
    shown = [" ".join(name.split()) for name in names]
    frame = pl.DataFrame({name: [1.5, 2.5] for name in names})
    about, note = dict(zip(names, names, strict=True)), "x | <b>y</b> `z"
    tables, bullets, _ = read(
        datasheet(CatalogTable(frame, about, descriptions=about), findings=[Finding("votes-read-as", "note", note)])
    )
    assert [row[0] for row in tables["column"]] == shown
    assert [row[5].strip("_") for row in tables["column"]] == [name.strip("_") for name in shown]
    assert any(note in line for line in bullets)
