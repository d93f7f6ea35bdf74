"""Interrupted and shared labelling: no row is lost, duplicated or changed."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest

from conftest import codes
from truemorph import label_galaxies, read_table
from truemorph.classifiers.engines import engine_for
from truemorph.errors import InputError, TruemorphError
from truemorph.labelling import output

from labelling.conftest import tars, write_tar  # isort: skip


def parts_of(out):
    """Finished parts of a table."""
    return sorted(out.parent.glob(f"{out.name}.parts/[!.]*.parquet"))


@pytest.mark.slow
def test_a_damaged_part_is_labelled_again_and_reported(model, pictures, tmp_path):
    source = tars(pictures, tmp_path / "tars", 4)
    whole = label_galaxies(model, source, tmp_path / "whole", precision="fp32")
    out = tmp_path / "out"
    label_galaxies(model, source, out, precision="fp32")
    first, second, third, last = sorted(out.glob("*.parquet"))
    content = first.read_bytes()
    values = content.index(b"PAR1") + 60  # in the first page
    first.write_bytes(content[:values] + bytes([content[values] ^ 16]) + content[values + 1 :])
    second.write_bytes(second.read_bytes()[:-300])
    rows = pl.read_parquet(third)
    rows[1:].write_parquet(third)
    shutil.copy(tmp_path / "whole" / second.name, last)  # a good part, but another
    report = label_galaxies(model, source, out, precision="fp32")
    assert codes(report).count("part-damaged") == 4
    assert (report.rows_in, report.labelled) == (whole.rows_in, whole.labelled)
    for one in sorted(out.glob("*.parquet")):
        assert pl.read_parquet(one).equals(pl.read_parquet(tmp_path / "whole" / one.name))


def test_a_shard_checks_its_own_parts(model, folder, tmp_path):
    out = tmp_path / "out"
    label_galaxies(model, folder, out)
    first, *_ = sorted(out.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-300])
    damaged = first.stat().st_mtime_ns
    report = label_galaxies(model, folder, out, shard=(2, 4))
    assert (report.labelled, report.complete, first.stat().st_mtime_ns) == (16, False, damaged)
    assert "part-damaged" not in codes(report)
    report = label_galaxies(model, folder, out, shard=(1, 4))
    assert codes(report).count("part-damaged") == 1
    assert (report.labelled, report.complete) == (16, True)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "fits"])
def test_tables_of_several_parts_have_the_rows_of_parquet(model, folder, tmp_path, ending):
    one, other = (label_galaxies(model, folder, tmp_path / f"labels.{kind}").out for kind in ("parquet", ending))
    columns = ["object_id", "p_disk", "label"]
    assert read_table(other).frame.select(columns).equals(read_table(one).frame.select(columns))


def test_probabilities_that_are_not_finite_are_listed(model, folder, tmp_path, monkeypatch):
    def some_nan(self, inputs, member):
        return np.where(np.arange(len(inputs))[:, None] == 2, np.nan, np.full((len(inputs), 2), 0.5))

    monkeypatch.setattr(type(engine_for(model)), "member", some_nan)
    report = label_galaxies(model, folder, tmp_path / "out.parquet", precision="fp32", max_bad=0.1)
    assert (report.rows_in, report.labelled, len(report.problems)) == (60, 56, 4)  # one of each part
    assert read_table(tmp_path / "out.parquet").frame["p_disk"].is_finite().all()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(model, image_model, pictures, tmp_path):
    source = tars({**pictures, "g10": b"broken"}, tmp_path / "tars", 16)
    label_galaxies(model, source, tmp_path / "whole.parquet", precision="fp32")
    out = tmp_path / "cut.parquet"
    command = ["label", str(image_model), str(source), "--out", str(out), "--precision", "fp32"]
    process = subprocess.Popen([sys.executable, "-m", "truemorph.cli", *command], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(parts_of(out)) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {one: one.stat().st_mtime_ns for one in parts_of(out)}
    assert 3 <= len(done) < 16
    assert not out.exists()
    label_galaxies(model, source, out, precision="fp32", shard=(1, 2))
    assert done.items() <= {one: one.stat().st_mtime_ns for one in parts_of(out)}.items()  # none was labelled again
    report = label_galaxies(model, source, out, precision="fp32")
    assert (report.rows_in, report.labelled, len(report.problems)) == (960, 944, 16)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "cut.problems.csv").read_bytes() == (tmp_path / "whole.problems.csv").read_bytes()
    left = {one.name for one in tmp_path.iterdir()}
    assert left == {"tars", "whole.parquet", "whole.problems.csv", "cut.parquet", "cut.problems.csv"}


def test_shards_share_the_work_also_with_other_spellings_of_the_paths(model, folder, tmp_path, monkeypatch):
    label_galaxies(model, folder, tmp_path / "whole.parquet")
    out = tmp_path / "shards.parquet"
    monkeypatch.chdir(tmp_path)
    # Four parts: one, two and one.
    for k, own, paths in ((3, 16, (folder, out)), (1, 28, ("images", out.name)), (2, 16, (folder, out.name))):
        report = label_galaxies(model, *paths, shard=(k, 3))
        assert (report.rows_in, report.labelled, report.shard) == (own, own, (k, 3))
        assert report.complete == out.exists() == (k == 2)
        assert report.complete or "parts-left" in codes(report)
    assert read_table(out).frame.equals(read_table(tmp_path / "whole.parquet").frame)


@pytest.fixture
def evaluated(model, monkeypatch):
    """Numbers of images that networks have evaluated, one per call."""
    engine = type(engine_for(model))
    calls, member = [], engine.member

    def counted(self, inputs, number):
        calls.append(len(inputs))
        return member(self, inputs, number)

    monkeypatch.setattr(engine, "member", counted)
    return calls


def labels_in(folder):
    return pl.concat([pl.read_parquet(one) for one in sorted(folder.glob("[!.]*.parquet"))])


@pytest.mark.slow
def test_images_that_are_added_or_replaced_are_labelled_and_the_others_kept(
    model, pictures, folder, tmp_path, evaluated
):
    (folder / "g03.jpg").write_bytes(b"broken")
    options = {"precision": "fp32", "max_bad": 0.1}
    assert label_galaxies(model, folder, tmp_path / "out", **options).labelled == 59
    changes = [("g03", "g03", 1), ("a00", "g00", 2), ("z00", "g00", 2)]  # two members label new galaxies
    for name, content, expected in changes:
        evaluated.clear()
        (folder / f"{name}.jpg").write_bytes(pictures[content])
        report = label_galaxies(model, folder, tmp_path / "out", **options)
        assert (sum(evaluated), report.complete, report.problems) == (expected, True, [])
    (folder / "g59.jpg").unlink()
    evaluated.clear()
    assert label_galaxies(model, folder, tmp_path / "out", **options).labelled == 61
    assert not evaluated
    label_galaxies(model, folder, tmp_path / "whole", **options)
    whole, grown = labels_in(tmp_path / "whole"), labels_in(tmp_path / "out")
    assert grown.drop(cs.float()).equals(whole.drop(cs.float()))
    np.testing.assert_allclose(grown["p_disk"], whole["p_disk"], atol=1e-6)
    assert {one.name for one in (tmp_path / "out").iterdir()} == {one.name for one in (tmp_path / "whole").iterdir()}


def test_an_image_under_another_path_is_labelled_again(model, pictures, folder, tmp_path, evaluated):
    table = pl.DataFrame({"object_id": ["x", "y"], "image": ["g00.jpg", "g01.jpg"]})
    for image in ("g01.jpg", "g02.jpg"):
        evaluated.clear()
        table.with_columns(image=pl.Series(["g00.jpg", image])).write_csv(folder / "table.csv")
        label_galaxies(model, folder / "table.csv", tmp_path / "out", precision="fp32")
    assert evaluated == [1, 1]  # by two members


@pytest.mark.slow
def test_tar_files_that_are_added_or_replaced_are_labelled_and_the_others_kept(model, pictures, tmp_path, evaluated):
    source, out = tars(pictures, tmp_path / "tars", 3), tmp_path / "out"
    label_galaxies(model, source, out)
    some = dict(list(pictures.items())[:7])
    for name, rows in (("003.tar", 187), ("001.tar", 134)):
        evaluated.clear()
        write_tar(source / name, {f"new-{key}": data for key, data in some.items()})
        report = label_galaxies(model, source, out)
        assert (report.rows_in, report.labelled, sum(evaluated)) == (rows, rows, 14)
    (source / "000.tar").unlink()
    assert label_galaxies(model, source, out).labelled == 74
    assert labels_in(out).height == 134  # labels of a file that was moved away stay
    evaluated.clear()
    kept = labels_in(out)
    for file in source.iterdir():  # copied, with another time
        os.utime(file, ns=(0, 0))
    for _ in range(2):
        report = label_galaxies(model, source, out)
        assert (report.labelled, report.complete, evaluated) == (74, True, [])
        assert labels_in(out).equals(kept)


def test_problems_are_listed_and_the_run_is_described_while_shards_are_left(model, folder, tmp_path, capsys):
    (folder / "g03.jpg").write_bytes(b"broken")
    report = label_galaxies(model, folder, tmp_path / "out", shard=(1, 2), precision="fp32", max_bad=0.1)
    assert not report.complete
    assert pl.read_csv(tmp_path / "out" / "problems.csv")["object_id"].to_list() == ["g03"]
    (about,) = (line for line in capsys.readouterr().err.splitlines() if "label: engine" in line)
    assert engine_for(model, precision="fp32").description in about
    assert "4 parts" in about


@pytest.mark.slow
@pytest.mark.parametrize("name", ["labels.parquet", "labels"])
def test_labels_of_two_settings_do_not_mix(model, folder, tmp_path, name):
    """Such as those of unlike machines, of which one has no OpenVINO."""
    out = tmp_path / name
    label_galaxies(model, folder, out, precision="fp32", shard=(1, 2))
    for settings in ({"precision": "bf16"}, {"engine": "torch", "precision": "fp32"}):
        with pytest.raises(InputError, match="engine"):
            label_galaxies(model, folder, out, **settings, shard=(2, 2))
    assert label_galaxies(model, folder, out, precision="fp32").labelled == 60
    tables = [out] if out.is_file() else sorted(out.glob("*.parquet"))
    named = engine_for(model, precision="fp32").description
    assert {read_table(table).metadata["engine"] for table in tables} == {named}


def test_a_process_that_starts_after_the_end_leaves_no_files(model, folder, tmp_path, monkeypatch):
    out, claim = tmp_path / "labels.parquet", output.Results.claim

    def late(self, part):
        monkeypatch.setattr(output.Results, "claim", claim)
        label_galaxies(model, folder, out)  # another process, from start to end
        return claim(self, part)

    monkeypatch.setattr(output.Results, "claim", late)
    assert "written-elsewhere" in codes(label_galaxies(model, folder, out))
    assert {one.name for one in tmp_path.iterdir()} == {"images", "labels.parquet", "labels.problems.csv"}


def test_a_full_disk_keeps_finished_parts(model, folder, tmp_path, monkeypatch):
    out, write, calls = tmp_path / "labels.parquet", output.pq.ParquetWriter.write_table, []

    def full(self, *arguments):
        calls.append(self)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(output.pq.ParquetWriter, "write_table", full)
        with pytest.raises(TruemorphError, match="No space left on device"):
            label_galaxies(model, folder, out)
    assert sorted(tmp_path.glob("*.parts/*.parquet")) == parts_of(out)  # no partial file
    assert [one.name for one in parts_of(out)] == ["part-00000.parquet", "part-00001.parquet"]
    assert label_galaxies(model, folder, out).labelled == 60
