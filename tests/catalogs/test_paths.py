"""Labels of a question in a catalogue: prepared from votes, gold labels by rules, and the commands that use them."""

import numpy as np
import polars as pl
import pytest

from catalogs.test_dry_run import NAMED, votes_of
from conftest import codes
from truemorph import (
    Asked,
    Estimate,
    ReportOptions,
    estimate_transition,
    label_galaxies,
    load_transition,
    measure_bias,
    posterior,
    prepare_catalogue,
    read_tree,
    write_report,
)
from truemorph.catalogs.paths import path_observations
from truemorph.catalogs.question_gold import gold_of_question
from truemorph.errors import InputError
from truemorph.gold.plan import PlanOptions, make_plan
from truemorph.questions import columns_of, packaged_trees
from truemorph.simulate import simulate_survey

GZ2 = read_tree("gz2")
RULES = "applies: kind >= 1; bar: kind = 2"


def survey(n=1_500, seed=1):
    """Votes along the tree of Galaxy Zoo 2; `kind` is 0 smooth or edge-on, 1 no bar, 2 bar, and a fifth is known."""
    votes = simulate_survey(n, seed)[1]
    known = votes["truth_bar"].replace_strict({"no bar": 1, "bar": 2}, default=0)
    looked = pl.Series(np.random.default_rng(seed).random(n) < 0.2)
    return votes.select(pl.exclude("^truth.*$"), known=known, kind=pl.when(looked).then(known))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    out = tmp_path_factory.mktemp("bars") / "cat.parquet"
    prepare_catalogue(survey(), question="bar", out=out)
    return out


@pytest.fixture(scope="module")
def estimated(catalogue):
    """The estimate of its bar fractions, also as bars.json beside it."""
    out = catalogue.with_name("bars.json")
    return estimate_transition(catalogue, question="bar", gold=RULES, fraction_bins=2, out=out)


@pytest.mark.slow
@pytest.mark.parametrize("tree", list(packaged_trees()), ids=lambda one: one.name)
def test_tables_of_surveys_are_recognised_by_the_columns_of_their_tree(tree):
    """Under the last of the names that a tree has for each column, which are those of one survey only."""
    kind, (template, *_) = ("counts", tree.counts) if tree.counts else ("fractions", tree.fractions)
    table = pl.DataFrame(votes_of(tree, template, -1, kind))
    got = prepare_catalogue(table, **NAMED, question="bar").catalogue
    assert prepare_catalogue(table, **NAMED, question="bar", dry_run=True).to_dict()["about"] == got.metadata["about"]
    assert got.metadata["tree"]["name"] == tree.name
    assert got.metadata["about"].startswith(tree.about.partition(" (")[0].partition(",")[0])
    assert got.frame["label_bar"].n_unique() > 2


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


def test_missing_and_impossible_votes_are_reported():
    bar = pl.col("t03_bar_a06_bar_count")
    row = pl.int_range(pl.len())
    table = survey(300).with_columns(bar.cast(pl.Float64).alias(bar.meta.output_name()))
    absent = table.with_columns(pl.when(row < 50).then(None).otherwise(bar).alias(bar.meta.output_name()))
    assert "votes-missing" in codes(prepare_catalogue(absent, question="bar"))
    wrong = table.with_columns(pl.when(row < 5).then(np.inf).otherwise(bar).alias(bar.meta.output_name()))
    prepared = prepare_catalogue(wrong, question="bar")
    assert "values-impossible" in codes(prepared)
    assert np.isfinite(prepared.catalogue.frame["votes_bar_bar"].to_numpy()).all()
    assert not {"votes-missing", "values-impossible"} & set(codes(prepare_catalogue(table, question="bar")))


@pytest.mark.slow
def test_fractions_of_a_question_from_the_command(catalogue, tmp_path):
    truth = survey()["known"].to_numpy()
    found = estimate_transition(catalogue, question="bar", gold=RULES, out=tmp_path / "bars.json", fraction_bins=4)
    one = found["bar fraction"]
    labelled, _, _, low, high, *_ = one.total
    true = np.sum(truth == 2) / np.sum(truth > 0)
    assert labelled < low < true < high
    assert abs(found.fractions.applies.total[1] - np.mean(truth > 0)) < 3 * found.fractions.applies.total[2]
    by_redshift = estimate_transition(catalogue, question="bar", gold=RULES, by="redshift,alpha", fraction_bins=2)
    assert by_redshift.fractions.edges.shape == (4, 2, 2)


