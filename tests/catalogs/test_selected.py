"""Rows and weights that an estimate takes from a prepared catalogue."""

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes
from truemorph.catalogs.sampling import draw_sample, sampling_weights
from truemorph.catalogs.selected import SampleOptions, rows_of
from truemorph.errors import InputError
from truemorph.tables import CatalogTable


def test_galaxies_outside_the_sample_are_not_used_and_weights_undo_the_selection_by_label():
    """A sample of 3,000 of 20,000 galaxies, 2,400 labelled smooth and 600 disk, with the others as "unused"."""
    rng = np.random.default_rng(5)
    alpha, labels = rng.lognormal(3.1, 0.45, 20_000), (rng.random(20_000) < 0.8).astype(int)
    chosen, _ = draw_sample(labels, range(20_000), (2400, 600))
    split = np.where(chosen, "train", "unused")
    weights = np.where(chosen, sampling_weights(labels, chosen), 1.0)
    columns = {"object_id": range(20_000), "label": labels, "alpha": alpha, "split": split, "sampling_weight": weights}
    table = CatalogTable(pl.DataFrame(columns))
    sample, context = rows_of(table, SampleOptions())
    assert sample.labels.size == 3000
    assert codes(context) == ["galaxies-not-in-sample"]
    assert "17,000 of 20,000" in context.findings[0].message
    assert rows_of(table, SampleOptions(where=["split=unused"]))[0].labels.size == 17_000
    assert np.average(sample.labels, weights=sample.weights) == pytest.approx(labels.mean(), abs=1e-9)
    assert np.ptp(rows_of(table, SampleOptions(weights="none"))[0].weights) == 0


def test_only_properties_of_galaxies_are_tested_for_balance():
    """Not ids, positions, votes, labels, gold labels, and what α is made of."""
    rng = np.random.default_rng(1)
    frame = tm.simulate_catalogue(3000, gold=300, gold_choice=0.7).drop("truth")
    mine, covariate, alpha = frame["gold"].fill_null(-1), frame["covariate"], frame["alpha"]
    frame = frame.drop("gold").with_columns(
        mine=mine,
        mine_weight=mine * 2,
        specobjid=pl.Series(rng.permutation(3000) + 10**15),
        plate=pl.Series(rng.integers(0, 300, 3000)),
        ra=covariate * 3,
        DEJ2000=covariate - 1,
        t01_smooth_or_features_a01_smooth_debiased=covariate + 1,
        petroRad_g=alpha * 1.3,
        radius=alpha,
        mass=covariate**3,
    )
    table = CatalogTable(frame, units={"mass": "", "covariate": ""})
    assert set(rows_of(table, SampleOptions(gold="mine"))[1].columns) == {
        *("covariate", "mass", "plate", "bulge_fraction", "x2", "x3", "survey", "mine_weight")
    }
    study = tm.estimate_transition(table, gold="mine", compare=False)
    unbalanced = next(finding.message for finding in study.findings if finding.code == "gold-unbalanced")
    assert "covariate" in unbalanced
    assert "debiased" not in unbalanced


def test_all_numbers_of_a_bias_metric_are_of_the_same_galaxies():
    frame = tm.simulate_catalogue(3000).drop("truth")
    known = frame["alpha"] > frame["alpha"].median()
    frame = frame.with_columns(z=pl.when(known).then("x2"))
    found = tm.measure_bias(frame, intrinsic=["z"], bootstrap=0)
    assert found.galaxies == found.results["observed labels"].n_objects == 1500
    assert min(found.fractions_by_alpha["alpha"]) > frame["alpha"].median()
    assert codes(found) == ["rows-left-out"]


