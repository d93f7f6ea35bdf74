"""Decision trees and real votes: each question has as many votes as the answers after which it is asked."""

import numpy as np
import polars as pl
import pytest

from real.test_tree_transition import read_votes
from truemorph import read_tree

# Shares of galaxies of Galaxy Zoo 2 for which the numbers are equal: a few volunteers left out a question.
EQUAL = {"edge-on": 0.98, "odd": 0.96, "roundness": 0.96}


def questions_of(name):
    return [question.name for question in read_tree(name).questions]


def asked(votes):
    """Votes for the answers after which the question is asked, shape (N,)."""
    tree = votes.asked.tree
    gates, question = tree.gates(votes.asked.question), tree.question(votes.asked.question)
    return sum(
        votes.counts[gate.name][:, list(gate.answers).index(answer)]
        for gate in gates
        for answer in question.asked_after
        if answer in gate.answers
    )


@pytest.mark.parametrize("question", questions_of("gz2")[1:])
def test_galaxy_zoo_2(shared_data, question):
    votes, found = read_votes("gz2", question, pl.read_parquet(shared_data / "gz2_tree.parquet"))
    assert found.kind == "counts"
    missing = asked(votes) - votes.counts[question].sum(axis=1)
    assert (missing == 0).mean() > EQUAL.get(question, 0.99)
    assert (np.abs(missing) <= 1).mean() > 0.998


@pytest.mark.parametrize("question", questions_of("gz-jwst")[1:])
def test_jwst(shared_data, question):
    votes, _ = read_votes("gz-jwst", question, pl.read_parquet(shared_data / "jwst_votes.parquet"))
    np.testing.assert_array_equal(votes.counts[question].sum(axis=1), asked(votes))


@pytest.mark.parametrize("question", questions_of("gz-ferengi"))
def test_ferengi(shared_data, question):
    """Fractions of 40 votes are whole numbers of votes only if they are multiplied along the right path.

    The table lacks some fractions: only galaxies are counted for which those of each gate add up to 1.
    """
    frame = pl.read_parquet(shared_data / "ferengi_tree.parquet")
    votes, found = read_votes("gz-ferengi", question, frame)
    assert (found.kind, found.total) == ("fractions", "classification_count")
    added = {
        name: np.sum([frame[column].to_numpy() for column in columns], axis=0)
        for name, columns in found.columns.items()
    }
    use = added[question] > 0
    for name in added.keys() - {question}:
        use &= (added[name] == 0) | (np.abs(added[name] - 1) < 1e-3)
    counts = votes.counts[question][use]
    whole = (np.abs(counts - np.round(counts)) < 0.02).all(axis=1)
    assert use.sum() > 300
    assert whole.mean() > 0.95
