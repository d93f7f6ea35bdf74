"""Memory per galaxy, by which 10^7 galaxies fit into 4 GiB."""

import tracemalloc

import pytest

import truemorph as tm

N, BYTES_PER_GALAXY = 100_000, 250


@pytest.mark.slow
@pytest.mark.parametrize("gold", [None, "gold"])
def test_bias_curve_and_class_fractions_need_little_memory_per_galaxy(gold):
    catalogue = tm.simulate_catalogue(N, gold=300)
    tm.estimate_transition(tm.simulate_catalogue(2000, gold=300), gold=gold, compare=False)  # imports what it needs
    tracemalloc.start()
    tm.estimate_transition(catalogue, gold=gold, compare=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES_PER_GALAXY * N
