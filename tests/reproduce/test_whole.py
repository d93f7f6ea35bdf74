"""The whole experiment from an empty folder, with a simulated archive on a local server."""

import gzip
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, precision_score

from archives.server import Observatory
from archives.simulated import write_archive
from conftest import run
from truemorph import cv18, fit_transition, read_table
from truemorph.archives import gz2, hst, sdss, simard
from truemorph.reproduce.experiment import all_stages

pytestmark = pytest.mark.slow
NAMES = [stage.name for stage in all_stages(2)]
INTRINSIC = ("radius_kpc", "M_r", "redshift")
SMALL = {"--scale": "0.0025", "--bootstrap": "10", "--seeds": "2"}
NETWORK = {"image_size": 32, "crop": 207 / 424, "epochs": 4, "hidden": 32, "batch_size": 32}
NETWORK = {f"--training.{name}": str(value) for name, value in NETWORK.items()}


def command(data, out, *more):
    """Return the arguments of a small reproduction; `more` overrides them."""
    own = {**SMALL, **NETWORK, "--data": str(data), "--out": str(out)}
    own = [part for name, value in own.items() if name not in more for part in (name, value)]
    return ["reproduce", *own, *map(str, more)]


def reproduce(capsys, data, out, *more):
    """Return status by stage, the JSON result and the exit status."""
    status, said, err = run(capsys, *command(data, out, "--json", *more))
    assert said, err
    result = json.loads(said)
    return {one["name"]: one["status"] for one in result["stages"]}, result, status


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Local server of the simulated archive, used by `fetch` instead of the real ones."""
    folder = tmp_path_factory.mktemp("archive")
    with (
        Observatory(write_archive(folder, 320, seed=8, size=48, hst=0.25)) as served,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        patch.setenv("TRUEMORPH_ADDRESSES", str(served.write_addresses(folder / "addresses.toml")))
        for archive in (gz2, sdss, simard, hst):
            patch.setattr(archive, "PER_SECOND", 1e6)
        yield served


@pytest.fixture(scope="module")
def whole(sky, tmp_path_factory):
    """Folder of a finished reproduction, which fetched its data."""
    from truemorph.cli import main

    folder = tmp_path_factory.mktemp("whole")
    main(command(folder / "data", folder / "out", "--fetch"))
    return folder / "out"


@pytest.fixture
def data(whole):
    return whole.parent / "data"


@pytest.fixture
def again(whole, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(whole, tmp_path / "again")


def result_of(out):
    return json.loads((out / "reproduce.json").read_text())


def stage_of(out, name):
    return out / next(one["folder"] for one in result_of(out)["stages"] if one["name"] == name)


def table_of(out, name, stage="catalogue"):
    return read_table(stage_of(out, stage) / name).frame


def done(status):
    return {name for name, one in status.items() if one == "done"}


def test_every_stage_runs_once(capsys, sky, again, data):
    stages = {one["name"]: one["status"] for one in result_of(again)["stages"]}
    assert stages == dict.fromkeys(["fetch-gz2", "fetch-sdss", "fetch-simard", *NAMES], "done")
    asked, before = len(sky.requests), result_of(again)["table1"]
    status, result, _ = reproduce(capsys, data, again, "--fetch")
    assert set(status.values()) == {"cached"}
    assert len(sky.requests) == asked
    assert result["table1"] == before


def test_the_sample_agrees_with_the_truth(sky, whole):
    catalogue = read_table(stage_of(whole, "catalogue") / "gz2b.parquet")
    assert catalogue.units["radius_kpc"] == "kpc"
    truth = sky.truth.with_columns(pl.col("objid").alias("object_id"))
    both = catalogue.frame.join(truth, on="object_id", suffix="_true")
    assert both.height == catalogue.frame.height
    assert np.allclose(both["alpha"], both["alpha_true"], rtol=2e-3)
    # Galaxy Zoo's redshifts, larger by 1e-5, replace those that SDSS lacks.
    assert 0 < (both["redshift"] - both["redshift_true"] > 5e-6).sum() < both.height / 4
    assert np.allclose(both["redshift"], both["redshift_true"], atol=2e-5)
    assert np.allclose(both["radius_kpc"], both["radius_kpc_true"], rtol=2e-3)
    # Simulated M_r include a K-correction of z mag.
    assert np.allclose(both["M_r"], both["M_r_true"] + both["redshift"], atol=5e-3)
    # Galaxies without image or label by Hart et al. are not drawn.
    drawn = result_of(whole)["catalogue"]
    assert drawn["with_image"] == drawn["galaxies"] < drawn["of"]
    assert drawn["funnel"]["without image"] > drawn["funnel"]["without hart_label"] > 0


def test_prepare_draws_the_same_sample_and_theta_is_the_same(capsys, data, tmp_path):
    """Both commands on an archive smaller than the paper's sample."""
    status, result, _ = reproduce(capsys, data, tmp_path / "out", "--scale", "paper", "--stages", "theta")
    assert status["theta"] == "done"
    sample = table_of(tmp_path / "out", "gz2b.parquet")
    joined = ["sdss/photometry.parquet", "simard/table3.parquet", "gz2/images.parquet"]
    joined = [data / file for file in (*joined, "gz2/gz2sample.csv.gz", "gz2/gz2_hart16.csv.gz")]
    joins = [part for file in joined for part in ("--join", file)]
    catalogue, fit = tmp_path / "paper.parquet", tmp_path / "theta.json"
    votes = data / "gz2" / "zoo2MainSpecz.csv.gz"
    assert run(capsys, "prepare", votes, "--preset", "paper", *joins, "--out", catalogue)[0] == 0
    prepared = pl.read_parquet(catalogue).filter(pl.col("split") != "unused")
    columns = pl.col("object_id", "split", "label"), pl.col("hart_label").cast(pl.Int64)
    assert prepared.select(columns).equals(sample.select(columns))
    assert np.allclose(prepared["sampling_weight"], sample["draw_weight"])
    chosen = ["--where", "split=train", "--method", "binned", "--weights", "none", "--no-compare"]
    assert run(capsys, "transition", catalogue, *chosen, "--out", fit)[0] == 0
    assert json.loads(fit.read_text())["parameters"]["theta"] == pytest.approx(result["theta"]["theta"], rel=1e-12)


