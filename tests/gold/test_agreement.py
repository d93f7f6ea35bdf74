"""How answers become one gold label, and how well people agree."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

import truemorph as tm
from truemorph import RayleighTransition, read_tree
from truemorph.catalogs.paths import label_column
from truemorph.gold.agreement import agreement, combined, fleiss_kappa, misses_on_copies
from truemorph.gold.importing import gold_columns_of, gold_columns_of_label
from truemorph.questions import NOT_APPLICABLE, SMOOTH_OR_DISK
from truemorph.tables import CatalogTable

CHOICES = ("smooth", "disk", "unclear", "artefact")
# Ten subjects, 14 raters, five categories; the kappa of this standard example is 0.210.
TEN_SUBJECTS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def rows(*given):
    """Answers from (annotator, galaxy, occasion, answer)."""
    names = ["annotator", "galaxy", "occasion", "answer"]
    found = pl.DataFrame(given, schema=dict.fromkeys(names, pl.String), orient="row").with_row_index("time")
    return found.with_columns(twin_alpha=pl.lit(None, pl.Float64))


def of_people(seed, people=("Ann", "Ben"), n=80, alike=0.7):
    """Each person gives the galaxy's own answer, or a random one."""
    rng = np.random.default_rng(seed)
    own = rng.choice(CHOICES, n, p=[0.4, 0.4, 0.15, 0.05])
    other = rng.choice(CHOICES, (len(people), n))
    said = np.where(rng.random((len(people), n)) < alike, own, other)
    return rows(*((name, str(k), "first", str(said[j, k])) for (j, name), k in product(enumerate(people), range(n))))


@pytest.mark.parametrize(("answers", "gold", "uncertain"), [
    (["smooth", "smooth"], 0, 0),
    (["disk", "disk", "smooth"], 1, 1),
    (["disk", "smooth"], None, 1),
    (["unclear"], None, 1),
    (["unclear", "disk"], 1, 1),
    (["artefact", "artefact", "disk"], None, 0),
    (["artefact", "disk", "disk"], 1, 1),
])  # fmt: skip
def test_the_class_that_most_people_chose(answers, gold, uncertain):
    found = combined(rows(*((f"person {k}", "a", "first", answer) for k, answer in enumerate(answers))))
    assert found.select("gold", "gold_uncertain").row(0) == (gold, uncertain)
    assert found["gold_time"][0] == len(answers) - 1


def test_cohens_kappa_is_that_of_scikit_learn_on_the_galaxies_that_both_labelled():
    answers = of_people(1).filter((pl.col("annotator") == "Ann") | (pl.col("galaxy").cast(int) < 60))
    assert agreement(answers.with_columns(pl.col("annotator").replace("Ben", "galaxy")))["pairs"][0]["galaxies"] == 60
    ann, ben = (answers.filter(pl.col("annotator") == who)["answer"].to_numpy()[:60] for who in ("Ann", "Ben"))
    (pair,) = agreement(answers)["pairs"]
    assert (pair["people"], pair["galaxies"]) == (["Ann", "Ben"], 60)
    assert pair["agree"] == pytest.approx(np.mean(ann == ben))
    assert pair["kappa"] == pytest.approx(cohen_kappa_score(ann, ben))
    chance = sum(np.mean(ann == choice) * np.mean(ben == choice) for choice in CHOICES)
    # Error for large samples, from the scatter of the agreement alone.
    rough = np.sqrt(pair["agree"] * (1 - pair["agree"]) / 60) / (1 - chance)
    assert pair["kappa_stderr"] == pytest.approx(rough, rel=0.3)


def test_fleiss_kappa_of_the_standard_example_and_on_galaxies_that_three_people_labelled():
    answers = np.array([np.repeat(np.arange(5), counts) for counts in TEN_SUBJECTS])
    assert fleiss_kappa(answers) == pytest.approx(0.210, abs=5e-4)
    alike = agreement(of_people(2, ("Ann", "Ben", "Eve"), alike=1.0))
    assert [one["kappa"] for one in (*alike["pairs"], alike["fleiss"])] == [1.0] * 4
    three = of_people(2, ("Ann", "Ben", "Eve"))
    found = agreement(three.filter((pl.col("annotator") != "Eve") | (pl.col("galaxy").cast(int) < 50)))["fleiss"]
    assert found["galaxies"] == 50
    # Each answer is the galaxy's own with probability 0.7, so kappa is about 0.7².
    assert abs(found["kappa"] - 0.49) < 3 * found["kappa_stderr"] < 0.4
    assert agreement(three.filter(pl.col("annotator") != "Eve"))["fleiss"] is None


def missed(answers):
    """What copies show of two classes."""
    gold = gold_columns_of_label(SMOOTH_OR_DISK)
    return misses_on_copies(answers, gold.given, list(gold.classes), gold.featureless).get("disk", {})


