"""Labels of a question in a catalogue: prepared from votes, gold labels by rules, and the commands that use them."""

import numpy as np
import polars as pl
import pytest

from conftest import codes
from truemorph.catalogs.paths import gold_of_question
from truemorph.commands.bias import measure_bias
from truemorph.commands.prepare import prepare_catalogue
from truemorph.commands.transition import estimate_transition
from truemorph.errors import InputError
from truemorph.questions import read_tree

GZ2 = read_tree("gz2")
RULES = "applies: kind >= 1; bar: kind = 2"


def survey(n=1_500, seed=0):
    """Votes along the tree of Galaxy Zoo 2; `kind` is 0 smooth or edge-on, 1 no bar, 2 bar, and a tenth is known."""
    rng = np.random.default_rng(seed)
    radius = rng.lognormal(2.0, 0.4, n)
    kind = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    disk = rng.binomial(40, np.where(kind > 0, 0.3 + 0.5 * (radius > 6), 0.2))
    face = rng.binomial(disk, 0.9)
    bar = rng.binomial(face, np.where(kind == 2, 0.7 * (radius > 7) + 0.1, 0.05))
    return pl.DataFrame({
        "objid": np.arange(n),
        "t01_smooth_or_features_a01_smooth_count": 40 - disk,
        "t01_smooth_or_features_a02_features_or_disk_count": disk,
        "t01_smooth_or_features_a03_star_or_artifact_count": np.zeros(n, dtype=int),
        "t01_smooth_or_features_a01_smooth_weighted_fraction": (40 - disk) / 40,
        "t01_smooth_or_features_a02_features_or_disk_weighted_fraction": disk / 40,
        "t02_edgeon_a04_yes_count": disk - face,
        "t02_edgeon_a05_no_count": face,
        "t03_bar_a06_bar_count": bar,
        "t03_bar_a07_no_bar_count": face - bar,
        "petroRad_r": radius,
        "psfWidth_r": rng.uniform(1.0, 1.5, n),
        "redshift": rng.uniform(0.02, 0.1, n),
        "known": kind,
        "kind": pl.Series(np.where(rng.random(n) < 0.2, kind, -1)).replace(-1, None),
    })  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    out = tmp_path_factory.mktemp("bars") / "cat.parquet"
    prepare_catalogue(survey(), question="bar", out=out)
    return out


def test_prepare_adds_majority_paths_and_votes_of_a_question(catalogue):
    frame = pl.read_parquet(catalogue)
    names = {one.name for one in GZ2.classes("bar")}
    assert set(frame["label_bar"]) <= names
    smooth = frame["votes_smooth_smooth"] > frame["votes_smooth_disk"]
    assert (frame["label_bar"] == "smooth").to_list() == smooth.to_list()
    asked = frame.filter(pl.col("label_bar").is_in(["bar", "no bar"]))
    more = asked["votes_bar_bar"] > asked["votes_bar_no_bar"]
    less = asked["votes_bar_bar"] < asked["votes_bar_no_bar"]
    assert (asked.filter(more)["label_bar"] == "bar").all()
    assert (asked.filter(less)["label_bar"] == "no bar").all()
    # Nobody is dropped because few volunteers were asked; the label of smooth or disk is as without a question.
    plain = prepare_catalogue(survey()).catalogue.frame
    assert frame["label"].to_list() == plain["label"].to_list()


def test_fractions_of_a_question_from_the_command(catalogue, tmp_path):
    truth = survey()["known"].to_numpy()
    found = estimate_transition(catalogue, question="bar", gold=RULES, out=tmp_path / "bars.json", fraction_bins=4)
    one = found["bar fraction"]
    labelled, fraction, stderr, _, _ = one.total
    true = np.sum(truth == 2) / np.sum(truth > 0)
    assert abs(fraction - true) < 3 * stderr
    assert abs(labelled - true) > 3 * stderr
    assert abs(found.applies.total[1] - np.mean(truth > 0)) < 3 * found.applies.total[2]
    assert found.about["question"] == "bar"
    by_redshift = estimate_transition(catalogue, question="bar", gold=RULES, by="redshift,alpha", fraction_bins=4)
    assert by_redshift.edges.shape == (4, 2, 2)


