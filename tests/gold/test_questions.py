"""Gold labels for a question of a decision tree: plans, answers along its gates, and fractions from them."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes, done
from gold.conftest import ENDS, give, prepared
from truemorph import Asked, read_tree
from truemorph.bias.binning import Bins
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.errors import InputError
from truemorph.gold.answers import read_answers
from truemorph.gold.choices import answer_of_path, choices_of, label_of_path, levels_of
from truemorph.gold.importing import gold_columns_of, with_gold
from truemorph.gold.plan import PlanOptions, make_plan, read_plan
from truemorph.gold.server import make_app
from truemorph.gold.session import open_session
from truemorph.gold.strata import Strata
from truemorph.questions import NOT_APPLICABLE, SMOOTH_OR_DISK, Quantity
from truemorph.tables import CatalogTable

GZ2 = read_tree("gz2")
BAR = Asked(GZ2, "bar")
CLASSES, QUANTITIES = BAR.answers, BAR.quantities


@pytest.fixture(scope="module")
def bars():
    return prepared()


@pytest.fixture(scope="module")
def pilot(bars):
    """The catalogue with gold labels of a fifth of its galaxies, and which these are."""
    catalogue, truth = bars
    known = np.random.default_rng(1).random(truth.size) < 0.2
    gold = pl.Series("gold_bar", np.where(known, ENDS[truth], "")).replace("", None)
    return CatalogTable(catalogue.frame.with_columns(gold), metadata=catalogue.metadata), known


@pytest.fixture
def answered(of_bars):
    """The plan's folder with Ann's answers, and the classes of its galaxies, which she gave."""
    folder, classes = of_bars
    give(folder, "Ann", classes)
    return folder, classes


def rows_of(found):
    """Rows of the catalogue of an import, by id."""
    return {str(row["object_id"]): row for row in found.catalogue.frame.iter_rows(named=True)}


def fraction(classes, weights, bins):
    return bins.sums(weights * (classes == 3)) / bins.sums(weights * (classes >= 2))


def test_a_plan_for_a_question_draws_from_all_galaxies(bars):
    catalogue, _ = bars
    plan = tm.plan_gold(catalogue, question="bar", error=0.08, bins=4)
    assert plan.frame["probability"].min() > 0
    weights = 1 / plan.selected["probability"].to_numpy()
    assert weights.max() < 10.001 * weights.mean()
    asked = plan.frame.filter(catalogue.frame["label_bar"].is_in(["no bar", "bar"]))
    assert 0 < asked["position"].count() < plan.selected.height
    assert 0.07 < plan.predicted.max() <= 0.08
    described = plan.to_dict()
    assert (described["question"], described["quantity"]) == ("bar", "bar fraction")
    assert described["classes"] == list(CLASSES)
    assert read_tree(described["tree"]) == GZ2
    assert "bar fraction" in plan.summary()
    assert np.all(plan.comparison["planned"].to_numpy() < plan.comparison["random"].to_numpy())
    again = tm.plan_gold(catalogue, question="bar", error=0.08, bins=4)
    assert plan.frame.equals(again.frame)


def test_predicted_errors_of_a_quantity_are_the_scatter_over_plans():
    """Errors of the ratio of weighted sums, in units of those predicted; classes follow the probabilities."""
    rng = np.random.default_rng(3)
    n = 3_000
    alpha = rng.lognormal(2.6, 0.45, n)
    label = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    probabilities = np.array([[0.6, 0.25, 0.15], [0.1, 0.7, 0.2], [0.05, 0.15, 0.8]])[label]
    cut = Bins.cut(alpha, 4)
    strata = Strata.of(label, cut, probabilities, QUANTITIES[:1])
    drawn = strata.for_budget(400)
    errors = np.empty((100, 4))
    for seed in range(100):
        one = np.random.default_rng([seed, 5])
        truth = (one.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
        order = one.permutation(n)
        order = order[np.argsort(strata.index[order], kind="stable")]
        rank = np.arange(n) - np.searchsorted(strata.index[order], strata.index[order])
        chosen = np.zeros(n)
        chosen[order] = rank < drawn[strata.index[order]]
        weights = chosen * (strata.sizes / drawn)[strata.index]
        classes = truth + 1
        errors[seed] = fraction(classes, weights, cut) - fraction(classes, np.ones(n), cut)
    pulls = errors / strata.errors(drawn)
    # The rms of 100 plans of 4 bins has an error of 4 %.
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1, abs=0.2)
    assert abs(pulls.mean()) < 4 / np.sqrt(pulls.size)


def test_of_two_classes_the_spread_is_that_of_the_class():
    rng = np.random.default_rng(0)
    alpha, p_disk, label = rng.lognormal(2.6, 0.45, 800), rng.random(800), rng.integers(0, 2, 800)
    strata = Strata.of(label, Bins.cut(alpha, 4), np.column_stack([1 - p_disk, p_disk]), [Quantity("", (0.0, 1.0))], 3)
    mean = np.bincount(strata.index, p_disk) / strata.sizes
    np.testing.assert_allclose(strata.spread, np.sqrt(np.clip(mean * (1 - mean), 0.02 * 0.98, None)), rtol=1e-12)


@pytest.mark.slow
def test_a_pilot_predicts_the_classes(bars, pilot):
    table, known = pilot
    plan, blind = (make_plan(one, PlanOptions(error=0.08, bins=4, question="bar")) for one in (table, bars[0]))
    assert (plan.about["pilot"], blind.about["pilot"]) == (known.sum(), 0)
    assert plan.selected.height != blind.selected.height


def test_a_model_of_the_question_predicts_the_answers(bars):
    """Galaxies whose answer it doubts are chosen more often, at the same number of gold labels."""
    catalogue, truth = bars
    names, doubted = np.array(ENDS)[truth], np.random.default_rng(3).random(truth.size) < 0.5
    bar = np.where(doubted, 0.5, np.clip(names == "bar", 0.02, 0.98))
    labels = {"p_applies_bar": 0.97, "p_bar_given_applies": bar, "p_no_bar_given_applies": 1 - bar}
    table = catalogue.frame.select("object_id", label=pl.lit("")).with_columns(
        **{name: pl.lit(value) if np.isscalar(value) else pl.Series(value) for name, value in labels.items()}
    )
    rates = {}
    for name, given in (("model", {"labels": table}), ("blind", {})):
        plan = tm.plan_gold(catalogue, question="bar", budget=300, **given)
        chosen = plan.frame["position"].is_not_null().to_numpy()
        rates[name] = chosen[doubted].mean() / chosen[~doubted].mean()
    # Strata are thirds of p(bar), which mix galaxies, and no class is taken as surer than 11 %.
    assert rates["model"] > 1.1 > rates["blind"] > 0.9
    with pytest.raises(InputError, match="p_applies_bar"):
        tm.plan_gold(catalogue, question="bar", labels=table.drop("p_applies_bar"))


@pytest.mark.slow
def test_an_estimate_predicts_the_answers(bars, pilot):
    (catalogue, _), (table, known) = bars, pilot
    estimate = tm.estimate_transition(table, question="bar", gold="gold_bar", fraction_bins=4)
    plan, blind = (
        tm.plan_gold(catalogue, budget=100, bins=4, question="bar", estimate=one) for one in (estimate, None)
    )
    # The error that gold labels of random galaxies have by the estimate itself, scaled to as many labels.
    reached = estimate.fractions["bar fraction"].stderr * np.sqrt(known.sum() / plan.selected.height)
    assert 0.5 < plan.predicted.max() / reached.max() < 1.3
    assert (plan.predicted != blind.predicted).all()
    with pytest.raises(InputError):
        tm.plan_gold(catalogue, budget=100, estimate=estimate)


def test_what_a_plan_for_a_question_cannot_use_is_refused(bars, catalogue):
    labels = pl.DataFrame({"object_id": bars[0].frame["object_id"], "label": 1, "p_disk": 0.5})
    for table, options in ((bars[0], {"labels": labels}), (bars[0], {"question": "spiral"}), (catalogue, {})):
        with pytest.raises(InputError):
            tm.plan_gold(table, **{"question": "bar", "budget": 60, **options})


def test_answers_along_the_gates_are_classes_and_labels_of_every_question_on_the_way():
    choices = choices_of(GZ2, "bar")
    assert list(choices) == [*ENDS, "cannot tell", "disk, cannot tell", "unclear", "artefact"]
    labels = {name: label_of_path(GZ2, path, SMOOTH_OR_DISK) for name, path in choices.items()}
    assert labels == {
        "smooth": "smooth", "unclear": "unclear", "artefact": "artefact",
        **dict.fromkeys(("edge-on", "no bar", "bar", "cannot tell", "disk, cannot tell"), "disk"),
    }  # fmt: skip
    of_gate = {one: answer_of_path("edge-on", path, ("smooth", "edge-on")) for one, path in choices.items()}
    assert of_gate == {
        "smooth": "does not apply", "edge-on": "edge-on", "no bar": "not edge-on", "bar": "not edge-on",
        "cannot tell": "not edge-on", "disk, cannot tell": "unclear", "unclear": "unclear",
        "artefact": "does not apply",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gz2", "gz-desi", "gz-hubble", "gz-candels"])
def test_every_class_of_every_question_can_be_reached_on_the_page(name):
    tree = read_tree(name)
    for question in tree.questions:
        levels = levels_of(tree, question.name, {})
        choices = choices_of(tree, question.name)
        reached = [one["choice"] for level in levels for one in level["answers"] if "choice" in one]
        assert set(choices) - set(reached) <= {"unclear"}
        inside = [one for one in tree.classes(question.name) if one.answers[-1][1] not in tree.outside]
        assert {one.name for one in inside} <= set(choices)
        assert sorted(one["level"] for level in levels for one in level["answers"] if "level" in one) == [
            *range(1, len(levels))
        ]
        for level in levels:
            keys = [one["key"] for one in level["answers"]]
            assert keys == [str(k) if k < 10 else "" for k in range(1, len(keys) + 1)]


def test_definitions_of_answers_are_those_of_the_tree_or_of_the_catalogue():
    described = GZ2.model_dump()
    described["questions"][2]["definitions"] = {"bar": "longer than a quarter of the disk"}
    levels = levels_of(read_tree(described), "bar", {"disk": "spirals and S0"})
    found = {one["answer"]: one["definition"] for level in levels for one in level["answers"] if one["definition"]}
    assert found == {"disk": "spirals and S0", "bar": "longer than a quarter of the disk"}
    described["questions"][2]["definitions"] = {"bars": "longer"}
    with pytest.raises(InputError):
        read_tree(described)


def test_answers_about_a_question_are_those_of_the_plan(of_bars):
    folder, classes = of_bars
    one = next(iter(classes))
    for answer in ("disk", "ring", "artifact"):
        with pytest.raises(InputError):
            give(folder, "Ann", {one: answer})
    for answer in choices_of(GZ2, "bar"):
        give(folder, "Ann", {one: answer})
    assert read_answers(folder)["answer"].to_list() == ["artefact"]


def test_copies_show_how_the_experts_miss_each_answer(answered, tmp_path):
    """Ann calls all bars "no bar" on the copies, and everything else what it is."""
    folder, classes = answered
    twins = {one: classes[one] for one in open_session(folder, twins=20).twins}
    give(folder, "Ann", {one: "no bar" if name == "bar" else name for one, name in twins.items()}, "twin")
    found = tm.import_gold(folder, out=tmp_path / "gold.parquet", gold_source="same-images")
    experts, names = found.catalogue.metadata["gold_experts"], list(twins.values())
    assert set(experts) == {"gold", "gold_edge_on", "gold_bar"}
    assert set(found.catalogue.metadata["gold_same_images"]) == {"bar", "edge-on"}
    for name, part in (("no bar", 0), ("bar", 1)):
        assert experts["gold_bar"][name]["galaxies"] == names.count(name)
        assert experts["gold_bar"][name]["missed"] == part
    assert experts["gold"]["disk"] == experts["gold"]["disk"] | {"galaxies": 20 - names.count("smooth"), "missed": 0}
    assert found.agreement["twins"] == experts["gold_bar"]
    again = tm.import_gold(folder, catalogue=found.out, out=tmp_path / "again.parquet")
    assert again.catalogue.metadata["gold_experts"] == experts


def test_the_range_of_a_question_contains_what_its_experts_miss(pilot):
    table = replace(pilot[0], frame=pilot[0].frame.with_columns(gold_probability_bar=pl.lit(0.2)))
    missed = {"galaxies": 20, "missed": 0.3, "theta": 6.0, "upper": 9.0, "called": {"no bar": 0.7, NOT_APPLICABLE: 0.3}}
    told = replace(table, metadata=table.metadata | {"gold_experts": {"gold_bar": {"bar": missed}}})
    before, after = (
        tm.estimate_transition(one, question="bar", gold=gold, fraction_bins=4)
        for one, gold in ((table, "gold"), (told, "gold_bar"))  # the same column
    )
    assert set(codes(after)) ^ set(codes(before)) == {"gold-misses"}
    assert "selection-known" in codes(after)
    for name in ("no bar", "bar"):
        of_answer = after.fractions.of_total[0, 1:, after.fractions.classes.index(name)]
        np.testing.assert_allclose(after.fraction_range[name], of_answer)
    np.testing.assert_array_equal(after.fractions.fractions, before.fractions.fractions)
    low, high = (one.fractions.ratios["bar fraction"] for one in (before, after))
    assert np.all(low.high < high.high)
    assert high.high[0] - low.high[0] > high.high[-1] - low.high[-1]  # where resolution is poor
    assert after.about["gold_experts"] == {"bar": missed}


@pytest.mark.slow
def test_one_session_gives_gold_labels_of_every_question_on_the_way(answered, tmp_path):
    folder, classes = answered
    ids = list(classes)
    odd = dict(zip(ids, ["cannot tell", "unclear", "artefact", "disk, cannot tell"], strict=False))
    give(folder, "Ann", odd)
    found = tm.import_gold(folder, out=tmp_path / "gold.parquet", definition="bar: longer than a quarter of the disk")
    frame, rows = found.catalogue.frame, rows_of(found)
    for one in ids[4:]:
        told = {"gold": int(classes[one] != "smooth"), "gold_uncertain": 0}
        told["gold_bar"] = classes[one] if "bar" in classes[one] else "does not apply"
        told["gold_edge_on"] = {"smooth": "does not apply", "edge-on": "edge-on"}.get(classes[one], "not edge-on")
        assert {name: rows[one][name] for name in told} == told
    columns = [f"{kind}{end}" for end in ("_bar", "_edge_on", "") for kind in ("gold", "gold_uncertain")]
    assert [[rows[one][name] for name in columns] for one in odd] == [
        [None, 1, "not edge-on", 0, 1, 0],
        [None, 2, None, 2, None, 1],
        ["does not apply", 0, "does not apply", 0, None, 0],
        [None, 2, None, 1, 1, 0],
    ]
    planned = pl.read_parquet(folder / "plan.parquet")["probability"].to_numpy()
    for name in ("gold_probability_bar", "gold_probability_edge_on", "gold_probability"):
        assert frame[name].to_numpy() == pytest.approx(planned)
    described = found.to_dict()
    assert described["question"] == "bar"
    assert sum(described["classes"].values()) == described["gold"] == len(ids) - 3
    assert described["uncertain"] == 3
    assert found.catalogue.metadata["gold_definitions"]["bar"] == "bar: longer than a quarter of the disk"
    assert codes(found) == ["gold-from-same-images"]
    for question in ("bar", "edge-on"):
        fractions = tm.estimate_transition(found.out, question=question, gold="gold", fraction_bins=2)
        assert {"gold-uncertain", "selection-known"} <= set(codes(fractions))
    assert "selection-known" in codes(tm.estimate_transition(found.out, gold="gold", compare=False))


def test_gold_labels_of_disks_from_elsewhere_stay(answered, tmp_path):
    folder, classes = answered
    table = read_catalogue(read_plan(folder)[0].catalogue)
    mine = table.frame.with_columns(gold=pl.lit(1))
    found = tm.import_gold(folder, catalogue=CatalogTable(mine, metadata=table.metadata), out=tmp_path / "out.parquet")
    assert found.catalogue.frame["gold"].to_list() == [1] * mine.height
    assert "gold_probability" not in found.catalogue.frame.columns
    assert found.catalogue.frame["gold_bar"].count() == len(classes)
    of_question = [name for name in found.catalogue.frame.columns if name.startswith("gold_") and name.endswith("_bar")]
    assert len({found.catalogue.descriptions[name] for name in of_question}) == len(of_question) > 1


def test_gold_labels_in_hand_of_a_question_are_none_of_the_questions_before_it(bars, pilot, tmp_path):
    (_, truth), (catalogue, known) = bars, pilot
    plan = tm.plan_gold(catalogue, question="bar", budget=60, bins=2, out=tmp_path / "plan")
    rows = plan.frame["position"].is_not_null()
    ids = plan.frame["object_id"].filter(rows).to_list()
    give(plan.out, "Ann", dict(zip(ids, np.array(ENDS)[truth[rows.to_numpy()]], strict=True)))
    frame = tm.import_gold(plan.out, catalogue=catalogue, out=tmp_path / "gold.parquet").catalogue.frame
    assert set(frame.drop_nulls("gold")["object_id"].cast(pl.String)) == set(ids)
    assert frame["gold_bar"].count() == known.sum() + len(ids)
    drawn = plan.frame["probability"] - plan.frame["before"]
    assert frame["gold_probability"].to_numpy() == pytest.approx(drawn.to_numpy())
    assert frame["gold_probability_bar"].to_numpy() == pytest.approx(plan.frame["probability"].to_numpy())
    weights = 1 / frame.drop_nulls("gold")["gold_probability"]
    assert weights.sum() == pytest.approx(frame.height, rel=0.2)


@pytest.mark.slow
def test_people_may_differ_on_the_answer_or_on_whether_the_question_applies(of_bars, tmp_path):
    folder, classes = of_bars
    rng = np.random.default_rng(0)
    people = {}
    for name in ("Ann", "Ben", "Eve"):
        swapped = rng.random(len(classes)) < 0.3
        other = rng.choice(ENDS, len(classes))
        people[name] = [str(o) if s else c for c, s, o in zip(classes.values(), swapped, other, strict=True)]
        give(folder, name, dict(zip(classes, people[name], strict=True)))
    found = tm.import_gold(folder, out=tmp_path / "out.parquet")
    # Nobody differs on the question if all say that it does not apply, or give the same answer.
    rows = rows_of(found)
    for one, *said in zip(classes, *people.values(), strict=True):
        meant = [each if "bar" in each else "does not apply" for each in said]
        apply = {each != "does not apply" for each in meant}
        assert rows[one]["gold_uncertain_bar"] == (len(set(meant)) > 1) + (len(apply) > 1)
        most = max(set(meant), key=meant.count)
        assert rows[one]["gold_bar"] == (most if meant.count(most) > 1 else None)


def test_tables_have_the_classes_of_a_question(of_bars, tmp_path):
    """Names of classes, answers along the gates, or words for no answer; with the plan's probabilities."""
    folder, classes = of_bars
    spelled = {"bar": "Disk, not edge-on, bar", "edge-on": "EDGE-ON"}
    words = [spelled.get(one, one) for one in classes.values()]
    words[:3] = ["disk, can't tell", "Can't tell", "star or artifact"]
    pl.DataFrame({"object_id": list(classes), "class": words}).write_csv(tmp_path / "mine.csv")
    found = tm.import_gold(tmp_path / "mine.csv", plan=folder, out=tmp_path / "out.parquet")
    rows = rows_of(found)
    assert [(rows[one]["gold_bar"], rows[one]["gold"]) for one in list(classes)[:3]] == [
        (None, 1), (None, None), ("does not apply", None),
    ]  # fmt: skip
    for one in list(classes)[3:]:
        assert rows[one]["gold_bar"] == (classes[one] if "bar" in classes[one] else "does not apply")
    table = read_catalogue(read_plan(folder)[0].catalogue)
    alone = tm.import_gold(tmp_path / "mine.csv", catalogue=table, question="bar", out=tmp_path / "alone.parquet")
    assert alone.to_dict()["classes"] == found.to_dict()["classes"]
    assert "gold_probability_bar" not in alone.catalogue.frame.columns
    # What was written is read again, with "does not apply", which says nothing of the gates.
    found.catalogue.frame.select("object_id", "gold_bar").drop_nulls().write_csv(tmp_path / "written.csv")
    again = tm.import_gold(
        tmp_path / "written.csv", catalogue=table, question="bar", column="gold_bar", out=tmp_path / "again.parquet"
    )
    assert again.catalogue.frame["gold_bar"].to_list() == found.catalogue.frame["gold_bar"].to_list()
    pl.DataFrame({"object_id": list(classes), "class": "ring"}).write_csv(tmp_path / "rings.csv")
    for file, options in (("rings.csv", {}), ("../bars", {"question": "spiral"})):
        with pytest.raises(InputError):
            tm.import_gold(tmp_path / file, plan=folder, out=tmp_path / "no.parquet", **options)


