"""Advice helps: where a finding appears, what its action says makes it go away or weaker, and no new problem appears.

`NOT_TESTED` has the findings whose action a test cannot follow.
"""

from functools import cache, wraps

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from catalogs.made_up import ARTEFACT, full
from conftest import codes, confounded_labels, labels_through, some_known
from test_findings import findings_made
from truemorph import write_table
from truemorph.bias.estimate import make_estimate
from truemorph.bias.result import Settings
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.selected import SampleOptions, rows_of
from truemorph.gold.plan import PlanOptions, make_plan
from truemorph.report.gather import gather
from truemorph.report.lights import lights
from truemorph.tables import CatalogTable

RANK = {"note": 1, "caution": 2, "problem": 3}
TESTED = set()
# Findings whose action cannot be followed by a quick test of one process.
NOT_TESTED = {
    "curve-contradicted": "It is about trained networks, which take minutes.",
    "ids-repeated": "It is about files of images, which networks label.",
    "images-failed": "Its action is to ask an archive again.",
    "images-missing": "Its action is to add images.",
    "int8-not-used": "Its action needs more images, and the hardware for int8 networks.",
    "maps-not-checked": "Its action is not to interpret maps of networks.",
    "maps-not-specific": "Its action needs other maps of trained networks, which take minutes.",
    "part-damaged": "Its action is to check a disk.",
    "runs-differ-in-catalogue": "It is about trained networks, which take minutes.",
    "archive-simulated": "Its action is to fetch the real archives.",
    "smaller-than-the-paper": "Its action takes days.",
    "stage-failed": "Its action is to correct the cause of an error, and to run a reproduction again.",
    "stage-lacks-input": "Its action is to fetch data for a reproduction.",
    "theta-shifted-by-selection": "Its action is to compare a number with the paper's only.",
    "tiles-converted": "Its action is to compare labels with gold labels.",
    "tiles-incomplete": "Its action is to add images.",
    "tiles-unreadable": "Its action is to replace files.",
    "tiles-not-compared": "Its action is to look at images, or to train a network on others.",
}
FLIPS, WIDE, OTHER = tm.RayleighTransition(11.25), tm.RayleighTransition(25.0), tm.FiskTransition(12.0, 1.6)
FEATURES = ("x2", "x3", "bulge_fraction")


def worst(findings, code):
    return max((RANK[finding.severity] for finding in findings if finding.code == code), default=0)


def problems(findings):
    return {finding.code for finding in findings if finding.severity == "problem"}


def check(code, severity, *results):
    """Compare results, or findings, before and after the action of a finding was followed."""
    before, after = (result if isinstance(result, list) else list(result.findings) for result in results)
    assert worst(before, code) == RANK[severity]
    assert worst(after, code) < RANK[severity]
    assert not problems(after) - problems(before)


def advice(code, severity="caution"):
    """Test a function that returns results before and after it follows the action of a finding."""

    def decorate(follow):
        TESTED.add((code, severity))

        @wraps(follow)
        def test(**given):
            check(code, severity, *follow(**given))

        return test

    return decorate


def test_every_problem_and_caution_is_tested_or_has_a_reason_why_not():
    severities = {(code, severity) for code, severity, _ in findings_made() if severity != "note"}
    tested = {code for code, _ in TESTED}
    assert tested | {*NOT_TESTED} == {code for code, _ in severities}
    assert not tested & {*NOT_TESTED}
    assert severities >= TESTED


# Worlds, and estimates without the range over trends, which takes seconds.


def arrays(n=2000, seed=1, **world):
    """Labels, α, gold labels (-1 if unknown) and truth of `simulate_catalogue`."""
    table = tm.simulate_catalogue(n, seed, **world)
    return tuple(table[name].fill_null(-1).to_numpy() for name in ("label", "alpha", "gold", "truth"))


def fit(*given, **options):
    return tm.fit_transition(*given, delta=None, **options)


def estimate(table, *, family="rayleigh", compare=False, **of_rows):
    """As `estimate_transition`, for curves that are Rayleigh's."""
    sample, context = rows_of(read_catalogue(table), SampleOptions(**of_rows))
    settings = Settings(family=family, delta=None)
    return make_estimate(sample, settings, context=context, compare=compare, fraction_bins=8)


def catalogue(labels, alpha, **columns):
    """A prepared catalogue; gold labels are null where they are -1."""
    columns = {"object_id": np.arange(labels.size), "label": labels, "alpha": alpha, "split": "train", **columns}
    return pl.DataFrame(columns).with_columns(pl.col("^gold$").replace(-1, None))


def simulated(n=2000, seed=1, **world):
    return tm.simulate_catalogue(n, seed, **world).drop("truth", "sampling_weight")


# Gold labels.


@advice("gold-not-random", "problem")
def test_the_column_by_which_gold_labels_were_selected_mends_them():
    table = tm.simulate_catalogue(6000, 6, gold=500, gold_choice=0.7)
    given = table.drop("truth")
    before, after = (
        tm.estimate_transition(given, gold="gold", intrinsic=one, compare=False) for one in ((), ["covariate"])
    )
    assert not {"gold-contradicted", "gold-unbalanced"} & set(codes(after))
    off, mended = (abs(one.fractions.total[0] - table["truth"].mean()) for one in (before, after))
    assert mended < off / 2
    return before, after