@pytest.mark.slow
def test_gold_labels_of_a_question_can_be_prepared(estimated, tmp_path):
    path = tmp_path / "gold.parquet"
    prepare_catalogue(survey(), question="bar", gold=RULES, out=path)
    assert set(pl.read_parquet(path)["gold_bar"].drop_nulls()) == {"does not apply", "no bar", "bar"}
    found = estimate_transition(path, question="bar", gold="gold", fraction_bins=2)
    np.testing.assert_array_equal(found["bar fraction"].fraction, estimated["bar fraction"].fraction)
    assert found.about["gold_definition"] == estimated.about["gold_definition"]
    assert "gold labels" in measure_bias(path, question="bar", bootstrap=0).results


def test_labels_alone_give_no_fraction_of_a_question_but_its_drift(catalogue):
    with pytest.raises(InputError):
        estimate_transition(catalogue, question="bar")
    measured = measure_bias(catalogue, question="bar", bootstrap=0)
    drift = measured.fractions_by_alpha["observed labels"]
    assert drift[-1] > drift[0] + 0.1
    asked = pl.read_parquet(catalogue)["label_bar"].is_in(["bar", "no bar"]).sum()
    assert measured.results["observed labels"].n_objects == asked


@pytest.mark.slow
def test_weights_of_a_column_count_galaxies_in_proportion():
    table = survey().with_columns(vmax=pl.when(pl.col("known") == 2).then(3.0).otherwise(1.0))
    prepared = prepare_catalogue(table, question="bar")
    rule = "applies: known >= 1; bar: known = 2"
    plain, weighted = (
        estimate_transition(prepared, question="bar", gold=rule, weights=one, fraction_bins=1)["bar fraction"].fraction
        for one in ("balance", "vmax")
    )
    assert weighted == pytest.approx(3 * plain / (3 * plain + 1 - plain))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("applies: a > 0; bar: b > 0", ["does not apply", None, "no bar", "bar", "applies"]),
        ("smooth: a < 0; bar: a > 0 AND b > 0; no bar: b = 0", ["smooth", None, "no bar", "bar", "applies"]),
        (
            "applies: a > 0; bar: b > 0; cannot tell: b IS NULL",
            ["does not apply", None, "no bar", "bar", "cannot tell"],
        ),
        ("applies: a > 0; bar: t <> 'a;b' AND b > 0;", ["does not apply", None, "no bar", "bar", "applies"]),
        ("expert", ["smooth", "bar", "no bar", "cannot tell", None]),
    ],
)
def test_rules_for_gold_labels(rule, expected):
    frame = pl.DataFrame({
        "a": [-1.0, None, 1.0, 2.0, 3.0],
        "b": [5.0, 1.0, 0.0, 1.0, None],
        "expert": ["smooth", "bar", "no bar", "cannot tell", ""],
        "t": ["x"] * 5,
    })  # fmt: skip
    asked = Asked(GZ2, "bar")
    gold = gold_of_question(frame, asked, rule, "t")
    assert gold.names.to_list() == expected
    numbers = {"does not apply": 0, "smooth": 0, "no bar": 1, "bar": 2, "applies": -2, "cannot tell": -2, None: -1}
    assert gold.numbers.tolist() == [numbers[one] for one in expected]
    assert gold.unsure.tolist() == [one == "cannot tell" for one in expected]


@pytest.mark.parametrize(
    "rule",
    [
        *("b", "bar > 0", "bars: b > 0", "expert", "applies: b > 0; bar: nothing > 0", "applies: b > 0; bar: b + 1"),
        "applies: b >= 0; bar: b > 0; no bar: b >= 0",  # two classes
        "bar: b > 0",  # where does it apply?
        "applies: b >= 0",  # which answer?
        "applies: b >= 0; bar: b > 0; bar: b > 5",
        "applies: disk_fraction > 0.4; bar: b > 0",
        "applies: b >= 0; bar: votes_bar_bar > 4",
        "applies: b >= 0; bar: label_spiral = 'x'",
        ";",
    ],
)
def test_wrong_rules_are_refused(rule):
    frame = pl.DataFrame({"b": [0.0, 1.0], "expert": ["barred", "bar"]})
    frame = frame.with_columns(disk_fraction=0.5, votes_bar_bar=3)
    with pytest.raises(InputError):
        gold_of_question(frame, Asked(GZ2, "bar"), rule, "t")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["answers", "answers outside"])
