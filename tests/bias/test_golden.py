"""CV14 and CV18 against values from their authors' own code (science.md, section 4)."""

import numpy as np
import pytest

from truemorph.bias.metrics import cv14, cv18

# N, depth, bins, theta (None: unbiased labels): CV18(alpha), CV18(mag first, alpha last), CV14
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
    plain = {"bootstrap": 0, "floor": "analytic"}
    assert cv18(labels, alpha, intrinsic, depth, bins, **plain).value == pytest.approx(by_alpha, abs=5e-7)
    both = np.column_stack([magnitude, alpha])
    r = cv18(labels, both, intrinsic, depth, bins, reference=("first", "last"), **plain)
    assert r.value == pytest.approx(by_both, abs=5e-7)
    assert cv14(labels, alpha, bins, **plain).value == pytest.approx(one_leaf, abs=5e-7)