def bright():
    """A catalogue with gold labels of bright galaxies, which are less often disks than others."""
    labels, alpha, truth = labels_through(FLIPS, 4000, 3)
    rng = np.random.default_rng(11)
    magnitude = rng.normal(16.5 + truth, 0.7)
    gold = np.where((magnitude < 17) & (rng.random(4000) < 0.3), truth, -1)
    return catalogue(labels, alpha, gold=gold, magnitude=magnitude)


@advice("gold-not-random", "problem")
def test_leaving_out_galaxies_that_could_not_get_a_gold_label_mends_them():
    return estimate(bright(), gold="gold"), estimate(bright(), gold="gold", where=["magnitude < 17"])


@pytest.mark.slow
@pytest.mark.parametrize("planned", [False, True])
@advice("gold-not-random", "problem")
def test_gold_labels_of_random_or_planned_galaxies_mend_those_of_disks(planned):
    labels, alpha, _, truth = arrays(3000)
    chosen = np.random.default_rng(11).random(3000) < np.where(labels == 1, 0.12, 0.03)
    before = estimate(catalogue(labels, alpha, gold=np.where(chosen, truth, -1)), gold="gold")
    if not planned:
        return before, estimate(catalogue(labels, alpha, gold=some_known(truth, 0.1, 1)), gold="gold")
    plan = make_plan(read_catalogue(catalogue(labels, alpha)), PlanOptions(budget=300)).frame
    gold = np.where(plan["position"].is_not_null(), truth, -1)
    return before, estimate(catalogue(labels, alpha, gold=gold, gold_probability=plan["probability"]), gold="gold")


@advice("gold-unbalanced")
def test_the_column_in_which_gold_labels_differ_mends_them():
    table = simulated(4000, 6, gold=400, gold_choice=0.7)
    return estimate(table, gold="gold"), estimate(table, gold="gold", intrinsic=["covariate"])


@advice("gold-unbalanced")
def test_probabilities_of_selection_mend_gold_labels_that_differ_in_a_column():
    table = simulated(4000, 6, gold=400, gold_choice=0.7)
    column = table["covariate"]
    chance = (0.7 * (column - column.mean()) / column.std()).exp()
    chance = (400 * chance / chance.sum()).clip(0, 1)
    return estimate(table, gold="gold"), estimate(table.with_columns(gold_probability=chance), gold="gold")


@advice("most-left-out")
def test_an_estimate_without_a_column_that_most_galaxies_lack():
    table = simulated(2000, 6, gold=400)
    table = table.with_columns(pl.when(pl.int_range(pl.len()) % 3 == 0).then("covariate").alias("covariate"))
    return estimate(table, gold="gold", intrinsic=["covariate"]), estimate(table, gold="gold")


@advice("gold-unlike-labels")
def test_gold_labels_of_the_right_galaxies():
    table = simulated(4000, 6, gold=400)
    known = table.filter(pl.col("gold").is_not_null())
    mixed = known.with_columns(pl.col("gold").shuffle(seed=1)).select("object_id", "gold")
    before = table.drop("gold").join(mixed, on="object_id", how="left", maintain_order="left")
    return estimate(before, gold="gold"), estimate(table, gold="gold")


@advice("gold-equals-labels")
def test_classes_from_experts_instead_of_copies_of_the_labels():
    labels, alpha, _, truth = arrays()
    return tuple(tm.debiased_fractions(labels, alpha, gold=some_known(one, 0.1, 1)) for one in (labels, truth))


@pytest.mark.slow
@pytest.mark.parametrize("more", [True, False])
@advice("gold-gap")
def test_gold_labels_in_the_gap_or_a_selection_without_it(more):
    labels, alpha, gold, _ = arrays(gold=200)
    table = catalogue(labels, alpha, gold=np.where(alpha < 10, -1, gold))
    if more:
        return estimate(table, gold="gold"), estimate(catalogue(labels, alpha, gold=gold), gold="gold")
    return estimate(table, gold="gold"), estimate(table, gold="gold", where=["alpha >= 10"])


@advice("gold-cannot-reach")
def test_a_selection_of_galaxies_that_could_get_a_gold_label():
    labels, alpha, _, truth = arrays()
    rng = np.random.default_rng(11)
    chance = np.where(rng.random(2000) < 0.1, 0.0, 0.1)
    table = catalogue(labels, alpha, gold=np.where(rng.random(2000) < chance, truth, -1), gold_probability=chance)
    return estimate(table, gold="gold"), estimate(table, gold="gold", where=["gold_probability > 0"])