def test_answers_may_be_known_for_a_part_of_the_galaxies_to_which_a_question_applies(missing):
    """Experts looked for bars in a third of the galaxies: of all, or of those where the question applies."""
    table = survey(4_000, 7)
    known = table["known"].to_numpy()
    rng = np.random.default_rng(7)
    applies = np.where(rng.random(known.size) < 0.3, known > 0, np.nan)
    answered = rng.random(known.size) < (1 / 3 if missing == "answers" else np.where(known > 0, 1 / 3, 0.0))
    barred = np.where(np.isfinite(applies) & answered, known == 2, np.nan)
    table = table.with_columns(seen=pl.Series(applies).fill_nan(None), barred=pl.Series(barred).fill_nan(None))
    prepared = prepare_catalogue(table, question="bar")
    found = estimate_transition(prepared, question="bar", gold="applies: seen = 1; bar: barred = 1", fraction_bins=2)
    _, fraction, stderr, *_ = found["bar fraction"].total
    assert abs(fraction - np.sum(known == 2) / np.sum(known > 0)) < 3 * stderr
    assert abs(found.fractions.applies.total[1] - np.mean(known > 0)) < 3 * found.fractions.applies.total[2]
    assert "gold-not-random" not in codes(found)


def test_votes_that_predict_the_answer_perfectly_are_used():
    table = survey(2_000, 9)
    known = table["known"].to_numpy()
    good = pl.Series(np.where(known == 2, 30, 1))
    votes = {"t02_edgeon_a05_no_count": 31, "t02_edgeon_a04_yes_count": 0, "t03_bar_a06_bar_count": good}
    table = table.with_columns(**votes, t03_bar_a07_no_bar_count=31 - good)
    found = estimate_transition(prepare_catalogue(table, question="bar"), question="bar", gold=RULES)
    assert abs(found["bar fraction"].total[1] - np.sum(known == 2) / np.sum(known > 0)) < 0.03


def test_gold_labels_of_galaxies_to_which_a_question_applies_do_not_say_where_it_does(catalogue):
    """Unless only galaxies are selected to which it applies by the volunteers' answers."""
    disks = ["kind > 0 OR kind IS NULL"]
    with pytest.raises(InputError):
        estimate_transition(catalogue, question="bar", gold=RULES, where=disks)
    by_volunteers = [*disks, "label_bar IN ('bar', 'no bar')"]
    found = estimate_transition(catalogue, question="bar", gold=RULES, where=by_volunteers)
    assert found.fractions.applies.total[1] == pytest.approx(1.0, abs=1e-12)


def test_answers_with_few_gold_labels_are_merged():
    """Into two if every answer has few."""
    table, bulge = survey(1_500, 4), GZ2.question("bulge")
    votes, answers = pl.col("t02_edgeon_a05_no_count") // 4, GZ2.gold_answers("bulge")
    known = table["known"].to_numpy()
    classes = np.full(known.size, None, dtype=object)
    classes[np.flatnonzero(known)[: 3 * len(answers)]] = np.repeat(answers, 3)
    classes[np.flatnonzero(known == 0)[:40]] = "does not apply"
    table = table.with_columns(
        *(votes.alias(GZ2.counts[0].format(column=column)) for column, *_ in bulge.answers.values()),
        expert=pl.Series(classes.tolist()),
    )
    prepared = prepare_catalogue(table, question="bulge")
    rule = "does not apply: kind = 0; no bulge: kind = 1; just noticeable bulge: kind = 2 AND redshift > 0.03; " + (
        "obvious bulge: kind = 2 AND redshift <= 0.021"
    )
    some, every = (
        estimate_transition(prepared, question="bulge", gold=gold, fraction_bins=1) for gold in (rule, "expert")
    )
    assert "answers-merged" in codes(some)
    assert some.fractions.classes[:2] == ("does not apply", "no bulge")
    assert "dominant bulge" in some.fractions.classes[-1]
    assert "obvious bulge" in some.fractions.classes[-1]
    _, one, _ = every.fractions.classes
    assert abs(every[f"{one} fraction"].total[1] - 0.5) < 0.3


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
        lambda: estimate_transition(pl.read_parquet(catalogue), question="bar", gold=RULES),
        lambda: estimate_transition(catalogue, question="bar", gold=RULES, family="fisk"),
        lambda: estimate_transition(catalogue, question="bar", gold="applies: kind > 9; bar: kind = 2"),
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
    assert prepared.catalogue.metadata["classes"] == ["none", "minor", "major"]
    assert frame.height == 80  # ties are no reason to drop a galaxy
    for answer in ("none", "minor", "major"):
        expected = (given[frame["object_id"].to_numpy()] == answer).sum(axis=1)
        assert frame[f"votes_stage_{answer}"].to_list() == expected.tolist()
    votes = frame.select("^votes_stage_.*$").to_numpy()
    clear = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert (frame["label"].to_numpy() == votes.argmax(axis=1))[clear].all()
    assert (votes[np.arange(80), frame["label"]] == votes.max(axis=1)).all()


