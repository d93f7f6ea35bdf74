"""Networks that answer questions of a decision tree: training through T(α) of paths, and tables of labels."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from truemorph import posterior
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.paths import path_observations
from truemorph.classifiers.callbacks import Unfinished
from truemorph.classifiers.learned import gold_evidence, learned_questions
from truemorph.config import run_config
from truemorph.errors import InputError
from truemorph.questions import columns_of
from truemorph.simulate import simulate_survey
from truemorph.simulate.pictures import write_jpegs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_tuning")]

N = 400
TINY = {"backbone": "test_resnet", "image_size": 32, "epochs": 2, "folds": 2, "batch_size": 32, "device": "cpu"}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A catalogue with images, votes and gold labels of bars and arms, and the estimates of both."""
    folder = tmp_path_factory.mktemp("survey")
    galaxies, votes = simulate_survey(N, seed=2, confounded=False)
    write_jpegs(galaxies, folder / "images", 32, 2)
    known = pl.Series(np.random.default_rng(0).random(N) < 0.6)
    gold = {f"{one}_known": pl.when(known).then(f"truth_{one}") for one in ("bar", "spiral")}
    votes = votes.with_columns(**gold)
    path = folder / "catalogue.parquet"
    tm.prepare_catalogue(votes, question="bar,spiral", images=folder / "images", out=path)
    for one in ("bar", "spiral"):
        tm.estimate_transition(path, question=one, gold=f"{one}_known", fraction_bins=2, out=folder / f"{one}.json")
    return folder


@pytest.fixture(scope="module")
def both(survey):
    """One network for both questions."""
    files = [survey / "bar.json", survey / "spiral.json"]
    return tm.train_classifier(survey / "catalogue.parquet", transition=files, out=survey / "both", settings=TINY).model


def test_one_network_answers_both_questions(both, survey):
    bar, spiral = both.heads
    assert (bar.question, bar.answers[0], spiral.question) == ("bar", "bar", "spiral")
    assert set(bar.classes) == {"smooth", "edge-on", "no bar", "bar"}
    assert len(set(both.classes)) == 8
    history = pl.read_csv(survey / "both" / "history.csv")
    assert {"fraction_bar_1", "fraction_spiral_arms_5", "cv14_excess_bar", "cv14_excess_spiral"} <= set(history.columns)
    again = tm.load(survey / "both")
    assert [head.question for head in again.heads] == ["bar", "spiral"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    p = again.probabilities(pixels)
    np.testing.assert_allclose(p[:, bar.part].sum(axis=1), 1)
    np.testing.assert_allclose(p[:, spiral.part].sum(axis=1), 1)


def test_gold_labels_of_one_of_two_questions_leave_the_votes_of_the_other(survey):
    """Networks are tuned on gold labels of bars, and learn arms from votes as before."""
    path = survey / "catalogue.parquet"
    catalogue, curves = (
        tm.read_table(path),
        [json.loads((survey / f"{one}.json").read_text()) for one in ("bar", "spiral")],
    )
    del curves[1]["gold_rule"]
    learned = learned_questions(read_catalogue(path), run_config(path, out="m"), curves)
    frame = catalogue.frame
    gold, observed = gold_evidence(learned, catalogue, frame), [one.evidence(frame, "here") for one in learned]
    known = frame["bar_known"].is_not_null().to_numpy()
    np.testing.assert_array_equal(gold.known, known)
    np.testing.assert_array_equal(gold.evidence[:, 4:], observed[1])
    np.testing.assert_array_equal(gold.evidence[~known, :4], observed[0][~known])
    classes = [list(learned[0].asked.classes).index(name) for name in frame["bar_known"].drop_nulls()]
    certain = np.where(np.eye(4, dtype=bool)[classes], 0, -np.inf)
    np.testing.assert_array_equal(gold.evidence[known, :4], certain)
    # Experts who call bars "no bar" leave these in doubt, more where resolution is poor.
    missed = {"theta": 8.0, "upper": 9.0, "called": {"no bar": 0.9, "does not apply": 0.1}}
    told = replace(catalogue, metadata=catalogue.metadata | {"gold_experts": {"bar_known": {"bar": missed}}})
    number, bar = (list(learned[0].asked.classes).index(name) for name in ("no bar", "bar"))
    called = (frame["bar_known"] == "no bar").fill_null(False).to_numpy()
    doubt, from_votes = (one[called] for one in (gold_evidence(learned, told, frame).evidence, observed[0]))
    expected = np.log(0.9) - frame["alpha"].to_numpy()[called] ** 2 / 128 + from_votes[:, bar] - from_votes[:, number]
    np.testing.assert_allclose((doubt[:, bar] - doubt[:, number])[expected > -100], expected[expected > -100])


def test_labels_of_all_questions_in_one_pass(both, survey):
    catalogue = survey / "catalogue.parquet"
    found = tm.label_galaxies(survey / "both", catalogue, out=survey / "labels.parquet")
    table = pl.read_parquet(found.out)
    assert table.height == found.rows_in == pl.read_parquet(catalogue).height
    for head in both.heads:
        p = table.select(columns_of("p", head.columns)).to_numpy()
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)  # engines compute in float32
        applies = p[:, head.numbers].sum(axis=1)
        np.testing.assert_allclose(table[head.name("p_applies")], applies)
        answer = head.columns[head.numbers[0]].replace(" ", "_")
        np.testing.assert_allclose(table[f"p_{answer}_given_applies"], p[:, head.numbers[0]] / applies)
        assert table[head.name("label")].to_list() == [head.classes[k] for k in p.argmax(axis=1)]
        given = next(
            fraction
            for fraction in found.fractions
            if fraction["class"] == f"{head.answers[0]} if {head.question} applies"
        )
        assert given["mean"] == pytest.approx(p[:, head.numbers[0]].sum() / applies.sum())
        assert given["estimate_low"] < given["estimate"] < given["estimate_high"]


