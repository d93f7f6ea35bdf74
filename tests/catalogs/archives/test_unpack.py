"""Archives from elsewhere: nothing outside the folder, nothing without limit, nothing half written."""

import errno
import gzip
import os
import stat
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truemorph.catalogs.archives import parts, unpack
from truemorph.catalogs.archives.unpack import gunzip, unzip
from truemorph.errors import InputError, TruemorphError

NOISE = np.random.default_rng(0).bytes(50_000)


def everything(name):
    return name


def make(path, *entries, compression=zipfile.ZIP_DEFLATED):
    """A zip file of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in entries:
            archive.writestr(name, body, compress_type=compression)
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def edit(path, old, new, count=-1):
    """Change bytes of a file; what an archive says of itself is only bytes."""
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new, count))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "archive.zip"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def test_what_is_wanted_comes_out_under_its_name(path, folder):
    make(
        path,
        ("images_gz2/", b""),
        ("images_gz2/images/1.jpg", NOISE),
        ("images_gz2/images/2.jpg", b"two"),
        ("images_gz2/readme.txt", b"no"),
        ("__MACOSX/images_gz2/images/._1.jpg", b"mac"),
        ("images_gz2/images/._2.jpg", b"mac"),
        ("images_gz2/.DS_Store", b"mac"),
    )
    done = unzip(path, folder, keep=lambda name: f"images/{name.split('/')[-1]}" if name.endswith(".jpg") else None)
    assert files(folder) == ["images/1.jpg", "images/2.jpg"]
    assert (folder / "images/1.jpg").read_bytes() == NOISE
    assert done.names == ("images/1.jpg", "images/2.jpg")
    assert (done.folder, done.written, done.skipped, done.macos, done.bytes) == (folder, 2, 1, 3, 50_003)


def test_a_rerun_writes_only_what_is_missing(path, folder):
    make(path, ("a", b"aa"), ("b", b"bb"), ("c", b"cc"))
    unzip(path, folder, keep=everything)
    (folder / "a").unlink()
    (folder / "b").write_bytes(b"b")  # cut short by something else
    kept = (folder / "c").stat().st_mtime_ns
    done = unzip(path, folder, keep=everything)
    assert (done.written, done.bytes) == (2, 4)
    assert done.names == ("a", "b", "c")
    assert (folder / "b").read_bytes() == b"bb"
    assert (folder / "c").stat().st_mtime_ns == kept


def test_until_it_came_to_its_end_files_are_compared_byte_by_byte(path, folder):
    """What a crash leaves can have the right size and be zeros."""
    make(path, ("a", b"aa"), ("b", NOISE))
    folder.mkdir()
    (folder / "a").write_bytes(b"aa")
    (folder / "b").write_bytes(bytes(len(NOISE)))
    assert unzip(path, folder, keep=everything).written == 1
    assert (folder / "b").read_bytes() == NOISE
    assert unzip(path, folder, keep=everything).written == 0
    # Of another archive of that name nothing is known.
    make(path, ("a", b"AA"), ("b", NOISE))
    assert unzip(path, folder, keep=everything).written == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/etc/passwd", "is an absolute path"),
        ("\\\\server\\share", "is an absolute path"),
        ("C:/windows/a", "is an absolute path"),
        ("c:a", "is an absolute path"),
        ("../a", "leads out of the folder"),
        ("images/../../a", "leads out of the folder"),
        ("images\\..\\..\\a", "leads out of the folder"),
        ("a/..", "leads out of the folder"),
    ],
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(path, folder, name, says):
    make(path, ("images/1.jpg", b"one"), (name, b"evil"))
    # Even if that entry isn't wanted: nobody makes such a file by accident.
    with pytest.raises(TruemorphError, match=f"archive.zip: entry .* {says}; nothing of it was unpacked"):
        unzip(path, folder, keep=lambda one: one if one.endswith(".jpg") else None)
    assert not folder.exists()
    assert files(path.parent) == ["archive.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(path, folder, kind):
    info = zipfile.ZipInfo("images/link")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    make(path, (info, b"/etc/passwd"), ("images/link/a.jpg", b"through it"))
    with pytest.raises(TruemorphError, match="is a link or a device"):
        unzip(path, folder, keep=everything)
    assert not folder.exists()


def test_null_characters_in_names_are_refused(path, folder):
    make(path, ("images/1.jpg@.png", b"one"))
    edit(path, b"1.jpg@", b"1.jpg\0")
    with pytest.raises(TruemorphError, match="null character"):
        unzip(path, folder, keep=everything)


def test_encrypted_entries_are_refused(path, folder):
    make(path, ("a", b"one"))
    body = bytearray(path.read_bytes())
    body[body.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(body)
    with pytest.raises(TruemorphError, match="is encrypted"):
        unzip(path, folder, keep=everything)


def test_two_entries_of_one_name_are_refused(path, folder):
    with pytest.warns(UserWarning, match="Duplicate name"):
        make(path, ("a", b"one"), ("a", b"two"))
    with pytest.raises(TruemorphError, match="two entries would be a"):
        unzip(path, folder, keep=everything)


def test_a_file_and_a_folder_of_one_name_are_said(path, folder):
    make(path, ("a", b"one"), ("a/b", b"two"))
    with pytest.raises(InputError, match=r"out/a: (File exists|Not a directory)"):
        unzip(path, folder, keep=everything)


@pytest.mark.parametrize("name", ["/a", "../a", "C:a", "a\\b", "", "."])
def test_keep_cannot_lead_out_of_the_folder_either(path, folder, name):
    make(path, ("a", b"one"))
    with pytest.raises(InputError, match="can't be unpacked as"):
        unzip(path, folder, keep=lambda one: name)


def test_a_bomb_is_stopped(path, folder):
    make(path, ("bomb", bytes(30_000_000)))
    assert path.stat().st_size < 31_000
    with pytest.raises(TruemorphError, match=r"inflates to more than 5.8 MB, it may be a bomb"):
        unzip(path, folder, keep=everything)
    assert files(folder) == []


def test_what_it_claims_counts_too(path, folder):
    make(path, ("a", NOISE), ("b", NOISE))
    with pytest.raises(TruemorphError, match=r"it holds 100.0 kB, of which 99.0 kB are allowed"):
        unzip(path, folder, keep=everything, max_bytes=99_000)
    with pytest.raises(TruemorphError, match="2 entries, of which at most 1 are allowed"):
        unzip(path, folder, keep=everything, max_files=1)
    assert not folder.exists()


@pytest.mark.parametrize("claimed", [10, 49_999, 50_001, 4_000_000_000])
def test_sizes_that_lie_are_found_out(path, folder, claimed):
    """In the central directory, which is what is believed elsewhere, and in the entry itself."""
    make(path, ("a", NOISE))
    edit(path, struct.pack("<I", 50_000), struct.pack("<I", claimed))
    with pytest.raises(TruemorphError, match=r"cut off or damaged|are free in"):
        unzip(path, folder, keep=everything)
    assert not folder.exists() or files(folder) == []


def test_entries_that_share_their_bytes_are_refused(path, folder):
    """How the worst bombs are made: many names, one compressed body."""
    make(path, ("a", NOISE), ("b", NOISE))
    body = path.read_bytes()
    at = body.index(b"PK\x01\x02")
    directory, first, second = body[at:], 0, body.index(b"PK\x03\x04", 1)
    assert struct.pack("<I", second) in directory
    # Leave the second body out and let the second name point to the first.
    directory = directory.replace(struct.pack("<I", second), struct.pack("<I", first))
    directory = directory.replace(struct.pack("<I", at), struct.pack("<I", second))
    path.write_bytes(body[:second] + directory)
    with pytest.raises(TruemorphError, match="its entries overlap"):
        unzip(path, folder, keep=everything)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_bytes_are_found_by_their_crc(path, folder, compression):
    make(path, ("first", b"whole"), ("second", NOISE), compression=compression)
    body = bytearray(path.read_bytes())
    body[25_000] ^= 0xFF
    path.write_bytes(body)
    with pytest.raises(TruemorphError, match=r"archive.zip: cut off or damaged .*delete it and run the same again"):
        unzip(path, folder, keep=everything)
    assert files(folder) == ["first"]


@pytest.mark.parametrize("left", [0, 1, 1000, 50_000, -1])
def test_truncated_zips_are_refused(path, folder, left):
    make(path, ("a", NOISE))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(TruemorphError, match="cut off or damaged"):
        unzip(path, folder, keep=everything)
    assert not folder.exists()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6))
def test_whatever_is_wrong_it_is_said_in_one_line(tmp_path, changes):
    """Any bytes changed: the files come out as they were, or an error of ours, never another."""
    path, folder = tmp_path / "fuzzed.zip", tmp_path / "fuzzed"
    make(path, ("images/one.txt", b"one" * 20), ("images/two.txt", b"two" * 20))
    body = bytearray(path.read_bytes())
    for at, value in changes:
        body[at % len(body)] = value
    path.write_bytes(body)
    said = ""
    try:
        unzip(path, folder, keep=everything)
    except TruemorphError as problem:
        said = str(problem)
    assert "\n" not in said
    assert {name.split("/")[0] for name in files(tmp_path)} <= {"fuzzed", "fuzzed.zip", ".fuzzed.zip.unpacked"}
    assert not [name for name in files(tmp_path) if name.endswith(".part")]


def test_a_full_disk_leaves_whole_files_only(path, folder, monkeypatch):
    make(path, ("a", b"first"), ("b", NOISE))
    write = unpack._write

    def full(file, piece):
        if len(piece) > 1000:
            write(file, piece[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, piece)

    monkeypatch.setattr(unpack, "_write", full)
    with pytest.raises(
        TruemorphError, match=r"unpacking archive.zip: 50.0 kB to come, and .* takes no more \(No space"
    ):
        unzip(path, folder, keep=everything)
    assert files(folder) == ["a"]
    monkeypatch.setattr(unpack, "_write", write)
    assert unzip(path, folder, keep=everything).written == 1


def test_a_disk_too_small_is_said_before_anything_is_written(path, folder, monkeypatch):
    make(path, ("a", NOISE))
    usage = parts.shutil.disk_usage(path.parent)
    monkeypatch.setattr(parts.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(TruemorphError, match=r"unpacking archive.zip: 50.0 kB to come, and 1.0 kB are free in"):
        unzip(path, folder, keep=everything)
    assert files(folder) == []


def test_ctrl_c_leaves_whole_files_only(path, folder, monkeypatch):
    make(path, ("a", b"first"), ("b", NOISE), ("c", b"last"))

    def interrupted(file, piece):
        file.write(piece)
        if len(piece) > 1000:
            raise KeyboardInterrupt

    monkeypatch.setattr(unpack, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unzip(path, folder, keep=everything)
    assert files(folder) == ["a"]


def test_what_is_no_file_is_named(tmp_path, folder):
    with pytest.raises(InputError, match=r"nowhere.zip: No such file"):
        unzip(tmp_path / "nowhere.zip", folder, keep=everything)
    with pytest.raises(InputError, match="Is a directory"):
        unzip(tmp_path, folder, keep=everything)
    with pytest.raises(InputError, match=r"nowhere.gz: No such file"):
        gunzip(tmp_path / "nowhere.gz", folder / "a")


def test_gunzip(tmp_path):
    path, out = tmp_path / "t.csv.gz", tmp_path / "sub" / "t.csv"
    path.write_bytes(gzip.compress(NOISE[:30_000], mtime=0) + gzip.compress(NOISE[30_000:], mtime=0))
    assert gunzip(path, out) == out
    assert out.read_bytes() == NOISE
    assert files(out.parent) == ["t.csv"]


@pytest.mark.parametrize("damage", ["cut", "flip", "page"])
def test_gunzip_of_what_is_not_whole(tmp_path, damage):
    path, out = tmp_path / "t.csv.gz", tmp_path / "t.csv"
    body = bytearray(gzip.compress(NOISE, mtime=0))
    if damage == "cut":
        body = body[:-5]
    elif damage == "flip":
        body[20_000] ^= 0xFF
    else:
        body = b"<html>Sorry</html>"
    path.write_bytes(body)
    with pytest.raises(TruemorphError, match=r"t.csv.gz: cut off or damaged .*; delete it and run the same again"):
        gunzip(path, out)
    assert files(tmp_path) == ["t.csv.gz"]


def test_gunzip_stops_a_bomb(tmp_path):
    path, out = tmp_path / "t.csv.gz", tmp_path / "t.csv"
    path.write_bytes(gzip.compress(bytes(30_000_000), mtime=0))
    with pytest.raises(TruemorphError, match=r"inflates to more than 10.0 MB, it may be a bomb"):
        gunzip(path, out, max_bytes=10_000_000)
    assert files(tmp_path) == ["t.csv.gz"]