def test_experts_answers_are_read_whatever_their_case_and_each_expert_counts_once():
    others = {"id": range(60), "r": 6.0, "fwhm": 1.2}
    plain = pl.DataFrame(others | {"anna": ["none", "minor", None] * 20, "ben": ["none", "none", "minor"] * 20})
    odd = plain.with_columns(anna=pl.Series([" None ", "MINOR", "can\u2019t tell"] * 20))
    named = {"question": "stage", "answers": "none,minor", "id": "id", "radius": "r", "psf_fwhm": "fwhm"}
    frames = [
        prepare_catalogue(table, experts=experts, **named).catalogue.frame.select("object_id", "label", "^votes.*$")
        for table in (plain, odd)
        for experts in ("anna,ben", "anna,anna,ben")
    ]
    assert all(frame.equals(frames[0]) for frame in frames)
    wrong = plain.with_columns(pl.when(pl.col("id") == 6).then(pl.lit("foo")).otherwise("ben").alias("ben"))
    with pytest.raises(InputError, match=r"'foo' \(ben, row 7\)"):
        prepare_catalogue(wrong, experts="anna,ben", **named)


def test_answers_of_ones_own_that_are_called_artifact_are_outside_unless_the_tree_says_otherwise():
    table = pl.DataFrame({"id": range(90), "s": [8, 1, 0] * 30, "d": [1, 8, 1] * 30, "art": [0, 0, 9] * 30})
    table = table.with_columns(alpha=6.0 + pl.int_range(90) / 10)
    root = {"name": "smooth", "answers": {"smooth": ["s"], "disk": ["d"], "Artifact": ["art"]}}
    for outside, labels in (({}, [0, 1]), ({"outside": []}, [0, 1, 2])):
        tree = {"name": "mine", "questions": [root], **outside}
        prepared = prepare_catalogue(table, question="smooth", tree=tree, id="id", alpha="alpha")
        assert prepared.catalogue.frame["label"].to_list()[: len(labels)] == labels
        assert prepared.catalogue.frame.height == 30 * len(labels)
        assert "artifact-fraction-missing" not in codes(prepared)


def test_tables_of_other_votes_are_told_how_to_be_read():
    named = {"id": "id", "alpha": "alpha"}
    table = pl.DataFrame({"id": range(60), "n0": [3, 1, 0] * 20, "n1": [1, 4, 0] * 20, "alpha": np.linspace(4, 8, 60)})
    with pytest.raises(InputError) as problem:
        prepare_catalogue(table, **named)
    assert all(f"`{option}`" in str(problem.value) for option in ("answers", "tree", "question"))
    # Of bars, only galaxies that are not edge-on were asked.
    answers = {"no": "n0", "bar": "n1"}
    prepared = prepare_catalogue(table, question="bar", answers=answers, **named)
    assert "galaxies-not-asked" in codes(prepared)
    again = prepare_catalogue(table, question="bar", answers="no=n0,bar=n1", **named)
    assert prepared.catalogue.frame.equals(again.catalogue.frame)
    predicted = pl.DataFrame(
        {f"smooth-or-featured-dr8_{one}_pred": [0.3] * 9 for one in ("smooth", "featured-or-disk", "artifact")}
    )
    for options in ({}, {"question": "smooth", "tree": "gz-desi"}):
        with pytest.raises(InputError, match="`labels`"):
            prepare_catalogue(predicted.with_columns(id=1, alpha=6.0), **named, **options)


def test_impossible_numbers_of_votes_are_said():
    asked = {"no_bar": "t03_bar_a07_no_bar_count", "bar": "t03_bar_a06_bar_count"}
    found = survey()
    assert "votes-impossible" not in codes(prepare_catalogue(found, question="bar"))
    many = found.with_columns(pl.lit(500).alias(asked["bar"]))
    assert "votes-impossible" in codes(prepare_catalogue(many, question="bar"))