@pytest.mark.slow
@pytest.mark.parametrize("fields", [6, 0])
@advice("gold-in-few-fields")
def test_gold_labels_in_more_fields_or_over_the_whole_area(fields):
    labels, alpha, _, truth = arrays()
    rng = np.random.default_rng(11)
    ra, dec = rng.uniform(0, 60, 2000), rng.uniform(-20, 20, 2000)
    centres = [(5, 0), (15, 10), (25, -10), (35, 5), (45, -12), (55, 12)]

    def of(*fields):
        near = [np.argsort(np.hypot(ra - x, dec - y))[: 150 // len(fields)] for x, y in fields]
        return catalogue(labels, alpha, gold=np.where(np.isin(np.arange(2000), near), truth, -1), ra=ra, dec=dec)

    spread = catalogue(labels, alpha, gold=some_known(truth, 0.08, 1), ra=ra, dec=dec)
    return tuple(estimate(one, gold="gold") for one in (of(centres[0]), of(*centres) if fields else spread))


@advice("gold-contradicted", "problem")
def test_an_estimate_with_the_gold_labels_that_contradict_one_without():
    labels, alpha, truth = labels_through(FLIPS, 4000, 4, median=16.4)
    narrow = truth * (np.random.default_rng(14).random(4000) < 0.5)  # experts call half of these disks
    table = catalogue(labels, alpha, gold=some_known(narrow, 0.1, 4))
    return estimate(table), estimate(table, gold="gold")


@advice("gold-unused")
def test_an_estimate_with_the_gold_labels_that_one_left_out():
    table = simulated(gold=200)
    return estimate(table), estimate(table, gold="gold")


@advice("gold-from-votes", "problem")
def test_classes_from_experts_instead_of_debiased_votes():
    table = tm.simulate_catalogue(2000, 1, gold=200).drop("truth").with_columns(p_debiased=0.3 + 0.4 * pl.col("label"))
    return estimate(table, gold="p_debiased > 0.5"), estimate(table, gold="gold")


@pytest.fixture
def asked():
    """A catalogue, and how experts see a tenth of its galaxies in its images and in better ones."""
    labels, alpha, _, truth = arrays()
    missed = np.random.default_rng(11).random(2000) < tm.RayleighTransition(6.0).flip_probability(alpha)
    return catalogue(labels, alpha), some_known(np.where(missed, 0, truth), 0.1, 1), some_known(truth, 0.1, 1)


def imported(table, gold, folder, source):
    chosen = gold >= 0
    path = folder / f"{source}.csv"
    pl.DataFrame({"object_id": np.flatnonzero(chosen), "class": gold[chosen]}).write_csv(path)
    return tm.import_gold(path, catalogue=table, out=folder / f"{source}.parquet", gold_source=source)


@pytest.mark.parametrize("estimated", [False, True])
@advice("gold-from-same-images")
def test_gold_labels_from_better_images(asked, tmp_path, estimated):
    table, same, better = asked
    made = imported(table, same, tmp_path, "same-images"), imported(table, better, tmp_path, "better-images")
    return tuple(estimate(one.catalogue, gold="gold") for one in made) if estimated else made


@advice("gold-from-same-images")
def test_the_experts_own_bias_measured_with_degraded_copies(asked, tmp_path):
    table, same, _ = asked
    before = imported(table, same, tmp_path, "same-images").catalogue
    measured = before.metadata | {"gold_experts": {"upper": 7.0, "theta": 5.0}}  # as before 0.3
    after = CatalogTable(before.frame, before.units, measured)
    return estimate(before, gold="gold"), estimate(after, gold="gold")


@advice("gold-misses")
def test_better_images_show_the_disks_that_experts_miss(asked):
    table, same, better = asked
    given = table["label"], table["alpha"]
    before = tm.debiased_fractions(*given, gold=same, gold_transition=tm.RayleighTransition(6.0))
    return before, tm.debiased_fractions(*given, gold=better)


@advice("gold-uncertain")
def test_better_images_show_the_classes_that_people_could_not_tell():
    labels, alpha, gold, _ = arrays(gold=200)
    doubt = (gold >= 0) & (alpha < 14)
    before = tm.debiased_fractions(labels, alpha, gold=np.where(doubt, -1, gold), gold_uncertain=doubt)
    return before, tm.debiased_fractions(labels, alpha, gold=gold)


@advice("gold-too-few")
def test_more_gold_labels_are_enough(asked, tmp_path):
    table, _, gold = asked
    few = np.where(np.cumsum(gold >= 0) <= 15, gold, -1)
    return imported(table, few, tmp_path, "literature"), imported(table, gold, tmp_path, "better-images")


@advice("gold-left-out")
def test_gold_labels_of_a_catalogue_are_imported_into_it(asked, tmp_path):
    table, _, gold = asked
    return imported(table.head(1000), gold, tmp_path, "literature"), imported(table, gold, tmp_path, "better-images")


# Estimates of T(α).


@advice("flat-fractions-assumed")
def test_gold_labels_settle_what_labels_alone_assume():
    labels, alpha, gold, _ = arrays(gold=200, drift=0.4)
    return fit(labels, alpha), fit(labels, alpha, gold=gold)


@advice("definition-unknown")
def test_gold_labels_have_a_definition():
    labels, alpha, truth, columns = confounded_labels(3000, 4)
    before = tm.debiased_fractions(labels, alpha, fit(labels, alpha, intrinsic=columns[:, :1]), systematic=False)
    return before, tm.debiased_fractions(labels, alpha, gold=some_known(truth, 0.1, 4))


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["axis ratio", "gold"])
@advice("columns-determine-alpha")
def test_columns_that_do_not_set_alpha_or_gold_labels(instead):
    labels, alpha, gold, _ = arrays(gold=200)
    rng = np.random.default_rng(2)
    size, ratio = np.log(alpha) + 0.06 * rng.normal(size=2000), rng.random(2000)
    after = fit(labels, alpha, gold=gold) if instead == "gold" else fit(labels, alpha, intrinsic=ratio)
    return fit(labels, alpha, intrinsic=size), after


@pytest.mark.slow
@pytest.mark.parametrize("given", ["gold", "intrinsic"])
@advice("observables-not-identified")
def test_gold_labels_or_intrinsic_columns_beside_observables(given):
    table = tm.simulate_catalogue(2000, 1, gold=200, trend="features")
    labels, alpha, bulge, x2 = (table[one].to_numpy() for one in ("label", "alpha", "bulge_fraction", "x2"))
    more = {"gold": table["gold"].fill_null(-1).to_numpy()} if given == "gold" else {"intrinsic": bulge}
    return fit(labels, alpha, observables=x2), fit(labels, alpha, observables=x2, **more)


@pytest.mark.parametrize("given", ["gold", "family"])
@advice("best-resolved-unbiased-assumed")
def test_gold_labels_or_a_formula_instead_of_unbiased_labels_of_resolved_galaxies(given):
    labels, alpha, gold, _ = arrays(1000, gold=200)
    after = {"gold": ("monotone", {"gold": gold}), "family": ("fisk", {})}[given]
    return tuple(fit(labels, alpha, one, knots=5, **more) for one, more in (("monotone", {}), after))


@advice("fraction-at-bound")
def test_gold_labels_give_a_fraction_that_labels_put_at_a_bound():
    labels, alpha, truth = labels_through(tm.RayleighTransition(30.0), 3000, 2, disk=0.95)
    return fit(labels, alpha), fit(labels, alpha, gold=some_known(truth, 0.1, 1))


@advice("seen-at-alpha-zero")
def test_radii_that_are_corrected_leave_no_galaxy_at_alpha_zero():
    labels, alpha, _, _ = arrays()
    return fit(labels, np.where(np.arange(2000) < 20, 0.0, alpha)), fit(labels, alpha)


@advice("drift-reversed", "problem")
def test_classes_that_are_no_longer_exchanged():
    labels, alpha, _, _ = arrays()
    return fit(1 - labels, alpha), fit(labels, alpha)


@advice("drift-reversed", "problem")
def test_gold_labels_show_a_trend_that_is_stronger_than_the_bias():
    rng = np.random.default_rng(1)
    u = rng.normal(size=2000)
    alpha, truth = 30 * np.exp(0.4 * u), (rng.random(2000) < 1 / (1 + np.exp(-0.5 + 1.5 * u))).astype(int)
    labels = truth * (rng.random(2000) > FLIPS.flip_probability(alpha))
    return fit(labels, alpha), fit(labels, alpha, gold=some_known(truth, 0.1, 1))


@advice("no-drift")
def test_gold_labels_show_a_bias_without_drift():
    labels, alpha, truth = labels_through(tm.ConstantTransition(0.3), 2000, 1)
    return fit(labels, alpha), fit(labels, alpha, "constant", gold=some_known(truth, 0.1, 1))


@pytest.mark.parametrize("instead", ["more galaxies", "gold labels", "fewer parameters"])
@advice("parameter-uncertain")
def test_more_galaxies_gold_labels_or_fewer_parameters_determine_t(instead):
    labels, alpha, truth = labels_through(tm.WeibullTransition(20.0, 1.5), 4000, 5)
    few = labels[:200], alpha[:200]
    after = {
        "more galaxies": lambda: fit(labels, alpha, "weibull"),
        "gold labels": lambda: fit(*few, "weibull", gold=some_known(truth[:200], 0.6, 1)),
        "fewer parameters": lambda: fit(*few, "rayleigh"),
    }
    return fit(*few, "weibull"), after[instead]()


@advice("fit-without-errors")
def test_bootstrap_errors_of_a_fit_without_errors():
    labels, alpha, _ = labels_through(tm.FiskTransition(14, 2.2), 300, 1)
    fits = [fit(labels, alpha, "monotone", knots=4, bootstrap=one) for one in (0, 8)]
    return tuple(tm.debiased_fractions(labels, alpha, one, systematic=False) for one in fits)


@pytest.mark.parametrize("refitted", [False, True])
@advice("transition-unlike-labels")
def test_alpha_in_the_unit_of_the_curve_or_a_curve_fitted_to_the_labels(refitted):
    labels, alpha, _, _ = arrays()
    curve = tm.RayleighTransition(11.25 / 2.3548)
    after = (alpha, fit(labels, alpha)) if refitted else (alpha / 2.3548, curve)
    return tm.debiased_fractions(labels, alpha, curve), tm.debiased_fractions(labels, *after, systematic=False)


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["gold", "family"])
@advice("family-rejected")
def test_gold_labels_or_the_preferred_family(instead):
    labels, alpha, truth = labels_through(OTHER, 6000, 3)
    table = catalogue(labels, alpha, mine=some_known(truth, 0.1, 3))
    after = {"gold": "mine", "family": None}[instead]
    return estimate(table, compare=True), estimate(table, compare=True, gold=after, family=None if after else "fisk")