@pytest.mark.parametrize("by_votes", [False, True])
def test_gold_labels_of_galaxies_with_clear_votes_are_a_problem(by_votes):
    """Selected by votes, at the same label."""
    frame = tm.simulate_catalogue(6000).drop("sampling_weight")
    rng = np.random.default_rng(2)
    disk = np.where(frame["label"] == 1, 0.5 + 0.5 * rng.random(6000), 0.5 * rng.random(6000))
    chance = 0.2 * np.where(frame["label"] == 1, disk, 0.5) ** 2 if by_votes else np.full(6000, 0.08)
    chosen = pl.Series(rng.random(6000) < chance)
    frame = frame.with_columns(smooth_fraction=1 - disk, disk_fraction=disk, gold=pl.when(chosen).then("truth")).drop(
        "truth"
    )
    found = tm.estimate_transition(frame, gold="gold", compare=False).findings
    assert ("gold-not-random" in [one.code for one in found if one.severity == "problem"]) == by_votes


def tiers(gold, seed=0):
    """Galaxies of two depths, of which the shallow ones are called smooth more often; true fractions 0.6 and 0.8."""
    rng = np.random.default_rng(seed)
    n = 4000
    tier = rng.choice(["deep", "wide"], n, p=[0.3, 0.7])
    alpha = rng.lognormal(2.8, 0.45, n)
    disk = rng.random(n) < np.where(tier == "deep", 0.8, 0.6)
    seen = rng.random(n) > tm.RayleighTransition(1.0).flip_probability(alpha / np.where(tier == "deep", 6, 14))
    known = np.where(rng.random(n) < gold / n, disk, -1)
    return pl.DataFrame(
        {"label": (disk & seen).astype(int), "alpha": alpha, "tier": tier, "known": known, "real": disk}
    )


@pytest.mark.slow
def test_fractions_of_groups_that_a_column_names(tmp_path):
    table = tiers(800)
    found = tm.estimate_transition(table, gold="known", by="tier", compare=False, out=tmp_path / "fit.json")
    one = found.fractions
    right = [table.filter(tier=name)["real"].mean() for name in ("deep", "wide")]
    assert one.groups == ("deep", "wide")
    assert one.counts.tolist() == [(table["tier"] == name).sum() for name in one.groups]
    np.testing.assert_array_less(np.abs(one.fractions[:, 1] - right), 3 * one.stderr[:, 1])
    for name, part in zip(one.groups, one.labelled[:, 1], strict=True):
        assert part == pytest.approx(table.filter(tier=name)["label"].mean())
    assert "surveys-differ" in codes(found)
    assert found.to_dict()["fractions"]["groups"] == [["deep"], ["wide"]]
    assert list(one.to_table()["tier"]) == ["deep", "wide"]
    assert [get_xticklabel.get_text() for get_xticklabel in found.plot().get_xticklabels()] == ["deep", "wide"]
    again = tm.Estimate.read(tmp_path / "fit.json").fractions
    assert again.groups == one.groups
    assert again.summary() == one.summary()
    alone = tm.estimate_transition(table, by="tier", compare=False)
    assert alone.fractions.groups == ("deep", "wide")
    # The order of the names does not matter.
    turned = table.with_columns(pl.col("tier").replace("wide", "a wide one"))
    other = tm.estimate_transition(turned, gold="known", by="tier", compare=False).fractions
    assert other.groups == ("a wide one", "deep")
    np.testing.assert_allclose(other.fractions[::-1], one.fractions, atol=0.002)


@pytest.mark.slow
def test_missing_names_many_groups_and_small_groups():
    table = tiers(0)
    first = pl.int_range(pl.len())
    part = table.with_columns(tier=pl.when(first >= 100).then("tier"))
    found = tm.estimate_transition(part, by="tier", compare=False)
    assert found.fractions.counts.sum() == 3900
    assert "rows-left-out" in codes(found)
    small = table.with_columns(tier=pl.when(first >= 30).then("tier").otherwise(pl.lit("rest")))
    with pytest.raises(InputError, match="'rest' of 'tier' has 30"):
        tm.estimate_transition(small, by="tier")
    with pytest.raises(InputError, match="13 groups"):
        tm.estimate_transition(table.with_columns(tier=pl.format("t{}", first % 13)), by="tier")
    with pytest.raises(InputError, match="tier"):
        tm.estimate_transition(table, observables="tier")