def test_gold_labels_of_a_question_can_be_prepared(catalogue, tmp_path):
    path = tmp_path / "gold.parquet"
    prepare_catalogue(survey(), question="bar", gold=RULES, out=path)
    assert set(pl.read_parquet(path)["gold_bar"].drop_nulls()) == {"does not apply", "no bar", "bar"}
    found = estimate_transition(path, question="bar", gold="gold", fraction_bins=2)
    same = estimate_transition(catalogue, question="bar", gold=RULES, fraction_bins=2)
    np.testing.assert_array_equal(found["bar fraction"].fraction, same["bar fraction"].fraction)
    assert found.about["gold_definition"] == same.about["gold_definition"]
    assert "gold labels" in measure_bias(path, question="bar", bootstrap=0).results


def test_labels_alone_give_no_fraction_of_a_question_but_its_drift(catalogue):
    with pytest.raises(InputError):
        estimate_transition(catalogue, question="bar")
    measured = measure_bias(catalogue, question="bar", bootstrap=0)
    drift = measured.fractions_by_alpha["observed labels"]
    assert drift[-1] > drift[0] + 0.1
    asked = pl.read_parquet(catalogue)["label_bar"].is_in(["bar", "no bar"]).sum()
    assert measured.results["observed labels"].n_objects == asked


def test_weights_of_a_column_count_galaxies_in_proportion(tmp_path):
    table = survey().with_columns(vmax=pl.when(pl.col("known") == 2).then(3.0).otherwise(1.0))
    path = tmp_path / "w.parquet"
    prepare_catalogue(table, question="bar", out=path)
    rule = "applies: known >= 1; bar: known = 2"
    plain, weighted = (
        estimate_transition(path, question="bar", gold=rule, weights=one, fraction_bins=1)["bar fraction"].fraction[0]
        for one in ("balance", "vmax")
    )
    assert weighted == pytest.approx(3 * plain / (3 * plain + 1 - plain))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("applies: a > 0; bar: b > 0", ["does not apply", None, "no bar", "bar", None]),
        ("smooth: a < 0; bar: a > 0 AND b > 0; no bar: b = 0", ["does not apply", None, "no bar", "bar", None]),
        (
            "applies: a > 0; bar: b > 0; cannot tell: b IS NULL",
            ["does not apply", None, "no bar", "bar", "cannot tell"],
        ),
        ("bar: b > 0", ["bar", "bar", "no bar", "bar", None]),
        ("expert", ["does not apply", "bar", "no bar", "cannot tell", None]),
    ],
)
def test_rules_for_gold_labels(rule, expected):
    frame = pl.DataFrame({
        "a": [-1.0, None, 1.0, 2.0, 3.0],
        "b": [5.0, 1.0, 0.0, 1.0, None],
        "expert": ["smooth", "bar", "no bar", "cannot tell", ""],
    })  # fmt: skip
    assert gold_of_question(frame, GZ2, "bar", rule, "t").classes.to_list() == expected


@pytest.mark.parametrize(
    "rule", ["b", "bar > 0", "bars: b > 0", "bar: b > 0; no bar: b >= 0", "expert", "bar: nothing > 0", "bar: b + 1"]
)
def test_wrong_rules_are_refused(rule):
    frame = pl.DataFrame({"b": [0.0, 1.0], "expert": ["barred", "bar"]})
    with pytest.raises(InputError):
        gold_of_question(frame, GZ2, "bar", rule, "t")