@pytest.mark.parametrize("instead", ["gold", "family"])
@advice("family-rejected")
def test_gold_labels_or_another_family_where_labels_reject_one(instead):
    labels, alpha, truth = labels_through(OTHER, 40_000, 3)
    more = {"gold": some_known(truth, 0.02, 3)} if instead == "gold" else {"family": "fisk"}
    return fit(labels, alpha), fit(labels, alpha, **more)


@pytest.mark.parametrize("instead", ["monotone", "fractions"])
@advice("family-rejected")
def test_another_family_or_fractions_where_gold_labels_reject_one(instead):
    labels, alpha, truth = labels_through(OTHER, 4000, 3)
    gold = some_known(truth, 0.3, 3)
    after = fit(labels, alpha, "monotone", gold=gold, knots=5) if instead == "monotone" else None
    return fit(labels, alpha, "rayleigh", gold=gold), after or tm.debiased_fractions(labels, alpha, gold=gold)


@pytest.mark.parametrize("explained", [False, True])
@advice("fractions-drift")
def test_gold_labels_or_intrinsic_columns_where_class_fractions_change(explained):
    labels, alpha, truth, columns = confounded_labels(4000, 5)
    names = ("magnitude", "size", "redshift")
    table = catalogue(labels, alpha, gold=some_known(truth, 0.1, 1), **dict(zip(names, columns.T, strict=True)))
    if not explained:
        return estimate(table), estimate(table, gold="gold")
    return tm.confounding_check(labels, alpha, columns), fit(labels, alpha, intrinsic=columns)


