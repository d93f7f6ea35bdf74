"""The datasheet says what is in the catalogue, shows any text as it stands, and makes nothing up."""

import datetime
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph.catalogs.crossmatch import match_ids, match_sky
from truemorph.catalogs.datasheet import datasheet

markdown_it = pytest.importorskip("markdown_it")


def tables(page):
    """Every table of a page as a list of rows of plain text, as a Markdown reader shows it."""
    found, cells = [], None
    for token in markdown_it.MarkdownIt("commonmark").enable("table").parse(page):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            cells = []
        elif token.type == "tr_close":
            found[-1].append(cells)
            cells = None
        elif token.type == "inline" and cells is not None:
            cells.append(shown(token))
    return found


def shown(inline):
    kinds = {child.type for child in inline.children}
    assert kinds <= {"text", "code_inline", "text_special"}, kinds
    return "".join(child.content for child in inline.children)


def bullets(page):
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(page)
    return [
        "".join(child.content for child in tokens[n + 2].children)
        for n, token in enumerate(tokens)
        if token.type == "list_item_open"
    ]


def headings(page):
    return re.findall(r"^#+ (.*)$", page, re.MULTILINE)


def columns_of(page):
    return {
        row[0]: dict(zip(table[0], row, strict=True))
        for table in tables(page)
        if table[0][0] == "column"
        for row in table[1:]
    }


