"""The whole experiment on simulated galaxies in a folder as `truemorph fetch` writes it."""

import gzip
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, precision_score

from conftest import run
from truemorph.bias.estimation import fit_transition
from truemorph.bias.metrics import cv18
from truemorph.errors import TruemorphError
from truemorph.reproduce.experiment import STAGES
from truemorph.tables import read_table

pytestmark = pytest.mark.slow
NAMES = [stage.name for stage in STAGES]
THETA = 11.25
INTRINSIC = ("radius_kpc", "M_r", "redshift")
# Without the comparison with random weights, which tests of explain cover.
SMALL = {"--scale": "0.003", "--draws": "0", "--bootstrap": "10"}
NETWORK = {"image_size": 32, "crop": 1.0, "epochs": 6, "hidden": 32, "batch_size": 32}
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
def whole(fetched, tmp_path_factory):
    """The folder of a finished reproduction."""
    out = tmp_path_factory.mktemp("whole") / "out"
    from truemorph.cli import main

    main(command(fetched, out))
    return out


@pytest.fixture
def again(whole, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(whole, tmp_path / "again")


def result_of(out):
    return json.loads((out / "reproduce.json").read_text())


def stage_of(out, name):
    return out / next(one["folder"] for one in result_of(out)["stages"] if one["name"] == name)


def test_every_stage_runs(whole):
    stages = result_of(whole)["stages"]
    assert [one["name"] for one in stages] == NAMES
    assert {one["status"] for one in stages} == {"done"}
    assert all((whole / one["folder"] / "stage.json").is_file() for one in stages)


def test_gz2d_has_the_same_galaxies_with_other_labels(whole, fetched):
    observed = read_table(stage_of(whole, "catalogue") / "gz2b.parquet").frame
    debiased = read_table(stage_of(whole, "gz2d") / "gz2d.parquet").frame
    hart = read_table(fetched / "gz2" / "gz2_hart16.csv.gz").frame
    both = observed.join(debiased, on="object_id", suffix="_debiased")
    assert both.height == debiased.height == observed.height  # the sample has galaxies of Hart et al.'s table only
    for name in ("split", "alpha", "image"):
        assert both[name].equals(both[f"{name}_debiased"])
    fraction = both.select("object_id").join(hart, left_on="object_id", right_on="dr7objid", maintain_order="left")
    assert (both["label_debiased"] == (fraction["t01_smooth_or_features_a01_smooth_debiased"] < 0.5).cast(int)).all()
    assert (both["label"] != both["label_debiased"]).sum() > 10
    assert not any(name.startswith("t02") for name in observed.columns)


def test_intrinsic_columns_are_computed_from_photometry(whole, fetched):
    observed = read_table(stage_of(whole, "catalogue") / "gz2b.parquet")
    assert set(INTRINSIC) <= set(observed.frame.columns)
    assert observed.units["radius_kpc"] == "kpc"
    # Simulated M_r include a K-correction of z mag and no extinction; the table has 0.1 mag of extinction.
    from truemorph.simulate.population import simulate_galaxies

    truth = simulate_galaxies(400, 4, confounded=False)
    both = observed.frame.join(truth, on="object_id", suffix="_true")
    assert np.allclose(both["radius_kpc"], both["radius_kpc_true"], rtol=1e-5)
    assert np.allclose(both["M_r"], both["M_r_true"] + both["redshift"] - 0.1, atol=1e-3)


def test_table_1_agrees_with_the_metric_computed_from_the_files(whole):
    table = json.loads((whole / "table1.json").read_text())
    assert [row["letter"] for row in table["rows"]] == list("abcdef")
    paper = {"gz2b": 0.3696, "gz2d": 0.3106, "resnet-gz2b": 0.3781, "resnet-gz2d": 0.3258, "dcv14": 0.2994}
    assert {row["name"]: row["paper"] for row in table["rows"]} == {**paper, "ddb": 0.2866}
    test = read_table(stage_of(whole, "catalogue") / "test.parquet").frame
    debiased = read_table(stage_of(whole, "gz2d") / "gz2d.parquet").frame.select("object_id", gz2d="label")
    joined = test.join(debiased, on="object_id")
    for name in ("resnet-gz2b", "resnet-gz2d", "dcv14", "ddb"):
        labels = read_table(stage_of(whole, name) / "labels.parquet").frame
        assert set(labels["relation"]) == {"new"}
        joined = joined.join(labels.select("object_id", pl.col("label").alias(name)), on="object_id")
    assert joined.height == table["galaxies"]
    for row in table["rows"]:
        labels = joined["label" if row["name"] == "gz2b" else row["name"]].to_numpy()
        expected = cv18(labels, joined["alpha"].to_numpy(), joined.select(INTRINSIC).to_numpy(), table["depth"],
                        table["bins"], bootstrap=10)  # fmt: skip
        assert row["value"] == pytest.approx(expected.value)
        assert row["bootstrap_mean"] == pytest.approx(expected.bootstrap_mean)
        assert row["floor"] == pytest.approx(expected.floor)
        if row["name"] in ("resnet-gz2b", "resnet-gz2d"):
            own = joined["label" if row["name"] == "resnet-gz2b" else "gz2d"].to_numpy()
            assert row["accuracy"] == pytest.approx(accuracy_score(own, labels))
            found = precision_score(own, labels, average=None, labels=[0, 1], zero_division=np.nan)
            assert row["precision"] == pytest.approx(np.nanmean(found))


def test_differences_from_gz2b_have_errors_from_paired_resamples(whole):
    rows = {row["name"]: row for row in json.loads((whole / "table1.json").read_text())["rows"]}
    observed = rows["gz2b"]
    for name in ("gz2d", "dcv14"):
        assert rows[name]["from_gz2b"] == pytest.approx(rows[name]["value"] - observed["value"])
        assert 0 < rows[name]["from_gz2b_std"] < 2 * (rows[name]["bootstrap_std"] + observed["bootstrap_std"])


def test_theta_comes_from_the_papers_estimator_on_the_training_set(whole):
    training = read_table(stage_of(whole, "catalogue") / "gz2b.parquet").frame.filter(pl.col("split") == "train")
    found = result_of(whole)["theta"]
    fit = fit_transition(
        training["label"].to_numpy(), training["alpha"].to_numpy(), method="binned", bins=found["bins"]
    )
    assert found["theta"] == pytest.approx(fit.values["theta"])
    assert abs(found["theta"] - THETA) < 4 * found["stderr"]
    logistic = next(one for one in result_of(whole)["table1"]["theta"] if one["name"] == "dcv14")
    assert abs(logistic["theta"] - THETA) < 4 * logistic["stderr"]
    ddb = json.loads((stage_of(whole, "ddb") / "model" / "config.json").read_text())
    assert ddb["transition"]["parameters"]["theta"] == found["theta"]


def test_effects_of_other_choices_are_measured(whole):
    reasons = {one["what"]: one for one in result_of(whole)["reasons"]}
    wanted = {"sample size", "intrinsic columns", "leaves and bins", "galaxies on which bias is measured",
              "sampling noise", "random draw of the sample", "K-correction of M_r", "labels or probabilities",
              "training", "estimator of θ", "selection by label", "unit of α", "field of the PSF width"}  # fmt: skip
    assert wanted <= set(reasons)
    assert not any("could not be measured" in one["effect"] for one in reasons.values())
    assert len(reasons["leaves and bins"]["numbers"]["settings"]) >= 4
    observed = result_of(whole)["table1"]["rows"][0]
    noise = reasons["sampling noise"]["numbers"]
    assert noise["floor"] == pytest.approx(observed["floor"])
    sigma, other = result_of(whole)["theta"]["theta"], reasons["unit of α"]["numbers"]["other"]
    assert sigma / other == pytest.approx(2 * np.sqrt(2 * np.log(2)))
    # The best PSF is 0.9 times each galaxy's own, so α and θ grow by 1 / 0.9.
    theta = reasons["field of the PSF width"]["numbers"]["theta"]
    assert theta[1] / theta[0] == pytest.approx(1 / 0.9, rel=1e-3)


def test_changed_galaxies_are_smooth_in_gz2b_and_disk_in_ddb(whole):
    test = read_table(stage_of(whole, "catalogue") / "test.parquet").frame
    labels = read_table(stage_of(whole, "ddb") / "labels.parquet").frame
    moved = test.join(labels, on="object_id", suffix="_ddb").filter((pl.col("label") == 0) & (pl.col("label_ddb") == 1))
    listed = read_table(stage_of(whole, "changed") / "changed.csv").frame
    assert set(listed["object_id"]) == set(moved["object_id"])
    assert {"ra", "dec"} <= set(listed.columns)
    assert listed["p_disk"].is_sorted(descending=True)


def test_verdicts_on_hst_images_are_counted(capsys, again, fetched):
    file = again / "verdicts.csv"
    listed = pl.read_csv(file, schema_overrides={"verdict": pl.String})
    assert listed.height == result_of(again)["figure4"]["with_better"] > 2
    given = ["arms", "Lenticular", *["arms"] * (listed.height - 3), None]
    listed.with_columns(verdict=pl.Series(given)).write_csv(file)
    status, result, _ = reproduce(capsys, fetched, again)
    assert {name for name, one in status.items() if one == "done"} == {"figure4", "page"}
    assert result["figure4"]["verdicts"] == {"arms": listed.height - 2, "lenticular": 1, "unclear": 0}
    listed.with_columns(verdict=pl.lit("spiral")).write_csv(file)
    status, result, code = reproduce(capsys, fetched, again)
    assert (code, status["figure4"]) == (1, "failed")
    assert "verdicts.csv" in next(one["text"] for one in result["stages"] if one["name"] == "figure4")


def test_theta_is_that_of_the_command_transition(capsys, whole, tmp_path):
    catalogue = stage_of(whole, "catalogue") / "gz2b.parquet"
    found = result_of(whole)["theta"]
    run(capsys, "transition", catalogue, "--where", "split=train", "--method", "binned", "--bins", found["bins"],
        "--weights", "none", "--no-compare", "--out", tmp_path / "fit.json")  # fmt: skip
    assert json.loads((tmp_path / "fit.json").read_text())["parameters"]["theta"] == found["theta"]


def test_the_page_needs_no_other_file_and_shows_the_papers_values(whole):
    text = (whole / "reproduction.html").read_text()
    assert not re.search(r'(src|href)="https?:', text)
    for said in (
        "0.3696 ± 0.0095",
        "0.2866 ± 0.0112",
        "9.18",
        "11.25",
        "0.921",
        "0.866",
        "Why values may differ",
        "Figure 5",
        "Figure 7a",
        "Figure 3",
        "Figure 4",
        "fraction of GZ2B smooth with disk profiles",
        "changed galaxies with HST image",
        "Stages",
    ):
        assert said in text
    figures = {path.stem for path in (whole / "figures").iterdir()}
    assert {"table1", "settings", "figure3_1", "figure3_3", "figure5", "figure7a"} <= figures
    assert read_table(whole / "table1.ecsv").frame.height == 6


def test_a_second_run_uses_the_cache(capsys, again, fetched):
    before = result_of(again)
    status, result, _ = reproduce(capsys, fetched, again)
    assert set(status.values()) == {"cached"}
    assert result["table1"] == before["table1"]


def test_only_changed_stages_run_again(capsys, again, fetched):
    status, _, _ = reproduce(capsys, fetched, again, "--bootstrap", 11)
    assert {name for name, one in status.items() if one == "done"} == {"bias", "table1", "reasons", "figure3", "page"}
    status, _, _ = reproduce(capsys, fetched, again, "--draws", 2)
    assert {name for name, one in status.items() if one == "done"} == {"maps", "page"}
    # Results of the first settings are still cached.
    assert set(reproduce(capsys, fetched, again)[0].values()) == {"cached"}


def test_files_of_the_user_stay_and_outdated_files_are_removed(capsys, again, fetched):
    (again / "figures" / "mine.pdf").write_text("mine")
    (again / "figures" / "more").mkdir()
    status, result, _ = reproduce(capsys, fetched, again, "--stages", "bias")
    # Results of stages that were not selected stay, and are listed as those of an earlier run.
    assert (again / "reproduction.html").is_file()
    assert set(result["files"]) == {"table1.json", "table1.ecsv", "reproduction.html", "figures"}
    assert {"table1", "reasons", "answer"} <= set(result["of_an_earlier_run"])
    assert result["table1"]["rows"]
    votes = fetched.parent / "cut" / "votes.csv.gz"
    votes.parent.mkdir(exist_ok=True)
    votes.write_bytes((fetched / "gz2" / "zoo2MainSpecz.csv.gz").read_bytes()[:-200])
    status, result, code = reproduce(capsys, fetched, again, "--table", votes)
    assert (code, status["catalogue"], status["page"]) == (1, "failed", "failed")
    assert not (again / "reproduction.html").exists()
    assert not list(again.glob("table1.*"))
    assert "table1" not in result
    assert {path.name for path in (again / "figures").iterdir()} >= {"mine.pdf", "more"}
    assert not (again / "figures" / "table1.pdf").exists()
    status, _, _ = reproduce(capsys, fetched, again)
    assert set(status.values()) == {"cached"}
    assert (again / "figures" / "table1.pdf").is_file()


def test_bias_uses_one_tree_which_options_can_set(capsys, again, fetched):
    rows = result_of(again)["bias"]["rows"]
    assert len({(row["depth"], row["bins"]) for row in rows}) == 1
    _, result, _ = reproduce(capsys, fetched, again, "--stages", "bias", "--depth", "0", "--bins", "3")
    rows = {(row["name"], row["galaxies_of"]): row for row in result["bias"]["rows"]}
    assert {(row["depth"], row["bins"]) for row in rows.values()} == {(0, 3)}
    observed = read_table(stage_of(again, "catalogue") / "gz2b.parquet").frame
    labels, alpha, intrinsic = (observed.select(one).to_numpy() for one in ("label", "alpha", INTRINSIC))
    expected = cv18(labels[:, 0], alpha[:, 0], intrinsic, 0, 3, bootstrap=10)
    assert rows["gz2b", "all"]["value"] == pytest.approx(expected.value)


def test_a_tree_with_too_many_leaves_gives_no_values(capsys, again, fetched):
    status, result, code = reproduce(
        capsys, fetched, again, "--depth", "9", "--bins", "8", "--stages", "table1,reasons"
    )
    assert (code, status["table1"], status["reasons"]) == (0, "done", "done")
    assert result["table1"]["order"]["pairs"] == 0


def test_figure_3_does_not_depend_on_the_order_of_features(capsys, again, fetched):
    before = result_of(again)["figure3"]
    _, result, code = reproduce(
        capsys, fetched, again, "--features", "ellipticity,sersic_n,r_half", "--stages", "figure3"
    )
    assert code == 0
    assert result["figure3"]["disk_like_among_smooth"] == before["disk_like_among_smooth"]
    # As simulated: disks have low indices.
    assert 0.05 < before["disk_like_among_smooth"] < 0.9


def test_the_sample_is_drawn_among_complete_galaxies(capsys, fetched, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(fetched, data)
    late = sorted((data / "gz2" / "images").iterdir())[:250]
    (tmp_path / "late").mkdir()
    for path in late:
        path.rename(tmp_path / "late" / path.name)
    status, result, _ = reproduce(capsys, data, out, "--stages", "theta")
    before = result["catalogue"]
    # 400 galaxies, of which 5 have no label by Hart et al.
    assert 145 <= before["of"] <= 150
    assert before["funnel"]["without image"] == 250
    assert before["funnel"]["without label by Hart et al."] <= 5
    assert before["with_image"] == before["galaxies"]
    for path in late:
        (tmp_path / "late" / path.name).rename(path)
    status, result, _ = reproduce(capsys, data, out, "--stages", "theta")
    assert (status["catalogue"], status["theta"]) == ("done", "done")
    assert result["catalogue"]["of"] == 395
    assert reproduce(capsys, data, out, "--stages", "theta")[0]["catalogue"] == "cached"


def test_redshifts_of_galaxy_zoo_replace_missing_ones(capsys, fetched, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(fetched, data)
    photometry = pl.read_parquet(data / "sdss" / "photometry.parquet")
    half = photometry["objid"][::2]
    lost = pl.when(pl.col("objid").is_in(half.implode())).then(-9999.0).otherwise("redshift").alias("redshift")
    photometry.with_columns(lost).write_parquet(data / "sdss" / "photometry.parquet")
    (data / "gz2" / "gz2sample.csv.gz").write_bytes(
        gzip.compress(photometry.select(OBJID="objid", REDSHIFT=pl.col("redshift") + 0.001).write_csv().encode())
    )
    reproduce(capsys, data, tmp_path / "out", "--stages", "catalogue")
    found = read_table(stage_of(tmp_path / "out", "catalogue") / "gz2b.parquet").frame
    both = found.join(photometry, left_on="object_id", right_on="objid", suffix="_true")
    own = both["object_id"].is_in(half.implode())
    assert np.allclose(both["redshift"] - both["redshift_true"], 0.001 * own.cast(float))


def test_sample_and_split_of_a_mapping_are_ignored(capsys, fetched, tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text(
        'extends = "gz2"\nsample = { smooth = 40, disk = 50 }\n[split]\ntrain = 0.5\nvalidation = 0.25\ntest = 0.25\n'
    )
    found = [
        reproduce(capsys, fetched, tmp_path / name, "--stages", "theta", *more)
        for name, more in (("plain", ()), ("own", ("--mapping", own)))
    ]
    assert [code for _, _, code in found] == [0, 0], found
    plain, own = (result for _, result, _ in found)
    assert own["theta"]["theta"] == plain["theta"]["theta"]
    assert own["catalogue"]["labels"] == plain["catalogue"]["labels"]
    observed = read_table(stage_of(tmp_path / "own", "catalogue") / "gz2b.parquet").frame
    assert set(observed["sampling_weight"]) == {1.0}


def test_the_id_column_applies_to_both_tables(capsys, fetched, tmp_path):
    table = read_table(fetched / "gz2" / "gz2_hart16.csv.gz").frame
    observed = read_table(fetched / "gz2" / "zoo2MainSpecz.csv.gz").frame
    for name, frame in (("votes", observed), ("hart", table)):
        frame.rename({"dr7objid": "galaxy"}).write_csv(tmp_path / f"{name}.csv")
    status, result, code = reproduce(
        capsys, fetched, tmp_path / "out", "--table", tmp_path / "votes.csv", "--hart", tmp_path / "hart.csv",
        "--id", "galaxy", "--stages", "gz2d",
    )  # fmt: skip
    assert (code, status["gz2d"]) == (0, "done"), result["stages"]


def test_existing_hst_images_are_used_if_the_archive_cannot_be_reached(capsys, again, fetched, tmp_path, monkeypatch):
    def unreachable(name, out, **_):
        raise TruemorphError("HST coverage: no connection (5 tries)")

    monkeypatch.setattr("truemorph.archives.fetch.fetch", unreachable)
    data = tmp_path / "data"
    shutil.copytree(fetched, data)
    reproduce(capsys, data, again, "--stages", "figure4")
    status, result, code = reproduce(capsys, data, again, "--fetch", "--stages", "page")
    assert (code, status["fetch-hst"], status["figure4"]) == (1, "failed", "cached"), result["stages"]
    assert "HST coverage: no connection" in (again / "reproduction.html").read_text()


def test_a_stage_runs_again_if_its_folder_is_deleted(capsys, again, fetched):
    shutil.rmtree(stage_of(again, "table1"))
    status, _, _ = reproduce(capsys, fetched, again)
    assert {name for name, one in status.items() if one == "done"} == {"table1"}


def test_a_stage_runs_again_if_a_file_is_damaged(capsys, again, fetched):
    (stage_of(again, "dcv14") / "labels.parquet").write_bytes(b"PAR1")
    status, _, _ = reproduce(capsys, fetched, again)
    assert {name for name, one in status.items() if one == "done"} == {"dcv14"}


def test_selected_stages_run_with_those_that_they_use(capsys, fetched, tmp_path):
    status, result, code = reproduce(capsys, fetched, tmp_path / "out", "--stages", "bias")
    assert code == 0
    assert {name for name, one in status.items() if one == "done"} == {"catalogue", "gz2d", "bias"}
    assert {status[name] for name in NAMES[3:]} == {"left out"}
    assert {row["name"] for row in result["bias"]["rows"]} == {"gz2b", "gz2d"}


def test_missing_data_are_reported_and_used_when_added(capsys, fetched, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(fetched, data)
    for name in ("simard", "hst"):
        (data / name).rename(tmp_path / name)
    (data / "gz2" / "gz2_hart16.csv.gz").rename(tmp_path / "hart.csv.gz")
    fast = ("--training.epochs", "1")
    status, result, code = reproduce(capsys, data, out, *fast)
    lacking = {one["name"]: one["text"] for one in result["stages"] if one["status"] == "lacks"}
    assert code == 0, result["stages"]
    assert set(lacking) == {"gz2d", "resnet-gz2d", "dcv14", "figure3", "figure4"}
    assert "truemorph fetch simard" in lacking["dcv14"]
    assert "truemorph fetch gz2" in lacking["resnet-gz2d"]
    assert "truemorph fetch hst --positions" in lacking["figure4"]
    assert [row["name"] for row in result["table1"]["rows"]] == ["gz2b", "resnet-gz2b", "ddb"]
    text = (out / "reproduction.html").read_text()
    assert "Stage dcv14 lacks data" in text
    assert "0.2994 ± 0.0102" in text  # the paper's row is shown
    (tmp_path / "simard").rename(data / "simard")
    status, result, _ = reproduce(capsys, data, out, *fast)
    # The new columns do not affect networks.
    assert {status["resnet-gz2b"], status["ddb"], status["theta"], status["maps"]} == {"cached"}
    assert {status["catalogue"], status["dcv14"], status["figure3"], status["table1"]} == {"done"}


def test_figure_3_needs_no_other_labels_than_the_volunteers(capsys, fetched, tmp_path):
    for name in ("sdss", "simard"):
        shutil.copytree(fetched / name, tmp_path / "data" / name)
    (tmp_path / "data" / "gz2").mkdir()
    shutil.copy(fetched / "gz2" / "zoo2MainSpecz.csv.gz", tmp_path / "data" / "gz2")
    status, result, code = reproduce(capsys, tmp_path / "data", tmp_path / "out", "--stages", "figure3")
    assert (code, status["gz2d"], status["ddb"], status["figure3"]) == (0, "lacks", "lacks", "done")
    assert {row["labels"] for row in result["figure3"]["table"]} == {"GZ2B"}


def test_without_photometry_no_stage_runs(capsys, fetched, tmp_path):
    shutil.copytree(fetched / "gz2", tmp_path / "data" / "gz2")
    status, result, code = reproduce(capsys, tmp_path / "data", tmp_path / "out")
    assert (code, set(status.values())) == (0, {"lacks"})
    assert all("truemorph fetch sdss" in one["text"] for one in result["stages"])


def test_a_damaged_table_of_debiased_votes_fails_the_sample(capsys, fetched, tmp_path):
    # The sample has galaxies with a label by Hart et al. only, so it cannot be drawn without their table.
    data = tmp_path / "data"
    shutil.copytree(fetched, data)
    (data / "gz2" / "gz2_hart16.csv.gz").write_bytes((fetched / "gz2" / "gz2_hart16.csv.gz").read_bytes()[:-100])
    status, result, code = reproduce(capsys, data, tmp_path / "out", "--stages", "bias,resnet-gz2d")
    assert (code, status["catalogue"], status["bias"]) == (1, "failed", "failed")
    texts = {one["name"]: one["text"] for one in result["stages"]}
    assert "gz2_hart16.csv.gz" in texts["catalogue"]
    assert texts["gz2d"] == "needs catalogue, which failed"


def test_a_prepared_catalogue_is_a_valid_table(capsys, catalogue, tmp_path):
    status, result, code = reproduce(capsys, tmp_path, tmp_path / "out", "--table", catalogue, "--stages", "theta")
    assert (code, status["theta"]) == (0, "done"), result["stages"]
    assert result["catalogue"]["with_image"] == result["catalogue"]["galaxies"] > 300


@pytest.mark.parametrize(("name", "body"), [("latin.csv", b"objid,caf\xe9\n1,2\n"), ("no.parquet", b"PAR1")])
def test_an_unreadable_table_fails_one_stage(capsys, fetched, tmp_path, name, body):
    (tmp_path / name).write_bytes(body)
    status, result, code = reproduce(capsys, fetched, tmp_path / "out", "--table", tmp_path / name)
    assert (code, status["catalogue"]) == (1, "failed")
    text = result["stages"][0]["text"]
    assert name in text
    assert "report" not in text


def test_inputs_are_read_from_toml_and_options(capsys, simulated, tmp_path):
    table = read_table(simulated / "votes.csv").frame
    data = tmp_path / "data"
    data.mkdir()
    table.rename({"petroRad_r": "size"}).write_csv(data / "mine.csv")
    (data / "pictures").symlink_to(simulated / "images")
    (data / "reproduce.toml").write_text(
        'table = "mine.csv"\nradius = "size"\nimages = "pictures"\n[training]\ncrop = 1.0\n'
    )
    status, result, code = reproduce(capsys, data, tmp_path / "out", "--stages", "theta", "--psf-fwhm", "1.3")
    assert (code, status["theta"], status["bias"]) == (0, "done", "left out")
    assert result["theta"]["alpha"] == "size / sigma_PSF, sigma_PSF = 1.3 arcsec / 2.3548"
    (data / "reproduce.toml").write_text('tabel = "mine.csv"\n')
    code, _, err = run(capsys, "reproduce", "--data", data, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "tabel" in err
    assert "table" in err


def test_mistakes_give_one_line(capsys, fetched, tmp_path):
    cases = [
        ("no such folder of data", ["--data", tmp_path / "absent"]),
        ("no stage 'tabel1'", ["--data", fetched, "--stages", "tabel1"]),
        ("paper, quick or a fraction", ["--data", fetched, "--scale", "small"]),
        ("above 0 and at most 1", ["--data", fetched, "--scale", "2"]),
        ("votes.csv (table)", ["--data", fetched, "--table", "votes.csv"]),
        ("no stage 'tabel1'", ["--data", tmp_path / "absent", "--fetch", "--stages", "tabel1"]),
        ("no setting 'epoch'", ["--data", tmp_path / "absent", "--fetch", "--training.epoch", "3"]),
        ("must be 0", ["--data", fetched, "--draws", "1"]),
    ]
    for says, arguments in cases:
        status, out, err = run(capsys, "reproduce", "--out", tmp_path / "out", *arguments)
        assert (status, out) == (2, ""), arguments
        assert says in err
        assert err.count("\n") == 1, err


def test_a_second_process_is_refused(capsys, fetched, tmp_path):
    from filelock import FileLock

    (tmp_path / "out" / "stages").mkdir(parents=True)
    with FileLock(tmp_path / "out" / "stages" / ".lock"):
        status, _, err = run(capsys, *command(fetched, tmp_path / "out"))
    assert status == 1
    assert "another process" in err


def test_a_dry_run_runs_no_stage(capsys, fetched, tmp_path):
    status, _, code = reproduce(capsys, fetched, tmp_path / "out", "--dry-run")
    assert (code, set(status.values())) == (0, {"to do"})
    assert not (tmp_path / "out" / "reproduce.json").exists()
