"""The report on questions: it quotes the fractions that it is given, to the digit."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from truemorph import (
    Asked,
    Classifier,
    Estimate,
    MatrixTransition,
    ReportOptions,
    debiased_fractions,
    estimate_transition,
    posterior,
    prepare_catalogue,
    read_table,
    read_tree,
    write_report,
    write_table,
)
from truemorph.bias.curves.families import transition_to_dict
from truemorph.catalogs.paths import path_labels, path_observations
from truemorph.classifiers.classifier import describe
from truemorph.config import training_config
from truemorph.errors import InputError
from truemorph.questions import columns_of, heads_of
from truemorph.report.figures import bias_curve
from truemorph.report.gallery import PICTURE, changed_galaxies
from truemorph.report.gather import gather
from truemorph.report.tables import confusion_table
from truemorph.tables import CatalogTable


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    """A catalogue with the votes for bars and arms, and files of the fractions of both."""
    folder, rng, n = tmp_path_factory.mktemp("questions"), np.random.default_rng(0), 900
    kind = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    alpha = rng.lognormal(2.6, 0.4, n)
    disk = rng.binomial(30, np.where(kind > 0, 0.3 + 0.5 * (alpha > 13), 0.2))
    bar = rng.binomial(disk, np.where(kind == 2, 0.6, 0.1))
    arms = rng.binomial(disk, 0.5)
    stems = {"01_smooth_or_features_a01_smooth": 30 - disk, "01_smooth_or_features_a02_features_or_disk": disk}
    stems |= {"01_smooth_or_features_a03_star_or_artifact": 0 * disk, "02_edgeon_a04_yes": 0 * disk}
    stems |= {"02_edgeon_a05_no": disk, "03_bar_a06_bar": bar, "03_bar_a07_no_bar": disk - bar}
    stems |= {"04_spiral_a08_spiral": arms, "04_spiral_a09_no_spiral": disk - arms}
    table = pl.DataFrame({f"t{stem}_count": votes for stem, votes in stems.items()} | {"objid": range(n)})
    smooth = "t01_smooth_or_features_a01_smooth_weighted_fraction"
    known = pl.Series(np.where(rng.random(n) < 0.3, kind, -1)).replace(-1, None)
    table = table.with_columns((1 - pl.Series(disk) / 30).alias(smooth), alpha=alpha, kind=known)
    prepare_catalogue(table, question="bar,spiral", preset="gz2", alpha="alpha", out=folder / "cat.parquet")
    rules = {"bar": "applies: kind >= 1; bar: kind = 2", "spiral": "applies: kind >= 1; spiral arms: kind = 1"}
    for question, rule in rules.items():
        estimate_transition(
            folder / "cat.parquet", question=question, gold=rule, fraction_bins=4, out=folder / f"{question}.json"
        )
    return folder


def test_the_page_quotes_the_fractions_that_it_is_given(galaxies):
    given = Estimate.read(galaxies / "bar.json").fractions
    found = write_report(galaxies / "bar.json", out=galaxies / "page.html")
    page = (galaxies / "page.html").read_text(encoding="utf-8")
    one = given["bar fraction"]
    for b in range(4):
        assert all(f">{values[b]:.3f}</td>" in page for values in (one.fraction, one.stderr, one.low, one.high))
        assert f"{given.gold_counts[b]}" in page
    assert f"{one.total[1]:.3f}" in found.content["answer"]
    told = found.content["questions"][0]["transition"]["fractions"]
    assert {name: told[name] for name in given.to_dict()} == given.to_dict()
    assert (galaxies / "page_files" / "report.json").is_file()
    assert {path.suffix for path in (galaxies / "page_files" / "figures").iterdir()} == {".pdf", ".png", ".ecsv"}


def test_a_column_that_is_called_as_gold_labels_but_means_something_else_gives_way_to_the_estimates_rule(galaxies):
    table = read_table(galaxies / "cat.parquet")
    named = replace(table, frame=table.frame.with_columns(gold_bar=pl.col("kind") == 2))
    path = write_table(named, galaxies / "named.parquet")
    options = ReportOptions(catalogue=path, bootstrap=0, maps=0)
    (evidence,) = gather([galaxies / "bar.json"], options, galaxies / "named_files")
    assert evidence.truth is not None
    assert evidence.truth.known.sum() == table.frame["kind"].count()


def test_confusion_is_that_of_galaxies_to_which_the_question_applies_by_both_labels(galaxies):
    table, rng = read_table(galaxies / "cat.parquet"), np.random.default_rng(4)
    wrong = (pl.col("kind") >= 1) & pl.Series(rng.random(len(table.frame)) < 0.5)
    frame = table.frame.with_columns(
        alpha=pl.col("alpha").shuffle(seed=0), kind=pl.when(wrong).then(3 - pl.col("kind")).otherwise("kind")
    )
    path = write_table(replace(table, frame=frame), galaxies / "shuffled.parquet")
    options = ReportOptions(catalogue=path, bootstrap=0, maps=0)
    (evidence,) = gather([galaxies / "bar.json"], options, galaxies / "confusion_files")
    shown = confusion_table(evidence)
    shares, numbers = [], []
    ends = np.quantile(frame["alpha"], [0.2, 0.8])
    for fifth in (frame.filter(pl.col("alpha") < ends[0]), frame.filter(pl.col("alpha") > ends[1])):
        gold = fifth.filter(pl.col("kind") >= 1)
        numbers.append(len(gold))
        for kind, name in ((2, "bar"), (1, "no bar")):
            labels = gold.filter(pl.col("label_bar") != "smooth", kind=kind)["label_bar"]
            shares.append((labels == name).mean())
    assert all(0 < share < 1 for share in shares)
    assert shown.rows[0][1:] == [f"{share:.3f}" for share in shares]
    assert all(f" {number} " in title for number, (title, _) in zip(numbers, shown.groups[1:], strict=True))


@pytest.mark.slow
def test_several_questions_begin_with_one_table_and_a_catalogue_shows_who_was_asked(galaxies):
    names = ("bar", "spiral")
    options = ReportOptions(catalogue=galaxies / "cat.parquet")
    found = write_report(*(galaxies / f"{name}.json" for name in names), out=galaxies / "two.html", options=options)
    assert [one["question"] for one in found.content["questions"]] == list(names)
    page = (galaxies / "two.html").read_text(encoding="utf-8")
    frame = pl.read_parquet(galaxies / "cat.parquet").sort("alpha")
    lowest = frame.head(round(frame.height / 5))["label_bar"].is_in(["bar", "no bar"]).mean()
    assert f"{lowest:.3f}" in page
    few = frame.head(round(frame.height / 5)).with_columns(n=pl.col("votes_bar_bar") + pl.col("votes_bar_no_bar"))
    asked = few.filter(pl.col("n") >= 10)
    assert f"{asked.height / few.height:.3f}" in page
    assert f"{(asked['votes_bar_bar'] > asked['votes_bar_no_bar']).mean():.3f}" in page


@pytest.mark.slow
def test_labels_of_others_are_shown_in_the_bins_of_the_estimate(galaxies):
    frame = pl.read_parquet(galaxies / "cat.parquet")
    ids, alpha, disk = (frame[one].to_numpy() for one in ("object_id", "alpha", "votes_smooth_disk"))
    rng = np.random.default_rng(1)
    p = {"bar": rng.random(ids.size), "disk": np.clip(disk / 30, 0.02, 0.98)}
    parts = {"smooth-or-featured-gz2_smooth": 1 - p["disk"], "smooth-or-featured-gz2_featured-or-disk": p["disk"]}
    parts |= {"smooth-or-featured-gz2_artifact": 0 * alpha, "disk-edge-on-gz2_yes": 0 * alpha}
    parts |= {"disk-edge-on-gz2_no": 1 + 0 * alpha, "bar-gz2_yes": p["bar"], "bar-gz2_no": 1 - p["bar"]}
    table = pl.DataFrame({f"{name}_pred": values for name, values in parts.items()} | {"id_str": ids})
    table.write_csv(galaxies / "zoobot.csv")
    options = ReportOptions(catalogue=galaxies / "cat.parquet", labels=[galaxies / "zoobot.csv"])
    found = write_report(galaxies / "bar.json", out=galaxies / "others.html", options=options)
    given = Estimate.read(galaxies / "bar.json").fractions
    b = np.digitize(alpha, given.edges[1:-1])
    soft = [np.sum((p["disk"] * p["bar"])[b == k]) / np.sum(p["disk"][b == k]) for k in range(4)]
    hard = [np.mean(p["bar"][(b == k) & (p["disk"] > 0.5)] > 0.5) for k in range(4)]
    shown = read_table(galaxies / "others_files" / "figures" / "fractions_bar.ecsv").frame
    np.testing.assert_allclose(shown["zoobot, fractions"], soft, rtol=1e-6)
    np.testing.assert_allclose(shown["zoobot"], hard, atol=0.02)  # ties at p(disk) = 1/2
    rows = {row["labels"]: row for row in found.content["fractions"]}
    assert rows["zoobot, fractions"]["lowest"] == pytest.approx(soft[0])
    with pytest.raises(InputError):
        write_report(galaxies / "bar.json", out=galaxies / "no.html", options=ReportOptions(labels=options.labels))
    by_two = estimate_transition(
        galaxies / "cat.parquet", question="bar", gold="applies: kind >= 1; bar: kind = 2", by="votes_smooth_disk,alpha"
    )
    again = write_report(by_two, out=galaxies / "two_columns.html", options=options)
    drawn = read_table(galaxies / "two_columns_files" / "figures" / "fractions_bar.ecsv").frame
    assert drawn["zoobot"].len() == len(again.content["questions"][0]["bins"]) == by_two.fractions.counts.size


def test_other_files_are_refused(galaxies, tmp_path):
    with pytest.raises(InputError):
        write_report(galaxies / "bar.json", tmp_path / "model", out=tmp_path / "page.html")
    with pytest.raises(InputError):
        write_report(galaxies / "bar.json", out=tmp_path / "page.pdf")
    labels = np.repeat([0, 1], 60)
    plain = debiased_fractions(labels, np.arange(1.0, 121), gold=labels, bins=1)
    with pytest.raises(InputError):
        write_report(plain, out=tmp_path / "page.html")
    (tmp_path / "other.json").write_text('{"quantities": {}}')
    with pytest.raises(InputError):
        write_report(tmp_path / "other.json", out=tmp_path / "page.html")


@pytest.mark.slow
def test_galaxies_whose_answer_changes_follow_from_the_estimate_and_their_votes(galaxies):
    estimate = Estimate.read(galaxies / "bar.json")
    options = ReportOptions(catalogue=galaxies / "cat.parquet", bootstrap=0)
    found = write_report(estimate, out=galaxies / "changes.html", options=options)
    frame = pl.read_parquet(galaxies / "cat.parquet")
    fractions, transition = estimate.fractions, estimate.transition
    assert transition.asked.classes == fractions.classes == ("does not apply", "no bar", "bar")
    prior = fractions.fractions[np.digitize(frame["alpha"], fractions.edges[1:-1])]
    p = after_votes(prior, frame, transition)
    changed = p.argmax(axis=1) != path_labels(frame, transition.asked, "here")
    assert 0 < changed.sum() == found.content["questions"][0]["changed"] < frame.height
    listed = read_table(galaxies / "changes_files" / "changed_bar.ecsv").frame
    assert sorted(listed["object_id"]) == sorted(frame["object_id"].cast(pl.String).filter(pl.Series(changed)))
    of = dict(zip(frame["object_id"].cast(pl.String), p, strict=True))
    expected = np.array([of[one] for one in listed["object_id"]])
    np.testing.assert_allclose(listed.select(columns_of("posterior", fractions.classes)).to_numpy(), expected)
    assert listed["most_probable"].to_list() == [fractions.classes[k] for k in expected.argmax(axis=1)]
    assert (np.diff(expected.max(axis=1)) <= 1e-12).all()
    page = (galaxies / "changes.html").read_text(encoding="utf-8")
    lost = (path_labels(frame, transition.asked, "here") == 0) & (p.argmax(axis=1) == 2)
    assert f">{lost.sum():,}</td>" in page


def after_votes(p, frame, transition):
    """Posterior probabilities of the galaxies of a catalogue, given their votes."""
    return posterior(p, path_observations(frame, transition, "here"), frame["alpha"].to_numpy(), transition)


def network(folder, name, questions, curves, seed):
    """A network that answers questions, without weights, and a table of its labels with random probabilities."""
    heads = heads_of(questions)
    described = describe(
        training_config("quick"),
        curves[0],
        further_transitions=curves[1:],
        questions=[question.to_dict() for question in questions],
        classes=[column for head in heads for column in head.columns],
        catalogue={},
        members=1,
        metrics={},
        normalisation={},
    )
    model = Classifier(described, [{}], pl.DataFrame(), model_hash=name)
    ids = pl.read_parquet(folder / "cat.parquet")["object_id"]
    rng, columns = np.random.default_rng(seed), {"object_id": ids}
    for head in heads:
        p = rng.dirichlet(np.ones(len(head.classes)), ids.len())
        columns |= dict(zip(columns_of("p", head.columns), p.T, strict=True))
    labels = pl.DataFrame(columns).with_columns(relation=pl.lit("out_of_fold"))
    write_table(CatalogTable(labels, metadata={"model_hash": name}), folder / f"{name}.parquet")
    return model, labels


@pytest.mark.slow
def test_networks_stand_beside_the_estimates_of_their_questions(galaxies):
    frame, tree = pl.read_parquet(galaxies / "cat.parquet"), read_tree("gz2")
    estimates = {one: Estimate.read(galaxies / f"{one}.json") for one in ("bar", "spiral")}
    curves, questions = (
        [estimate.to_dict() for estimate in estimates.values()],
        [estimate.transition.asked for estimate in estimates.values()],
    )
    both, labels = network(galaxies, "both", questions, curves, 1)
    whole = Asked(tree, "bar")
    correct = transition_to_dict(MatrixTransition.identity(len(whole.classes))) | {"question": "bar"}
    naive, of_naive = network(galaxies, "naive", [whole], [correct], 2)
    files = [galaxies / f"{one}.parquet" for one in ("both", "naive")]
    given = ReportOptions(catalogue=galaxies / "cat.parquet", labels=files, maps=0, bootstrap=0)
    found = write_report(naive, both, *estimates.values(), out=galaxies / "nets.html", options=given)
    page = (galaxies / "nets.html").read_text(encoding="utf-8")
    rows = {(row["fraction"], row["labels"]): row for row in found.content["fractions"]}
    index = np.digitize(frame["alpha"].to_numpy(), estimates["bar"].fractions.edges[1:-1])
    shares = {("bar fraction", "model 1"): of_naive.select("p_bar", "p_no_bar")}
    # Of the network through T those given the votes.
    after = {}
    for head, answers in zip(both.heads, (["bar", "no bar"], ["spiral arms", "no spiral arms"]), strict=True):
        p, through = labels.select(columns_of("p", head.columns)).to_numpy(), estimates[head.question].transition
        after[head.question] = after_votes(p, frame, through)
        chosen = after[head.question][:, [head.classes.index(answer) for answer in answers]]
        shares[f"{answers[0]} fraction", "model 2"] = pl.DataFrame(chosen, schema=answers)
    for key, p in shares.items():
        sums = np.array([p.to_numpy()[index == b].sum(axis=0) for b in range(4)])
        by_bin = sums[:, 0] / sums.sum(axis=1)
        np.testing.assert_allclose([rows[key]["lowest"], rows[key]["highest"]], by_bin[[0, -1]])
        assert all(f">{value:.3f}</td>" in page for value in by_bin)
        assert rows[key]["all"] == pytest.approx(sums[:, 0].sum() / sums.sum())
    one = estimates["bar"].fractions["bar fraction"]
    assert rows["bar fraction", "corrected"]["lowest_range"] == [one.low[0], one.high[0]]
    # Random probabilities, with votes through T: the last network through T gives each galaxy's most probable class.
    changed = after["bar"].argmax(axis=1) != path_labels(frame, estimates["bar"].transition.asked, "here")
    assert found.content["questions"][0]["changed"] == changed.sum()
    for figure in bias_curve(found.evidence[0]).figure:  # three classes by two curves, of long names
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    problems = {(one["code"], one["severity"]) for one in found.content["findings"]}
    assert ("labels-not-predicted", "problem") in problems  # random probabilities do not predict the votes
    assert not any(code == "labels-treated-as-correct" for code, _ in problems)
    with pytest.raises(InputError):  # labels of a network that is not given
        write_report(naive, estimates["bar"], out=galaxies / "naive.html", options=given)


def test_a_pictures_p_of_a_merged_answer_is_the_sum_of_what_was_merged(galaxies):
    estimate = Estimate.read(galaxies / "bar.json")
    model, labels = network(galaxies, "merged", [estimate.transition.asked], [estimate.to_dict()], 6)
    transition = estimate.transition
    p, ratios = labels.select("p_bar", "p_no_bar").to_numpy(), []
    for groups in ([[1], [2]], [[1, 2]]):  # bars; all answers merged into one
        merged = replace(transition, asked=transition.asked.merged(groups))
        one = replace(estimate, fit=replace(estimate.fit, transition=merged))
        options = ReportOptions(catalogue=galaxies / "cat.parquet", labels=[galaxies / "merged.parquet"], maps=0)
        (evidence,) = gather([model, one], options, galaxies)
        ratios.append(changed_galaxies(evidence, 0).frame[PICTURE].to_numpy())
    np.testing.assert_allclose(ratios[0], p[:, 0] / p.sum(axis=1))
    np.testing.assert_allclose(ratios[1], 1.0)


@pytest.mark.slow
def test_networks_that_answer_different_questions_are_on_one_page(galaxies):
    models, estimates = [], []
    for seed, question in enumerate(("bar", "spiral"), 5):
        estimate, folder = Estimate.read(galaxies / f"{question}.json"), galaxies / f"net-{question}"
        folder.mkdir()
        (folder / "run.toml").touch()
        pl.DataFrame({"epoch": [0, 1], "held_out_loss": [0.7, 0.6]}).write_csv(folder / "history.csv")
        model, _ = network(galaxies, folder.name, [estimate.transition.asked], [estimate.to_dict()], seed)
        described = model.described | {"catalogue": {"sha256": "of both"}}
        models.append(replace(model, folder=folder, described=described))
        estimates.append(estimate)
    files = [galaxies / f"{model.folder.name}.parquet" for model in models]
    options = ReportOptions(catalogue=galaxies / "cat.parquet", labels=files, maps=0, bootstrap=0)
    found = write_report(*models, *estimates, out=galaxies / "apart.html", options=options)
    rows = {(row["question"], row["labels"]) for row in found.content["fractions"]}
    assert {("bar", "net-bar"), ("spiral", "net-spiral")} <= rows
    assert (galaxies / "apart_files" / "figures" / "training_1.pdf").is_file()


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (("bar.json", "bar.json"), {}),  # one question twice
        (("bar.json",), {"gold": ["nothing: alpha > 3"]}),  # of no question
        (("bar.json",), {"better": "no folder"}),
    ],
)
def test_what_does_not_go_together_is_refused(given, options, galaxies, tmp_path):
    options = {name: galaxies / option if name == "better" else option for name, option in options.items()}
    chosen = ReportOptions(catalogue=galaxies / "cat.parquet", **options)
    with pytest.raises(InputError):
        write_report(*(galaxies / one for one in given), out=tmp_path / "page.html", options=chosen)


def test_networks_without_their_estimate_are_refused(galaxies):
    """A naive one doesn't hold any."""
    asked = Asked(read_tree("gz2"), "spiral")
    correct = transition_to_dict(MatrixTransition.identity(len(asked.classes))) | {"question": "spiral"}
    model, _ = network(galaxies, "lone", [asked], [correct], 4)
    options = ReportOptions(catalogue=galaxies / "cat.parquet", labels=[galaxies / "lone.parquet"])
    with pytest.raises(InputError, match="spiral"):
        write_report(model, Estimate.read(galaxies / "bar.json"), out=galaxies / "no.html", options=options)
