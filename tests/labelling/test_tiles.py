"""Labels straight from survey tiles are those of stored cut-outs; HATS catalogues are read and written."""

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy_healpix import lonlat_to_healpix
from polars.testing import assert_frame_equal

from conftest import codes
from truemorph import label_galaxies, load, prepare_catalogue, read_table, train_classifier
from truemorph.errors import InputError
from truemorph.images.tiles import INCOMPLETE, OUTSIDE, UNUSABLE, open_tiles
from truemorph.labelling import hats
from truemorph.labelling.hats import NO_POSITION, write_hats
from truemorph.labelling.sources import SourceOptions, open_source

from images.test_tiles import positions, survey  # isort: skip
from labelling.test_sources import as_hats  # isort: skip

SIZE = "6 * radius"


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return survey(tmp_path_factory.mktemp("tiles"))


@pytest.fixture
def votes(tmp_path):
    ra, dec = positions(80)
    rng = np.random.default_rng(1)
    smooth = rng.random(80)
    table = {"id": range(1000, 1080), "ra": ra, "dec": dec, "radius": rng.uniform(1, 3, 80), "fwhm": 0.8}
    pl.DataFrame({**table, "smooth": smooth, "disk": 1 - smooth}).write_parquet(tmp_path / "votes.parquet")
    return tmp_path / "votes.parquet"


@pytest.fixture
def options(tiles):
    """Options for labels straight from the tiles."""
    return {"tiles": tiles, "bands": "i,r,g", "size": SIZE, "precision": "fp32"}


def prepared(votes, tiles, out, bands="i,r,g", **options):
    columns = {"id": "id", "smooth": "smooth", "disk": "disk", "radius": "radius", "psf_fwhm": "fwhm"}
    return prepare_catalogue(votes, **columns, out=out, tiles=tiles, bands=bands, size=SIZE, **options)


def as_sky(votes, folder):
    """A HATS catalogue with partitions of one order."""
    write_hats([votes], folder / "sky", pq.read_schema(votes), ("ra", "dec"))
    return folder / "sky"


@pytest.mark.slow
def test_labels_from_tiles_are_those_of_stored_cutouts_also_if_resumed(model, votes, options, tmp_path, monkeypatch):
    stored = prepared(votes, options["tiles"], tmp_path / "cat.parquet")
    assert "images-missing" in codes(stored)
    lacking = pl.read_csv(tmp_path / "cat.cutouts" / "problems.csv")
    expected = label_galaxies(model, stored.out, tmp_path / "stored.parquet", precision="fp32")
    assert expected.labelled + lacking.height == 80
    # Two shards, and a part that was lost.
    shards = [label_galaxies(model, stored.out, tmp_path / "labels", shard=one, **options) for one in ("1/2", "2/2")]
    assert [report.complete for report in shards] == [False, True]
    assert sum(report.rows_in for report in shards) == 80
    assert sum(report.labelled for report in shards) == expected.labelled
    report = shards[-1]
    assert "tiles-not-compared" in codes(report)
    # The exit status, by the rows of a shard.
    assert [bool(replace(report, max_bad=most).failure) for most in (0.05, 0.9) for report in shards] == [
        True,
        True,
        False,
        False,
    ]
    problems = pl.read_csv(tmp_path / "labels" / "problems.csv")
    assert problems.sort("object_id").equals(lacking.sort("object_id"))
    assert {OUTSIDE, INCOMPLETE} <= {*problems["reason"]} <= {*UNUSABLE}
    parts = sorted(path.name for path in (tmp_path / "labels").glob("*.parquet"))
    assert len(parts) == 5
    (tmp_path / "labels" / parts[1]).unlink()
    label_galaxies(model, stored.out, tmp_path / "labels", **options)
    labels = pl.read_parquet(tmp_path / "labels" / "*.parquet").sort("object_id")
    # Sums depend on the other galaxies of a batch in the last bits.
    assert_frame_equal(labels, read_table(tmp_path / "stored.parquet").frame.sort("object_id"), rel_tol=0, abs_tol=1e-6)
    # Resuming reads no tile again, though some sources have problems.
    monkeypatch.setattr("truemorph.images.tiles.Layer.read", None)
    assert label_galaxies(model, stored.out, tmp_path / "labels", **options).complete


