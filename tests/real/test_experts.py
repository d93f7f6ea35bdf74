"""T(α) and corrected fractions on real galaxies, compared with expert classifications (science.md, section 3).

9,266 bright SDSS galaxies with Galaxy Zoo 1 flags and types of Nair & Abraham, in octiles of α. Two definitions of a
disk: the paper's (T ≥ -3, lenticulars are disks) and T ≥ 1.
"""

import numpy as np
import polars as pl
import pytest

from conftest import codes
from truemorph import compare_families, confounding_check, debiased_fractions, fit_transition

DRAWS, GOLD = 20, 500
PAPERS, LATE = -3, 1


class Experts:
    """The table, with α in units of σ_PSF for a PSF of 1.32 arcsec."""

    def __init__(self, frame):
        self.flagged = frame["gz1_spiral"].to_numpy()
        self.alpha = frame["petroR90_g"].to_numpy() / (1.32 / 2.3548)
        self.t_type = frame["t_type"].to_numpy()
        self.axis_ratio = frame["axis_ratio"].to_numpy()
        self.uncertain = frame["gz1_uncertain"].to_numpy()
        self.octiles = np.array_split(np.argsort(self.alpha, kind="stable"), 8)

    def disk(self, least):
        return (self.t_type >= least).astype(int)

    def by_octile(self, values):
        return np.array([values[part].mean() for part in self.octiles])

    def gold(self, least, seed):
        known = np.random.default_rng(seed).choice(self.alpha.size, GOLD, replace=False)
        trusted = np.full(self.alpha.size, -1)
        trusted[known] = self.disk(least)[known]
        return trusted


def rms(found, truth):
    return float(np.sqrt(np.mean((found.fractions[:, 1] - truth) ** 2)))


def covered(found, truth):
    return int(np.sum((found.low[:, 1] <= truth) & (truth <= found.high[:, 1])))


@pytest.fixture(scope="module")
def experts(shared_data):
    frame = pl.read_csv(shared_data / "expert_vs_crowd.csv")
    assert frame.height == 9266
    return Experts(frame)


def test_galaxies_with_confident_votes_are_not_a_random_part(experts):
    said = {}
    for name, share in (("random", 0.06), ("sure", np.where(experts.uncertain == 0, 0.12, 0.0))):
        gold = np.where(np.random.default_rng(0).random(experts.alpha.size) < share, experts.disk(PAPERS), -1)
        found = debiased_fractions(experts.flagged, experts.alpha, gold=gold, systematic=False)
        said[name] = "gold-not-random" in codes(found)
    assert said == {"random": False, "sure": True}


@pytest.mark.slow
def test_families_on_all_expert_disks(experts):
    found = compare_families(experts.flagged, experts.alpha, ("rayleigh", "weibull", "fisk"), gold=experts.disk(PAPERS))
    for family, value in (("rayleigh", -4455.5), ("weibull", -4191.8), ("fisk", -4149.0)):
        assert found.fits[family].log_likelihood == pytest.approx(value, abs=0.1)
    assert found.fits["rayleigh"].values["theta"] == pytest.approx(21.7, abs=0.05)
    assert found.fits["weibull"].values["shape"] == pytest.approx(1.26, abs=0.005)
    assert found.fits["weibull"].values["scale"] == pytest.approx(30.8, abs=0.05)
    assert found.fits["fisk"].values == pytest.approx({"scale": 22.2, "shape": 2.17}, abs=0.01)
    assert found.best == "fisk"
    assert found.rayleigh_p_value < 1e-100
    late = compare_families(experts.flagged, experts.alpha, ("weibull", "fisk"), gold=experts.disk(LATE))
    assert late.fits["weibull"].values["shape"] == pytest.approx(0.80, abs=0.005)
    assert late.fits["fisk"].values["shape"] == pytest.approx(1.63, abs=0.01)
    assert late.fits["fisk"].values["false_disk"] == pytest.approx(0.023, abs=0.002)


