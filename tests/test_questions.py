"""Questions of decision trees: their classes, the columns of votes, majority paths, and quantities."""

import itertools
from contextlib import nullcontext
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truemorph import Asked, Votes, read_tree
from truemorph.errors import InputError
from truemorph.questions import MOST_PATHS, Question, Tree

TREES = sorted(one.name.removesuffix(".toml") for one in (resources.files("truemorph") / "trees").iterdir())
OWN = {
    "name": "own",
    "outside": ["artifact"],
    "questions": [
        {"name": "smooth", "answers": {"smooth": ["s"], "featured": ["f"], "artifact": ["a"]}},
        {"name": "bar", "asked_after": ["featured"], "answers": {"no bar": ["n"], "bar": ["b"]}, "shown": ["bar"]},
        {"name": "merging", "asked_after": ["smooth", "featured"], "answers": {"no": ["m0"], "merging": ["m1"]}},
    ],
}


def names(tree, question):
    return [one.name for one in tree.classes(question)]


@pytest.mark.parametrize("name", TREES)
def test_trees_of_surveys_are_consistent(name):
    tree = read_tree(name)
    assert tree.about
    for question in tree.questions:
        classes = tree.classes(question.name)
        assert len({one.name for one in classes}) == len(classes)
        assert {one.answer for one in classes} - {None} == set(question.answers)
        columns = [column for some in question.answers.values() for column in some]
        assert len(set(columns)) == len(columns)


def test_classes_are_paths_through_the_gates():
    gz2 = read_tree("gz2")
    assert names(gz2, "smooth") == ["smooth", "disk", "artifact"]
    assert names(gz2, "bar") == ["smooth", "edge-on", "no bar", "bar", "artifact"]
    # The bar question is shown before, but does not decide whether that for arms is asked.
    assert [gate.name for gate in gz2.gates("arms")] == ["smooth", "edge-on", "spiral", "arms"]
    # Paths from two parents stay apart.
    assert names(Tree.model_validate(OWN), "merging") == [
        "smooth, no", "smooth, merging", "featured, no", "featured, merging", "artifact",
    ]  # fmt: skip


def test_a_quantity_is_a_ratio_of_sums_of_classes():
    asked = Asked(read_tree("gz2"), "bar")
    classes, quantities = asked.answers, asked.quantities
    assert classes == ("does not apply", "no bar", "bar")
    fractions = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    by_name = {quantity.name: quantity.of(fractions) for quantity in quantities}
    np.testing.assert_allclose(by_name["bar fraction"], [0.4, np.nan])
    np.testing.assert_allclose(by_name["fraction to which 'bar' applies"], [0.5, 0.0])
    # The answer "cannot tell" is none that gold labels can have; artifacts are in no denominator.
    assert "cannot tell" not in Asked(read_tree("gz2"), "arms").answers
    assert Asked(read_tree("gz2"), "smooth").answers == ("does not apply", "smooth", "disk")


def test_ordered_answers_have_cumulative_fractions_and_a_mean_rank():
    quantities = Asked(read_tree("gz2"), "bulge").quantities
    values = {quantity.name: float(quantity.of(np.array([0.2, 0.4, 0.2, 0.1, 0.1]))) for quantity in quantities}
    assert values["fraction of at least obvious bulge"] == pytest.approx(0.25)
    assert values["mean rank"] == pytest.approx((0.4 + 0.4 + 0.3 + 0.4) / 0.8)


def test_merged_answers_are_one_class():
    asked = Asked(read_tree("gz-jwst"), "bar")
    weak, strong, none = (asked.numbers[one] for one in ("weak bar", "strong bar", "no bar"))
    merged = asked.merged([[none], [weak, strong]])
    assert [merged.numbers[one] for one in ("weak bar", "strong bar", "no bar")] == [2, 2, 1]
    fractions = np.array([0.4, 0.3, 0.3])
    assert merged.quantities[merged.shown.index(2)].of(fractions) == pytest.approx(0.5)


@given(st.lists(st.lists(st.integers(0, 20), min_size=7, max_size=7), min_size=2, max_size=20))
def test_the_majority_path_does_not_depend_on_the_order_of_answers(rows):
    counts = np.array(rows, dtype=float)
    values = dict(zip(("s", "f", "a", "n", "b", "m0", "m1"), counts.T, strict=True))
    reverse = {**OWN, "questions": [
        {**one, "answers": dict(reversed(one["answers"].items()))} for one in OWN["questions"]
    ]}  # fmt: skip
    found = []
    for tree in (Tree.model_validate(OWN), Tree.model_validate(reverse)):
        columns = tree.columns("bar", values).columns
        of_gates = {gate: np.column_stack([values[name] for name in names]) for gate, names in columns.items()}
        votes = Votes.from_columns(tree, "bar", of_gates)
        found.append([tree.classes("bar")[k].name for k in votes.paths])
        assert np.isfinite(votes.log_odds).all()
    clear = np.array([sorted(row[:3])[1] < max(row[:3]) and row[3] != row[4] for row in rows])
    assert np.array_equal(np.array(found[0])[clear], np.array(found[1])[clear])


def test_ties_get_the_more_frequent_answer():
    tree = Tree.model_validate(OWN)
    counts = {"smooth": np.array([[5, 5, 0], [0, 9, 1], [0, 7, 0], [9, 0, 0]]),
              "bar": np.array([[2, 2], [1, 3], [0, 0], [0, 4]])}  # fmt: skip
    votes = Votes(Asked(tree, "bar"), {name: some.astype(float) for name, some in counts.items()})
    assert [tree.classes("bar")[k].name for k in votes.paths] == ["bar", "bar", "bar", "smooth"]


