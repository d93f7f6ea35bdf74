"""All containers of the same images give the same labels; rows that can't be labelled are listed."""

import gzip
import os
import tarfile
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from conftest import codes
from truemorph import RayleighTransition, label_galaxies, posterior, read_table, write_table
from truemorph.classifiers.engines import engine_for
from truemorph.errors import InputError
from truemorph.labelling import parts, sources
from truemorph.labelling.parts import tar_batches
from truemorph.tables import CatalogTable

from labelling.conftest import tars, write_folder, write_tar  # isort: skip


def as_folders_of_folders(content, place):
    names = list(content)
    write_folder(place / "images" / "a" / "b", {name: content[name] for name in names[:20]})
    write_folder(place / "images" / "c", {name: content[name] for name in names[20:]})
    return place / "images", {}


def as_list(content, place):
    write_folder(place / "images", content)
    (place / "list.txt").write_text("".join(f"images/{name}.jpg\n" for name in content))
    return place / "list.txt", {}


def as_table(content, place):
    folder = write_folder(place / "images", content)
    table = pl.DataFrame({"id_str": list(content), "file_loc": [f"{folder}/{name}.jpg" for name in content]})
    table.write_csv(place / "table.csv")
    return place / "table.csv", {}


def as_own_table(content, place):
    folder = write_folder(place / "images", content)
    table = pl.DataFrame({"galaxy": list(content), "cutout": [f"{name}.jpg" for name in content]})
    write_table(CatalogTable(table), place / "table.fits")
    return place / "table.fits", {"id": "galaxy", "image_column": "cutout", "images": folder}


def as_tar(content, place):
    write_tar(place / "all.tar", content)
    return place / "all.tar", {}


def as_packed_tars(content, place):
    names = list(content)
    (place / "tars").mkdir()
    for number, some in enumerate((names[:25], names[25:])):
        write_tar(place / "tars" / f"{number}.tar.gz", {name: content[name] for name in some}, "w:gz")
    return place / "tars", {}


def as_parquet(content, place):
    table = pa.table({"id": list(content), "image": pa.array(list(content.values()), pa.binary())})
    pq.write_table(table, place / "all.parquet", row_group_size=7)
    return place / "all.parquet", {}


def as_hats(content, place):
    """Partitions as in HATS, images as in Hugging Face datasets."""
    names = list(content)
    for pixel, some in ((3, names[:31]), (17, names[31:])):
        images = pa.array([{"bytes": content[name], "path": None} for name in some])
        file = place / "sky" / "dataset" / "Norder=1" / "Dir=0" / f"Npix={pixel}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        fields = [
            pa.field("_healpix_29", pa.int64(), metadata={"unit": "sr", "description": "HEALPix pixel"}),
            pa.field("object_id", pa.string(), metadata={"description": "survey id"}),
            pa.field("image", images.type),
        ]
        columns = [np.arange(len(some)) + pixel, some, images]
        pq.write_table(pa.table(columns, schema=pa.schema(fields)), file)
    pq.write_metadata(pa.schema([("object_id", pa.string())]), place / "sky" / "dataset" / "_common_metadata")
    (place / "sky" / "hats.properties").write_text("obs_collection=sky\n")
    # Other files in HATS: maps, and a row per partition.
    fits.PrimaryHDU(np.zeros(12)).writeto(place / "sky" / "skymap.fits")
    first = pq.read_table(place / "sky" / "dataset" / "Norder=1" / "Dir=0" / "Npix=3.parquet").slice(0, 1)
    pq.write_table(first, place / "sky" / "dataset" / "data_thumbnail.parquet")
    return place / "sky", {}


