"""Ids as people have them: every digit, or a line that says why not."""

import gzip

import numpy as np
import polars as pl
import pytest

from truemorph.catalogs.archives.ids import ids_from, read_ids
from truemorph.errors import InputError

ONE, TWO = 587722981748572353, 587722981748572354


@pytest.mark.parametrize(
    "ids",
    [
        [ONE, TWO],
        [str(ONE), f" {TWO} "],
        [ONE, None, TWO],
        np.array([ONE, TWO]),
        np.array([ONE, TWO], dtype=np.uint64),
        pl.Series([ONE, None, TWO]),
        pl.Series([str(ONE), str(TWO), ""]),
        (one for one in (ONE, TWO)),
    ],
)
def test_ids_from_python(ids):
    assert ids_from(ids).to_list() == [ONE, TWO]


@pytest.mark.parametrize(
    "ids",
    [
        np.array([ONE, TWO], dtype=float),
        pl.Series([float(ONE)]),
        [float(ONE)],
        [1.5],
        pl.Series([1.5]),
    ],
)
def test_floats_that_may_have_lost_digits(ids):
    with pytest.raises(InputError, match="may have lost digits"):
        ids_from(ids)


def test_floats_that_can_not_have_lost_digits():
    assert ids_from([7.0, float("nan"), None]).to_list() == [7]
    assert ids_from(pl.Series([7.0, float("nan"), None])).to_list() == [7]


@pytest.mark.parametrize("ids", [["a"], [2**64], [True, "x"], np.array([2**63], dtype=np.uint64), ["5.8e17"]])
def test_what_is_no_id(ids):
    with pytest.raises(InputError, match="whole numbers"):
        ids_from(ids)


def test_comments_in_a_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"#Table1\n# from CasJobs\nobjid,ra\n{ONE},1\nnull,3\n{TWO},2\n")
    assert read_ids(path).to_list() == [ONE, TWO]
    assert read_ids(str(path)).to_list() == [ONE, TWO]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("broken.csv.gz", b"\x1f\x8bgarbage"),
        ("cut.csv.gz", gzip.compress(f"dr7objid\n{ONE}\n".encode() * 500, mtime=0)[:-30]),
        ("empty.csv", b""),
        ("utf16.csv", f"objid\n{ONE}\n".encode("utf-16")),
    ],
    ids=["broken", "cut", "empty", "utf16"],
)
def test_broken_tables_are_said_in_one_line(tmp_path, name, body):
    (tmp_path / name).write_bytes(body)
    with pytest.raises(InputError, match=name) as caught:
        read_ids(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
