"""Folders: one process at a time, nothing left of dead ones, options looked at before anything is asked."""

import os
import subprocess
import sys

import polars as pl
import pytest
from filelock import FileLock, Timeout

from conftest import run
from truemorph.catalogs.archives import folder as folders
from truemorph.catalogs.archives.fetch import ARCHIVES, fetch
from truemorph.catalogs.archives.folder import working_folder
from truemorph.catalogs.archives.patience import Pace
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError


def options_of(sky, name):
    positions = sky.truth.filter(pl.col("hst") == "image").select("objid", "ra", "dec")[:2]
    return {"sdss": {"ids": sky.truth["objid"]}, "hst": {"positions": positions}}.get(name, {})


def test_of_two_processes_one_waits(tmp_path, monkeypatch, capsys):
    """The second says so, and goes on when the first is done."""
    first = FileLock(tmp_path / ".fetch.lock")
    first.acquire()
    acquire = FileLock.acquire

    def acquired(self, timeout=None):
        if timeout is None:
            first.release()
        return acquire(self, timeout=timeout)

    monkeypatch.setattr(FileLock, "acquire", acquired)
    with working_folder(tmp_path), pytest.raises(Timeout):
        FileLock(tmp_path / ".fetch.lock").acquire(timeout=0)
    assert capsys.readouterr().err == f"{tmp_path}: another process is fetching into it; waiting for that\n"


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_archive_holds_its_folder(sky, web, tmp_path, name, monkeypatch):
    held = []
    monkeypatch.setattr(folders, "_sweep", lambda one: held.append(one))
    fetch(name, tmp_path / name, addresses_from=sky.addresses, web=web, **options_of(sky, name))
    assert held[0] == tmp_path / name


def test_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    old = f".table.csv.{int(dead.stdout)}.part"
    names = [old, f".table.csv.{os.getpid()}.part", "images.zip.part", ".mine.part", ".notes.2023"]
    (tmp_path / "parts").mkdir()
    for name in (*names, f"parts/{old}"):
        (tmp_path / name).touch()
    with working_folder(tmp_path, inside=("parts", "images")):
        pass
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*names[1:], ".fetch.lock"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_offline_nothing_is_written(sky, web, tmp_path, name):
    """So that a folder that is read-only will do."""
    out, options = tmp_path / name, options_of(sky, name)
    got = fetch(name, out, addresses_from=sky.addresses, web=web, **options)

    def state():
        return {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*"))}

    before, asked = state(), len(sky.requests)
    again = fetch(name, out, addresses_from=sky.addresses, web=Web(offline=True), **options)
    assert again.counts == got.counts
    assert state() == before
    assert len(sky.requests) == asked


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_folder_that_can_not_be_written(capsys, sky, tmp_path, name):
    """All archives say it alike."""
    (tmp_path / "file").write_text("")
    positions = tmp_path / "positions.csv"
    options_of(sky, "hst")["positions"].write_csv(positions)
    options = {"sdss": ("--ids", positions), "hst": ("--positions", positions)}.get(name, ())
    status, _, err = run(capsys, "fetch", name, "--out", tmp_path / "file" / "x", *options)
    assert status == 2
    assert (
        err
        == f"truemorph: {tmp_path / 'file' / 'x'}: can't be written (Not a directory); choose another folder (--out)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gz2", "hst"), "--positions TABLE"),
        (("gz2", "simard", "--tables", "9"), "the tables are 1, 2 and 3; got 9"),
        (("gz2", "sdss", "--batch", "1000"), "a batch has 1 to 300 ids"),
        (("gz2", "hst", "--positions", "absent.csv"), "no such file"),
        (("gz2", "--rate", "0"), "--rate is requests a second, 0.01 or more; got 0"),
        (("gz2", "--rate", "nan"), "--rate is requests a second, 0.01 or more; got nan"),
        (("gz2", "--rate", "1e-9"), "--rate is requests a second"),
    ],
)
def test_options_are_looked_at_before_anything_is_asked(capsys, sky, tmp_path, arguments, said):
    addresses = sky.write_addresses(tmp_path / "addresses.toml")
    status, _, err = run(capsys, "fetch", *arguments, "--out", tmp_path / "out", "--addresses", addresses)
    assert (status, len(err.splitlines())) == (2, 1)
    assert said in err
    assert sky.requests == []
    assert not (tmp_path / "out").exists()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.sent = []

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(
    ("name", "rate", "between"),
    [
        ("gz2", None, 1 / 2.0),
        ("sdss", None, 1 / 0.9),
        ("simard", None, 1.0),
        ("hst", None, 1 / 2.0),
        ("sdss", 4.0, 1 / 4.0),
    ],
)
def test_the_pace_at_which_a_host_is_asked(sky, tmp_path, monkeypatch, name, rate, between):
    clock = Clock()
    turn = Pace.wait_turn

    def told(self, host):
        turn(self, host)
        clock.sent.append(clock.now)

    monkeypatch.setattr(Pace, "_now", staticmethod(lambda: clock.now))
    monkeypatch.setattr(Pace, "wait_turn", told)
    init = Web.__init__
    monkeypatch.setattr(Web, "__init__", lambda self, **more: init(self, **more, sleep=clock.sleep))
    options = options_of(sky, name) | ({"batch": 50} if name == "sdss" else {})
    fetch(name, tmp_path, addresses_from=sky.addresses, per_second=rate, **options)
    assert len(clock.sent) == len(sky.requests) > 2
    gaps = [after - before for before, after in zip(clock.sent, clock.sent[1:], strict=False)]
    assert gaps == pytest.approx([between] * len(gaps))


def test_a_full_disk_while_provenance_is_written(sky, web, tmp_path, monkeypatch):
    from pathlib import Path

    from truemorph.errors import TruemorphError

    write = Path.write_text

    def full(path, *content):
        if "provenance" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, *content)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TruemorphError, match=r"provenance.json: .*No space left on device.*make room") as caught:
        fetch("sdss", tmp_path, addresses_from=sky.addresses, web=web, **options_of(sky, "sdss"))
    assert not isinstance(caught.value, InputError)
