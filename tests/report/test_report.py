"""`truemorph report`, from runs, fits, labels and catalogues to one page."""

import json
import re
import shutil

import polars as pl
import pytest
from markupsafe import escape

import truemorph as tm
from conftest import codes, run, tiny
from truemorph import ReportOptions, label_galaxies, load, read_table, simulate_catalogue, write_table
from truemorph.bias.metrics.scores import balanced_accuracy
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.classifiers.train import train_on_catalogue
from truemorph.config import RunConfig
from truemorph.report.writing import make_report
from truemorph.tables import CatalogTable

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(catalogue, tmp_path_factory):
    """A naive and a debiased run, two folds each, and the estimate that the second was trained through."""
    folder, settings = tmp_path_factory.mktemp("runs"), tiny(folds=2, epochs=1)
    tm.estimate_transition(catalogue, compare=False, out=folder / "fit.json", fraction_bins=5)
    for name, how in (("naive", {"labels": "naive"}), ("debiased", {"transition": str(folder / "fit.json")})):
        train_on_catalogue(RunConfig(catalogue=str(catalogue), out=str(folder / name), training=settings, **how))
    stem = "t01_smooth_or_features_a0"
    answers = {f"{stem}1_smooth": 0.3, f"{stem}2_features_or_disk": 0.6, f"{stem}3_star_or_artifact": 0.1}
    others = {f"{name}_debiased": pl.lit(value) for name, value in answers.items()}
    # Answers of another group with the name of a run.
    read_catalogue(catalogue).frame.select("object_id", **others).write_csv(folder / "debiased.csv")
    return folder


@pytest.fixture(scope="module")
def reported(runs, catalogue, tmp_path_factory):
    """A page on both runs, with better images of some galaxies."""
    folder = tmp_path_factory.mktemp("reported")
    better = folder / "better"
    better.mkdir()
    table = read_catalogue(catalogue)
    for one in table.frame["object_id"][:200]:
        shutil.copy(f"{table.metadata['image_root']}/{one}.jpg", better / f"{one}.jpg")
    for one in table.frame["object_id"][200:300]:
        (better / f"{one}.jpg").write_bytes(b"not a picture")
    options = ReportOptions(intrinsic=("M_r",), better=better, bootstrap=5, galaxies=30, maps=40)
    made = make_report([runs / "naive", runs / "debiased"], folder / "page.html", options)
    return made.content, folder


def test_the_page_and_its_files_have_the_numbers_of_the_labels(reported, runs, catalogue, tmp_path):
    result, folder = reported
    label_galaxies(load(runs / "debiased"), catalogue, tmp_path / "labels.parquet")
    labels = read_table(tmp_path / "labels.parquet").frame
    (told,) = result["questions"]
    row = next(one for one in told["table"] if one["labels"] == "debiased: labels")
    assert row["galaxies"] == labels.height == 400
    right = balanced_accuracy(read_catalogue(catalogue).frame["gold"].to_numpy(), labels["label"].to_numpy())
    assert row["balanced_accuracy: disk: truth is 1"] == pytest.approx(right)
    changed = labels.filter((pl.col("posterior_disk") > 0.5) != (pl.col("observed_label") == 1))
    listed = read_table(folder / "page_files" / "changed.ecsv").frame
    assert told["changed"] == listed.height == changed.height
    assert sorted(listed["posterior_disk"]) == pytest.approx(sorted(changed["posterior_disk"]))
    assert not any(one["labels"] == "naive: posterior" for one in told["table"])

    page = (folder / "page.html").read_text()
    assert len(page) < 15e6
    assert all(f"(eq. {number})" in page for number in (3, 4))
    text = page.replace("&#39;", "'").replace("\u00a0%", " %")
    assert result["headline"] in text
    assert result["answer"] in text
    overconfident = [one["message"] for one in result["findings"] if one["code"] == "posterior-overconfident"]
    assert ["debiased" in message for message in overconfident] == [True]  # the naive network has no posterior
    listed = re.findall('<li data-code="([^"]+)"', page)
    assert sorted(listed) == sorted(one["code"] for one in result["findings"])
    for one in result["passed"]:
        assert f">{escape(one['measured'])}</td>" in page
    for row in told["bins"]:
        assert all(f">{row[name]:.3f}</td>" in page for name in ("labelled", "corrected", "lowest", "highest"))
    assert re.findall(r'(?:src|href)="(?!data:|#|https://www.legacysurvey)([^"]*)"', page) == []  # nothing is fetched
    panels = {"pairs": 0, "fractions": 0, "bias_curve": 1, "similar_galaxies": 1, "calibration": 2,
              "training": 3, "maps": 0, "profiles": 0}  # fmt: skip
    drawn = folder / "page_files" / "figures"
    for name, count in panels.items():
        assert (f'id="figure-{name}"' in page) == (name != "pairs")
        assert (drawn / f"{name}.ecsv").is_file() == (name != "maps")
        for one in [f"{name}_{k}" for k in range(1, count + 1)] or [name]:
            for kind in ("pdf", "png"):
                assert (drawn / f"{one}.{kind}").stat().st_size > 0
    differing = page.partition("Settings that differ")[2]
    assert '<th scope="row">labels</th><td>naive</td><td>–</td>' in differing
    assert f'<th scope="row">transition</th><td>–</td><td>{runs / "fit.json"}</td>' in differing
    assert page.count("<li data-name=") == min(30, told["changed"])
    assert json.loads((folder / "page_files" / "report.json").read_text()) == result
    # Better images are shown beside; the page says which are missing or cannot be read.
    shown, total = map(int, re.search(r"(\d+) of the (\d+) galaxies shown have a better image", page).groups())
    assert 0 < shown < total
    assert re.search(r"\d+ can&#39;t be read", page)
    assert '<th scope="row">better image</th><td>none</td>' in page


