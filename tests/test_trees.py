"""Decision trees of surveys agree with the presets, which read the same tables."""

import re

import pytest

from truemorph import read_tree
from truemorph.catalogs.mapping import read_mapping

NAMES = {"smooth": "smooth", "disk": "disk", "artifact": "artefact"}  # of answers, and in presets


def columns_in(preset, name):
    """Columns that a preset reads for a quantity; its expressions quote them."""
    column = preset.columns.get(name)
    return set() if column is None else {*column.column, *(re.findall('"([^"]+)"', " ".join(column.expression)))}


@pytest.mark.parametrize(
    ("preset", "trees"),
    [
        ("gz2", ["gz2"]),
        ("candels", ["gz-candels"]),
        ("gz-hubble", ["gz-hubble"]),
        ("gz-decals", ["gz-decals-1-2", "gz-decals-5"]),
        ("desi", ["gz-decals-1-2", "gz-decals-5", "gz-desi"]),
    ],
)
def test_presets_read_the_columns_of_the_first_question(preset, trees):
    read = read_mapping(preset)
    found = [read_tree(name) for name in trees]
    totals = {total for tree in found for total in tree.totals}
    for answer, name in NAMES.items():
        for kind, templates in (("votes", "counts"), ("fraction", "fractions")):
            known = {
                template.format(column=column)
                for tree in found
                for template in getattr(tree, templates)
                for column in tree.root.answers[answer]
            }
            columns = columns_in(read, f"{name}_{kind}")
            assert columns & known
            assert columns <= known | totals
    assert columns_in(read, "vote_count") <= totals


@pytest.mark.parametrize(
    ("tree", "campaign"),
    [
        ("gz2", "gz2"),
        ("gz-decals-1-2", "dr12"),
        ("gz-decals-5", "dr5"),
        ("gz-desi", "dr8"),
        ("gz-cosmic-dawn", "cd"),
        ("gz-jwst", "jwst"),
        ("gz-ukidss", "ukidss"),
        ("gz-candels", "candels"),
        ("gz-hubble", "hubble"),
    ],
)
def test_columns_with_the_campaign_in_each_question_are_found(tree, campaign):
    """As in the package galaxy-datasets: bar-dr5_strong."""
    read = read_tree(tree)
    existing = {
        name
        for question in read.questions
        for names in question.answers.values()
        for name in names
        if f"-{campaign}_" in name
    }
    for question in read.gates("arms"):
        found = read.columns(question.name, existing)
        assert found.kind == "counts"
        assert len({one.rpartition("_")[0] for one in found.columns[question.name]}) == 1
