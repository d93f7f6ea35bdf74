"""Invalid input gives a clear one-line error, and unusual but valid input the right result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import codes, flipped_labels
from truemorph import RayleighTransition, debiased_fractions, fit_transition
from truemorph.errors import InputError

N = 300
LABELS, ALPHA, TRUTH = flipped_labels(N, 0, median=12)
COLUMNS = np.random.default_rng(0).normal(size=(N, 2))
GIVEN = {"labels": LABELS, "alpha": ALPHA}
INVERTED = {"transition": RayleighTransition(9.0)}
METHODS = {
    "likelihood": {},
    "binned": {"method": "binned", "bins": 20},
    "conditional": {"intrinsic": COLUMNS},
    "gold": {"gold": TRUTH},
}


def changed(values, row, value):
    return np.where(np.arange(N) == row, value, values)


@given(
    st.sampled_from([("labels", value) for value in (2, 99, -1, 0.5, np.nan)] + [("alpha", np.nan), ("alpha", -1e-9)]),
    st.integers(0, N - 1),
    st.sampled_from(list(METHODS)),
)
@settings(max_examples=40)
def test_an_error_names_the_first_wrong_row(what, row, method):
    name, value = what
    given = GIVEN | {name: changed(GIVEN[name], row, value)}
    for estimate, options in ((fit_transition, METHODS[method]), (debiased_fractions, INVERTED)):
        with pytest.raises(InputError, match=rf"row {row}\b") as error:
            estimate(**given, **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": np.zeros(N)}, "only smooth labels"),
        ({"labels": np.array(["disk"] * N)}, "labels must be integers"),
        ({"alpha": changed(ALPHA, 9, np.inf)}, "finite"),
        ({"alpha": np.full(N, 9.0)}, "the same for all galaxies"),
        ({"method": "gold"}, "needs `gold`"),
        ({"method": "likelihood", "gold": TRUTH}, "does not use `gold`"),
        ({"family": "constant"}, "give gold labels"),
        ({"false_disk": "auto"}, "false_disk must be a number"),
        ({"gold": np.full(N, -1)}, "only 0 gold labels"),
        ({"intrinsic": np.ones(N)}, "column 0 is the same for all"),
        ({"intrinsic": changed(ALPHA, 0, np.nan)}, "1 are not .first: row 0"),
    ],
)
def test_invalid_input_of_a_fit_raises_errors(options, says):
    with pytest.raises(InputError, match=says):
        fit_transition(**GIVEN | options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"transition": None}, "needs a transition, gold labels"),
        ({"by": changed(ALPHA, 5, np.nan)}, "1 missing values"),
        ({"bins": N + 1}, "number of galaxies"),
        ({"gold": TRUTH, "covariates": np.ones(7)}, "covariates must have shape"),
        ({"weights": np.zeros(N)}, "weights must be positive"),
        ({"weights": np.where(np.arange(N) == 3, 1e300, 1.0)}, "row 4"),
    ],
)
def test_invalid_input_of_fractions_raises_errors(options, says):
    with pytest.raises(InputError, match=says):
        debiased_fractions(**GIVEN | INVERTED | options)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["likelihood", "binned", "conditional"])
@pytest.mark.parametrize("label", [0, 1])
def test_alpha_zero_is_valid(method, label):
    row = np.flatnonzero(label == LABELS)[0]
    delta = None if method == "binned" else 0.5  # the range of "binned" is that of "likelihood"
    fit = fit_transition(LABELS, changed(ALPHA, row, 0.0), delta=delta, **METHODS[method])
    assert fit.transition.flip_probability(np.zeros(1))[0] == 1.0
    assert np.isfinite(fit.log_likelihood)
    assert ("seen-at-alpha-zero" in codes(fit)) == (label == 1 and method != "conditional")


@pytest.mark.parametrize("kind", [list, np.float32, np.uint8, bool])
def test_labels_may_have_any_numeric_type(kind):
    labels = LABELS.tolist() if kind is list else LABELS.astype(kind)
    plain = fit_transition(LABELS, ALPHA, delta=None)
    assert fit_transition(labels, ALPHA.tolist(), delta=None).values == plain.values


def test_masked_and_missing_gold_labels_are_unknown():
    known = np.arange(N) % 3 == 0
    golds = np.where(known, TRUTH, -1), np.where(known, TRUTH, np.nan), np.ma.array(TRUTH, mask=~known)
    fits = [fit_transition(LABELS, ALPHA, gold=gold).values for gold in golds]
    found = [debiased_fractions(LABELS, ALPHA, gold=gold, bins=3).fractions.tolist() for gold in golds]
    assert fits[1:] == fits[:1] * 2
    assert found[1:] == found[:1] * 2