def test_gz2d_has_the_same_galaxies_with_other_labels(whole, data):
    observed, debiased = (table_of(whole, name) for name in ("gz2b.parquet", "gz2d.parquet"))
    both = observed.join(debiased, on="object_id", suffix="_debiased", maintain_order="left")
    assert both.height == debiased.height == observed.height
    for name in ("split", "alpha", "image"):
        assert both[name].equals(both[f"{name}_debiased"])
    hart = read_table(data / "gz2" / "gz2_hart16.csv.gz").frame
    votes = both.select("object_id").join(hart, left_on="object_id", right_on="dr7objid", maintain_order="left")
    smooth, disk = (
        votes[f"t01_smooth_or_features_a0{answer}_debiased"] for answer in ("1_smooth", "2_features_or_disk")
    )
    assert (both["label_debiased"] == (disk > smooth).cast(int)).all()
    assert (both["label"] != both["label_debiased"]).sum() > 5


def test_table_1_agrees_with_the_metric_computed_from_the_files(whole):
    table = result_of(whole)["table1"]
    assert [row["letter"] for row in table["rows"]] == list("abcdef")
    assert [row["paper"] for row in table["rows"]] == [0.3696, 0.3106, 0.3781, 0.3258, 0.2994, 0.2866]
    joined = table_of(whole, "test.parquet").with_columns(gz2b="label")
    joined = joined.join(table_of(whole, "gz2d.parquet").select("object_id", gz2d="label"), on="object_id")
    for name in ("resnet-gz2b", "resnet-gz2d", "dcv14", "ddb"):
        labels = table_of(whole, "labels.parquet", name)
        labels = labels.join(table_of(whole, "test.parquet"), on="object_id", how="semi")
        assert set(labels["relation"]) == {"new"}
        joined = joined.join(labels.select("object_id", pl.col("label").alias(name)), on="object_id", how="left")
    assert joined.height == table["galaxies"]
    for row in table["rows"]:
        known = joined.drop_nulls(row["name"])
        assert row["galaxies"] == known.height
        labels = known[row["name"]].to_numpy()
        expected = cv18(labels, known["alpha"].to_numpy(), known.select(INTRINSIC).to_numpy(), table["depth"],
                        table["bins"], bootstrap=10)  # fmt: skip
        for name in ("value", "bootstrap_mean", "floor"):
            assert row[name] == pytest.approx(getattr(expected, name))
        if row["name"].startswith("resnet-"):
            own = joined[row["name"].removeprefix("resnet-")].to_numpy()
            assert row["accuracy"] == pytest.approx(accuracy_score(own, labels))
            found = precision_score(own, labels, average=None, labels=[0, 1], zero_division=np.nan)
            assert row["precision"] == pytest.approx(np.nanmean(found))


