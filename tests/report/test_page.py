"""The page as a file: escaped, whole, in one piece."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from itertools import count

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from truemorph import Finding, read_table
from truemorph.plotting import legend
from truemorph.report.gallery import AFTER, CHANGE, choose, jpeg_source
from truemorph.report.page import (
    Illustration,
    Light,
    Page,
    Section,
    in_order,
    inline_svg,
    verdict,
    write_illustrations,
    write_page,
)

NOTE, CAUTION = Finding("b", "note", "By the way."), Finding("a", "caution", "Too few. Quite.", "Add.")
PROBLEM = Finding("c", "problem", "It is wrong. Very.", "Mend it.")


def illustration(text="x"):
    figure = Figure(figsize=(4, 2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="black", label=text)
    axes.imshow(np.zeros((3, 3)))
    axes.legend()
    return Illustration("line", figure, text, pl.DataFrame({"x": [0.5, 1.0]}))


@pytest.mark.parametrize("text", ["<b>&</b>", "--> <script>", r"\$5 & more"])
def test_figures_are_whole_svg_without_the_users_markup(text):
    one = illustration(text)
    svg = str(inline_svg(one.figure, one.name, "caption-line"))
    ET.fromstring(svg)  # well-formed
    assert "#000000" not in svg
    assert "<script" not in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert all(one.startswith("line-") for one in ids)  # no two figures share them
    assert {one[1:] for one in re.findall(r'href="(#[^"]+)"', svg)} <= set(ids)


def test_lights_and_verdict_have_the_status_of_the_worst_finding():
    assert Light("x", [NOTE]).status == "not checked"
    assert Light("x", [NOTE], [("y", "1")]).status == "good"
    assert Light("x", [CAUTION, NOTE], [("y", "1")]).status == "caution"
    assert in_order([NOTE, CAUTION, PROBLEM]) == [PROBLEM, CAUTION, NOTE]
    found = verdict([NOTE, CAUTION, PROBLEM], "Fine.", "Go on.")
    assert (found["status"], found["reason"], found["next"]) == ("problem", "It is wrong.", "Mend it.")
    found = verdict([NOTE], "Fine.", "Go on.")
    assert (found["status"], found["reason"], found["next"]) == ("good", "Fine.", "Go on.")


def test_figures_are_numbered_and_files_too(tmp_path):
    both = Illustration("two", [illustration().figure, illustration().figure], "b")
    write_illustrations([both, illustration()], tmp_path)
    drawn = {f"{name}.{kind}" for name in ("two_1", "two_2", "line") for kind in ("pdf", "png")}
    assert {one.name for one in tmp_path.iterdir()} == drawn | {"line.ecsv"}
    assert read_table(tmp_path / "line.ecsv").frame["x"].to_list() == [0.5, 1.0]
    page = Page("t", "a", first=illustration(), sections=[Section("s", figures=[both])])
    html = write_page(page, tmp_path / "t.html").read_text()
    assert html.index("Figure 1.") < html.index("Figure 2.")
    assert html.count("<svg") == 3


def test_a_legend_on_a_busy_machine_gives_no_warning(monkeypatch):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="a line")
    legend(axes)
    seconds = count(step=10)
    monkeypatch.setattr("matplotlib.legend.time.perf_counter", lambda: next(seconds))
    figure.draw_without_rendering()
    assert next(seconds) > 0  # the time was asked for


def test_pictures_keep_to_their_budget():
    pixels = np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8)
    small = jpeg_source(pixels, 12_000)
    assert len(small) <= 12_000 < len(jpeg_source(pixels))
    assert Image.open(io.BytesIO(base64.b64decode(small.split(",")[1]))).size[0] < 250


def test_the_surest_changes_are_shown_first():
    there, back = "smooth to disk", "disk to smooth"
    changes, after = [there, "", back, "", there], [0.91, 0.8, 0.9, 0.0, 0.6]
    frame = pl.DataFrame({"object_id": list("abcde"), AFTER: after, CHANGE: changes})
    assert choose(frame, 10)["object_id"].to_list() == ["a", "c", "e"]
    assert choose(frame, 2)["object_id"].to_list() == ["a", "e"]
