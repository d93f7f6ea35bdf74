"""Annotators: labels follow T(α), and votes from images follow the image."""

import numpy as np
import pytest

from truemorph import FiskTransition, MatrixTransition, RayleighTransition, WeibullTransition
from truemorph.errors import InputError
from truemorph.simulate.annotate import image_votes, observed_labels, vote_fractions
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
    with pytest.raises(InputError, match="0 to 1"):
        observed_labels([2], [5.0], RayleighTransition(10.0))
    with pytest.raises(InputError, match="two classes"):
        vote_fractions([1], [5.0], MatrixTransition.identity(3))


@pytest.mark.slow
def test_votes_from_images_find_disks_only_if_they_are_resolved():
    galaxies = simulate_galaxies(300, seed=2, confounded=False)
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