def test_answers_with_few_gold_labels_are_merged(tmp_path):
    table = survey(800, 3)
    for k, stem in enumerate(("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant")):
        votes = pl.col("t02_edgeon_a05_no_count") // (k + 1)
        table = table.with_columns(votes.alias(f"t05_bulge_prominence_{stem}_count"))
    path = tmp_path / "bulges.parquet"
    prepare_catalogue(table, question="bulge", out=path)
    rule = "does not apply: kind = 0; no bulge: kind = 1; just noticeable bulge: kind = 2 AND redshift > 0.03; " + (
        "obvious bulge: kind = 2 AND redshift <= 0.021"
    )
    found = estimate_transition(path, question="bulge", gold=rule, fraction_bins=2)
    assert "answers-merged" in codes(found)
    assert found.classes[:2] == ("does not apply", "no bulge")
    assert "dominant bulge" in found.classes[-1]
    assert "obvious bulge" in found.classes[-1]


def test_a_question_needs_a_tree_and_a_catalogue_prepared_for_it(catalogue, tmp_path):
    plain = pl.DataFrame({"id": np.arange(60), "smooth": [0.8, 0.2] * 30, "r": 6.0, "fwhm": 1.2})
    named = {"id": "id", "smooth": "smooth", "disk": "1 - smooth", "radius": "r", "psf_fwhm": "fwhm"}
    for wrong in (
        lambda: prepare_catalogue(plain, question="bar", **named),
        lambda: prepare_catalogue(plain, question="bar", tree="gz2", **named),
        lambda: prepare_catalogue(survey(), question="bars"),
        lambda: estimate_transition(catalogue, question="spiral", gold=RULES),
        lambda: measure_bias(catalogue, question="spiral"),
        lambda: estimate_transition(catalogue, question="bar", gold="gold"),
    ):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize("by_row", [False, True])
def test_answers_of_a_handful_of_experts_are_votes(by_row):
    rng = np.random.default_rng(0)
    given = rng.choice(["none", "minor", "major", None], (80, 3), p=[0.4, 0.3, 0.2, 0.1])
    given[:, 0] = rng.choice(["none", "minor", "major"], 80)
    others = {"id": np.arange(80), "r": np.full(80, 6.0), "fwhm": 1.2 + np.arange(80) / 100}
    if by_row:
        table = pl.DataFrame({name: np.repeat(values, 3) for name, values in others.items()} | {"said": given.ravel()})
        experts = "said"
    else:
        table = pl.DataFrame(others | {f"expert{k}": given[:, k] for k in range(3)})
        experts = "expert0,expert1,expert2"
    prepared = prepare_catalogue(
        table, question="stage", answers="none,minor,major", experts=experts, id="id", radius="r", psf_fwhm="fwhm"
    )
    frame = prepared.catalogue.frame
    assert prepared.catalogue.metadata["classes"] == ["none", "minor or major"]
    for answer in ("none", "minor", "major"):
        expected = (given[frame["object_id"].to_numpy()] == answer).sum(axis=1)
        assert frame[f"votes_stage_{answer}"].to_list() == expected.tolist()
    none = (given[frame["object_id"].to_numpy()] == "none").sum(axis=1)
    rest = (given[frame["object_id"].to_numpy()] != None).sum(axis=1) - none  # noqa: E711
    assert (frame["label"].to_numpy() == (rest > none)).all()


def test_votes_for_a_question_without_a_tree():
    table = pl.DataFrame({"id": range(60), "n0": [3, 1, 0] * 20, "n1": [1, 4, 1] * 20, "n2": [0, 0, 7] * 20})
    table = table.with_columns(r=6.0, fwhm=1.2)
    named = {"question": "stage", "id": "id", "radius": "r", "psf_fwhm": "fwhm"}
    frame = prepare_catalogue(table, answers="none=n0,minor=n1,major=n2", **named).catalogue.frame
    assert frame["label_stage"].to_list()[:3] == ["none", "minor", "major"]
    with pytest.raises(InputError):
        prepare_catalogue(table, answers="none=n0,minor=n9", **named)
    with pytest.raises(InputError):
        prepare_catalogue(table, experts="n0", **named)