@pytest.mark.parametrize("along", [False, True])
def test_an_export_of_zooniverse_has_classes_or_answers_along_the_gates(of_bars, tmp_path, along):
    folder, classes = of_bars
    paths = choices_of(GZ2, "bar")
    said = [[answer for _, answer in paths[one]] if along else [one] for one in classes.values()]
    rows = [
        {
            "user_name": "anna", "workflow_id": 1, "created_at": "2026-03-01 10:00:00 UTC",
            "annotations": json.dumps([{"task": f"T{k}", "value": answer} for k, answer in enumerate(answers)]),
            "subject_data": json.dumps({"9": {"#object_id": galaxy}}),
        }
        for galaxy, answers in zip(classes, said, strict=True)
    ]  # fmt: skip
    pl.DataFrame(rows).write_csv(tmp_path / "classifications.csv")
    found = tm.import_gold(tmp_path / "classifications.csv", plan=folder, out=tmp_path / "out.parquet")
    counted = pl.Series([one if "bar" in one else "does not apply" for one in classes.values()]).value_counts()
    assert found.to_dict()["classes"] == dict(counted.rows())


def test_the_import_names_the_next_command(capsys, answered, tmp_path):
    out = done(capsys, "gold", "import", answered[0], "--out", tmp_path / "out.parquet")
    assert out.splitlines()[-1].endswith("--question bar")