@pytest.fixture(scope="module")
def with_label(survey):
    """One network for smooth or disk, and for bars."""
    curves = ["rayleigh:11.25", survey / "bar.json"]
    out = survey / "with_label"
    return tm.train_classifier(survey / "catalogue.parquet", transition=curves, out=out, settings=TINY).model


def test_one_network_answers_the_first_question_and_another(with_label, survey):
    label, bar = with_label.heads
    assert (label.question, label.columns, bar.question) == (None, ("smooth", "disk"), "bar")
    assert tm.load(survey / "with_label").heads == with_label.heads
    path = survey / "catalogue.parquet"
    table = pl.read_parquet(tm.label_galaxies(survey / "with_label", path, out=survey / "two.parquet").out)
    catalogue, curves = (
        pl.read_parquet(path),
        (tm.RayleighTransition(11.25), tm.Estimate.read(survey / "bar.json").transition),
    )
    seen = (catalogue["label"].to_numpy(), path_observations(catalogue, curves[1], "here"))
    for head, curve, given in zip((label, bar), curves, seen, strict=True):
        p = table.select(columns_of("p", head.columns)).to_numpy()
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
        after = table.select(columns_of("posterior", head.columns)).to_numpy()
        np.testing.assert_allclose(after, posterior(p, given, catalogue["alpha"].to_numpy(), curve), rtol=1e-9)
    assert table["label"].to_list() == table.select("p_smooth", "p_disk").to_numpy().argmax(axis=1).tolist()
    estimates = [tm.estimate_transition(path, compare=False), survey / "bar.json"]
    options = tm.ReportOptions(labels=[survey / "two.parquet"], catalogue=path, maps=0, bootstrap=0)
    report = tm.write_report(survey / "with_label", *estimates, out=survey / "two.html", options=options)
    told = {one["question"]: {row["labels"] for row in one["table"]} for one in report.content["questions"]}
    assert {"with_label: posterior"} <= told[None] & told["bar"]