def test_theta_is_that_of_the_archive_and_the_debiased_network_is_trained_through_it(whole):
    for one in result_of(whole)["table1"]["theta"]:
        assert abs(one["theta"] - 11.25) < 4 * one["stderr"]
    ddb = json.loads((stage_of(whole, "ddb") / "model" / "config.json").read_text())
    assert ddb["transition"]["parameters"]["theta"] == result_of(whole)["theta"]["theta"]


def test_effects_of_other_choices_are_measured(whole):
    reasons = {one["what"]: one for one in result_of(whole)["reasons"]}
    assert len(reasons) == 7
    assert len(reasons["leaves and bins"]["settings"]) >= 3
    observed = result_of(whole)["table1"]["rows"][0]
    effect = reasons["galaxies on which bias is measured"]["effect"]
    assert f"GZ2B, test {observed['bootstrap_mean']:.3f} ± {observed['bootstrap_std']:.3f}" in effect
    theta = {one["how"]: one["theta"] for one in result_of(whole)["theta"]["others"]}
    # The best PSF is at most that of the galaxy's own field, so α and θ grow.
    assert 1 < theta["likelihood, best PSF of all fields"] / theta["likelihood, no bins"] < 1.2
    training = table_of(whole, "gz2b.parquet").filter(pl.col("split") == "train")
    weighted = fit_transition(training["label"], training["alpha"], weights=training["draw_weight"])
    found = theta["likelihood, weights that undo the selection by label"]
    assert found == pytest.approx(weighted.values["theta"], rel=1e-3)


def test_the_debiased_catalogue_has_the_whole_sample(whole):
    labels = read_table(whole / "debiased.parquet").frame
    sample = table_of(whole, "gz2b.parquet").select("object_id", "split")
    joined = sample.join(labels, on="object_id")
    assert joined.height == sample.height
    assert joined["p_disk"].is_between(0, 1).all()
    assert set(joined.filter(pl.col("split") == "test")["relation"]) == {"new"}
    assert "new" not in set(joined.filter(pl.col("split") == "train")["relation"])


def test_changed_galaxies_have_hst_images_where_hst_observed(whole, sky):
    test, labels = table_of(whole, "test.parquet"), table_of(whole, "labels.parquet", "ddb")
    moved = test.join(labels, on="object_id", suffix="_ddb").filter((pl.col("label") == 0) & (pl.col("label_ddb") == 1))
    listed = table_of(whole, "changed.csv", "changed")
    assert set(listed["object_id"]) == set(moved["object_id"])
    assert listed["p_disk"].is_sorted(descending=True)
    # Without Galactic extinction, which is 5.155 / 2.751 times larger in u than in r.
    photometry = listed.join(test, on="object_id", suffix="_test", maintain_order="left")
    colour = photometry["petroMag_u"] - photometry["petroMag_r"] - (5.155 / 2.751 - 1) * photometry["extinction_r"]
    assert np.allclose(listed["u_r"], colour, equal_nan=True)
    assert listed["M_r"].equals(photometry["M_r_test"])
    imaged = sky.truth.filter(pl.col("hst") == "image")["objid"]
    pairs = pl.read_csv(whole / "verdicts.csv")["object_id"]
    assert set(pairs) >= set(imaged) & set(listed["object_id"])  # fields may show neighbours too
    assert len(pairs) > 2