@pytest.mark.slow
def test_a_model_knows_its_tiles(votes, tiles, tmp_path):
    stored = prepared(votes, tiles, tmp_path / "cat.parquet", zero_point=25.0)
    settings = {"image_size": 32, "epochs": 1, "folds": 1, "fits_limits": [-2, 3], "crop": 1.0, "batch_size": 16}
    train_classifier(stored.out, out=tmp_path / "model", transition="rayleigh:5", settings=settings)
    model = load(tmp_path / "model")
    about = {"bands": ["i", "r", "g"], "scale": pytest.approx(0.25), "zero_point": 25.0, "size": SIZE}
    assert model.described["catalogue"]["cutouts"] == about
    # Bands and size are the model's by default; another zero point is converted: 2.5 mag are a factor of 10.
    options = {"precision": "fp32", "tiles": tiles}
    reports = [label_galaxies(model, votes, tmp_path / f"{z}.parquet", zero_point=z, **options) for z in (25, 22.5)]
    assert "tiles-not-compared" not in codes(reports[0])
    same, other = (read_table(report.out).frame["p_disk"] for report in reports)
    assert (same - other).abs().max() > 1e-4
    with pytest.raises(InputError, match="zero_point"):
        label_galaxies(model, votes, tmp_path / "no.parquet", **options)
    options["zero_point"] = 25.0
    with pytest.raises(InputError, match="convert"):
        label_galaxies(model, votes, tmp_path / "no.parquet", bands="g,r,i", **options)
    report = label_galaxies(model, votes, tmp_path / "yes.parquet", bands="g,r,i", convert=True, **options)
    assert "tiles-converted" in codes(report)
    other = prepared(votes, tiles, tmp_path / "other.parquet", bands="g,r,i")
    with pytest.raises(InputError, match="bands"):
        label_galaxies(model, other.out, tmp_path / "no.parquet")


def test_wrong_tile_options_have_one_clear_line(model, votes, tiles, tmp_path):
    for options in ({"tiles": tiles}, {"tiles": tiles, "bands": "i,r,g"}, {"bands": "i,r,g"}, {"size": "4arcsec"}):
        with pytest.raises(InputError):
            label_galaxies(model, votes, tmp_path / "out.parquet", **options)
    with pytest.raises(InputError):
        prepare_catalogue(votes, tiles=tiles, bands="i,r,g", size=SIZE)


def test_an_lsdb_collection_is_read_through_its_primary_table(model, pictures, tmp_path):
    as_hats(pictures, tmp_path)
    margin = tmp_path / "sky_margin" / "dataset" / "Norder=1" / "Dir=0" / "Npix=3.parquet"
    margin.parent.mkdir(parents=True)
    margin.write_bytes((tmp_path / "sky" / margin.relative_to(tmp_path / "sky_margin")).read_bytes())
    properties = "obs_collection=all\nhats_primary_table_url=sky\nall_margins=sky_margin\n"
    (tmp_path / "collection.properties").write_text(properties)
    report = label_galaxies(model, tmp_path, tmp_path.with_name(f"{tmp_path.name}.parquet"), precision="fp32")
    assert (report.rows_in, report.labelled) == (60, 60)
    (tmp_path / "collection.properties").write_text("hats_primary_table_url=gone\n")
    with pytest.raises(InputError, match="primary"):
        label_galaxies(model, tmp_path, tmp_path.with_name(f"{tmp_path.name}-2.parquet"))


