"""T(α) of paths on real votes: artificially redshifted galaxies, and expert bars.

FERENGI: about 190 SDSS galaxies, each redshifted to up to eight redshifts with several evolutions; the class is the
majority path at the galaxy's lowest redshift. Galaxy Zoo 2: 687 galaxies with types and bars of Nair & Abraham.
"""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from astropy.cosmology import FlatLambdaCDM

from truemorph import Asked, Votes, calibration, fit_transition, measure_bias, prepare_catalogue, read_tree

# Standard deviation of the PSF of HST's ACS, in arcsec.
SIGMA = 0.1 / 2.3548


def read_votes(name, question, frame):
    """Votes of a table for a question of a tree, and the columns in which they were found."""
    tree = read_tree(name)
    found = tree.columns(question, frame.columns)
    values = {gate: frame.select(names).to_numpy().astype(float) for gate, names in found.columns.items()}
    total = frame[found.total].to_numpy() if found.kind == "fractions" else None
    return Votes.from_columns(tree, question, values, total), found


@pytest.fixture(scope="module")
def ferengi(shared_data):
    return redshifted(shared_data)


def redshifted(folder, question="bar"):
    """Votes, α, surface brightness, classes, galaxies and redshifts of the images."""
    frame = pl.read_parquet(folder / "ferengi_tree.parquet")
    votes, _ = read_votes("gz-ferengi", question, frame)
    _, galaxy = np.unique(frame["sdss_id"].to_numpy(), return_inverse=True)
    before, after = (frame[name].to_numpy().astype(float) for name in ("redshift", "sim_redshift"))
    distance = FlatLambdaCDM(70, 0.3).angular_diameter_distance
    alpha = frame["petrorad_r"].to_numpy() * distance(before).value / distance(after).value / SIGMA
    lowest = np.full(galaxy.max() + 1, np.inf)
    np.minimum.at(lowest, galaxy, after)
    first = after == lowest[galaxy]
    summed = {}
    for name, counts in votes.counts.items():
        summed[name] = np.zeros((lowest.size, counts.shape[1]))
        np.add.at(summed[name], galaxy[first], counts[first])
    classes = Votes(Asked(votes.asked.tree, question), summed).paths[galaxy]
    return votes, alpha, frame["mu_max_i"].to_numpy().astype(float), classes, galaxy, after


def of_halves(votes, alpha, column, classes, galaxy, redshift, seed):
    """Observed minus predicted mean vote fractions of each half from T of the other, by node; the rest by redshift.

    Galaxies with votes at the node count equally.
    """
    half = (np.random.default_rng(seed).permutation(galaxy.max() + 1) < galaxy.max() // 2)[galaxy]
    argument = alpha if column is None else np.column_stack([alpha, column])
    found = []
    for fitted in (half, ~half):
        fit = fit_transition(votes, alpha, gold=np.where(fitted, classes, -1), observables=column)
        away = {}
        for log_mean, name in zip(fit.transition.log_answers(argument, votes=True), votes.counts, strict=True):
            counts, mean = votes.counts[name], np.exp(log_mean)[np.arange(alpha.size), classes]
            fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            asked = ~fitted & (counts.sum(axis=1) > 0)
            of = [asked & (redshift == one) for one in np.unique(redshift)]
            away[name] = np.concatenate([(fractions - mean)[rows].mean(axis=0) for rows in of])
        found.append(away)
    return found


@pytest.mark.slow
def test_vote_fractions_of_one_half_predict_those_of_the_other(ferengi):
    away = of_halves(*ferengi, seed=0)
    every = np.concatenate([values for one in away for values in one.values()])
    assert np.sqrt(np.mean(every**2)) < 0.03
    # The scatter between halves of 95 galaxies is as large.
    assert max(np.sqrt(np.mean(values**2)) for one in away for values in one.values()) < 0.05


@pytest.fixture(scope="module")
def bars(shared_data):
    return with_expert_bars(shared_data)


def with_expert_bars(folder):
    """Votes, α and gold labels of Galaxy Zoo 2 galaxies."""
    frame = pl.read_parquet(folder / "gz2_tree.parquet").drop_nulls(["bar_nair", "petroR90", "t_type"])
    votes, _ = read_votes("gz2", "bar", frame)
    votes = replace(votes, asked=Asked.named(votes.asked.tree, "bar", ("smooth", "edge-on", "no bar", "bar", "smooth")))
    late, round_ = frame["t_type"].to_numpy() >= -3, frame["axis_ratio"].to_numpy() > 0.5
    gold = np.where(~late, 0, np.where(~round_, 1, np.where(frame["bar_nair"].to_numpy() > 0, 3, 2)))
    return votes, frame["petroR90"].to_numpy() / (1.1 / 2.3548), gold


def test_barred_disks_are_called_featured_more_often_than_unbarred_ones(bars):
    votes, alpha, gold = bars
    fit = fit_transition(votes, alpha, gold=gold)
    featured = votes.counts["smooth"].argmax(axis=1) == 1
    fitted = np.exp(fit.transition.log_answers(alpha)[0])[np.arange(alpha.size), gold, 1]
    thirds = np.digitize(alpha, np.quantile(alpha, [1 / 3, 2 / 3]))
    for third, barred, other in ((0, 0.8, 0.45), (1, 0.9, 0.73), (2, 0.93, 0.88)):
        for k, known in ((3, barred), (2, other)):
            rows = (gold == k) & (thirds == third)
            assert abs(featured[rows].mean() - known) < 0.05
            assert abs(fitted[rows].mean() - featured[rows].mean()) < 0.07
    # Votes for a bar are defined, and seen, where the question does not apply.
    assert np.mean(votes.counts["bar"][gold == 0].sum(axis=1) > 0) > 0.85


def test_calibration_by_node(bars):
    votes, alpha, gold = bars
    checked = calibration(fit_transition(votes, alpha, gold=gold))
    errors = checked.fitted - checked.observed
    assert np.sqrt(np.mean(errors**2)) < 0.08
    assert np.sqrt(np.mean((errors / checked.stderr) ** 2)) < 1.3


def test_surface_brightness_of_redshifted_galaxies_is_an_observable(shared_data):
    frame = pl.read_parquet(shared_data / "ferengi_tree.parquet").with_columns(alpha=10.0 + pl.col("p_features"))
    columns = {"surface_brightness": "mu_max_i", "vote_count": "classification_count", "redshift": "sim_redshift"}
    got = prepare_catalogue(
        frame.unique("subject_id"), id="subject_id", tree="gz-ferengi", question="bar", alpha="alpha", columns=columns
    ).catalogue
    dimming = got.frame["surface_brightness"] - got.frame["rest_surface_brightness"]
    assert dimming.to_numpy() == pytest.approx(10 * np.log10(1 + got.frame["sim_redshift"].to_numpy()))
    found = measure_bias(got, observables="surface_brightness", bootstrap=0)
    # Fainter images have fewer votes for features.
    featured = found.fractions_by_observable["surface_brightness"]["observed labels"]
    assert featured[0] > featured[-1] + 0.1