def test_a_survey_whose_tree_is_named_is_not_asked_for_its_columns_and_its_definition():
    notes = {"votes-read-as", "definition-missing"}
    assert not notes & set(codes(prepare_catalogue(survey(), question="bar", tree="gz2")))
    named = {"smooth": "t01_smooth_or_features_a01_smooth_count", "tree": "gz2"}
    named["disk"] = "t01_smooth_or_features_a02_features_or_disk_count"
    assert notes <= set(codes(prepare_catalogue(survey(), question="bar", **named)))


def test_votes_for_a_question_without_a_tree():
    """They make the labels that a tree makes of whose first question all answers are shown."""
    votes = {"n0": [3, 1, 0] * 20, "n1": [1, 4, 1] * 20, "n2": [0, 0, 7] * 20}
    table = pl.DataFrame({"id": range(60), **votes, "r": 6.0, "fwhm": 1.2})
    got = prepare_catalogue(table, **NAMED, question="stage", answers="none=n0,minor=n1,major=n2").catalogue
    assert got.frame["label_stage"].to_list()[:3] == ["none", "minor", "major"]
    assert got.frame["label"].to_list()[:3] == [0, 1, 2]
    assert not {"smooth_votes", "smooth_fraction"} & set(got.frame.columns)
    for wrong in ({"answers": "none=n0,minor=n9"}, {"experts": "n0"}):
        with pytest.raises(InputError):
            prepare_catalogue(table, **NAMED, question="stage", **wrong)
    asked = {"name": "stage", "answers": {"none": ["n0"], "minor": ["n1"], "major": ["n2"]}}
    for shown in ({}, {"shown": ["none", "minor", "major"]}):
        tree = {"name": "stage", "questions": [asked | shown]}
        again = prepare_catalogue(table, **NAMED, question="stage", tree=tree).catalogue
        assert again.frame["label"].to_list() == got.frame["label"].to_list()
        assert again.metadata["classes"] == got.metadata["classes"]


@pytest.mark.slow
def test_an_estimate_of_a_question_holds_t_of_paths_and_is_read_as_it_was_written(catalogue, estimated):
    found, path = estimated, catalogue.with_name("bars.json")
    assert {one.suffix for one in path.parent.glob("bars.*")} == {".json", ".npz", ".png"}
    assert found.transition.asked.classes == ("does not apply", "no bar", "bar")
    alpha = np.array([10.0, 25.0])
    again = Estimate.read(path)
    for one in (load_transition(path), again.transition, load_transition(again.to_dict())):
        np.testing.assert_array_equal(one.matrix(alpha), found.transition.matrix(alpha))
        votes = np.array([[10, 30, 0, 2, 28, 20, 8]] * 2)
        np.testing.assert_array_equal(one.log_votes(votes, alpha), found.transition.log_votes(votes, alpha))
    assert again.to_dict() == found.to_dict()
    # Galaxies without bars are called smooth where they are small; T and the quoted fractions have the same totals.
    right = np.diagonal(found.transition.matrix(alpha), axis1=1, axis2=2)
    assert right[1, 2] > right[0, 2] + 0.3
    share = found.fractions.bin_weights / found.fractions.bin_weights.sum()
    np.testing.assert_allclose(found.fit.class_fractions, share @ found.fractions.fractions, atol=1e-9)
    assert found.summary() == again.summary()


@pytest.mark.slow
def test_draws_of_another_estimate_or_changed_ones_are_refused(catalogue, estimated, tmp_path):
    options = {"question": "bar", "gold": RULES, "fraction_bins": 2, "where": ["redshift > 0.05"]}
    estimate_transition(catalogue, **options, out=tmp_path / "some.json")
    estimated.write(tmp_path / "bars.json")
    assert Estimate.read(tmp_path / "bars.json").fractions.samples.shape[1:] == (2, 3)
    beside = tmp_path / "bars.npz"
    content, draws = beside.read_bytes(), np.load(beside)["fractions"]
    changed = {"permuted": draws[:, :, ::-1], "nan": np.full_like(draws, np.nan), "fewer": draws[:, :1]}
    changed |= {"other": np.load(tmp_path / "some.npz")["fractions"], "narrow": draws.mean(axis=0) + 0.5 * draws}
    for values in changed.values():
        np.savez_compressed(beside, fractions=values)
        with pytest.raises(InputError, match=r"bars\.npz"):
            Estimate.read(tmp_path / "bars.json")
    for damaged in (content[:-100], content[:50], b""):
        beside.write_bytes(damaged)
        with pytest.raises(InputError, match=r"bars\.npz"):
            Estimate.read(tmp_path / "bars.json")