@pytest.mark.slow
def test_galaxies_to_which_a_question_may_not_apply_widen_the_range_of_where_it_applies(bars):
    catalogue, truth = bars
    known = np.random.default_rng(2).random(truth.size) < 0.2
    doubt = known & (np.random.default_rng(3).random(truth.size) < 0.3)
    gold = np.where(known & ~doubt, np.where(truth > 1, ENDS[truth], "does not apply"), "")
    low = []
    for uncertain in (1, 2):
        frame = catalogue.frame.with_columns(
            pl.Series("gold_bar", gold).replace("", None), pl.Series("gold_uncertain_bar", uncertain * doubt)
        )
        table = CatalogTable(frame, metadata=catalogue.metadata)
        found = tm.estimate_transition(table, question="bar", gold="gold", fraction_bins=1)
        low.append(found.fractions.applies.low[0])
    assert low[1] < low[0] - 0.3 * 0.2 * 0.25  # more than half of the galaxies in doubt have an answer


@pytest.mark.slow
def test_planned_gold_labels_of_a_question_cover_the_truth():
    """Ranges of the bar fraction in bins of α, with gold labels that a plan has drawn, over 30 catalogues."""
    inside, pulls = [], []
    for seed in range(30):
        catalogue, truth = prepared(3_000, seed)
        plan = make_plan(catalogue, PlanOptions(budget=350, bins=4, seed=seed, question="bar"))
        drawn = plan.frame["position"].is_not_null()
        answers = pl.DataFrame({
            "annotator": "Ann", "galaxy": plan.frame["object_id"], "answer": ENDS[truth].tolist(), "time": None,
        }).filter(drawn)  # fmt: skip
        table, _ = with_gold(catalogue, answers, plan.frame, gold_columns_of(GZ2, "bar", catalogue))
        found = tm.estimate_transition(table, question="bar", gold="gold", fraction_bins=4)["bar fraction"]
        bins = Bins.cut(catalogue.frame["alpha"].to_numpy(), 4)
        true = fraction(truth, np.ones(truth.size), bins)
        inside.append((found.low <= true) & (true <= found.high))
        pulls.append((found.fraction - true) / found.stderr)
    # 120 ranges of 95 %: ± 0.02, and as the bins of a catalogue share errors, ± 0.03.
    assert np.mean(inside) > 0.95 - 0.06
    assert abs(np.mean(pulls)) < 4 / np.sqrt(120)