@pytest.mark.parametrize("survey", [0, 1])
@advice("surveys-differ")
def test_an_estimate_for_each_survey(survey):
    second = tm.RayleighTransition(16.0)
    table = simulated(4000, disk_fraction=0.6, second_survey=second).drop("gold")
    return estimate(table), estimate(table, where=[f"survey={survey}"])


@pytest.mark.slow
@pytest.mark.parametrize(("alone", "curved"), [(False, False), (True, False), (False, True)])
@advice("observable-ignored")
def test_gold_labels_with_the_observable_that_t_left_out(alone, curved):
    rng, n = np.random.default_rng(0), 3000
    alpha, mu, truth = np.exp(rng.normal(2.8, 0.45, n)), rng.normal(22, 1, n), rng.random(n) < 0.7
    shift = np.abs(mu - 22) if curved else mu - 22
    labels = (truth & (rng.random(n) > tm.FiskTransition(14.0, 2.2).flip_probability(alpha * np.exp(-0.5 * shift)))) * 1
    gold = some_known(truth.astype(int), 0.2, 1)
    table = catalogue(labels, alpha, surface_brightness=mu, square=(mu - 22) ** 2, mine=gold)
    names = ["surface_brightness", *(["square"] if curved else [])]
    before = estimate(table) if alone else estimate(table, gold="mine")
    return before, estimate(table, gold="mine", observables=names)


# Metrics.


@advice("one-class", "problem")
def test_probabilities_of_a_model_whose_labels_are_of_one_class():
    _, alpha, _, truth = arrays(1000, disk_fraction=0.9)
    p = 0.6 + 0.3 * truth
    return tm.cv14((p > 0.5).astype(int), alpha, bootstrap=0), tm.cv14(np.column_stack([1 - p, p]), alpha, bootstrap=0)


@pytest.mark.parametrize("given", [{"bins": 4}, {"depth": 2}], ids=str)
@advice("few-galaxies-per-bin")
def test_fewer_bins_or_a_smaller_tree(given):
    table = simulated(1000)
    columns = table["label"].to_numpy(), table["alpha"].to_numpy(), table.select("x2", "x3").to_numpy()
    options = {"depth": 3, "bins": 8, "bootstrap": 0}
    return tm.cv18(*columns, **options), tm.cv18(*columns, **options | given)


@pytest.mark.parametrize("given", [{"bins": 4}, {"depth": 2}, {"more": 2000}], ids=str)
@advice("labels-too-few")
def test_fewer_bins_a_smaller_tree_or_more_gold_labels(given):
    options = {"intrinsic": ["x2", "x3"], "depth": 4, "bins": 10, "bootstrap": 0}
    before = tm.measure_bias(simulated(8000, gold=100), **options)
    after = simulated(8000, gold=given.pop("more", 100))
    return before, tm.measure_bias(after, **options | given)


# Tables.


def with_radii(gold, wrong):
    """Estimates with a wrong radius or PSF width, and with gold labels or the right one."""
    labels, alpha, _, truth = arrays()
    width = np.random.default_rng(11).uniform(1.0, 1.6, 2000)
    columns = {"id": np.arange(2000), "label": labels, "petroRad_r": alpha * width / 2.3548, "fwhm": width}
    table = pl.DataFrame(columns | {"petroR90_r": columns["petroRad_r"] * 0.9, "gold": some_known(truth, 0.1, 1)})

    def prepared(**changed):
        given = {"id": "id", "label": "label", "gold": "gold", "radius": "petroRad_r", "psf_fwhm": "fwhm"}
        return tm.prepare_catalogue(table, **given | changed).catalogue

    before = prepared(**wrong)
    return estimate(before), estimate(before, gold="gold") if gold else estimate(prepared())


@pytest.mark.parametrize("gold", [False, True])
@advice("alpha-is-size")
def test_psf_widths_of_each_galaxy_or_gold_labels(gold):
    return with_radii(gold, {"psf_fwhm": "1.3"})


@pytest.mark.parametrize("gold", [False, True])
@advice("radius-not-petrosian")
def test_petrosian_radii_or_gold_labels(gold):
    return with_radii(gold, {"radius": "petroR90_r"})


@advice("galaxies-repeated")
def test_one_row_of_each_galaxy():
    rng = np.random.default_rng(11)
    table = simulated().with_columns(ra=rng.uniform(0, 60, 2000), dec=rng.uniform(-20, 20, 2000))
    twice = pl.concat([table, table.head(300).with_columns(pl.col("object_id") + 10_000)])
    return estimate(twice), estimate(twice.unique(["ra", "dec"], maintain_order=True))


@advice("positions-repeated")
def test_one_row_of_each_position():
    votes = {"id": range(60), "s": [0.9, 0.1] * 30, "d": [0.1, 0.9] * 30, "radius": 4.0, "ra": range(60), "dec": 0.0}
    psf = pl.DataFrame({"ra": [*range(60), 5], "dec": 0.0, "FWHM": 1.1})
    columns = {"id": "id", "smooth": "s", "disk": "d", "radius": "radius", "psf_fwhm": "FWHM"}
    return tuple(tm.prepare_catalogue(pl.DataFrame(votes), **columns, nearest=[one]) for one in (psf, psf.head(60)))