def test_bars_are_learned_through_the_bias(survey):
    """From features that tell the true class, p(bar | applies) is right where volunteers see half of the bars."""
    estimate = tm.estimate_transition(survey / "catalogue.parquet", question="bar", gold="truth_bar")
    catalogue = pl.read_parquet(survey / "catalogue.parquet")
    truth = catalogue["truth_bar"].replace_strict({one: k for k, one in enumerate(estimate.curve.classes)}).to_numpy()
    features = np.eye(4)[truth] + np.random.default_rng(1).normal(0, 0.3, (truth.size, 4))
    path, names = survey / "features.parquet", [f"f{k}" for k in range(4)]
    frame = catalogue.with_columns(**dict(zip(names, features.T, strict=True)), split=pl.lit("train"))
    tm.write_table(replace(tm.read_table(survey / "catalogue.parquet"), frame=frame), path)
    options = {"preset": "dcv14", "settings": {"features": names, "folds": 1}, "out": survey / "regression"}
    model = tm.train_classifier(path, transition=estimate.to_dict(), **options).model
    p = model.probabilities(features)
    naive = catalogue["votes_bar_bar"].sum() / (catalogue["votes_bar_bar"] + catalogue["votes_bar_no_bar"]).sum()
    true = np.mean(truth[truth >= 2] == 3)
    assert abs(p[:, 3].sum() / p[:, 2:].sum() - true) < 0.05 < abs(naive - true)


def test_logistic_regression_answers_several_questions(survey):
    """Each question has its own coefficients, those that it would have alone."""
    files = [survey / "bar.json", "rayleigh:11.25"]
    options = {"preset": "dcv14", "settings": {"features": ["M_r", "redshift"], "folds": 1}}
    both, *single = (
        tm.train_classifier(survey / "catalogue.parquet", transition=some, out=survey / f"dcv14_{k}", **options).model
        for k, some in enumerate((files, *files))
    )
    x = np.random.default_rng(3).normal(size=(5, 2))
    np.testing.assert_allclose(both.probabilities(x), np.hstack([one.probabilities(x) for one in single]), rtol=1e-6)
    found = tm.label_galaxies(survey / "dcv14_0", survey / "catalogue.parquet", out=survey / "dcv14.parquet")
    assert {"p_bar_given_applies", "p_disk", "posterior_bar", "posterior_disk"} <= {*pl.read_parquet(found.out).columns}


def test_naive_training_takes_the_majority_path_as_correct(survey):
    options = {"labels": "naive", "question": "bar", "settings": TINY, "out": survey / "naive"}
    with pytest.raises(InputError, match="merger"):
        tm.train_classifier(survey / "catalogue.parquet", **options | {"question": "merger"})
    model = tm.train_classifier(survey / "catalogue.parquet", **options).model
    assert model.heads[0].classes == ("smooth", "edge-on", "no bar", "bar", "artifact")
    table = pl.read_parquet(
        tm.label_galaxies(survey / "naive", survey / "catalogue.parquet", out=survey / "n.parquet").out
    )
    assert "posterior_label_bar" not in table.columns


@pytest.fixture(scope="module")
def stages(survey):
    """A catalogue of three answers without a decision tree, and its estimate from gold labels."""
    rng, source = np.random.default_rng(4), pl.read_parquet(survey / "catalogue.parquet")
    kind = rng.choice(3, source.height, p=(0.5, 0.3, 0.2))
    chances = np.array([[0.8, 0.15, 0.05], [0.3, 0.5, 0.2], [0.2, 0.3, 0.5]])[kind]
    counts = np.array([rng.multinomial(15, chance) for chance in chances])
    names = pl.Series(kind).replace_strict(dict(enumerate(STAGES)), return_dtype=pl.String)
    columns = {f"n_{name}": counts[:, k] for k, name in enumerate(STAGES)}
    table = source.select("object_id", "alpha", "M_r").with_columns(expert=names, **columns)
    answers = ",".join(f"{name}=n_{name}" for name in STAGES)
    path = survey / "stages.parquet"
    options = {"question": "stage", "answers": answers, "id": "object_id", "alpha": "alpha", "gold": "expert"}
    tm.prepare_catalogue(table, images=survey / "images", out=path, **options)
    tm.estimate_transition(path, gold="gold", out=survey / "stages.json")
    return path