def changed_catalogue(catalogue, path, **columns):
    """The catalogue with other columns, elsewhere."""
    table = read_catalogue(catalogue)
    return write_table(CatalogTable(table.frame.with_columns(**columns), table.units, table.metadata), path)


def reported_on(capsys, *arguments, out):
    status, printed, err = run(capsys, "report", *arguments, "--out", out, "--maps", 0, "--bootstrap", 0, "--json")
    assert status == 0, err
    return json.loads(printed)


def test_names_that_are_markup_stay_text(runs, catalogue, tmp_path, capsys):
    hostile = 'x"><meta http-equiv="refresh" content="0;url=http://localhost/leak">'
    columns = {hostile: pl.col("radius"), "object_id": pl.format("<script>{}</script>", pl.col("object_id"))}
    path = changed_catalogue(catalogue, tmp_path / "<b>cat.parquet", **columns)
    odd = shutil.copytree(runs / "debiased", tmp_path / "_cost $x_$ & <b>")  # means something to matplotlib too
    reported_on(capsys, odd, "--catalogue", path, "--intrinsic", hostile, out=tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "<b>" not in page
    assert page.count("<meta http-equiv") == page.count("<script") == 1  # the page's own
    assert 'data-name="&lt;script&gt;' in page


def test_without_images_the_page_adapts(tmp_path, capsys):
    """A catalogue with experts' types and another catalogue's fractions, alone and with a fit as model."""
    world = simulate_catalogue(3000, seed=2, gold=3000).drop("sampling_weight")
    types = pl.when(pl.col("gold") == 0).then(-5).otherwise(pl.int_range(pl.len()) % 8 - 2)
    path, fit, page = tmp_path / "cat.parquet", tmp_path / "transition.json", tmp_path / "page.html"
    world.with_columns(t_type=types).drop("gold").write_parquet(path)
    votes = world.select("object_id", smooth_votes=0.7 - 0.5 * pl.col("label"), disk_votes=0.3 + 0.5 * pl.col("label"))
    votes[:2900].write_csv(tmp_path / "Hart.csv")
    given = ("--catalogue", path, "--gold", "t_type>=-3", "--gold", "t_type>=1", "--labels", tmp_path / "Hart.csv")
    result = reported_on(capsys, *given, out=page)
    rows = {row["labels"]: row for row in result["questions"][0]["table"]}
    assert list(rows)[1:3] == ["Hart", "Hart, fractions"]
    assert rows["Hart, fractions"]["galaxies"] == 2900
    assert rows["Hart, fractions"]["disk_fraction"] == pytest.approx(0.3 + 0.5 * world["label"][:2900].mean())
    assert "<img" not in page.read_text()
    assert "disk: t_type &gt;= 1" in page.read_text()
    drawn = tmp_path / "page_files" / "figures"
    curves = read_table(drawn / "bias_curve.ecsv").frame
    assert curves.filter(pl.col("by") == "rayleigh, estimated")["share"].is_sorted(descending=True)
    assert {"disk: t_type >= -3", "disk: t_type >= 1"} < set(curves["by"])
    corrected = read_table(drawn / "fractions.ecsv").frame
    assert (corrected["lowest"] <= corrected["corrected"]).all()
    assert (corrected["gold"] > corrected["labelled"]).all()
    assert run(capsys, "transition", path, "--no-compare", "--out", fit)[0] == 0
    result = reported_on(capsys, fit, *given, out=page)
    (told,) = result["questions"]
    assert any(row["labels"] == "transition: posterior" for row in told["table"])
    assert read_table(tmp_path / "page_files" / "changed.ecsv").frame.height == told["changed"] > 0


def test_experts_own_labels_have_their_definition_and_no_volunteers(tmp_path, capsys):
    own = simulate_catalogue(2000, gold=300).select("object_id", "label", "alpha", "gold")
    asked = {"classes": "early-type,late-type", "definition": "spirals only"}
    tm.prepare_catalogue(own, label="label", alpha="alpha", gold="gold", out=tmp_path / "cat.parquet", **asked)
    page = tmp_path / "page.html"
    result = reported_on(capsys, "--catalogue", tmp_path / "cat.parquet", out=page)
    told = result["questions"][0]
    assert (told["classes"], told["definition"]) == (["early-type", "late-type"], "spirals only")
    assert "spirals only" in page.read_text()
    shown = [page, *(tmp_path / "page_files").rglob("*.*")]
    assert not [one.name for one in shown if b"olunteer" in one.read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give run folders"),
        (["{runs}/debiased", "--out", "page.pdf"], "an .html file"),
        (["{runs}/debiased", "--intrinsic", "radius_kcp"], "radius_kpc"),
        (["{runs}/debiased", "--gold", "t_type>=1"], "t_type"),
        (["{runs}/debiased", "--better", "nowhere"], "nowhere"),
        (["{runs}/debiased", "--where", "split=none"], "no galaxy meets"),
        (["{runs}/debiased", "--labels", "{runs}/debiased.csv"], "names two things"),
        (["{runs}/debiased", "{runs}/debiased"], "given twice"),
        (["{runs}/debiased", "--labels", "{runs}/naive/seen.parquet"], "seen.parquet"),
    ],
)
def test_bad_input_gets_one_line(runs, arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, "report", *(argument.format(runs=runs) for argument in arguments), "--maps", "0")
    assert (status, err.count("truemorph:")) == (2, 1)
    assert says in err


