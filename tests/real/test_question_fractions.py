"""Bar fractions of real galaxies: votes along Galaxy Zoo 2's tree, experts' bars as gold labels.

687 galaxies of Stripe 82 with types and bars of Nair & Abraham, of which 376 are face-on disks; octiles of α.
"""

import numpy as np
import pytest

from real.test_tree_transition import with_expert_bars
from truemorph import debiased_fractions
from truemorph.bias.binning import Bins

DRAWS = 40


@pytest.fixture(scope="module")
def bars(shared_data):
    """Votes, classes (0 where the question does not apply, 1 without and 2 with a bar) and α."""
    votes, alpha, gold = with_expert_bars(shared_data)
    return votes, np.maximum(gold - 1, 0), alpha


@pytest.mark.slow
@pytest.mark.parametrize(("n_gold", "most"), [(150, 0.075), (300, 0.050)])
def test_bar_fractions_with_resolution(bars, n_gold, most):
    votes, truth, alpha = bars
    quantities = votes.asked.quantities
    labels = np.array(votes.asked.answers_of_paths)[votes.paths]
    errors, alone, inside, whole = [], [], [], []
    for seed in range(DRAWS):
        gold = np.full(truth.size, -1)
        known = np.random.default_rng(seed).choice(truth.size, n_gold, replace=False)
        gold[known] = truth[known]
        fractions = debiased_fractions(
            labels, alpha, gold=gold, paths=votes.paths, votes=votes.log_odds, quantities=quantities
        )
        found, bins = fractions["bar fraction"], Bins.at(alpha, fractions.edges)  # bins with few bars are merged
        true = bins.sums(truth == 2) / bins.sums(truth > 0)
        errors += (found.fraction - true).tolist()
        alone += (bins.sums(gold == 2) / np.maximum(bins.sums(gold > 0), 1) - true).tolist()
        is_inside = (found.low <= true) & (true <= found.high)
        inside += is_inside.tolist()
        whole += [is_inside] if bins.count == 8 else []
    rms, of_gold = (np.sqrt(np.mean(np.square(one))) for one in (errors, alone))
    assert rms < most
    assert rms < 0.65 * of_gold
    assert np.mean(inside) > 0.93
    assert len(whole) > DRAWS / 2
    assert np.mean(whole, axis=0).min() >= 0.85  # 40 draws: 0.95 ± 0.035, lowest of eight