STAGES = ("none", "minor", "major")
OF_STAGES = {
    "through T": {"settings": TINY | {"epochs": 1, "folds": 2}},
    "naive": {"labels": "naive", "settings": TINY | {"epochs": 1, "folds": 2}},
    "gold alone": {"labels": "gold", "settings": TINY | {"epochs": 1, "folds": 2}},
    "logistic": {"preset": "dcv14", "settings": {"features": ["M_r"], "folds": 2}},
}


@pytest.mark.parametrize("way", OF_STAGES)
def test_three_answers_without_a_tree_are_learned_labelled_and_shown(way, stages, survey):
    run, options = survey / f"stages {way}", OF_STAGES[way]
    estimate = () if "labels" in options else survey / "stages.json"
    model = tm.train_classifier(stages, transition=estimate, out=run, **options).model
    (head,) = model.heads
    assert (head.question, head.classes, head.numbers) == ("stage", STAGES, (0, 1, 2))
    labels = tm.label_galaxies(run, stages, out=survey / f"stages {way}.parquet").out
    p = pl.read_parquet(labels).select(columns_of("p", STAGES)).to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert f"stages {way}" in tm.measure_bias(stages, labels=[labels]).to_dict()["results"]
    helped = tm.estimate_transition(stages, gold="gold", labels=[labels])
    assert helped.about["other_labels"] == [f"stages {way}"]
    options = tm.ReportOptions(catalogue=stages, maps=0, bootstrap=0)
    report = tm.write_report(run, survey / "stages.json", out=survey / "stages.html", options=options)
    (question,) = report.content["questions"]
    assert {f"stages {way}: labels", "gold labels"} <= {row["labels"] for row in question["table"]}


def test_three_answers_without_gold_labels_are_refused(stages, survey):
    for options in ({"settings": TINY}, {"preset": "dcv14", "settings": {"features": ["M_r"]}}):
        with pytest.raises(InputError, match="`gold`"):
            tm.train_classifier(stages, out=survey / "refused", **options)


def test_an_unfinished_run_of_another_question_is_not_resumed(survey, tmp_path, monkeypatch):
    options = {"labels": "naive", "settings": TINY | {"epochs": 1, "folds": 1}, "out": tmp_path / "naive"}
    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "finish", lambda *_: pytest.fail("cut"))
        with pytest.raises(pytest.fail.Exception):
            tm.train_classifier(survey / "catalogue.parquet", question="bar", **options)
    kept = {one: one.read_bytes() for one in options["out"].rglob("*") if one.is_file()}
    with pytest.raises(InputError):
        tm.train_classifier(survey / "catalogue.parquet", question="spiral", **options)
    assert kept == {one: one.read_bytes() for one in options["out"].rglob("*") if one.is_file()} != {}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"question": "bar"}, "naive"),
        ({"transition": ["rayleigh:11", "bar.json", "rayleigh:12"]}, "twice"),
        ({"transition": ["bar.json", "bar.json"]}, "bar"),
        ({"labels": "naive", "question": ["bar", "bar"]}, "bar"),
        ({"labels": "bar_known", "question": ["bar", "spiral"]}, "one question"),
        ({"transition": ["bar.json"], "labels": "gold"}, "labels"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(options, says, dry_run, survey, monkeypatch):
    monkeypatch.chdir(survey)
    with pytest.raises(InputError, match=says):
        tm.train_classifier("catalogue.parquet", out="no", settings=TINY, dry_run=dry_run, **options)
    assert not (survey / "no").exists()