def test_fractions_of_votes_become_numbers_along_the_path():
    tree = Tree.model_validate({**OWN, "fractions": ["{column}_fraction"], "totals": ["n"], "counts": []})
    values = {"s_fraction": [0.5], "f_fraction": [0.4], "a_fraction": [0.1], "n_fraction": [0.25], "b_fraction": [0.75]}
    arrays = {name: np.array(value) for name, value in values.items()}
    columns = tree.columns("bar", arrays)
    assert columns.kind == "fractions"
    of_gates = {gate: np.column_stack([arrays[name] for name in names]) for gate, names in columns.columns.items()}
    votes = Votes.from_columns(tree, "bar", of_gates, np.array([40]))
    np.testing.assert_allclose(votes.counts["bar"], [[4, 12]])


SMOOTH, BAR, _ = OWN["questions"]
WRONG = [
    {"asked_after": []},
    {"asked_after": ["no such answer"]},
    {"answers": {"only": ["x"]}},
    {"shown": ["no such answer"]},
    {"name": "smooth"},
    {"colour": "red"},
    {"answers": {"1": ["n"], "1+": ["b"]}},
    {"answers": {"no bar": ["n"], "bar": ["n"]}},
    {"answers": {"no bar": ["n"], "bar": []}},
    *({"answers": {"no bar": ["n"], name: ["b"]}} for name in ("bar: strong", "applies", "\x1b[31mbar")),
    {"name": "\x1b[31mbar"},
    {"answers": {"no bar": ["n"], "bar": ["b"], "cannot tell": ["c"]}, "shown": ["cannot tell"]},
]


@pytest.mark.parametrize(
    "changed",
    [
        *({"questions": [SMOOTH, {**BAR, **wrong}]} for wrong in WRONG),
        *({"counts": some} for some in ([], ["{col}_votes"], ["votes"])),
        *({"questions": []}, {"outside": ["x"]}),
    ],
)
def test_inconsistent_trees_and_those_that_name_no_columns_are_refused(changed):
    with pytest.raises(InputError):
        read_tree({**OWN, **changed})


def random_tree(rng):
    """Four or five questions of two answers, each asked after some earlier answers."""
    questions, earlier = [], []
    for k in range(rng.integers(4, 6)):
        some = rng.choice(earlier, rng.integers(1, min(4, len(earlier)) + 1), replace=False).tolist() if k else []
        questions.append({"name": f"q{k}", "answers": {f"{x}{k}": [f"{x}{k}"] for x in "ab"}, "asked_after": some})
        earlier += questions[-1]["answers"]
    return questions


def numbers_of_paths(tree, question):
    """On how many paths to a question each combination of answers lies."""
    gates = tree.gates(question)

    def ends(gate, given):
        after = [later for later in gates if given[gate.name] in later.asked_after]
        return sum(ends(later, given) for later in after) if after else 1

    for answers in itertools.product(*(gate.answers for gate in gates)):
        yield ends(gates[0], dict(zip((gate.name for gate in gates), answers, strict=True)))


def test_each_combination_of_answers_lies_on_one_path_or_the_tree_is_refused():
    rng, read = np.random.default_rng(60), []
    for _ in range(200):
        questions = random_tree(rng)
        tree = Tree.model_construct(name="random", questions=tuple(Question(**question) for question in questions))
        read.append(all(n == 1 for question in tree.questions for n in numbers_of_paths(tree, question.name)))
        with nullcontext() if read[-1] else pytest.raises(InputError):
            read_tree({"name": "random", "questions": questions})
    assert 20 < sum(read) < 180


def test_twenty_questions_each_asked_after_both_answers_are_refused():
    questions = [{"name": "q0", "answers": {"a0": ["a0"], "b0": ["b0"]}}]
    for k in range(1, 20):
        answers = {f"{x}{k}": [f"{x}{k}"] for x in "ab"}
        questions.append({"name": f"q{k}", "answers": answers, "asked_after": [f"a{k - 1}", f"b{k - 1}"]})
    with pytest.raises(InputError, match=str(MOST_PATHS)):
        read_tree({"name": "long", "questions": questions})


def test_unknown_trees_questions_and_columns_are_refused():
    for wrong in (
        lambda: read_tree("gz3"),
        lambda: read_tree(3),
        lambda: read_tree("gz2").question("bars"),
        lambda: read_tree("gz2").columns("bar", ["t03_bar_a06_bar_count"]),
    ):
        with pytest.raises(InputError):
            wrong()


def test_a_missing_column_is_named_as_the_others_of_the_table_are():
    tree = read_tree("gz-desi")
    every = {gate.name: [some[1] for some in gate.answers.values()] for gate in tree.gates("bar")}
    existing = {one for some in every.values() for one in some} - {"bar-dr8_weak"}
    with pytest.raises(InputError, match="bar-dr8_weak"):
        tree.columns("bar", existing)
    fractions = {f"{one}_fraction" for one in existing}
    with pytest.raises(InputError, match="bar-dr8_weak_fraction"):
        tree.columns("bar", fractions)


def test_numbers_of_votes_for_one_question_and_fractions_for_another_are_refused():
    tree = read_tree("gz2")
    names = [gate.name for gate in tree.gates("bar")]
    columns = {
        template.format(column=some[0])
        for name, template in zip(names, ("{column}_count", "{column}_count", "{column}_fraction"), strict=True)
        for some in tree.question(name).answers.values()
    }
    with pytest.raises(InputError, match=r"t03_bar.*_count"):
        tree.columns("bar", columns)