def test_given_labels_are_used_with_this_catalogues_labels_on_galaxies_that_all_models_label(
    runs, catalogue, tmp_path, capsys
):
    label_galaxies(load(runs / "debiased"), catalogue, tmp_path / "whole.parquet")
    table = read_table(tmp_path / "whole.parquet")
    part = table.frame.sort("alpha", descending=True)[:200]
    labels = write_table(CatalogTable(part, table.units, table.metadata), tmp_path / "part.parquet")
    flipped = changed_catalogue(catalogue, tmp_path / "flipped.parquet", label=1 - pl.col("label"))
    given = (runs / "naive", runs / "debiased", "--labels", labels, "--catalogue", flipped)
    result = reported_on(capsys, *given, out=tmp_path / "p.html")
    table = result["questions"][0]["table"]
    assert {row["galaxies"] for row in table} == {200}
    found = {one["code"]: one["message"] for one in result["findings"]}
    assert "200 galaxies (50%)" in found["rows-not-labelled"]
    (told,) = result["questions"]
    row = next(one for one in told["table"] if one["labels"] == "debiased: posterior")
    assert row["to_smooth"] == 0  # eq. 6: nobody takes a smooth galaxy for a disk
    assert [one.stem for one in (tmp_path / "p_files" / "labels").glob("*.parquet")] == ["naive"]


def test_few_gold_labels_an_empty_column_and_labels_of_one_class(runs, catalogue, tmp_path, capsys):
    few = pl.when(pl.int_range(pl.len()) < 12).then(pl.col("gold")).otherwise(None)
    columns = {"gold": few, "none": pl.lit(None, pl.Int64), "sersic_n": pl.lit(None, pl.Float64)}
    path = changed_catalogue(catalogue, tmp_path / "few.parquet", **columns)
    given = (runs / "debiased", "--catalogue", path, "--gold", "gold", "--gold", "none")
    result = reported_on(capsys, *given, out=tmp_path / "p.html")
    (told,) = result["questions"]
    row = next(one for one in told["table"] if one["labels"].startswith("gold labels"))
    assert (row["galaxies"], row["excess"]) == (12, None)
    assert "gold-empty" in {one["code"] for one in result["findings"]}
    assert "nan" not in result["answer"]
    one = changed_catalogue(catalogue, tmp_path / "one.parquet", **columns, label=pl.lit(0))
    status, _, err = run(capsys, "report", runs / "debiased", "--catalogue", one, "--out", tmp_path / "one.html")
    assert (status, err.count("\n")) == (2, 1)


def test_a_run_on_columns_through_several_observables_knows_its_catalogue(tmp_path):
    world = simulate_catalogue(2500, 1, trend="features", gold=400).drop("sampling_weight")
    study = tm.estimate_transition(world, gold="gold", observables=["bulge_fraction"], compare=False)
    path = tmp_path / "catalogue.parquet"
    world.write_parquet(path)
    settings = {"features": ["bulge_fraction", "x2", "x3"], "folds": 2}
    model = tm.train_classifier(path, transition=study, preset="dcv14", out=tmp_path / "model", settings=settings)
    options = tm.ReportOptions(maps=0, bootstrap=0, gold=["gold"])
    report = tm.write_report(model.out, out=tmp_path / "report.html", options=options)
    assert any(row["labels"] == "model: posterior" for row in report.content["questions"][0]["table"])
    assert "labels-treated-as-correct" not in codes(report)