def test_verdicts_on_hst_images_are_counted(capsys, again, data):
    file = again / "verdicts.csv"
    listed = pl.read_csv(file, schema_overrides={"verdict": pl.String})
    given = ["arms", "Lenticular", *["arms"] * (listed.height - 3), None]
    listed.with_columns(verdict=pl.Series(given)).write_csv(file)
    status, result, _ = reproduce(capsys, data, again, "--stages", "figure4")
    assert done(status) == {"figure4"}
    assert result["figure4"]["verdicts"] == {"arms": listed.height - 2, "lenticular": 1, "unclear": 0}
    listed.with_columns(verdict=pl.lit("spiral")).write_csv(file)
    status, result, code = reproduce(capsys, data, again, "--stages", "figure4")
    assert (code, status["figure4"]) == (1, "failed")
    assert "verdicts.csv" in next(one["text"] for one in result["stages"] if one["name"] == "figure4")
    listed.clear().write_csv(file)
    status, _, code = reproduce(capsys, data, again, "--stages", "figure4")
    assert (code, status["figure4"]) == (0, "cached")  # as without verdicts


def test_the_page_needs_no_other_file_and_shows_the_papers_values(whole):
    text = (whole / "reproduction.html").read_text()
    assert not re.search(r'(src|href)="https?:', text)
    assert re.search(r"<h1[^>]*>[^<]*Simulated", text)
    codes = {finding["code"] for name in ("catalogue", "table1") for finding in result_of(whole)[name]["findings"]}
    assert {"archive-simulated", "smaller-than-the-paper"} <= codes
    for said in ("0.3696 ± 0.0095", "0.2866 ± 0.0112", "9.18", "11.25", "0.921", "0.866"):
        assert said in text
    numbers = re.findall(r"<figcaption[^>]*>Figure ([\w ]+)\.", text)
    assert {"1", "2", "3", "beside 4", "5", "7a"} <= {*numbers}
    assert len({*numbers}) == len(numbers)
    figures = {path.stem for path in (whole / "figures").iterdir()}
    assert {
        "figure1_1",
        "figure2",
        "figure3_1",
        "figure3_3",
        "figure4",
        "figure4_colours",
        "figure5_1",
        "figure7a",
    } <= figures


def test_networks_which_take_hours_do_not_depend_on_how_bias_is_measured(capsys, again, data):
    status, result, _ = reproduce(capsys, data, again, "--depth", 0, "--bins", 3, "--stages", "table1")
    assert done(status) == {"theta", "table1"}
    test = table_of(again, "test.parquet")
    expected = cv18(test["label"].to_numpy(), test["alpha"].to_numpy(), test.select(INTRINSIC).to_numpy(), 0, 3)
    assert result["table1"]["rows"][0]["value"] == pytest.approx(expected.value)


def test_files_of_the_user_stay_and_outdated_files_are_removed(capsys, again, data):
    (again / "figures" / "mine.pdf").write_text("mine")
    reproduce(capsys, data, again, "--stages", "theta")
    assert (again / "reproduction.html").is_file()  # of stages that were not selected
    (again / "votes.csv.gz").write_bytes((data / "gz2" / "zoo2MainSpecz.csv.gz").read_bytes()[:-200])
    status, result, code = reproduce(capsys, data, again, "--table", again / "votes.csv.gz")
    assert (code, status["catalogue"], status["page"]) == (1, "failed", "failed")
    assert "votes.csv.gz" in result["stages"][0]["text"]
    assert {one["text"] for one in result["stages"][1:]} == {"needs catalogue, which failed"}
    assert not (again / "reproduction.html").exists()
    assert [path.name for path in (again / "figures").iterdir()] == ["mine.pdf"]
    assert set(reproduce(capsys, data, again)[0].values()) == {"cached"}
    assert (again / "reproduction.html").is_file()