def catalogue():
    return pl.DataFrame(
        {
            "object_id": 587722981748572353 + np.arange(200),
            "image": pl.Series([None, *[f"images/{n}.jpg" for n in range(199)]]),
            "label": np.arange(200) % 4 // 3,
            "alpha": np.linspace(2, 42, 200),
            "redshift": pl.Series([None, float("nan"), *np.linspace(0.01, 0.2, 198)]),
            "votes": np.arange(200) % 50,
            "split": np.repeat(["test", "train", "validation", "unused"], 50),
            "sampling_weight": np.where(np.arange(200) % 4 // 3, 0.5, 1.5),
            "clean": np.arange(200) % 2 == 0,
            "day": [datetime.date(2024, 1, 1 + n % 30) for n in range(200)],
            "name": [f"galaxy {n}" for n in range(200)],
            "nothing": pl.Series([None] * 200, dtype=pl.Float64),
            "ratio": [float("inf"), *[2.0] * 199],
            "kind": pl.Series(["E", "S"] * 100, dtype=pl.Enum(["E", "S"])),
            "spectrum": pl.Series([[1.0, 2.0]] * 200),
        }
    )


def test_columns_are_described_as_they_are():
    page = datasheet(
        catalogue(),
        units={"alpha": "", "redshift": "", "votes": "count"},
        descriptions={"alpha": "R_petro / sigma_PSF"},
    )
    got = columns_of(page)
    assert list(got) == catalogue().columns
    values = {name: row["values"] for name, row in got.items()}
    assert values["object_id"] == "all different, 587722981748572353 to 587722981748572552"
    assert values["label"] == "0: 150 (75.0 %), 1: 50 (25.0 %)"
    assert values["alpha"] == "2 to 42, median 22"
    assert values["redshift"] == "0.01 to 0.2, median 0.105"
    assert values["votes"] == "0 to 49, median 24.5"
    assert values["split"] == ", ".join(f"{name}: 50 (25.0 %)" for name in ("test", "train", "unused", "validation"))
    assert values["clean"] == "False: 100 (50.0 %), True: 100 (50.0 %)"
    assert values["day"] == "2024-01-01 to 2024-01-30"
    assert values["name"] == "200 distinct"
    assert values["nothing"] == "none known"
    assert values["spectrum"] == ""
    assert values["ratio"] == "2 to 2, median 2, 1 infinite"
    assert (values["kind"], got["kind"]["type"]) == ("E: 100 (50.0 %), S: 100 (50.0 %)", "enum")
    assert got["redshift"]["missing"] == "2 (1.0 %)"
    assert (got["alpha"]["missing"], got["image"]["missing"], got["nothing"]["missing"]) == (
        "0",
        "1 (0.5 %)",
        "200 (100.0 %)",
    )
    assert [got[name]["unit"] for name in ("alpha", "votes", "sampling_weight", "name", "object_id")] == [
        "none",
        "count",
        "unknown",
        "",
        "",
    ]
    assert got["alpha"]["description"] == "R_petro / sigma_PSF"
    assert got["name"]["description"] == "unknown"
    assert (got["name"]["type"], got["clean"]["type"], got["alpha"]["type"]) == ("text", "boolean", "float64")


def test_labels_by_split():
    table = next(table for table in tables(datasheet(catalogue())) if table[0][0] == "split")
    assert table == [
        ["split", "galaxies", "smooth", "disk"],
        ["train", "50", "37 (74.0 %)", "13 (26.0 %)"],
        ["validation", "50", "38 (76.0 %)", "12 (24.0 %)"],
        ["test", "50", "38 (76.0 %)", "12 (24.0 %)"],
        ["unused", "50", "37 (74.0 %)", "13 (26.0 %)"],
        ["all", "200", "150 (75.0 %)", "50 (25.0 %)"],
    ]


def test_all_questions_have_a_heading_and_the_unknown_is_called_so():
    page = datasheet(pl.DataFrame({"alpha": [1.0]}))
    assert headings(page) == [
        "Datasheet of catalogue",
        "Motivation",
        "Composition",
        "Columns",
        "Collection",
        "Preprocessing, cleaning and labelling",
        "Uses",
        "Warnings",
        "Distribution and maintenance",
    ]
    said = bullets(page)
    for line in (
        "made with: unknown",
        "votes: unknown",
        "label: unknown",
        "alpha: unknown",
        "whether galaxies were chosen by label: unknown",
        "licence of this catalogue: unknown",
        "licences of its sources: unknown",
        "please cite: unknown",
    ):
        assert line in said
    assert "Where the tables came from, when, and how: unknown." in page
    assert "Rows left out, and why: unknown." in page
    assert "None was given." in page


def test_metadata_funnel_matches_and_notes():
    ids, sky = match_ids(pl.Series([1, 2]), pl.Series([2])), match_sky([1], [2], [1], [2])
    page = datasheet(
        catalogue().with_columns(truth=pl.Series([1, 0, *[None] * 198])),
        name="cat.parquet",
        metadata={
            "truemorph_version": "0.1.0",
            "alpha": "petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548",
            "truth_definition": "disk: t_type >= -3",
            "image_root": "/somewhere/of/mine",
            "seed": np.int64(4),
            "columns": {"radius": "petroRad_r"},
        },
        funnel=[("rows in", 12_000), ("no vote fractions", -1_500), ("no positive radius", -10_300), ("rows out", 200)],
        notes=["1. first", "# second", "- third", "> fourth"],
        matches=[("votes.csv", "sdss.parquet", ids.statistics), ("votes.csv", "simard.parquet", sky.statistics)],
    )
    said = bullets(page)
    assert "made with: truemorph prepare, version 0.1.0" in said
    assert "alpha: petroRad_r / sigma_PSF, sigma_PSF = psfWidth_r / 2.3548" in said
    assert "trusted classes: 2 rows (disk: t_type >= -3)" in said
    assert "pictures: 199 rows have one" in said
    assert "votes.csv with sdss.parquet by id: 1 of 2 rows matched, 1 not; 0 rows of sdss.parquet unused" in said
    assert any(line.startswith("votes.csv with simard.parquet on the sky within 2 arcsec: 1 of 1") for line in said)
    assert {"1. first", "# second", "- third", "> fourth"} <= set(said)
    assert any("counts by its sampling_weight" in line for line in said)
    assert "/somewhere" not in page  # a folder of this machine is nobody else's business
    funnel, settings = (next(t for t in tables(page) if t[0][0] == head) for head in ("rule", "setting"))
    assert funnel[1:] == [
        ["rows in", "", "12,000"],
        ["no vote fractions", "1,500", "10,500"],
        ["no positive radius", "10,300", "200"],
        ["rows out", "", "200"],
    ]
    assert settings[1:] == [["seed", "4"], ["columns", '{"radius": "petroRad_r"}']]


def test_sources_are_as_recorded():
    page = datasheet(
        catalogue(),
        provenance={
            "votes.csv.gz": {
                "url": "https://example.org/votes.csv.gz",
                "date": "2025-03-04T05:06:07Z",
                "sha256": "ab" * 32,
                "bytes": 123_456,
                "licence": "CC BY 4.0",
                "citation": "Willett et al. 2013, MNRAS 435, 2835",
                "checked": True,
            },
            "photometry.parquet": {"url": "http://x/sql?cmd=a b", "query": "select `ra`\nfrom [PhotoObjAll] ```"},
            "mine.csv": {},
        },
    )
    said = bullets(page)
    assert {
        "from: https://example.org/votes.csv.gz",
        "fetched: 2025-03-04T05:06:07Z",
        "bytes: 123,456",
        f"sha256: {'ab' * 32}",
        "licence: CC BY 4.0",
        "cite: Willett et al. 2013, MNRAS 435, 2835",
        "checked: true",
        "from: http://x/sql?cmd=a b",
        "licence: unknown",
        "licences of its sources: CC BY 4.0",
        "please cite: Willett et al. 2013, MNRAS 435, 2835",
    } <= set(said)
    queries = [token.content for token in markdown_it.MarkdownIt().parse(page) if token.type == "fence"]
    assert queries == ["select `ra`\nfrom [PhotoObjAll] ```\n"]
    assert page.count("Nothing is recorded of where it came from.") == 1


def test_the_same_catalogue_has_the_same_datasheet():
    assert datasheet(catalogue()) == datasheet(catalogue())


# White space is folded and control characters have no look; everything else must come back.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs", "Cn")), min_size=1, max_size=20)
marked = st.one_of(texts, st.text("\\`*_[]<>|&~$#-+1.) a", min_size=1, max_size=12)).map(
    lambda text: " ".join(text.split())
)


@given(st.lists(marked.filter(bool), min_size=1, max_size=4, unique=True), marked, marked)
def test_any_text_is_shown_as_it_stands(names, description, note):
    frame = pl.DataFrame({name: [1.5, 2.5] for name in names})
    page = datasheet(
        frame,
        name=note or "x",
        descriptions=dict.fromkeys(names, description),
        units=dict.fromkeys(names, note),
        notes=[note] if note else [],
        metadata={"seed": description},
    )
    got = next(table for table in tables(page) if table[0][0] == "column")
    assert [row[0] for row in got[1:]] == names
    assert {row[5] for row in got[1:]} == {description or "unknown"}
    assert {row[1] for row in got[1:]} == {note or "none"}
    if note:
        assert note in bullets(page)
    assert not any(token.type.startswith("html") for token in markdown_it.MarkdownIt().parse(page))
