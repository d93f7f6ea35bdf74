"""Bins of one's own: edges, two columns, and tables for publications."""

import itertools
import json

import numpy as np
import polars as pl
import pytest
from astropy.table import Table

import truemorph as tm
from conftest import codes
from truemorph.errors import InputError

GOLD = {"gold": "gold", "compare": False}


@pytest.fixture(scope="module")
def galaxies():
    table = tm.simulate_catalogue(3000, seed=2, gold=600)
    rng = np.random.default_rng(1)
    return table.with_columns(z=pl.Series(rng.uniform(0.01, 0.1, 3000)), mass=pl.Series(rng.normal(10, 0.5, 3000)))


def test_fractions_are_those_between_the_given_edges(galaxies):
    edges = [0.01, 0.03, 0.06, 0.1]
    found = tm.estimate_transition(galaxies, by="z", fraction_bins="0.01,0.03,0.06,0.1", **GOLD).fractions
    np.testing.assert_array_equal(found.edges, edges)
    np.testing.assert_array_equal(found.counts, np.histogram(galaxies["z"], edges)[0])
    known = galaxies.filter(pl.col("gold").is_not_null())
    np.testing.assert_array_equal(found.gold_counts, np.histogram(known["z"], edges)[0])
    assert all(text in found.summary() for text in ("0.01 to 0.03", "0.03 to 0.06", "0.06 to 0.1"))
    same = tm.estimate_transition(galaxies, by="z", fraction_bins=edges, **GOLD).fractions
    np.testing.assert_array_equal(found.fractions, same.fractions)
    true = [galaxies.filter(pl.col("z").is_between(*ends))["truth"].mean() for ends in itertools.pairwise(edges)]
    assert np.all((found.low[:, 1] <= true) & (true <= found.high[:, 1]))


@pytest.mark.parametrize(
    ("edges", "says"),
    [
        ("0.03,0.1", "galaxies are beyond"),
        ("0.01,0.05,0.03,0.1", "increase"),
        ("0,0.001,0.2", "no galaxy is between 0 and 0.001"),
        ("0.01,x", "fraction_bins"),
        ("0", "fraction_bins"),
    ],
)
def test_edges_that_leave_galaxies_out_or_bins_empty_are_refused(galaxies, edges, says):
    with pytest.raises(InputError, match=says):
        tm.estimate_transition(galaxies, by="z", fraction_bins=edges, **GOLD)


def test_edges_of_two_columns_are_refused(galaxies):
    with pytest.raises(InputError):
        tm.estimate_transition(galaxies, by="z,mass", fraction_bins=[0, 1], **GOLD)


def test_two_columns_have_so_many_bins_each_or_a_note_says_why_not(galaxies):
    found = tm.estimate_transition(galaxies, by="z,mass", fraction_bins=3, **GOLD)
    assert found.fractions.counts.size == 9
    assert len(np.unique(found.fractions.edges[:, 0, 0])) == 3
    assert "bins-fewer" not in codes(found)
    fewer = tm.estimate_transition(galaxies.head(400), by="z,mass", fraction_bins=3, **GOLD)
    assert fewer.fractions.counts.size < 9
    assert "bins-fewer" in codes(fewer)


@pytest.mark.parametrize(("ending", "kind"), [("csv", "ascii.csv"), ("ecsv", "ascii.ecsv"), ("fits", "fits")])
def test_the_table_of_the_fractions_stands_beside_the_estimate(galaxies, tmp_path, ending, kind):
    out = tmp_path / f"fractions.{ending}"
    found = tm.estimate_transition(galaxies, out=out, fraction_bins=3, **GOLD)
    table = Table.read(out, format=kind)
    assert len(table) == 3
    names = ("disk", "gold_labels", "population_low")
    expected = found.fractions.fractions[:, 1], found.fractions.gold_counts, found.fractions.population[1, :, 1]
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_allclose(table[name], values, rtol=1e-3)
    described = json.loads((tmp_path / "fractions.json").read_text())
    assert described["fractions"]["edges"] == found.fractions.edges.tolist()
    assert tm.Estimate.read(tmp_path / "fractions.json").to_table().colnames == found.to_table().colnames


def test_latex_has_what_is_printed(galaxies, tmp_path):
    out = tmp_path / "fractions.tex"
    found = tm.estimate_transition(galaxies, out=out, fraction_bins=3, **GOLD)
    table = Table.read(out, format="latex")
    first, *_ = found.fractions.printed(found.gold_fractions)
    assert table.colnames == [r"disk fraction at $\alpha$", *list(first)[1:]]
    assert all("_" not in name for name in table.colnames)
    quoted = found.fractions["disk fraction"]
    for row, value, error, low, high in zip(
        table, quoted.fraction, quoted.stderr, quoted.low, quoted.high, strict=True
    ):
        assert (row["corrected"], row["range"]) == (f"{value:.3f} ± {error:.3f}", f"{low:.3f} to {high:.3f}")


def test_names_of_other_kinds_are_refused(galaxies, tmp_path):
    with pytest.raises(InputError, match=r"\.tex"):
        tm.estimate_transition(galaxies, out=tmp_path / "fractions.xls", **GOLD)
