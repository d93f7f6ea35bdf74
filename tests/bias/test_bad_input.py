"""Invalid input gives a clear one-line error, for all methods (property tests)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import codes, flipped_labels
from truemorph.bias.estimation import fit_transition
from truemorph.bias.fractions import debiased_fractions
from truemorph.bias.metrics import cv14, cv18
from truemorph.bias.transitions import RayleighTransition
from truemorph.errors import InputError

N = 300
LABELS, ALPHA, TRUTH = flipped_labels(N, 0, median=12)
COLUMNS = np.random.default_rng(0).normal(size=(N, 2))
METHODS = {
    "likelihood": {},
    "binned": {"method": "binned", "bins": 20},
    "conditional": {"intrinsic": COLUMNS},
    "gold": {"gold": TRUTH},
}
rows = st.integers(0, N - 1)
methods = st.sampled_from(list(METHODS))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert 20 < len(text) < 400
    return text


@given(rows, st.one_of(st.integers(2, 99), st.integers(-99, -1), st.just(0.5)), methods)
@settings(max_examples=40)
def test_labels_that_are_not_classes_raise_an_error(row, value, method):
    labels = LABELS.astype(float)
    labels[row] = value
    options = {**METHODS[method], "n_classes": 2}
    with pytest.raises(InputError) as error:
        fit_transition(labels, ALPHA, **options)
    assert f"row {row}" in one_line(error)
    with pytest.raises(InputError):
        debiased_fractions(labels, ALPHA, RayleighTransition(9.0))


@given(rows, st.one_of(st.just(np.nan), st.floats(max_value=-1e-9, allow_infinity=False)), methods)
@settings(max_examples=40)
def test_negative_or_missing_alpha_raises_an_error(row, value, method):
    alpha = ALPHA.copy()
    alpha[row] = value
    with pytest.raises(InputError) as error:
        fit_transition(LABELS, alpha, **METHODS[method])
    assert f"row {row}" in one_line(error)
    if np.isfinite(value):
        return
    # Bias metrics exclude and count such rows.
    assert cv14(LABELS, alpha, 5, bootstrap=0).n_dropped == 1
    assert cv18(LABELS, alpha, COLUMNS, 1, 5, bootstrap=0).n_dropped == 1


@given(rows, st.sampled_from(["likelihood", "binned", "conditional"]))
@settings(max_examples=10)
def test_alpha_zero_is_valid(row, method):
    alpha = ALPHA.copy()
    alpha[row] = 0.0
    labels = LABELS.copy()
    labels[row] = 0
    fit = fit_transition(labels, alpha, **METHODS[method])
    assert fit.transition.flip_probability(np.zeros(1))[0] == 1.0
    assert np.isfinite(fit.log_likelihood)


@given(st.integers(0, 2 * N).filter(lambda n: n != N), methods)
@settings(max_examples=20)
def test_different_lengths_raise_an_error(n, method):
    with pytest.raises(InputError) as error:
        fit_transition(np.resize(LABELS, n), ALPHA, **METHODS[method])
    one_line(error)
    for call in (
        lambda: cv14(np.resize(LABELS, n), ALPHA),
        lambda: cv18(LABELS, ALPHA, np.ones((n, 2))),
        lambda: debiased_fractions(np.resize(LABELS, n), ALPHA, RayleighTransition(9.0)),
    ):
        with pytest.raises(InputError) as error:
            call()
        one_line(error)


@given(st.integers(1, 30))
@settings(max_examples=15)
def test_fewer_objects_than_bins_raise_an_error(n):
    with pytest.raises(InputError) as error:
        cv14(LABELS[:n], ALPHA[:n], n + 1)
    assert "bins" in one_line(error)
    with pytest.raises(InputError) as error:
        debiased_fractions(LABELS[:n], ALPHA[:n], RayleighTransition(9.0), bins=n + 1)
    assert "bins" in one_line(error)


def test_more_bins_than_galaxies_in_the_binned_method_give_a_finding():
    fit = fit_transition(LABELS, ALPHA, method="binned")
    assert "one-galaxy-per-bin" in codes(fit)


@given(st.sampled_from([0, 1]), st.sampled_from(["likelihood", "binned", "conditional"]))
def test_a_single_class_raises_an_error(label, method):
    with pytest.raises(InputError) as error:
        fit_transition(np.full(N, label), ALPHA, **METHODS[method])
    assert "both classes" in one_line(error)
    assert "one-class" in codes(cv14(np.full(N, label), ALPHA, 5, bootstrap=0))


@given(rows, st.integers(0, 1), st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(max_examples=15)
def test_missing_intrinsic_values_raise_an_error(row, column, value):
    columns = COLUMNS.copy()
    columns[row, column] = value
    with pytest.raises(InputError) as error:
        fit_transition(LABELS, ALPHA, intrinsic=columns)
    assert f"row {row}" in one_line(error)
    assert cv18(LABELS, ALPHA, columns, 1, 5, bootstrap=0).n_dropped == 1


def test_a_constant_intrinsic_column_raises_an_error_in_cv18():
    with pytest.raises(InputError) as error:
        cv18(LABELS, ALPHA, np.ones((N, 1)), 2, 5)
    assert "leaf of the intrinsic tree has 0 galaxies" in one_line(error)


@pytest.mark.parametrize("kind", [list, np.float32, np.uint8, bool])
def test_labels_may_have_any_numeric_type(kind):
    labels = LABELS.tolist() if kind is list else LABELS.astype(kind)
    assert fit_transition(labels, ALPHA.tolist()).values == fit_transition(LABELS, ALPHA).values


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gold": TRUTH, "method": "likelihood"}, "does not use gold labels"),
        ({"intrinsic": COLUMNS, "method": "likelihood"}, "does not use intrinsic columns"),
        ({"intrinsic": COLUMNS, "gold": TRUTH}, "does not use intrinsic columns"),
        ({"family": "logistic", "false_disk": 0.1}, "remove false_disk"),
        ({"false_disk": "auto"}, 'or "fit"'),
        ({"delta": -1.0}, "0 or more"),
        ({"observables": COLUMNS[:9]}, "observables must have shape"),
        ({"family": "monotone", "knots": 0}, "at least 2 knots"),
        ({"bins": 50.5}, "must be an integer"),
        ({"labels": np.ma.array(LABELS, mask=np.arange(N) == 3)}, "1 labels are masked .first: row 3"),
        ({"labels": np.array(["disk"] * N)}, "labels must be integers"),
        ({"alpha": 3.0}, "one value per galaxy"),
    ],
)
def test_unused_and_ambiguous_arguments_raise_errors(options, says):
    given = {"labels": LABELS, "alpha": ALPHA, **options}
    with pytest.raises(InputError, match=says) as error:
        fit_transition(**given)
    one_line(error)


def test_masked_and_missing_gold_labels_are_unknown():
    known = np.arange(N) % 3 == 0
    fits = [
        fit_transition(LABELS, ALPHA, gold=gold).values
        for gold in (
            np.where(known, TRUTH, -1),
            np.where(known, TRUTH, np.nan),
            np.ma.array(TRUTH, mask=~known),
        )
    ]
    assert fits[0] == fits[1] == fits[2]
    fractions = debiased_fractions(LABELS, ALPHA, gold=np.where(known, TRUTH, np.nan), bins=3)
    again = debiased_fractions(LABELS, ALPHA, gold=np.ma.array(TRUTH, mask=~known), bins=3)
    np.testing.assert_array_equal(fractions.fractions, again.fractions)


def test_one_column_tables_are_columns():
    column = ALPHA[:, None]
    assert fit_transition(LABELS[:, None], column).values == fit_transition(LABELS, ALPHA).values
    found = debiased_fractions(LABELS, column, RayleighTransition(9.0), by=column, bins=3)
    np.testing.assert_array_equal(
        found.fractions, debiased_fractions(LABELS, ALPHA, RayleighTransition(9.0), bins=3).fractions
    )


def test_alpha_zero_does_not_affect_the_logistic_family():
    alpha, labels = ALPHA.copy(), LABELS.copy()
    alpha[:5], labels[:5] = 0.0, 0
    with_zeros = fit_transition(labels, alpha, "logistic")
    without = fit_transition(labels[5:], alpha[5:], "logistic")
    assert with_zeros.values == pytest.approx(without.values, abs=0.05)