def test_the_page_is_asked_level_by_level(of_bars):
    """Its server sends the questions on the way, and takes a class."""
    testclient = pytest.importorskip("starlette.testclient", reason="starlette is not installed")
    folder, _ = of_bars
    client = testclient.TestClient(make_app(open_session(folder), "secret"), "http://127.0.0.1:8642")
    state = client.get("/secret/state?name=Ann").json()
    levels = state["levels"]
    assert [level["question"] for level in levels] == ["smooth", "edge-on", "bar"]
    assert [level["text"] for level in levels] == [gate.text for gate in GZ2.gates("bar")]
    shown, at = [], 0
    for key in "222":
        chosen = next(one for one in levels[at]["answers"] if one["key"] == key)
        shown.append(chosen["answer"])
        at = chosen.get("level")
    assert (shown, chosen["choice"]) == (["disk", "not edge-on", "bar"], "bar")
    assert client.post("/secret/answer", params={"name": "Ann", "item": 0, "answer": "bar"}).status_code == 200
    assert client.post("/secret/answer", params={"name": "Ann", "item": 1, "answer": "disk"}).status_code == 400
    assert client.get("/secret/state?name=Ann").json()["answers"][:2] == [["bar", ""], None]
    assert read_answers(folder)["answer"].to_list() == ["bar"]


