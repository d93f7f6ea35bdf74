"""`truemorph explain`, from models and a catalogue to files."""

import json

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table

from conftest import assert_represented, run
from explain.conftest import model_of
from truemorph import explain_classifier, write_table
from truemorph.catalogs.catalogue import image_folder, read_catalogue
from truemorph.classifiers.checkpoint import save_classifier
from truemorph.tables import CatalogTable


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def other(network):
        network.head[3].weight.data *= -1

    for name, change in (("naive", None), ("debiased", other)):
        save_classifier(model_of(size=32, members=2, change=change), folder / name)
    return folder


@pytest.mark.slow
def test_all_files_are_written_and_consistent(capsys, models, catalogue, tmp_path):
    table = read_catalogue(catalogue)
    frame = table.frame.with_columns((4 * pl.col("radius")).alias("across"))
    surveyed = write_table(CatalogTable(frame, table.units, table.metadata), tmp_path / "cat.parquet")
    out = tmp_path / "explained"
    asked = ("explain", models / "naive", models / "debiased", "--catalogue", surveyed, "--out", out, "--rows", "all")
    geometry = ("--radius-column", "radius", "--field", "across", "--rings", 8)
    sizes = ("--galaxies", 40, "--bootstrap", 30, "--draws", 2)
    status, printed, _ = run(capsys, *asked, *geometry, *sizes, "--json")
    assert status == 0
    result = json.loads(printed)
    assert result == json.loads((out / "summary.json").read_text())
    naive = result["models"]["naive"]
    counts = naive["classes"]
    assert (naive["layer"], naive["cells"]) == ("layer1", 8)
    assert sum(counts.values()) == naive["galaxies"] == 40
    assert set(result["random_weights"]) == {"naive", "debiased"}

    assert {"average_maps", "profiles_pixel", "profiles_r_petro"} <= set(result["figures"])
    for name in result["figures"]:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")

    profiles = Table.read(out / "profiles_pixel.ecsv")
    assert str(profiles["outer"].unit) == "pix"
    written = profiles[(profiles["model"] == "naive") & (profiles["class"] == "disk")]["mean"]
    single = pl.read_parquet(out / "galaxies.parquet")
    assert single.height == 80
    disks = single.filter((pl.col("model") == "naive") & (pl.col("class") == "disk"))
    np.testing.assert_allclose(disks["profile_pixel"].to_numpy().mean(axis=0), written, atol=1e-5)
    assert disks["profile_r_petro"].to_numpy().shape == (counts["disk"], 8)

    with fits.open(out / "maps.fits") as units:
        found = {(unit.header["MODEL"], unit.header["CLASS"], unit.name.split("_")[0]): unit for unit in units[1:]}
        unit = found["naive", "disk", "MEAN"]
        assert unit.data[2].max() == unit.header["NGAL"] == counts["disk"]
        # The profile of the mean map, in the innermost ring with a radius of two pixels.
        assert unit.data[0, 15:17, 15:17].mean() == pytest.approx(written[0], abs=0.02)


@pytest.mark.slow
def test_a_table_in_memory_is_named_by_its_type(catalogue, monkeypatch, tmp_path):
    table = read_catalogue(catalogue)
    monkeypatch.chdir(image_folder(table))
    given = {"catalogue": table.frame, "rows": "all", "galaxies": 8, "draws": 0, "bootstrap": 5}
    found = explain_classifier(model_of(size=32), out=tmp_path / "explained", **given)
    assert found.content["catalogue"] == "polars DataFrame"
    assert_represented(found)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("naive", "--layer", "layer9"), "available: act1 (16×16)"),
        (("naive", "--radius-column", "radius"), "give both --radius-column (arcsec) and --field"),
        (("naive", "--radius-column", "radios", "--field", "3"), "no column 'radios'; nearest: radius"),
        ((".",), "not a truemorph model folder"),
        (("naive", "--catalogue", "untested.parquet"), "no test galaxies; choose --rows"),
    ],
)
def test_wrong_input_raises_one_line_errors(capsys, monkeypatch, models, catalogue, tmp_path, options, says):
    table = read_catalogue(catalogue)
    untested = table.frame.filter(pl.col("split") != "test")
    write_table(CatalogTable(untested, table.units, table.metadata), tmp_path / "untested.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "naive").symlink_to(models / "naive")
    more = () if "--catalogue" in options else ("--catalogue", catalogue)
    status, printed, told = run(capsys, "explain", *options, *more, "--out", "e")
    assert (status, printed, told.count("\n")) == (2, "", 1)
    assert says in told
    assert not (tmp_path / "e").exists()