def bars(asked=40, **changed):
    """Votes for disks, and for bars of disks; bars were not asked of half of the galaxies."""
    disk = np.where(np.arange(60) < 30, 0, 35)
    bar = np.where(np.arange(60) % 3, 0.2, 0.8) * disk * asked // 40
    table = pl.DataFrame({"id": range(60), "s": 40 - disk, "d": disk, "no": disk - bar, "bar": bar})
    return table.with_columns(alpha=pl.lit(np.linspace(4, 8, 60)), **changed)


OWN_TREE = {
    "name": "mine",
    "questions": [
        {"name": "smooth", "answers": {"smooth": ["s"], "disk": ["d"]}, "shown": ["disk"]},
        {"name": "bar", "asked_after": ["disk"], "answers": {"no bar": ["no"], "bar": ["bar"]}},
    ],
}


@advice("galaxies-not-asked")
def test_the_questions_before():
    named = {"question": "bar", "id": "id", "alpha": "alpha"}
    ways = {"answers": {"no bar": "no", "bar": "bar"}}, {"tree": OWN_TREE}
    return tuple(tm.prepare_catalogue(bars(), **named, **way) for way in ways)


@advice("votes-impossible")
def test_fractions_as_fractions():
    table = bars().with_columns(pl.col("s", "d") / 40, pl.col("no", "bar") / pl.max_horizontal("d", 1), n=40)
    named = {"question": "bar", "id": "id", "alpha": "alpha", "columns": {"vote_count": "n"}}
    trees = OWN_TREE, OWN_TREE | {"counts": [], "fractions": ["{column}"]}
    return tuple(tm.prepare_catalogue(table, **named, tree=tree) for tree in trees)


@advice("vote-counts-differ")
def test_galaxies_with_similar_numbers_of_votes():
    rng = np.random.default_rng(11)
    number = rng.choice([5, 41], 400)
    disk = rng.binomial(number, 0.5)
    table = pl.DataFrame({"id": np.arange(400), "s": number - disk, "d": disk, "a": rng.lognormal(2.8, 0.4, 400)})
    some = {}, {"where": ["vote_count >= 20"]}
    return tuple(tm.prepare_catalogue(table, id="id", smooth="s", disk="d", alpha="a", **one) for one in some)


TABLE = full(
    arcmin=full()["petroRad_r"] / 60,
    sigma=full()["psfWidth_r"] / 1.8,
    other=np.where(np.arange(60) < 3, 7.0, 0.1),
    label=np.arange(60) % 2,
)
PREPARED = {
    "alpha-unusual": ({"radius": "1 * arcmin"}, {"radius": "60 * arcmin"}),
    "psf-unusual": ({"psf_fwhm": "1 * sigma"}, {"psf_fwhm": "2.3548 * sigma"}),
    "fractions-above-one": (TABLE.with_columns(pl.lit(0.5).alias(ARTEFACT)), TABLE),
    "sample-smaller": ({"label": "label", "sample": "40,40"}, {"label": "label", "sample": "20,20"}),
    "values-impossible": ({"columns": {"redshift": "other * 100"}}, {"columns": {"redshift": "redshift"}}),
    "unit-conflict": [CatalogTable(TABLE, {"petroRad_r": one}) for one in ("arcmin", "arcsec")],
    "column-not-used": (TABLE.with_columns(redshift=pl.lit("far")), TABLE),
}
TESTED |= {(code, "caution") for code in PREPARED}


@pytest.mark.slow
@pytest.mark.parametrize("code", PREPARED)
def test_tables_and_columns_that_are_corrected(code):
    given = (one if isinstance(one, dict) else {"table": one} for one in PREPARED[code])
    check(code, "caution", *(tm.prepare_catalogue(**{"table": TABLE} | one) for one in given))