def test_a_plan_for_a_question_is_labelled(of_bars, monkeypatch):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    folder, classes = of_bars
    one = next(iter(classes))
    monkeypatch.setattr("truemorph.gold.server.serve", lambda session, port: give(folder, "Ann", {one: "edge-on"}))
    (counted,) = tm.collect_gold(folder).to_dict()["annotators"]
    assert (counted["edge-on"], counted["bar"]) == (1, 0)


def test_experts_without_volunteers_are_asked_the_catalogues_own_question(capsys, tmp_path):
    rng = np.random.default_rng(3)
    n, names = 300, np.array(["none", "minor", "major"])
    truth = rng.choice(3, n, p=(0.7, 0.2, 0.1))
    experts = {f"expert_{one}": names[np.where(rng.random(n) < 0.8, truth, 0)] for one in "ABC"}
    table = {"id": range(n), "alpha": rng.lognormal(2.5, 0.5, n), "truth": names[truth], **experts}
    pl.DataFrame(table).write_csv(tmp_path / "sheet.csv")
    asked = {"question": "merger stage", "answers": list(names), "definition": "minor: mass ratio below 1:4"}
    prepared = tm.prepare_catalogue(
        tmp_path / "sheet.csv", id="id", alpha="alpha", experts=list(experts), **asked, out=tmp_path / "cat.parquet"
    )
    own, counted = prepared.to_dict()["labels"], prepared.to_dict()["questions"]["merger stage"]
    assert own == counted
    assert prepared.summary().count(f"none {own['none']}") == 1
    plan = read_plan(tm.plan_gold(prepared.out, budget=60, out=tmp_path / "plan").out)[0]
    assert (plan.question, plan.question_definition) == ("merger stage", "minor: mass ratio below 1:4")
    assert tm.plan_gold(prepared.out, budget=60, definition="tails").about["question_definition"] == "tails"
    kinds = {"id": "id", "column": "truth", "catalogue": prepared.out, "out": tmp_path / "gold.parquet"}
    imported = tm.import_gold(tmp_path / "sheet.csv", **kinds, definition="HST")
    assert imported.classes == {name: int((names[truth] == name).sum()) for name in sorted(names)}
    estimate = tm.estimate_transition(imported.catalogue, gold="gold", out=tmp_path / "t.json")
    written = json.loads(done(capsys, "report", tmp_path / "t.json", "--out", tmp_path / "page.html", "--json"))
    assert "minor" in written["headline"]  # not the commonest
    assert "applies to" not in estimate.summary()


def test_the_definition_that_people_saw_is_that_of_the_gold_labels(bars, tmp_path):
    catalogue, _ = bars
    asked = {"budget": 80, "question": "bar", "definition": "bar: long ones"}
    folder = tm.plan_gold(catalogue, **asked, out=tmp_path / "plan").out
    give(folder, "Ann", dict.fromkeys(read_plan(folder)[1]["object_id"], "bar"))
    into = {"catalogue": catalogue, "out": tmp_path / "gold.parquet"}
    with pytest.raises(InputError, match="long ones"):
        tm.import_gold(folder, **into, definition="bar: all")
    assert tm.import_gold(folder, **into).catalogue.metadata["gold_definitions"]["bar"] == "bar: long ones"
