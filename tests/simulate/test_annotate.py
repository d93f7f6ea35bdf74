"""Annotators: labels follow T(α), and votes from images follow the image."""

import numpy as np
import pytest

from truemorph.bias.transitions import FiskTransition, MatrixTransition, RayleighTransition, WeibullTransition
from truemorph.errors import InputError
from truemorph.simulate.annotate import image_votes, observed_labels, vote_fraction_evidence, vote_fractions
from truemorph.simulate.pictures import render
from truemorph.simulate.population import simulate_galaxies

N = 20_000
FAMILIES = [RayleighTransition(11.25), WeibullTransition(14.0, 1.3, 0.05), FiskTransition(12.0, 2.0)]


def given(n=N, disk=0.7, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random(n) < disk).astype(int), rng.lognormal(2.7, 0.4, n)


@pytest.mark.parametrize("transition", FAMILIES, ids=lambda t: t.family)
def test_labels_and_majorities_follow_the_transition(transition):
    truth, alpha = given()
    smooth, disk = vote_fractions(truth, alpha, transition, seed=1)
    np.testing.assert_allclose(smooth + disk, 1)
    for labels in (observed_labels(truth, alpha, transition, seed=1), (disk > 0.5).astype(int)):
        for k in (0, 1):
            for part in np.array_split(np.argsort(alpha), 4):
                rows = part[truth[part] == k]
                expected = transition.matrix(alpha[rows])[:, k, 1]
                error = np.sqrt(np.sum(expected * (1 - expected)))
                assert abs(labels[rows].sum() - expected.sum()) <= 4.5 * error


def test_classes_that_do_not_fit_raise_errors():
    with pytest.raises(InputError, match="true classes must be 0 to 1"):
        observed_labels([2], [5.0], RayleighTransition(10.0))
    with pytest.raises(InputError, match="two classes"):
        vote_fractions([1], [5.0], MatrixTransition.identity(3))


@pytest.mark.parametrize("transition", [RayleighTransition(11.25), FiskTransition(11.0, 1.8, false_disk=0.05)])
@pytest.mark.parametrize("alpha", [0.0, 8.0, 60.0])
def test_the_probability_of_a_vote_fraction_equals_its_frequency(transition, alpha):
    n = 100_000
    fractions = np.delete(np.round(np.arange(1001) / 1000, 3), 500)  # ties are resolved
    probabilities = np.exp(vote_fraction_evidence(fractions, np.full(1000, alpha), transition))
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-9)
    expected = transition.matrix(np.array([alpha]))[0, :, 1]
    np.testing.assert_allclose(probabilities[500:].sum(axis=0), expected, rtol=1e-6, atol=2e-12)
    for y in range(2):
        drawn = vote_fractions(np.full(n, y), np.full(n, alpha), transition, seed=1)[1]
        shares = np.histogram(drawn, np.linspace(-0.0005, 1.0005, 12))[0] / n
        in_bins = np.histogram(fractions, np.linspace(-0.0005, 1.0005, 12), weights=probabilities[:, y])[0]
        # 132 bins in total: five standard errors.
        assert np.all(np.abs(shares - in_bins) <= 5 * np.sqrt(in_bins * (1 - in_bins) / n) + 1e-6)


def test_votes_from_images_find_disks_only_if_they_are_resolved():
    galaxies = simulate_galaxies(500, seed=2, confounded=False)
    images = np.stack([image for _, image in render(galaxies, 64, 2)])
    votes = image_votes(images, seed=1)
    assert np.all(votes.sum(axis=1) == 40)
    said_disk = votes[:, 1] > 20
    kind, alpha = galaxies["type"].to_numpy(), galaxies["alpha"].to_numpy()
    poor, good = np.array_split(np.argsort(alpha), 2)
    spiral = kind == "spiral"
    assert said_disk[good][spiral[good]].mean() > said_disk[poor][spiral[poor]].mean() + 0.05
    assert said_disk[kind == "elliptical"].mean() < 0.25
    assert said_disk[spiral].mean() > said_disk[kind == "lenticular"].mean() > said_disk[kind == "elliptical"].mean()