def test_missing_data_are_reported_and_do_not_repeat_networks(capsys, again, data, tmp_path):
    less = shutil.copytree(data, tmp_path / "data")
    for name in ("simard", "hst"):
        shutil.rmtree(less / name)
    status, result, code = reproduce(capsys, less, again)
    lacking = {one["name"]: one["text"] for one in result["stages"] if one["status"] == "lacks"}
    assert (code, set(lacking)) == (0, {"dcv14", "figure4"})
    assert "truemorph fetch simard" in lacking["dcv14"]
    assert "truemorph fetch hst --positions" in lacking["figure4"]
    assert [row["letter"] for row in result["table1"]["rows"]] == list("abcdf")
    assert 'data-code="stage-lacks-input"' in (again / "reproduction.html").read_text()
    assert {status[name] for name in ("resnet-gz2b", "resnet-gz2d", "ddb", "maps")} == {"cached"}
    assert {"catalogue", "table1", "page"} <= done(status)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("gz2/gz2sample.csv.gz", "REDSHIFT"),
        ("gz2/zoo2MainSpecz.csv.gz", "t01_smooth_or_features_a02_features_or_disk_weighted_fraction"),
        ("gz2/zoo2MainSpecz.csv.gz", "dr7objid"),
    ],
)
def test_a_renamed_column_of_an_archive_is_named(capsys, data, tmp_path, file, column):
    for name in ("gz2", "sdss"):
        shutil.copytree(data / name, tmp_path / "data" / name)
    table = pl.read_csv(tmp_path / "data" / file)
    with gzip.open(tmp_path / "data" / file, "wt") as renamed:
        renamed.write(table.rename({column: f"{column}_new"}).write_csv())
    status, result, code = reproduce(capsys, tmp_path / "data", tmp_path / "out", "--stages", "theta")
    assert (code, status["catalogue"]) == (1, "failed")
    text = next(one["text"] for one in result["stages"] if one["name"] == "catalogue")
    assert f"no column '{column}'" in text
    assert f"{column}_new" in text


def test_inputs_are_read_from_toml_and_options(capsys, catalogue, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "reproduce.toml").write_text(f'table = "{catalogue}"\n[training]\ncrop = 1.0\n')
    options = ("--stages", "theta", "--config", folder / "reproduce.toml")
    status, result, code = reproduce(capsys, folder, tmp_path / "out", *options)
    assert (code, status["theta"]) == (0, "done"), result["stages"]
    assert result["catalogue"]["with_image"] == result["catalogue"]["galaxies"] > 200


def test_mistakes_give_one_line(capsys, data, tmp_path):
    cases = [
        ("no such folder of data", ["--data", tmp_path / "absent"]),
        ("no stage 'tabel1'", ["--data", data, "--stages", "tabel1"]),
        ("votes.csv (table)", ["--data", data, "--table", "votes.csv"]),
    ]
    (tmp_path / "of-0.2").mkdir()
    (tmp_path / "of-0.2" / "reproduce.toml").write_text('table = "votes.parquet"')
    cases.append(("--config", ["--data", tmp_path / "of-0.2"]))
    for says, arguments in cases:
        status, out, err = run(capsys, "reproduce", "--out", tmp_path / "out", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert says in err


def test_a_dry_run_runs_no_stage_and_a_second_process_is_refused(capsys, data, tmp_path):
    from filelock import FileLock

    status, _, code = reproduce(capsys, data, tmp_path / "out", "--dry-run")
    assert (code, set(status.values())) == (0, {"to do"})
    assert not (tmp_path / "out" / "reproduce.json").exists()
    (tmp_path / "empty").mkdir()
    _, out, err = run(capsys, "reproduce", "--data", tmp_path / "empty", "--out", tmp_path / "none", "--dry-run")
    assert f"{out}{err}".count("fetch gz2") == 1  # which all stages lack
    fetching = ("--data", tmp_path / "empty", "--out", tmp_path / "none", "--dry-run", "--fetch")
    assert "3.4 GB" in run(capsys, "reproduce", *fetching)[2]
    assert not any((tmp_path / "empty").iterdir())
    with FileLock(tmp_path / "out" / "stages" / ".lock"):
        status, _, err = run(capsys, *command(data, tmp_path / "out", "--stages", "catalogue"))
    assert status == 1
    assert "another process" in err