# Classifiers, which are logistic regressions.


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Train a logistic regression, of the first `some` galaxies; returns its folder."""

    def trained(table, *, some=None, folds=2, features=FEATURES, **options):
        options |= {"preset": "dcv14", "settings": {"features": features, "folds": folds}}
        return tm.train_classifier(first(table, some), out=tmp_path_factory.mktemp("run") / "net", **options).out

    return trained


def first(table, some):
    """Return a catalogue of which only the first galaxies are for training."""
    part = pl.when(pl.int_range(pl.len()) < (some or table.height)).then(pl.lit("train")).otherwise(pl.lit("test"))
    return table.with_columns(split=part)


@pytest.fixture
def label(tmp_path_factory):
    """Label a table with a model."""
    return lambda model, table: tm.label_galaxies(model, table, tmp_path_factory.mktemp("labels") / "labels.parquet")


@cache
def with_features(n=2000, seed=1):
    """A catalogue whose classes depend on its features, with gold labels of a fifth of its galaxies."""
    return simulated(n, seed, trend="features", gold=n // 5).drop("covariate")


@cache
def by_gold():
    return estimate(with_features(), gold="gold")


@cache
def by_labels():
    return estimate(with_features())


@advice("unlike-training")
def test_features_as_those_of_training(train, label):
    model, others = train(with_features()), with_features(seed=2)
    return label(model, others.with_columns(pl.col("x2") + 4)), label(model, others)


@advice("certainty-differs")
def test_gold_labels_correct_fractions_where_a_model_is_too_sure(train, label):
    model, others = train(with_features()), with_features(seed=2)
    wide = others.with_columns(pl.col(FEATURES) * 1.3)
    return label(model, wide), estimate(wide, gold="gold", intrinsic=FEATURES)


@pytest.mark.slow
@advice("nothing-learned")
def test_a_model_that_learns_from_better_features(train, label):
    table, rng = with_features(), np.random.default_rng(12)
    noise = table.with_columns(pl.Series(name, rng.normal(size=table.height)) for name in FEATURES)
    return tuple(label(train(one), one) for one in (noise, table))


@advice("fractions-disagree")
def test_a_model_of_more_galaxies_agrees_with_the_estimate(train, label):
    made = []
    for some in (60, None):
        table = first(with_features(), some)
        made.append(label(train(table, some=some, transition=by_gold()), table))
    return tuple(made)


@pytest.mark.slow
@advice("not-calibrated")
def test_a_model_that_was_trained_on_more_galaxies(train, label):
    table = with_features()
    return tuple(label(train(table, some=one, transition=FLIPS), table) for one in (60, 1600))


@advice("posterior-missing")
def test_posteriors_of_a_model_with_folds(train, label):
    table = with_features()
    return tuple(label(train(table, folds=one), table) for one in (1, 2))


@advice("predictions-missing")
def test_predictions_of_a_model_with_folds(train, label):
    table, results = simulated(1500, 3, gold=200), []
    for folds in (1, 2):
        labels = label(train(table, some=1000, folds=folds), table).out
        results.append(tm.estimate_transition(table, gold="gold", labels=labels, compare=False))
    return tuple(results)


@advice("regression-missing")
def test_labels_by_an_estimate_of_these_galaxies(label):
    here, there = simulated(1500, 3, gold=200), simulated(1500, 4, gold=200)
    return tuple(label(tm.estimate_transition(one, gold="gold", compare=False), here) for one in (there, here))


@pytest.mark.slow
@pytest.mark.parametrize("reported", [False, True])
@advice("rows-not-labelled")
def test_rows_that_are_corrected_or_labelled_by_other_folds(train, label, judged, reported):
    table = with_features()
    if reported:
        one = first(table, 1600)
        return tuple(judged(one, train(one, some=1600, transition=FLIPS, folds=k), by_labels()) for k in (1, 2))
    lacking = table.with_columns(x2=pl.when(pl.int_range(pl.len()) > 20).then("x2"))
    model = train(table)
    return label(model, lacking), label(model, table)


@pytest.mark.filterwarnings("ignore::truemorph.findings.FindingWarning")
@advice("labels-treated-as-correct")
def test_a_regression_with_resolutions():
    table = with_features()
    X, y = table.select(FEATURES).to_numpy(), table["label"].to_numpy()
    models = tm.DebiasedLogisticRegression().fit(X, y), tm.DebiasedLogisticRegression().fit(X, y, alpha=table["alpha"])
    return tuple(list(model.findings_) for model in models)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::truemorph.findings.FindingWarning")
@pytest.mark.parametrize("given", [False, True])
@advice("transition-undetermined")
def test_more_galaxies_or_a_curve_from_gold_labels(given):
    table = simulated(4000, gold=400)
    few = table.head(30)

    def fitted(some, **options):
        X, y, alpha = some.select("x2").to_numpy(), some["label"].to_numpy(), some["alpha"].to_numpy()
        return list(tm.DebiasedLogisticRegression(**options).fit(X, y, alpha=alpha).findings_)

    curve = estimate(table, gold="gold").fit.transition
    return fitted(few), fitted(few, transition=curve) if given else fitted(table)


# Reports.


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Return the findings of a report, without its page, about a catalogue, models and an estimate."""

    def found(table, *sources, **options):
        folder = tmp_path_factory.mktemp("report")
        path = write_table(table, folder / "catalogue.parquet")
        evidence = gather(sources, tm.ReportOptions(catalogue=path, bootstrap=0, **options), folder / "files")
        return [finding for light in lights(evidence) for finding in light.findings]

    return found


@pytest.fixture(scope="module")
def through(train, judged):
    """Findings of a report about a model that was trained through a curve, by default that from gold labels."""

    @cache
    def found(curve=None):
        return judged(with_features(), train(with_features(), transition=curve or by_gold()), by_gold())

    return found


@advice("gold-missing")
def test_gold_labels_of_a_report(train, judged):
    table = with_features()
    model, made = train(table, transition=FLIPS), by_labels()
    return judged(table.drop("gold"), model, made), judged(table, model, made)


@advice("intrinsic-missing")
def test_intrinsic_columns_of_a_report(judged):
    table, made = with_features(), by_labels()
    return judged(table, made), judged(table, made, intrinsic=FEATURES)


@advice("fractions-undetermined")
def test_gold_labels_determine_fractions(judged):
    table = with_features()
    return judged(table, by_labels()), judged(table, by_gold())


@advice("gold-empty")
def test_a_column_with_gold_labels(judged):
    table = with_features().with_columns(mine=pl.lit(None, pl.Int64))
    return tuple(judged(table, by_labels(), gold=[one]) for one in ("mine", "gold"))


@pytest.mark.slow
@advice("fit-failed")
def test_more_gold_labels_for_the_estimate_of_a_report(judged):
    table = with_features(1000)
    few = table.with_columns(gold=pl.when(pl.col("gold").is_not_null().cum_sum() < 12).then("gold"))
    return judged(few), judged(table)