@pytest.mark.slow
def test_t_tells_apart_the_paths_that_gold_labels_name():
    table = survey(3_000, 9)
    kind, rng = table["known"].to_numpy(), np.random.default_rng(9)
    names = np.array(["smooth", "no bar", "bar"])[kind]
    names = np.where((kind == 0) & (rng.random(kind.size) < 0.5), "edge-on", names)
    names = np.where(rng.random(kind.size) < 0.2, names, "")
    # One gold label that says only that the question does not apply joins the paths to which it does not.
    found, joined = (
        estimate_transition(
            prepare_catalogue(table.with_columns(expert=pl.Series([first, *names[1:]])), question="bar", gold="expert"),
            question="bar", gold="gold", fraction_bins=1,
        )
        for first in (names[0], "does not apply")
    )  # fmt: skip
    # Nobody called a galaxy an artifact: that path counts as another to which the question does not apply.
    assert found.transition.asked.of_paths == (0, 1, 2, 3, 0)
    assert found.transition.asked.classes == ("smooth", "edge-on", "no bar", "bar")
    assert found.fractions.classes == ("does not apply", "no bar", "bar")
    total = found.fractions.fractions[0]
    np.testing.assert_allclose(found.fit.class_fractions[:2].sum(), total[0])
    assert joined.transition.asked.of_paths == (0, 0, 1, 2, 0)
    assert joined.transition.asked.classes == ("does not apply", "no bar", "bar")


def test_the_first_question_is_the_label_however_many_answers_it_has(tmp_path):
    rng = np.random.default_rng(4)
    n = 900
    kind = rng.choice(3, n, p=(0.6, 0.25, 0.15))
    chances = np.array([[0.8, 0.15, 0.05], [0.3, 0.5, 0.2], [0.2, 0.3, 0.5]])
    votes = np.array([rng.multinomial(15, chances[k]) for k in kind])
    gold = np.where(rng.random(n) < 0.3, np.array(["none", "minor", "major"])[kind], "")
    table = pl.DataFrame(votes, ["n0", "n1", "n2"])
    table = table.with_columns(id=pl.int_range(n), a=rng.lognormal(2.5, 0.45, n), experts=gold)
    named = {"question": "stage", "answers": "none=n0,minor=n1,major=n2", "id": "id", "alpha": "a", "gold": "experts"}
    catalogue = prepare_catalogue(table, **named, out=tmp_path / "stages.parquet").catalogue
    first, asked = (estimate_transition(catalogue, gold="gold", question=one, seed=1) for one in (None, "stage"))
    assert first.to_dict() == asked.to_dict()
    assert first.fractions.classes == ("does not apply", "none", "minor", "major")
    true = np.bincount(kind) / n
    off = np.abs([first[f"{one} fraction"].total[1] for one in ("none", "minor", "major")] - true)
    assert off.max() < 0.06
    plans = [make_plan(catalogue, PlanOptions(budget=60, question=one)) for one in (None, "stage")]
    assert plans[0].selected.equals(plans[1].selected)
    with pytest.raises(InputError, match="stage"):
        write_report(out=tmp_path / "page.html", options=ReportOptions(catalogue=tmp_path / "stages.parquet"))
    with pytest.raises(InputError):
        prepare_catalogue(table, smooth="n0", disk="n1", classes="a,b,c", id="id", alpha="a")


def test_an_estimate_of_a_question_labels_a_catalogue(catalogue, estimated, tmp_path):
    report = label_galaxies(catalogue.with_name("bars.json"), catalogue, tmp_path / "labels.parquet")
    labels, frame = pl.read_parquet(report.out), pl.read_parquet(catalogue)
    t, p = estimated.transition, np.tile(estimated.fit.class_fractions, (frame.height, 1))
    asked = t.asked
    after = posterior(p, path_observations(frame, t, "here"), frame["alpha"].to_numpy(), t)
    columns = columns_of("posterior", asked.classes)
    np.testing.assert_allclose(labels.select(columns).to_numpy(), after, atol=1e-12)
    assert labels["posterior_label_bar"].to_list() == [asked.classes[k] for k in after.argmax(axis=1)]
    assert labels["observed_label_bar"].to_list() == frame["label_bar"].to_list()
    by_gold = labels.select(columns_of("regression", asked.answers))
    np.testing.assert_allclose(by_gold.sum_horizontal(), 1, rtol=1e-6)