KINDS = [as_folders_of_folders, as_list, as_table, as_own_table, as_tar, as_packed_tars, as_parquet, as_hats]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_same_labels_and_problems(kind, model, pictures, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PART_ROWS", 16)
    broken = {"g10": b"", "g20": pictures["g20"][:200], "g30": b"<html>not found</html>"}
    source, options = kind({**pictures, **broken}, tmp_path)
    options |= {"precision": "fp32", "max_bad": 0.1}
    report = label_galaxies(model, source, tmp_path / "labels.parquet", **options)
    assert (report.rows_in, report.labelled, report.complete) == (60, 57, True)
    listed = pl.read_csv(tmp_path / "labels.problems.csv")
    assert listed["object_id"].to_list() == list(broken)
    assert ["empty" in listed["reason"][0], "not a readable image" in listed["reason"][1]] == [True, True]
    got = read_table(tmp_path / "labels.parquet")
    p = dict(zip(got.frame["object_id"], got.frame["p_disk"], strict=True))
    # In the order of the source; partitions in the order of names.
    good = [name for name in expected if name not in broken]
    assert (sorted(p) if kind is as_hats else list(p)) == good
    np.testing.assert_allclose([p[name] for name in good], [expected[name] for name in good], atol=1e-6)
    assert got.frame["model_hash"].unique().to_list() == [model.model_hash]
    assert got.metadata["engine"] == engine_for(model, precision="fp32").description
    relation = dict(zip(got.frame["object_id"], got.frame["relation"], strict=True))
    assert [relation[name] for name in ("g02", "g03", "g04")] == ["new", "out_of_fold", "out_of_fold"]
    assert not list(tmp_path.glob("*.parts"))


def test_a_folder_of_results_has_the_same_partitions(model, pictures, expected, tmp_path):
    source, _ = as_hats(pictures, tmp_path)
    options = {"copy": ["_healpix_29"], "precision": "fp32"}
    label_galaxies(model, source, tmp_path / "labels", **options)
    found = sorted((tmp_path / "labels").rglob("*.parquet"))
    assert [str(one.relative_to(tmp_path / "labels")) for one in found] == [
        f"dataset/Norder=1/Dir=0/Npix={pixel}.parquet" for pixel in (17, 3)
    ]
    part = read_table(found[0])
    assert part.frame["_healpix_29"].to_list() == [17 + k for k in range(29)]
    np.testing.assert_allclose(part.frame["p_disk"], [expected[name] for name in part.frame["object_id"]], atol=1e-6)
    assert part.metadata["kind"] == "labels"
    assert part.units == {"_healpix_29": "sr"}
    assert (part.descriptions["_healpix_29"], part.descriptions["object_id"]) == ("HEALPix pixel", "survey id")
    assert set(part.descriptions) == set(part.frame.columns)
    # A second call does nothing; other labels are not mixed in.
    before = [one.stat().st_mtime_ns for one in found]
    assert label_galaxies(model, source, tmp_path / "labels", **options).labelled == 60
    assert before == [one.stat().st_mtime_ns for one in found]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years")
    for out, says in (("labels", "holds labels of another run"), ("other", "exists but holds no labels")):
        with pytest.raises(InputError, match=says):
            label_galaxies(model, source, tmp_path / out, precision="fp32")


def test_ids_and_copied_columns_of_partitions_keep_their_values(model, pictures, tmp_path):
    """Ids are text if one file has text; other columns must have one type."""

    def labelled(ids, sizes):
        for number, columns in enumerate(zip(ids, sizes, strict=True)):
            table = dict(zip(("id", "size"), columns, strict=True))
            table["image"] = pa.array(list(pictures.values())[:2], pa.binary())
            file = tmp_path / "sky" / f"field=00{number}" / "p.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(table), file)
        report = label_galaxies(model, tmp_path / "sky", tmp_path / "labels.parquet", copy=["size"])
        return read_table(report.out).frame["object_id"].to_list()

    whole = [[1, 2], [3, 4]]
    assert labelled([[1, 7], [3, 4]], whole) == [1, 7, 3, 4]
    assert labelled([[1, 7], ["007", "a7"]], whole) == ["1", "7", "007", "a7"]
    assert labelled([[1, 7], np.array([3, 2**63], np.uint64)], whole) == ["1", "7", "3", str(2**63)]
    with pytest.raises(InputError, match="size"):
        labelled([[1, 7], [3, 4]], [[1, 2], [3.5, 4.5]])


def test_named_pipes_are_listed_and_names_that_are_not_utf8_are_escaped(model, pictures, folder, tmp_path):
    os.mkfifo(folder / "pipe.jpg")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(pictures["g02"])
    (folder / os.fsdecode(b"broken\xe9.jpg")).write_bytes(b"broken")
    report = label_galaxies(model, folder, tmp_path / "labels.parquet")
    assert [name for name, _ in report.problems] == ["broken\\xe9", "pipe"]
    assert "not a regular file" in pl.read_csv(tmp_path / "labels.problems.csv")["reason"][1]
    assert read_table(tmp_path / "labels.parquet").frame["object_id"].to_list() == ["caf\\xe9", *pictures]


def test_too_many_unreadable_images_raise_an_error_until_replaced(model, pictures, folder, tmp_path):
    write_folder(folder, {f"g{k}": b"broken" for k in range(20, 26)})
    out = tmp_path / "labels.parquet"
    with pytest.raises(InputError, match=r"6 of 60 .* 5% .*`max_bad`"):
        label_galaxies(model, folder, out)
    assert not out.exists()
    write_folder(folder, {f"g{k}": pictures[f"g{k}"] for k in range(20, 25)})
    report = label_galaxies(model, folder, out)
    assert (report.labelled, [name for name, _ in report.problems]) == (59, ["g25"])
    # A later error keeps the table.
    before = out.read_bytes()
    with pytest.raises(InputError, match="1%"):
        label_galaxies(model, folder, out, max_bad=0.01)
    assert out.read_bytes() == before


def test_training_galaxies_are_known_by_their_ids_also_as_text(model, pictures, tmp_path):
    folder = write_folder(tmp_path / "images", {str(k): picture for k, picture in enumerate(pictures.values())})
    model = replace(model, seen=model.seen.with_columns(object_id=pl.Series([3, 4])))
    label_galaxies(model, folder, tmp_path / "labels.parquet")
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert set(labels.filter(pl.col("relation") == "out_of_fold")["object_id"]) == {"3", "4"}


def test_a_catalogue_of_observed_labels_gives_the_posterior(model, pictures, folder, expected, tmp_path):
    rng = np.random.default_rng(0)
    known = [name for name in pictures if name != "g07"]
    label, alpha = rng.integers(0, 2, 59), rng.lognormal(2.3, 0.4, 59)
    frame = pl.DataFrame({"object_id": known, "label": label, "alpha": alpha, "split": "test"})
    table = CatalogTable(frame.sample(59, shuffle=True, seed=1), metadata={"alpha_psf": "sigma"})
    observed = write_table(table, tmp_path / "observed.parquet")
    report = label_galaxies(model, folder, tmp_path / "labels.parquet", observed=observed, precision="fp32")
    assert "59 of 60" in next(
        finding.message for finding in report.findings if finding.code == "observed-labels-matched"
    )
    got = read_table(tmp_path / "labels.parquet").frame
    assert got.row(7, named=True)["observed_label"] is got.row(7, named=True)["posterior_disk"] is None
    got = got.filter(pl.col("object_id") != "g07")
    np.testing.assert_array_equal(got["observed_label"], label)
    p = np.array([expected[name] for name in known])
    after = posterior(np.column_stack([1 - p, p]), label, alpha, RayleighTransition(11.25))
    np.testing.assert_allclose(got["posterior_disk"], after[:, 1], atol=1e-6)


def test_observed_labels_of_other_galaxies_are_an_error(model, pictures, folder, tmp_path):
    frame = pl.DataFrame({"object_id": ["x1", "x2"], "label": [0, 1], "alpha": [3.0, 9.0], "split": "test"})
    observed = write_table(CatalogTable(frame, metadata={"alpha_psf": "sigma"}), tmp_path / "observed.parquet")
    for source in (folder, write_tar(tmp_path / "all.tar", pictures)):
        with pytest.raises(InputError):
            label_galaxies(model, source, tmp_path / "labels.parquet", observed=observed)
        assert not (tmp_path / "labels.parquet").exists()


def test_files_with_the_same_name_get_their_paths_as_ids(model, pictures, tmp_path):
    write_folder(tmp_path / "images" / "a", {name: pictures[name] for name in ("g03", "g04")})
    write_folder(tmp_path / "images" / "b", {"g03": pictures["g03"]})
    label_galaxies(model, tmp_path / "images", tmp_path / "labels.csv")
    labels = pl.read_csv(tmp_path / "labels.csv")
    assert labels["object_id"].to_list() == ["a/g03.jpg", "g04", "b/g03.jpg"]
    assert labels["relation"].to_list() == ["out_of_fold"] * 3


@pytest.mark.parametrize("before", ["./", "images/", "./images//"])
def test_images_of_training_galaxies_are_recognised_in_any_folder_of_a_tar_file(before, model, pictures, tmp_path):
    some = {f"{before}{name}": pictures[name] for name in ("g02", "g03")}
    write_tar(tmp_path / "all.tar", some)
    label_galaxies(model, tmp_path / "all.tar", tmp_path / "labels.csv")
    assert pl.read_csv(tmp_path / "labels.csv")["relation"].to_list() == ["new", "out_of_fold"]


def test_repeated_ids_in_one_or_several_files_are_a_finding(model, pictures, tmp_path):
    some = dict(list(pictures.items())[:3])
    table = pa.table({"id": [7, 8, 7], "image": pa.array([pictures["g00"]] * 3, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    tars = write_folder(tmp_path / "tars", {})
    for name in ("0.tar", "1.tar"):  # as WebDataset's writers number the images of each file
        write_tar(tars / name, some)
    for source, rows in (("a.parquet", 3), ("tars", 6)):
        report = label_galaxies(model, tmp_path / source, tmp_path / f"{source}.csv")
        assert "ids-repeated" in codes(report)
        assert report.rows_in == report.labelled == rows


def test_tar_files_that_differ_in_their_ending_are_labelled_both(model, pictures, tmp_path):
    tars = write_folder(tmp_path / "tars", {})
    for name, row in (("all.tar", 0), ("all.tar.gz", 1), ("all.tgz", 2), ("other.tar", 3)):
        write_tar(tars / name, dict([[*pictures.items()][row]]), "w:gz" if name.endswith("gz") else "w")
    report = label_galaxies(model, tars, tmp_path / "labels")
    assert (report.rows_in, report.labelled) == (4, 4)
    assert {path.name for path in report.out.glob("*.parquet")} == {
        "all.tar.parquet", "all.tar.gz.parquet", "all.tgz.parquet", "other.parquet"
    }  # fmt: skip


def test_a_damaged_tar_file_is_listed_and_the_others_labelled(model, pictures, tmp_path):
    some = dict(list(pictures.items())[:10])
    source, out = tars(some, tmp_path / "tars", 6), tmp_path / "labels"
    content = (source / "002.tar").read_bytes()
    (source / "000.tar").write_bytes(b"no tar file")
    (source / "002.tar").write_bytes(content[: len(content) // 2])
    report = label_galaxies(model, source, out)
    assert (report.rows_in, report.labelled, [one for one, _ in report.problems]) == (42, 40, ["000", "002"])
    assert "rows-not-labelled" in codes(report)
    with pytest.raises(InputError):
        label_galaxies(model, source, tmp_path / "other", max_bad=0.01)
    (source / "000.tar").unlink()
    (source / "002.tar").write_bytes(content)
    report = label_galaxies(model, source, out)
    assert (report.labelled, report.problems) == (50, [])


@pytest.mark.parametrize("damage", ["header", "zeroed header", "two files", "cut in data", "Parquet"])
def test_a_damaged_file_raises_an_error(model, pictures, tmp_path, damage):
    source, _ = (as_parquet if damage == "Parquet" else as_tar)(pictures, tmp_path)
    content, half = source.read_bytes(), source.stat().st_size // 2
    start = content.find(b"g40.jpg")  # a header of the tar file
    source.write_bytes(
        {
            "header": content[:start] + bytes(range(1, 201)) + content[start + 200 :],
            "zeroed header": content[:start] + bytes(512) + content[start + 512 :],  # looks like the end of the file
            "two files": content + content,
            "cut in data": content[: start + 612],
            "Parquet": content[: half - 2000] + bytes(4000) + content[half + 2000 :],
        }[damage]
    )
    with pytest.raises(InputError, match=source.name):
        label_galaxies(model, source, tmp_path / "labels.parquet", max_bad=1.0)
    assert not (tmp_path / "labels.parquet").exists()


def test_the_content_of_a_gzipped_tar_file_is_checked_to_its_end(pictures, tmp_path):
    whole = gzip.compress(write_tar(tmp_path / "a.tar", pictures).read_bytes())
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    path = tmp_path / "b.tar.gz"
    path.write_bytes(whole)
    assert sum(rows.frame.height for rows in tar_batches(path, 8)) == 60
    for damaged in (bytes(flipped), whole[:-9], whole + whole, whole + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=path.name):
            list(tar_batches(path, 8))


def test_large_files_and_headers_in_a_tar_file_are_not_read(model, pictures, tmp_path, monkeypatch):
    """A small compressed file may hold any number of bytes."""
    first, large, *others = list(pictures)[:5]
    content = {first: pictures[first], large: bytes(100_000), **{other: pictures[other] for other in others}}
    path = write_tar(tmp_path / "images.tar.gz", content, "w:gz")
    monkeypatch.setattr(parts, "MOST_BYTES", 50_000)
    found = label_galaxies(model, path, tmp_path / "labels.parquet", max_bad=0.5)
    assert found.problems == [(large, parts.TOO_LARGE)]
    assert pl.read_parquet(found.out)["object_id"].to_list() == [first, *others]
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a" * (2 << 20) + ".jpg"))
    with pytest.raises(InputError, match="header"):
        label_galaxies(model, path, tmp_path / "other.parquet")


def test_lists_from_windows_are_read(model, pictures, folder, tmp_path):
    lines = "\n".join(f"images/{name}.jpg" for name in pictures)
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8-sig")
    assert label_galaxies(model, tmp_path / "list.txt", tmp_path / "labels.csv", images=tmp_path).labelled == 60


@pytest.mark.slow
def test_results_in_the_input_folder_are_not_labelled(model, pictures, folder, tmp_path):
    table, _ = as_hats(pictures, tmp_path)
    for source, out in ((folder, folder / "labels.parquet"), (table, table / "labels")):
        for _ in range(2):
            assert label_galaxies(model, source, out).labelled == 60


def test_unusable_sources_raise_errors(model, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    (tmp_path / "twice.txt").write_text("a.jpg\na.jpg\n")
    write_tar(write_folder(tmp_path / "mixed", pictures) / "some.tar", pictures)
    pl.DataFrame({"x": [1, 2]}).write_csv(tmp_path / "columns.csv")
    table = pl.DataFrame({"object_id": [7, 8], "label": [0, 1], "image": ["a.jpg", "b.jpg"]})
    table.write_csv(tmp_path / "table.csv")
    pl.concat([table, table]).write_csv(tmp_path / "repeated.csv")
    for name, says, options in (
        ("absent", "no such file or folder", {}),
        ("empty", "no images", {}),
        ("list.txt", "the list is empty", {}),
        ("twice.txt", "a.jpg is listed twice", {}),
        ("mixed", "holds images and tar files", {}),
        ("columns.csv", "`image_column`", {}),
        ("table.csv", "`shard`", {"shard": (3, 2)}),
        ("table.csv", "no column 'redshift'", {"copy": ["redshift"]}),
        ("table.csv", "'label' can't be copied", {"copy": ["label"]}),
        ("repeated.csv", "share an id", {}),
    ):
        with pytest.raises(InputError, match=says):
            label_galaxies(model, tmp_path / name, tmp_path / "labels.parquet", **options)