# Inversion of T fitted to all expert labels. The reference values use moments, these the likelihood in each octile;
# families without a formula fit the flips, and are ten times closer than Rayleigh.
@pytest.mark.parametrize(
    ("least", "family", "most"),
    [
        (PAPERS, "rayleigh", 0.176), (PAPERS, "weibull", 0.125), (PAPERS, "fisk", 0.060), (PAPERS, "monotone", 0.025),
        (LATE, "fisk", 0.036), (LATE, "monotone", 0.020),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_inversion_with_all_gold_labels(experts, least, family, most):
    fit = fit_transition(experts.flagged, experts.alpha, family, gold=experts.disk(least))
    found = debiased_fractions(experts.flagged, experts.alpha, fit)
    truth = experts.by_octile(experts.disk(least))
    assert rms(found, truth) <= most
    assert covered(found, truth) >= 7


@pytest.mark.slow
@pytest.mark.parametrize(("least", "required", "with_columns"), [(PAPERS, 0.032, 0.025), (LATE, 0.028, 0.022)])
def test_five_hundred_gold_labels(experts, least, required, with_columns):
    """Reference: observed 0.414, 0.129; inverted Fisk fit to the same rows 0.088, 0.036; regression 0.030, 0.026."""
    truth = experts.by_octile(experts.disk(least))
    plain, helped, cover = [], [], []
    for seed in range(DRAWS):
        gold = experts.gold(least, seed)
        found = debiased_fractions(experts.flagged, experts.alpha, gold=gold)
        plain.append(rms(found, truth))
        cover.append(covered(found, truth))
        columns = np.column_stack([experts.uncertain, experts.axis_ratio])
        both = debiased_fractions(experts.flagged, experts.alpha, gold=gold, covariates=columns, systematic=False)
        helped.append(rms(both, truth))
    assert np.mean(plain) <= required
    # The "uncertain" flag and the axis ratio have more information on the type than the spiral flag alone.
    assert np.mean(helped) <= with_columns
    assert np.mean(np.array(cover) >= 7) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("family", ["rayleigh", "weibull", "fisk", "monotone"])
def test_labels_alone_with_axis_ratio(experts, family):
    """Axis ratios correlate with class and do not depend on resolution: goal 0.10 from labels alone."""
    truth = experts.by_octile(experts.disk(PAPERS))
    fit = fit_transition(experts.flagged, experts.alpha, family, intrinsic=experts.axis_ratio)
    found = debiased_fractions(experts.flagged, experts.alpha, fit)
    assert rms(found, truth) <= 0.10
    assert covered(found, truth) >= 7
    # Under the other definition the range is too narrow, which labels can't reveal; the result states its assumption.
    assert covered(found, experts.by_octile(experts.disk(LATE))) < 7
    assert "definition-unknown" in codes(found)


@pytest.mark.slow
def test_more_knots_do_not_decrease_the_likelihood(experts):
    """A superset of knots describes all curves of the subset, so the likelihood can't decrease."""
    fine = np.quantile(experts.alpha, np.linspace(0.02, 0.98, 9))
    coarse, fine = (
        fit_transition(experts.flagged, experts.alpha, "monotone", intrinsic=experts.axis_ratio, knots=knots.tolist())
        for knots in (fine[::2], fine)
    )
    assert fine.log_likelihood > coarse.log_likelihood - 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("family", "most"), [("rayleigh", 0.153), ("weibull", 0.15), ("fisk", 0.211)])
def test_labels_alone_without_columns(experts, family, most):
    fit = fit_transition(experts.flagged, experts.alpha, family)
    if family == "rayleigh":
        assert fit.values["theta"] == pytest.approx(21.3, abs=1.0)
    found = debiased_fractions(experts.flagged, experts.alpha, fit)
    truth = experts.by_octile(experts.disk(PAPERS))
    assert rms(found, truth) <= most
    # The assumption is not tested. The range holds for the definition of the labels and, with a larger δ, for the
    # narrower definition, for which the estimate itself is far off.
    late = experts.by_octile(experts.disk(LATE))
    assert covered(found, truth) >= 7
    wider = fit_transition(experts.flagged, experts.alpha, family, delta=1.0)
    assert covered(debiased_fractions(experts.flagged, experts.alpha, wider), late) >= 7
    assert rms(found, late) > 0.35
    assert "flat-fractions-assumed" in codes(found)


def test_gold_labels_show_how_class_depends_on_resolution(experts):
    late = confounding_check(experts.flagged, experts.alpha, gold=experts.disk(LATE))
    assert late.confounded
    assert late.drift > 0.3
    papers = confounding_check(experts.flagged, experts.alpha, gold=experts.disk(PAPERS))
    assert papers.unexplained  # significant with 9,266 types, but not with a third of them
    assert abs(papers.drift) < 0.1


def votes_by_source(shared_data):
    """GZ2 majority labels (disk if smooth votes are below one half), Hart's debiased ones, α and types, by source."""
    table = pl.read_csv(shared_data / "gz2_votes.csv", infer_schema_length=None)
    for (source,), part in table.group_by("source", maintain_order=True):
        part = part.filter(pl.col("petroR90").is_not_null() & pl.col("psf_fwhm").is_not_null())
        smooth = part["t01_smooth_or_features_a01_smooth_weighted_fraction"].to_numpy()
        hart = part["t01_smooth_or_features_a01_smooth_debiased"].to_numpy()
        alpha = (part["petroR90"] / (part["psf_fwhm"] / 2.3548)).to_numpy()
        t_type = part["t_type"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        yield source, (smooth < 0.5).astype(int), hart, alpha, t_type


@pytest.mark.slow
def test_gz2_votes_by_source(shared_data):
    theta, rivals = {}, {}
    for source, labels, hart, alpha, t_type in votes_by_source(shared_data):
        fit = fit_transition(labels, alpha)
        theta[source] = fit.values["theta"], fit.stderr["theta"]
        typed = np.isfinite(t_type)
        if typed.sum() < 150:
            continue
        truth = (t_type[typed] >= PAPERS).astype(int)
        parts = np.array_split(np.argsort(alpha[typed], kind="stable"), 4)

        def by_quarter(values, parts=parts):
            return np.array([values[part].mean() for part in parts])

        trusted = np.where(np.random.default_rng(0).random(alpha.size) < 0.5, np.where(typed, t_type >= PAPERS, -1), -1)
        by_labels = debiased_fractions(labels[typed], alpha[typed], fit, bins=4)
        by_gold = debiased_fractions(labels[typed], alpha[typed], bins=4, gold=trusted[typed])
        rivals[source] = {
            "observed": np.sqrt(np.mean((by_quarter(labels[typed]) - by_quarter(truth)) ** 2)),
            "Hart": np.sqrt(np.mean((by_quarter((hart < 0.5).astype(int)[typed]) - by_quarter(truth)) ** 2)),
            "labels": rms(by_labels, by_quarter(truth)),
            "gold": rms(by_gold, by_quarter(truth)),
            "covered": covered(by_labels, by_quarter(truth)),
        }
    # Sources differ: labels of deeper images are less biased.
    deep, shallow = theta["S82coadd"], theta["nuy2e_hart16"]
    assert shallow[0] - deep[0] > 3 * np.hypot(shallow[1], deep[1])
    assert len(rivals) == 2
    for found in rivals.values():
        assert found["labels"] < found["Hart"] < found["observed"]
        assert found["gold"] < 0.6 * found["Hart"]
        assert found["covered"] >= 3


@pytest.mark.slow
def test_ferengi_pairs(shared_data):
    """The same galaxy at redshift 0.3 as gold label: flips depend on relative resolution and surface brightness."""
    from astropy.cosmology import WMAP9

    table = pl.read_csv(shared_data / "ferengi.csv")
    near = table.filter(pl.col("sim_redshift") < 0.31).select(
        "sdss_id", "sim_evolution", gold=(pl.col("p_features") > 0.5).cast(pl.Int64)
    )
    pairs = table.filter(pl.col("sim_redshift") > 0.31).join(near, on=["sdss_id", "sim_evolution"], how="inner")
    pairs = pairs.filter(pl.col("mu_max_i").is_not_null() & pl.col("p_features").is_not_null())
    assert pairs.height > 3_000
    distance = WMAP9.angular_diameter_distance([0.3, *pairs["sim_redshift"].to_list()]).value
    resolution = distance[0] / distance[1:]
    labels = (pairs["p_features"].to_numpy() > 0.5).astype(int)
    gold = pairs["gold"].to_numpy()
    found = compare_families(labels, resolution, ("rayleigh", "weibull", "fisk", "monotone"), gold=gold)
    assert found.delta_aic("rayleigh") > 10
    assert found.plot().collections  # the band of the other families
    both = fit_transition(labels, resolution, gold=gold, observables=pairs["mu_max_i"].to_numpy())
    alone = fit_transition(labels, resolution, "logistic", gold=gold)
    # Surface brightness has an effect too: fainter disks are missed.
    assert both.log_likelihood - alone.log_likelihood > 40  # two more parameters
    assert both.values["smooth|disk slope of observable 1"] > 5 * both.stderr["smooth|disk slope of observable 1"]
    assert both.values["smooth|disk slope of ln alpha"] < -3 * both.stderr["smooth|disk slope of ln alpha"]