def votes_with_experts(n=3000):
    """A table of votes with positions, and experts' classes of a tenth of the galaxies, -1 elsewhere."""
    galaxies = tm.simulate_catalogue(n)
    rng, label, alpha = np.random.default_rng(2), galaxies["label"], galaxies["alpha"]
    known = pl.Series(rng.random(n) < 0.1)
    return galaxies.select(
        objid="object_id",
        smooth=0.8 - 0.6 * label,
        disk=0.2 + 0.6 * label,
        petroRad_r=alpha * 1.3 / 2.3548,
        psf=pl.lit(1.3) + 0.01 * pl.Series(rng.random(n)),
        ra=pl.Series(rng.uniform(150, 170, n)),
        dec=pl.Series(rng.uniform(-5, 5, n)),
        expert=pl.when(known).then("truth").otherwise(-1),
        colour="covariate",
    )


PREPARED = {"smooth": "smooth", "disk": "disk", "radius": "petroRad_r", "psf_fwhm": "psf"}


def test_the_column_that_stored_gold_labels_came_from_is_no_property():
    catalogue = tm.prepare_catalogue(votes_with_experts(), gold="expert", **PREPARED).catalogue
    assert "expert" in catalogue.frame.columns
    columns = rows_of(catalogue, SampleOptions(gold="gold"))[1].columns
    assert "expert" not in columns
    assert "colour" in columns
    assert "gold-unbalanced" not in codes(tm.estimate_transition(catalogue, gold="gold", compare=False))


def test_gold_labels_by_a_rule_say_that_their_images_are_not_recorded():
    catalogue = tm.prepare_catalogue(votes_with_experts(), **PREPARED).catalogue
    assert "gold-images-unknown" in codes(tm.estimate_transition(catalogue, gold="expert", compare=False))
    in_memory = tm.simulate_catalogue(2000, gold=200)
    assert "gold-images-unknown" not in codes(tm.estimate_transition(in_memory, gold="gold", compare=False))


@pytest.mark.slow
def test_galaxies_that_are_there_twice_are_a_finding():
    table = votes_with_experts(1000)
    twice = pl.concat([table, table.with_columns(pl.col("objid") + 5000, pl.col("ra") + 0.3 / 3600)])
    once, both = (tm.prepare_catalogue(one, **PREPARED) for one in (table, twice))
    assert "galaxies-repeated" not in codes(once)
    assert "galaxies-repeated" in codes(both)
    assert "galaxies-repeated" in codes(tm.estimate_transition(both.catalogue, compare=False))


def test_errors_of_radius_and_psf_give_that_of_alpha():
    table = votes_with_experts(1000).with_columns(radius_err=0.1 * pl.col("petroRad_r"), psf_err=0.05 * pl.col("psf"))
    columns = {"radius_error": "radius_err", "psf_error": "psf_err"}
    catalogue = tm.prepare_catalogue(table, columns=columns, **PREPARED).catalogue
    np.testing.assert_allclose(catalogue.frame["alpha_error"], np.hypot(0.1, 0.05), rtol=1e-6)
    assert rows_of(catalogue, SampleOptions())[1].alpha_error == pytest.approx(np.hypot(0.1, 0.05))


def test_votes_are_intrinsic_columns_only_beside_gold_labels():
    table = tm.simulate_catalogue(3000, gold=300)
    votes = np.where(table["label"] == 1, 0.7, 0.3) + np.random.default_rng(1).normal(0, 0.25, 3000)
    table = table.with_columns(disk_fraction=pl.Series(votes.clip(0, 1)))
    estimate = tm.estimate_transition(table, gold="gold", intrinsic=["disk_fraction"], compare=False)
    assert abs(estimate.fractions.total[0] - table["truth"].mean()) < 4 * estimate.fractions.total[1]
    with pytest.raises(InputError, match="disk_fraction"):
        tm.estimate_transition(table, intrinsic=["disk_fraction"])
