"""CV14 and CV18: values of their authors' own code, an independent implementation, invariants, floor and bootstrap."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import codes
from truemorph import cv14, cv18, measure_bias, simulate_catalogue
from truemorph.bias.binning import RankedTable
from truemorph.errors import InputError

# From the code of Cabrera-Vives et al. 2018. N, depth, bins, theta (None: unbiased labels): CV18(alpha),
# CV18(mag first, alpha last), CV14
GOLDEN = [
    (20_000, 3, 5, None, 0.020799, 0.019021, 0.008681),
    (20_000, 3, 5, 6.0, 0.187926, 0.133788, 0.177578),
    (20_000, 3, 5, 11.25, 0.216868, 0.153863, 0.206764),
    (20_000, 6, 4, None, 0.059271, 0.062364, 0.009185),
    (20_000, 6, 4, 6.0, 0.193620, 0.144235, 0.173196),
    (20_000, 6, 4, 11.25, 0.212790, 0.154852, 0.190471),
    (100_000, 9, 8, None, 0.123650, 0.125028, 0.008867),
    (100_000, 9, 8, 6.0, 0.230201, 0.185084, 0.179767),
    (100_000, 9, 8, 11.25, 0.281386, 0.212039, 0.240606),
]


def golden_catalogue(n, theta):
    rng = np.random.default_rng(12345)
    log_radius = rng.normal(0.9, 0.25, n)
    absolute = rng.normal(-21, 1, n)
    redshift = rng.uniform(0.02, 0.2, n)
    alpha = rng.lognormal(2.3, 0.45, n)
    magnitude = rng.normal(16.5, 0.8, n)
    p_smooth = 1 / (1 + np.exp(-(0.8 * (absolute + 21) - 1.5 * (log_radius - 0.9))))
    labels = (rng.random(n) >= p_smooth).astype(int)
    u = rng.random(n)
    if theta is not None:
        labels[(labels == 1) & (u < np.exp(-(alpha**2) / (2 * theta**2)))] = 0
    return labels, alpha, magnitude, np.column_stack([log_radius, absolute, redshift])


@pytest.mark.parametrize(("n", "depth", "bins", "theta", "by_alpha", "by_both", "one_leaf"), GOLDEN)
def test_values_equal_those_of_the_authors_code(n, depth, bins, theta, by_alpha, by_both, one_leaf):
    labels, alpha, magnitude, intrinsic = golden_catalogue(n, theta)
    plain = {"bootstrap": 0, "permutations": 0}
    assert cv18(labels, alpha, intrinsic, depth, bins, **plain).value == pytest.approx(by_alpha, abs=5e-7)
    both = np.column_stack([magnitude, alpha])
    r = cv18(labels, both, intrinsic, depth, bins, reference=("first", "last"), **plain)
    assert r.value == pytest.approx(by_both, abs=5e-7)
    assert cv14(labels, alpha, bins, **plain).value == pytest.approx(one_leaf, abs=5e-7)


def recursive_cv18(labels, alpha, intrinsic, depth, bins, n_classes=2):
    """CV18 from its definition, recursively (resolution: the last bin is the reference)."""

    def leaves(rows, level):
        if level == depth:
            return [rows]
        column = intrinsic[rows, level % intrinsic.shape[1]]
        middle = np.median(column)
        return leaves(rows[column < middle], level + 1) + leaves(rows[column >= middle], level + 1)

    squares = []
    for rows in leaves(np.arange(labels.size), 0):
        ordered = rows[np.argsort(alpha[rows], kind="stable")]
        edges = np.round(np.linspace(0, ordered.size, bins + 1)).astype(int)
        parts = [labels[ordered[a:b]] for a, b in pairwise(edges)]
        for k in range(n_classes):
            f = np.array([np.mean(part == k) for part in parts])
            squares.append(np.sum((f - f[-1]) ** 2) / bins)
    return np.sqrt(np.mean(squares))


@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(2, 5), st.integers(2, 4))
@settings(max_examples=40)
def test_cv18_equals_its_definition(seed, depth, bins, n_classes):
    rng = np.random.default_rng(seed)
    n = 300
    labels = rng.integers(0, n_classes, n)
    labels[:n_classes] = np.arange(n_classes)
    alpha = rng.lognormal(2, 0.5, n)
    intrinsic = rng.normal(size=(n, 2))
    got = cv18(labels, alpha, intrinsic, depth, bins, bootstrap=0, permutations=0).value
    assert got == pytest.approx(recursive_cv18(labels, alpha, intrinsic, depth, bins, n_classes))


@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(2, 5), st.booleans())
@settings(max_examples=40)
def test_a_resample_counted_by_object_equals_the_definition_on_its_rows(seed, depth, bins, tied):
    rng = np.random.default_rng(seed)
    labels, alpha, intrinsic = rng.integers(0, 2, 400), rng.lognormal(2, 0.5, 400), rng.normal(size=(400, 2))
    if tied:
        alpha, intrinsic = np.round(alpha), np.round(intrinsic, 1)
    table, draws = RankedTable(alpha[:, None], intrinsic), rng.integers(0, 400, 400)
    fractions = table.cut(depth, bins, draws).fractions(list(np.eye(2)[labels[table.rows]].T))
    rows = np.sort(table.rows[draws])
    expected = recursive_cv18(labels[rows], alpha[rows], intrinsic[rows], depth, bins)
    assert np.sqrt(np.mean((fractions - fractions[:, :, -1:]) ** 2)) == pytest.approx(expected, abs=1e-12)


def test_probabilities_of_0_and_1_equal_labels_and_depth_zero_is_cv14():
    rng = np.random.default_rng(1)
    labels, alpha = rng.integers(0, 2, 500), rng.lognormal(2, 0.5, 500)
    flat = cv14(labels, alpha, 10, bootstrap=3)
    assert flat == cv14(np.eye(2)[labels], alpha, 10, bootstrap=3)
    assert flat == replace(cv18(labels, alpha, rng.normal(size=500), 0, 10, bootstrap=3), measure="CV14")


def unbiased(n, seed):
    rng = np.random.default_rng(seed)
    intrinsic = rng.normal(size=(n, 3))
    labels = (rng.random(n) < 1 / (1 + np.exp(-intrinsic[:, 0]))).astype(int)
    return labels, rng.lognormal(2.3, 0.45, n), intrinsic


def test_unbiased_labels_are_at_the_floor():
    values = [cv18(*unbiased(6_000, seed), depth=4, bins=5, bootstrap=0) for seed in range(12)]
    excess = np.array([r.value**2 - r.floor**2 for r in values])
    # The mean of 12 squared values agrees with the squared floor within its error.
    assert abs(excess.mean()) < 3.5 * excess.std(ddof=1) / np.sqrt(12)
    assert [np.sign(r.signed_excess) for r in values] == np.sign(excess).tolist()
    assert min(r.signed_excess for r in values) < 0 <= min(r.excess for r in values)


def test_bootstrap_equals_recomputing_from_resampled_rows():
    """Rebuilding tree and bins from resampled rows gives the same distribution as using sorted orders."""
    labels, alpha, intrinsic = unbiased(1_500, 3)
    labels[alpha < 8] = 0
    r = cv18(labels, alpha, intrinsic, 2, 5, bootstrap=150, seed=1)
    rng = np.random.default_rng(2)
    values = []
    for _ in range(150):
        rows = rng.integers(0, 1_500, 1_500)
        values.append(recursive_cv18(labels[rows], alpha[rows], intrinsic[rows], 2, 5))
    error = np.std(values) * np.sqrt(2 / 150)
    assert r.bootstrap_mean == pytest.approx(np.mean(values), abs=4 * error)
    assert r.bootstrap_std == pytest.approx(np.std(values), rel=0.35)
    assert [bar.get_width() for bar in r.plot().patches] == [r.value, r.floor, r.excess]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.array(["smooth"] * 100)}, "labels must be numbers"),
        ({"labels": np.full((100, 2), 1.5)}, r"\[0, 1\]"),
        ({"alpha": np.ones(99)}, "one row a galaxy"),
        ({"depth": 6, "bins": 8}, "too few for 8 bins"),
        ({"alpha": np.ones(0), "labels": np.ones(0), "intrinsic": None}, "0 galaxies"),
        ({"reference": "middle"}, "reference"),
        ({"reference": ["last", "last"]}, "reference"),
        ({"seed": -1}, "seed"),
        ({"bootstrap": -1}, "bootstrap"),
        ({"intrinsic": np.ones((100, 1))}, "leaf of the intrinsic tree has 0 galaxies"),
    ],
)
def test_invalid_input_raises_errors(change, says):
    rng = np.random.default_rng(0)
    good = {"labels": rng.integers(0, 2, 100), "alpha": rng.random(100), "intrinsic": rng.random((100, 2))}
    with pytest.raises(InputError, match=says):
        cv18(**{**good, "depth": 1, "bins": 4, **change})


def test_a_sorted_file_with_equal_alpha_does_not_seem_biased():
    rng = np.random.default_rng(6)
    labels, alpha = rng.integers(0, 2, 3_000), np.round(rng.lognormal(2.3, 0.4, 3_000))
    order = np.argsort(labels, kind="stable")
    r = cv14(labels[order], alpha[order], 20, bootstrap=0)
    assert r.value < r.floor + 5 * r.floor_std


def test_rows_that_are_masked_or_not_finite_are_excluded_and_counted():
    labels, alpha, intrinsic = unbiased(1_000, 5)
    alpha[3], intrinsic[7, 1] = np.nan, np.inf
    masked = np.ma.array(alpha, mask=np.arange(1_000) < 3)
    r = cv18(labels, masked, intrinsic, 2, 4, bootstrap=0)
    keep = np.setdiff1d(np.arange(4, 1_000), [7])
    clean = cv18(labels[keep], alpha[keep], intrinsic[keep], 2, 4, bootstrap=0)
    assert (r.value, r.n_dropped, r.n_objects) == (clean.value, 5, 995)
    assert codes(r) == ["rows-left-out"]


def test_resamples_with_small_leaves_are_counted():
    labels, alpha, intrinsic = unbiased(256, 8)
    r = cv18(labels, alpha, intrinsic, 4, 16, bootstrap=20)
    assert np.isfinite(r.value)
    assert codes(r) == ["resamples-failed", "few-galaxies-per-bin"]


def test_gold_labels_that_are_too_few_for_the_tree_are_left_out(tmp_path):
    table = simulate_catalogue(20_000, seed=1, gold=300)
    found = measure_bias(table, intrinsic=["covariate", "bulge_fraction"], bootstrap=0, out=tmp_path / "bias.json")
    assert found.depth == 6
    assert list(found.results) == ["observed labels"]
    assert codes(found) == ["labels-too-few"]
    with pytest.raises(InputError, match="depth"):
        measure_bias(table, intrinsic=["covariate"], depth=13, bins=8)


def test_observables_of_the_command_equal_the_authors_code():
    labels, alpha, magnitude, intrinsic = golden_catalogue(20_000, 6.0)
    names = ["log_radius", "absolute", "z"]
    table = pl.DataFrame({"label": labels, "alpha": alpha, "magnitude": magnitude, "mine": -magnitude})
    table = table.hstack(pl.DataFrame(intrinsic, schema=names))
    options = {"intrinsic": names, "depth": 3, "bins": 5, "bootstrap": 0}
    found = measure_bias(table, observables="magnitude", **options)
    value = found.results["observed labels"].value
    assert value == pytest.approx(0.133788, abs=5e-7)
    each = [of["observed labels"].value for of in found.by_observable.values()]
    assert each[0] == measure_bias(table, **options).results["observed labels"].value
    assert value == pytest.approx(np.sqrt(np.mean(np.square(each))))
    assert found.to_dict()["observables"] == {"alpha": "last", "magnitude": "first"}
    assert list(found.to_dict()["fractions_by_observable"]) == ["magnitude"]
    same = measure_bias(table, observables="mine=last", **options)
    assert same.results["observed labels"].value == pytest.approx(value)


@pytest.mark.parametrize("named", ["alpha", "covariate", "x2", "x2=best", "x4=last", "same=last"])
def test_observables_that_cannot_be_measured(named):
    """α itself, an intrinsic column, one whose best end is not known, one that does not exist, and a constant."""
    table = simulate_catalogue(2000).with_columns(same=1.0)
    with pytest.raises(InputError, match=named.partition("=")[0].replace("same", "observable")):
        measure_bias(table, intrinsic=["covariate"], observables=named, bootstrap=0)
