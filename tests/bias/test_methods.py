"""Each option of each method works for each kind of question, and changes something, or is refused."""

from functools import cache
from itertools import chain, product
from typing import get_args

import numpy as np
import polars as pl
import pytest

from conftest import ROOT
from truemorph import estimate_transition, prepare_catalogue, simulate_catalogue
from truemorph.bias.methods import NEEDS, OPTIONS, Kind
from truemorph.errors import InputError
from truemorph.simulate import simulate_survey

VALUES = {
    "gold": "gold", "intrinsic": ["z"], "observables": ["x"], "family": "weibull", "false_disk": 0.1, "compare": False,
    "bootstrap": 2, "delta": 1.0, "alpha_error": 0.2, "bins": 20,
}  # fmt: skip
EVERY = tuple(dict.fromkeys(chain(*(options for of in OPTIONS.values() for options in of.values()))))
KINDS = get_args(Kind)
CELLS = [*product(OPTIONS, KINDS, EVERY)]


def is_used(method, kind, option):
    return option in OPTIONS[method].get(kind, ())


@pytest.fixture(scope="module")
def catalogues():
    """One for each kind of question, with the question, and a table of another group's answers."""
    rng, n = np.random.default_rng(4), 1200
    some = pl.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)})
    known = rng.random(n) < 0.3
    two = simulate_catalogue(n, seed=1, gold=360).drop("truth", "x2").hstack(some)
    alpha, kind = rng.lognormal(2.5, 0.45, n), rng.choice(3, n, p=(0.6, 0.25, 0.15))
    chances = np.array([[0.8, 0.15, 0.05], [0.3, 0.5, 0.2], [0.2, 0.3, 0.5]])
    counts = np.array([rng.multinomial(15, chances[k]) for k in kind])
    experts = np.where(known, np.array(["none", "minor", "major"])[kind], "")
    stages = some.with_columns(pl.Series("id", range(n)), a=alpha, experts=experts)
    stages = stages.with_columns(pl.Series(f"n{k}", counts[:, k]) for k in range(3))
    answers = {"question": "stage", "answers": "none=n0,minor=n1,major=n2", "id": "id", "alpha": "a"}
    others = two.select("object_id", s=pl.col("label") * 20 + 10, d=30 - pl.col("label") * 20)
    _, votes = simulate_survey(n, seed=3)
    votes = votes.hstack(some).with_columns(experts=pl.when(pl.Series(known)).then("truth_bar"))
    tree = {"name": "own", "questions": [{"name": "smooth or disk", "answers": {"smooth": ["s"], "disk": ["d"]}}]}
    prepared = prepare_catalogue(
        two.with_columns(s=30 - pl.col("label") * 20, d=pl.col("label") * 20 + 10, id="object_id"),
        tree=tree, id="id", alpha="alpha", gold="gold",
    )  # fmt: skip
    of_stage = prepare_catalogue(stages, gold="experts", **answers)
    of_bar = prepare_catalogue(votes, question="bar", gold="experts")
    return {
        "two answers": (prepared.catalogue, None, others),
        "more answers": (of_stage.catalogue, "stage", stages.rename({"id": "object_id"})),
        "asked after others": (of_bar.catalogue, "bar", votes.with_columns(object_id="dr7objid")),
    }


def estimated(catalogues, method, kind, options):
    catalogue, question, others = catalogues[kind]
    values = {**VALUES, "labels": [others]}
    given = {name: values[name] for name in options}
    return estimate_transition(catalogue, question=question, method=method, **given)


def needed_by(method):
    return {NEEDS[method]} if method in NEEDS else set()


@pytest.fixture(scope="module")
def without(catalogues):
    """The estimate with only the options that a method needs."""
    return cache(lambda method, kind: estimated(catalogues, method, kind, needed_by(method)).to_dict())


@pytest.mark.parametrize(("method", "kind", "option"), [cell for cell in CELLS if not is_used(*cell)])
def test_an_option_that_would_change_nothing_is_refused(catalogues, method, kind, option):
    with pytest.raises(InputError):
        estimated(catalogues, method, kind, {option} | needed_by(method))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind", "option"), [cell for cell in CELLS if is_used(*cell)])
def test_an_option_of_a_method_changes_the_estimate(catalogues, without, method, kind, option):
    found = estimated(catalogues, method, kind, {option} | needed_by(method)).to_dict()
    assert option in needed_by(method) or found != without(method, kind)
    assert found["method"] == method


@pytest.mark.parametrize("method", [need for need in NEEDS if need in OPTIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_a_method_needs_what_it_rests_on(catalogues, method, kind):
    with pytest.raises(InputError):
        estimated(catalogues, method, kind, ())


def test_the_page_has_the_table_of_methods():
    columns = [(method, kind) for method, of in OPTIONS.items() for kind in of]
    head = ["option", *(f"{method}, {kind}" if method == "gold" else method for method, kind in columns)]
    rows = [[f"`{one}`", *("yes" if is_used(*column, one) else "" for column in columns)] for one in EVERY]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    assert table in (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