def test_self_consistency_and_disks_that_the_same_person_does_not_recognise_on_the_degraded_copy():
    first = {"a": "disk", "b": "disk", "c": "disk", "d": "smooth", "e": "disk"}
    repeat = {"a": "disk", "b": "smooth"}
    copy = {"a": "smooth", "b": "disk", "c": "unclear", "d": "smooth", "e": "disk"}
    said = [("first", first), ("repeat", repeat), ("twin", copy)]
    answers = [("Ann", one, occasion, answer) for occasion, given in said for one, answer in given.items()]
    answers += [("Ben", "a", occasion, "smooth") for occasion in ("first", "repeat", "twin")]
    answers += [("Ben", "c", "repeat", "smooth")]
    found, of_disks = agreement(rows(*answers)), missed(rows(*answers))
    alike = [(one["annotator"], one["repeats"], one["alike"]) for one in found["self_consistency"]]
    assert alike == [("Ann", 2, 0.5), ("Ben", 1, 1.0)]
    assert found["disagreements"] == ["a"]
    # Ann's a and c, which can't be told, of four; d is smooth on both.
    assert of_disks == {"galaxies": 4, "missed": 0.5}


def of_twins(theta, n, seed=0, disk=0.7):
    """Ann's answers to n galaxies and to their degraded copies, on which she misses disks by a Rayleigh curve."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(4, 14, n)
    is_disk = rng.random(n) < disk
    seen = is_disk & (rng.random(n) > RayleighTransition(theta).flip_probability(alpha))
    words = np.array(["smooth", "disk"])
    first, twins = (
        rows(*(("Ann", str(k), occasion, str(words[int(disk)])) for k, disk in enumerate(disks)))
        for occasion, disks in (("first", is_disk), ("twin", seen))
    )
    return pl.concat([first, twins.with_columns(twin_alpha=alpha)])


def test_twins_give_the_bias_curve_of_the_experts():
    """The upper limit (95 %) lies above the true θ in all but a few of 100 trials, and not far above."""
    found = [missed(of_twins(6.0, 150, seed)) for seed in range(100)]
    above = np.array([one["upper"] for one in found])
    assert (above > 6.0).mean() >= 0.93  # 0.975 expected, and three errors of 0.016 below
    assert np.mean(above) < 8.0
    assert abs(np.mean([one["theta"] for one in found]) - 6.0) < 0.2
    assert all(80 < one["galaxies"] < 130 for one in found)


def test_limits_of_experts_who_miss_all_disks_or_none():
    """Of 28 disks none missed allows about one in ten; all missed sets no upper limit."""
    none, every = missed(of_twins(0.1, 40)), missed(of_twins(500.0, 40))
    alpha = np.linspace(4, 14, 100)
    flips = RayleighTransition(none["upper"]).flip_probability(alpha)
    assert 0.01 < flips.mean() < 0.2
    assert every["upper"] > 100
    assert missed(of_twins(6.0, 40, disk=0.0)) == {"galaxies": 0, "missed": None}


@pytest.mark.parametrize(("question", "never"), [("bar", NOT_APPLICABLE), ("roundness", None)])
def test_twins_give_the_misses_of_each_answer_and_what_they_are_called(question, never):
    """Only a class with all smooth galaxies is never missed, so that of roundness includes "does not apply"."""
    tree = read_tree("gz2")
    flat = tm.simulate_catalogue(10).with_columns(pl.lit("").alias(label_column(question)))
    gold = gold_columns_of(tree, question, CatalogTable(flat))[0]
    said = {"bar": "no bar", "no bar": "smooth"} if never else {"cigar-shaped": "in between", "disk": "in between"}
    first = [(str(k), name) for k, name in enumerate(said) for k in range(30 * k, 30 * (k + 1))]
    copies = [("Ann", one, "twin", said[name] if int(one) % 3 == 0 else name) for one, name in first]
    twins = rows(*(("Ann", one, "first", name) for one, name in first), *copies).with_columns(twin_alpha=8.0)
    found = misses_on_copies(twins, gold.given, list(gold.classes), gold.featureless)
    assert gold.featureless == never
    for name, other in said.items():
        of_class = found[gold.given[name]]
        assert of_class["galaxies"] == 30
        assert of_class["missed"] == pytest.approx(1 / 3)
        flip = RayleighTransition(of_class["theta"]).flip_probability(np.array([8.0]))[0]
        assert flip == pytest.approx(1 / 3, abs=0.01)
        others = len(gold.classes) - 1  # one miss is spread over them
        assert of_class["called"][gold.given[other]] == pytest.approx((10 + 1 / others) / 11)


def test_a_twin_that_several_people_saw_counts_once_and_few_give_no_curve():
    ann = of_twins(6.0, 60)
    both = pl.concat([ann, ann.with_columns(annotator=pl.lit("Ben"))])
    assert missed(both) == missed(ann)
    for few in (of_twins(6.0, 8), of_twins(6.0, 60, disk=0.0), of_people(1)):
        assert "theta" not in missed(few)