@advice("estimate-of-other-galaxies")
def test_an_estimate_of_the_same_galaxies(judged):
    table, other = with_features(), with_features(seed=2)
    return judged(table, estimate(other)), judged(table, by_labels())


@pytest.mark.slow
@advice("labels-treated-as-correct")
def test_training_with_a_bias_curve(train, judged, through):
    table = with_features()
    return judged(table, train(table, labels="naive"), by_gold()), through()


OTHER_CURVES = {
    "labels-not-predicted": ("problem", WIDE),
    "labels-poorly-predicted": ("caution", tm.RayleighTransition(14.0)),
    "transition-differs": ("caution", WIDE),
    "fractions-inaccurate": ("caution", tm.RayleighTransition(14.0)),
    "labels-worse": ("problem", WIDE),
    "bias-remains": ("caution", tm.RayleighTransition(6.0)),
}
TESTED |= {(code, severity) for code, (severity, _) in OTHER_CURVES.items()}


@pytest.mark.parametrize("code", OTHER_CURVES)
def test_training_through_the_curve_from_gold_labels(code, through):
    severity, curve = OTHER_CURVES[code]
    check(code, severity, through(curve), through())


@pytest.mark.slow
@advice("bias-increased", "problem")
def test_a_curve_that_is_not_too_wide(train, judged):
    rng, n = np.random.default_rng(0), 3000
    size, bulge = rng.normal(size=n), rng.normal(size=n)
    alpha, truth = np.exp(2.8 + 0.45 * size), (rng.random(n) < 1 / (1 + np.exp(-0.9 + 1.8 * bulge))).astype(int)
    labels = truth * (rng.random(n) > tm.RayleighTransition(7.0).flip_probability(alpha))
    table = catalogue(labels, alpha, gold=some_known(truth, 0.2, 1), bulge=bulge, size=size, square=size**2)
    made = estimate(table, gold="gold")
    models = (train(table, features=["bulge", "size", "square"], transition=one) for one in (WIDE, made))
    return tuple(judged(table, model, made) for model in models)


@pytest.mark.slow
@pytest.mark.parametrize("definition", ["disk: by experts", None])
@advice("fractions-inaccurate")
def test_an_estimate_with_the_gold_labels_of_the_report(judged, definition):
    table = with_features(3000).with_columns(gold=pl.when(pl.int_range(pl.len()) < 2000).then("gold"))
    whole = CatalogTable(table, metadata={"gold_definition": definition} if definition else {})
    return tuple(judged(whole, estimate(whole, gold=one)) for one in (None, "gold"))


@advice("fractions-worse", "problem")
def test_an_estimate_with_gold_labels_of_a_narrower_definition(train, judged):
    narrow = (pl.col("bulge_fraction") < -0.5).cast(pl.Int64) * pl.col("gold")
    table = with_features().with_columns(gold=narrow)
    before = judged(table, train(table, transition=FLIPS), by_labels())
    return before, judged(table, estimate(table, gold="gold"))


def with_few_and_all_gold(train, judged, curve, number):
    """Reports about a model trained through a curve, with gold labels of some galaxies and of all."""
    table = tm.simulate_catalogue(2000, 1, trend="features", transition=curve).drop("covariate", "gold")
    model, made = train(table, transition=curve), estimate(table.drop("truth"))
    few = np.random.default_rng(0).permutation(2000) < number
    known = table.with_columns(gold=pl.when(pl.Series(few)).then("truth")), table.with_columns(gold="truth")
    return tuple(judged(one.drop("truth"), model, made) for one in known)


@advice("fractions-not-better")
def test_more_gold_labels_show_that_fractions_are_better(train, judged):
    return with_few_and_all_gold(train, judged, tm.RayleighTransition(5.0), 30)


@advice("labels-not-better")
def test_more_gold_labels_show_that_labels_are_better(train, judged):
    return with_few_and_all_gold(train, judged, FLIPS, 60)


@pytest.mark.slow
@advice("labels-worse", "problem")
def test_a_model_of_more_galaxies_has_better_labels(train, judged):
    table = with_features(3000)
    models = (train(table, some=one, features=["x3"], transition=FLIPS) for one in (50, None))
    return tuple(judged(table, model, estimate(table, gold="gold")) for model in models)


@advice("nearly-one-class")
def test_a_model_of_more_galaxies_tells_the_classes_apart(train, judged):
    table = simulated(1500, 7, disk_fraction=0.75).drop("gold", "bulge_fraction", "x2", "x3")
    models = (train(table, some=one, features=["covariate"], transition=FLIPS) for one in (30, None))
    return tuple(judged(table, model, estimate(table)) for model in models)


@advice("bias-remains")
def test_the_columns_on_which_classes_depend(train, judged):
    rng, n = np.random.default_rng(0), 4000
    u = rng.normal(size=n)
    mass = 0.7 * u + 0.7 * rng.normal(size=n)
    alpha, truth = np.exp(2.8 + 0.45 * u), (rng.random(n) < 1 / (1 + np.exp(-0.5 - 1.2 * mass))).astype(int)
    labels = truth * (rng.random(n) > FLIPS.flip_probability(alpha))
    table = catalogue(labels, alpha, mass=mass)
    model, made = train(table, features=["mass"], transition=FLIPS), estimate(table)
    return judged(table, model, made), judged(table, model, made, intrinsic=["mass"])