def test_the_index_of_a_position_is_that_of_cdshealpix(tmp_path):
    cdshealpix = pytest.importorskip("cdshealpix")
    from astropy.coordinates import Latitude, Longitude

    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(-10, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    ra[:2], dec[:2] = 359.99999, [41.8, -41.9]
    table = pa.table({"id": range(20_000), "ra": ra, "dec": dec})
    pq.write_table(table, tmp_path / "0.parquet")
    write_hats([tmp_path / "0.parquet"], tmp_path / "sky", table.schema, ("ra", "dec"))
    index = pl.read_parquet(tmp_path / "sky" / "dataset" / "**" / "*.parquet").sort("id")["_healpix_29"].to_numpy()
    expected = cdshealpix.lonlat_to_healpix(Longitude(ra, "deg"), Latitude(dec, "deg"), 29).astype(np.int64)
    assert (index == expected).mean() > 0.999  # others are on the border to the next pixel
    np.testing.assert_array_equal(index >> 20, expected >> 20)


def test_partitions_have_the_rows_of_their_pixel_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(hats, "MOST_ROWS", 30)
    rng = np.random.default_rng(0)
    rows = {"id": range(500), "RA": 180 + 40 * rng.random(500), "dec": 30 * rng.random(500) ** 3}
    table = pa.table(rows)
    for k in range(5):
        pq.write_table(table.slice(100 * k, 100), tmp_path / f"{k}.parquet")
    write_hats(sorted(tmp_path.glob("*.parquet")), tmp_path / "sky", table.schema, ("RA", "dec"))
    found = []
    for path in (tmp_path / "sky").rglob("Npix=*.parquet"):
        frame, order = pl.read_parquet(path, hive_partitioning=False), int(path.parts[-3].removeprefix("Norder="))
        assert 0 < frame.height <= 30
        assert frame["_healpix_29"].is_sorted()
        assert {*(frame["_healpix_29"].to_numpy() >> 2 * (29 - order))} == {int(path.stem.removeprefix("Npix="))}
        found.append(frame)
    assert len(found) > 500 / 30
    assert_frame_equal(pl.concat(found).sort("id").drop("_healpix_29"), pl.DataFrame(rows))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file").touch()
    with pytest.raises(InputError, match="no HATS"):
        write_hats([tmp_path / "0.parquet"], tmp_path / "own", table.schema, ("RA", "dec"))


@pytest.mark.slow
def test_a_hats_catalogue_is_labelled_as_one_that_hats_and_lsdb_read(model, votes, options, tmp_path):
    report = label_galaxies(model, as_sky(votes, tmp_path), tmp_path / "labels", hats=True, **options)
    expected = label_galaxies(model, votes, tmp_path / "table.parquet", copy="ra,dec", **options)
    frame = pl.read_parquet(tmp_path / "labels" / "dataset" / "**" / "*.parquet", hive_partitioning=False)
    own = read_table(tmp_path / "table.parquet").frame.sort("object_id")
    assert_frame_equal(frame.sort("object_id").select(own.columns), own, rel_tol=0, abs_tol=1e-6)
    with pytest.raises(InputError, match="extension"):
        label_galaxies(model, votes, tmp_path / "labels.parquet", hats=True, **options)
    assert report.labelled == expected.labelled


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_only_hats_catalogues_of_labels_are_replaced_and_never_what_is_read(model, votes, options, tmp_path):
    """`label MODEL CAT/dataset --out CAT --hats` deleted the survey's catalogue."""
    options["hats"], survey_ = True, as_sky(votes, tmp_path)
    properties = (survey_ / "hats.properties").read_text()
    own = [line for line in properties.splitlines() if "truemorph" not in line]
    (survey_ / "hats.properties").write_text("\n".join(own) + "\n")
    before = files_in(survey_)
    for source in (survey_, survey_ / "dataset", votes):
        with pytest.raises(InputError):
            label_galaxies(model, source, survey_, **options)
        assert files_in(survey_) == before
    # Labels are replaced, unless they are read.
    labels = tmp_path / "labels"
    label_galaxies(model, survey_, labels, **options)
    label_galaxies(model, votes, labels, **options)
    before = files_in(labels)
    with pytest.raises(InputError):
        label_galaxies(model, labels / "dataset", labels, **options)
    shutil.copytree(model.folder, labels / "model")
    with pytest.raises(InputError):
        label_galaxies(labels / "model", survey_, labels, **options)
    assert files_in(labels).items() >= before.items()


def lacks_a_partition(parts, folder):
    parts[0].unlink()


def lacks_rows(parts, folder):
    pq.write_table(pq.read_table(parts[0], partitioning=None).slice(1), parts[0])


def has_a_finer_partition(parts, folder):
    (folder / "partition_info.csv").unlink()
    order, pixel = (int(part.rpartition("=")[2]) for part in (parts[0].parts[-3], parts[0].stem))
    other = folder / "dataset" / f"Norder={order + 1}" / "Dir=0" / f"Npix={4 * pixel}.parquet"
    other.parent.mkdir(parents=True)
    shutil.copy(parts[0], other)


def has_a_margin(parts, folder):
    margin = folder / "margin" / "dataset" / parts[0].relative_to(folder / "dataset")
    margin.parent.mkdir(parents=True)
    shutil.copy(parts[0], margin)


def has_no_list(parts, folder):
    (folder / "partition_info.csv").write_bytes(b"\xff\x00,1\n")


DAMAGES = [lacks_a_partition, lacks_rows, has_a_finer_partition, has_a_margin, has_no_list]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_hats_catalogue_that_is_not_whole_is_refused(damage, votes, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(hats, "MOST_ROWS", 30)
    sky, cut = as_sky(votes, tmp_path), SourceOptions(tiles=open_tiles(tiles, ["r"]), size=SIZE)
    sources = sky, sky / "dataset"
    for source in sources:
        assert sum(part.rows for part in open_source(source, cut).parts) == 80
    damage(sorted(sky.rglob("Npix=*.parquet")), sky)
    for one in sources:
        if damage is has_a_margin and one is sources[1]:  # which lies outside
            assert sum(part.rows for part in open_source(one, cut).parts) == 80
            continue
        with pytest.raises(InputError, match="sky"):
            open_source(one, cut)


@pytest.mark.slow
@pytest.mark.parametrize("index", [pl.lit(None, pl.Int64), pl.lit("a"), pl.lit(0.5)])
def test_the_spatial_index_comes_from_positions_and_rows_without_one_are_listed(index, model, pictures, tmp_path):
    names = list(pictures)[:8]
    ra, dec = [10.0] * 7 + [None], [1000.0, -90.0, 90.0, float("nan"), 0.0, 1.0, 2.0, 3.0]
    table = pl.DataFrame({"object_id": names, "image": [pictures[name] for name in names], "ra": ra, "dec": dec})
    table.with_columns(index.alias("_healpix_29")).write_parquet(tmp_path / "images.parquet")
    report = label_galaxies(model, tmp_path / "images.parquet", tmp_path / "labels", hats=True)
    assert report.problems == [(names[row], NO_POSITION) for row in (0, 3, 7)]
    found = pl.read_parquet(tmp_path / "labels" / "dataset" / "**" / "*.parquet", hive_partitioning=False)
    assert found.height == report.labelled == 5
    ra, dec = found.select("ra", "dec").to_numpy().T
    expected = lonlat_to_healpix(ra * units.deg, dec * units.deg, 2**29, order="nested")
    np.testing.assert_array_equal(found["_healpix_29"], expected)


@pytest.mark.slow  # importing both takes eight seconds
@pytest.mark.filterwarnings("ignore")
def test_hats_validates_the_catalogue_and_lsdb_opens_it(model, votes, options, tmp_path):
    validation, lsdb = pytest.importorskip("hats.io.validation"), pytest.importorskip("lsdb")
    report = label_galaxies(model, votes, tmp_path / "labels", hats=True, **options)
    assert validation.is_valid_catalog(tmp_path / "labels", strict=True)
    opened = lsdb.open_catalog(tmp_path / "labels")
    assert (len(opened), opened.hc_structure.catalog_info.ra_column) == (report.labelled, "ra")
