"""Names of answers, columns and groups are for people: whatever they are, numbers of the same class are the same."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from truemorph import estimate_transition, measure_bias, posterior, prepare_catalogue
from truemorph.bias.likelihood import observables_of
from truemorph.catalogs.paths import path_observations
from truemorph.questions import slug

pytestmark = pytest.mark.slow

ANSWERS = ("smooth", "disk", "artifact", "edge-on", "face-on", "tail", "shell")
GATES = (("smooth", "disk", "artifact"), ("edge-on", "face-on"), ("tail", "shell"))
# Words of which names are made: those that parts of names are joined by elsewhere, and what files have to quote.
WORDS = ["a", "b", " or ", ", ", "'", '"', "é", "星", "fraction", "not", "=", "(", "\\", "applies"]


def different(number):
    """Names that differ as names of columns, too."""
    words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(lambda some: f"x{''.join(some)}".strip())
    return st.lists(words, min_size=number, max_size=number, unique_by=lambda name: slug(name).lower())


@dataclass(frozen=True)
class Naming:
    """What answers, columns of votes, the column of groups, and its groups are called; and the order of answers."""

    answers: tuple[str, ...]
    columns: tuple[str, ...]
    tier: str
    groups: tuple[str, str]
    order: tuple[int, int, int] = (0, 1, 2)
    empty: bool = False


PLAIN = Naming(ANSWERS, ANSWERS, "tier", ("deep", "wide"))


def galaxies():
    rng = np.random.default_rng(3)
    n = 900
    alpha = rng.lognormal(2.4, 0.5, n)
    kind = rng.choice(5, n, p=(0.4, 0.12, 0.25, 0.2, 0.03))  # smooth, edge-on, tail, shell, artifact
    seen = np.where(alpha > 9, 0.8, 0.3)
    disk = rng.binomial(40, np.where(np.isin(kind, (1, 2, 3)), seen, 0.1))
    artifact = np.where(kind == 4, 30, 0)
    edge = rng.binomial(disk, np.where(kind == 1, 0.9, 0.1))
    tail = rng.binomial(disk - edge, np.where(kind == 2, 0.8, 0.3))
    votes = (40 - disk, disk, artifact, edge, disk - edge, tail, disk - edge - tail)
    gold = np.where(rng.random(n) < 0.35, kind, -1)
    return alpha, votes, gold, rng.random(n) < 0.4


def measured(naming, folder):
    """All numbers of an estimate and of the drift of labels, by the numbers that classes have in ANSWERS."""
    alpha, votes, gold, deep = galaxies()
    called = dict(zip(ANSWERS, naming.answers, strict=True))
    columns = dict(zip(ANSWERS, naming.columns, strict=True))
    questions = []
    for question, gate in enumerate(GATES):
        order = [gate[k] for k in naming.order if k < len(gate)] if question == 2 else gate
        answers = {called[one]: [columns[one]] for one in order}
        if naming.empty and question == 2:
            answers["nobody says so"] = ["nobody"]
        after = ([], ["disk"], ["face-on"])[question]
        questions.append({"name": f"q{question}", "answers": answers, "asked_after": [called[one] for one in after]})
    tree = {"name": "own", "questions": questions, "outside": [called["artifact"]]}
    of_gold = np.array([called["smooth"], called["edge-on"], called["tail"], called["shell"], called["artifact"], ""])
    table = pl.DataFrame({
        "id": np.arange(alpha.size), "alpha": alpha, "nobody": 0,
        **{columns[answer]: counts for answer, counts in zip(ANSWERS, votes, strict=True)},
        "experts say": of_gold[gold],
        naming.tier: np.where(deep, *naming.groups),
    })  # fmt: skip
    catalogue = prepare_catalogue(table, tree=tree, question="q2", id="id", alpha="alpha", gold="experts say")
    found = estimate_transition(catalogue.catalogue, question="q2", gold="gold", fraction_bins=3)
    groups = estimate_transition(catalogue.catalogue, question="q2", gold="gold", by=naming.tier)
    asked = found.transition.asked
    answers = [0, asked.numbers[called["tail"]], asked.numbers[called["shell"]]]
    path_names = [path.name for path in asked.paths]
    paths = [path_names.index(called[one]) for one in ("smooth", "edge-on", "tail", "shell")]
    classes = [asked.of_paths[k] for k in paths]
    frame = catalogue.catalogue.frame
    p = np.full((frame.height, len(asked.classes)), 1 / len(asked.classes))
    argument = frame["alpha"].to_numpy()
    assert observables_of(found.about, found.transition) == ()
    after = posterior(p, path_observations(frame, found.transition, "here"), argument, found.transition)
    drift = measure_bias(catalogue.catalogue, question="q2", bootstrap=0)
    members = [groups.fractions.groups.index(group) for group in naming.groups]
    return {
        "fractions": found.fractions.fractions[:, answers],
        "errors": found.fractions.stderr[:, answers],
        "labelled": found.fractions.labelled[:, answers],
        "of groups": groups.fractions.fractions[np.ix_(members, answers)],
        "of T": found.fit.class_fractions[classes],
        "T": np.asarray(found.transition.matrix(np.array([6.0, 20.0])))[:, classes][:, :, classes],
        "posterior": after[:, classes],
        "drift": [result.value for result in drift.results.values()],
    }, [one.code for one in (*catalogue.findings, *found.findings, *drift.findings)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return measured(PLAIN, tmp_path_factory.mktemp("plain"))


def same(found, expected):
    for what, values in expected.items():  # groups are in alphabetical order
        np.testing.assert_allclose(found[what], values, rtol=0, atol=1e-9 * (what == "of groups"), err_msg=what)


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.data())
def test_names_change_no_number_and_no_finding(plain, tmp_path_factory, data):
    answers = data.draw(different(7))
    columns = data.draw(st.lists(st.sampled_from([*WORDS, ":", ";", "votes"]), min_size=7, max_size=7, unique=True))
    tier, *groups = data.draw(different(3))
    naming = Naming(tuple(answers), tuple(f"n {column}" for column in columns), f"tier {tier}", tuple(groups))
    found, codes = measured(naming, tmp_path_factory.mktemp("named"))
    same(found, plain[0])
    assert codes == plain[1]


@pytest.mark.parametrize(("order", "empty"), [((1, 0, 2), False), ((1, 0, 2), True)])
def test_the_order_of_answers_and_one_that_nobody_gives_change_no_fraction(plain, tmp_path, order, empty):
    found, _ = measured(Naming(ANSWERS, ANSWERS, "tier", ("deep", "wide"), order, empty), tmp_path)
    for what, values in plain[0].items():
        if what == "errors":  # from random draws
            np.testing.assert_allclose(found[what], values, rtol=0.15)
        elif what not in ("T", "posterior", "drift") or not empty:
            np.testing.assert_allclose(found[what], values, atol=1e-6, err_msg=what)


def test_answers_whose_names_join_those_of_others_are_answers_of_their_own(plain, tmp_path):
    """Such as "tail or shell" beside "tail"."""
    joined = ("smooth", "disk", "artifact", "edge-on", "face-on", "tail", "tail or shell")
    found, codes = measured(Naming(joined, ANSWERS, "tier", ("a or b", "a")), tmp_path)
    same(found, plain[0])
    assert codes == plain[1]
