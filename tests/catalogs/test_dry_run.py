"""`prepare --dry-run` prints a mapping that gives the same catalogue, for every preset and tree."""

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from catalogs.made_up import T01
from catalogs.test_presets import TABLES, frame_of
from truemorph import prepare_catalogue
from truemorph.questions import packaged_trees

N = 60
GIVEN = ("recognised", "tree", "tree twice", "without a question")
NAMED = {"id": "id", "radius": "r", "psf_fwhm": "fwhm"}
SIZES = {"id": "dr7objid", "radius": "petroRad_r", "psf_fwhm": "psfWidth_r"}


def votes_of(tree, template, wording, kind):
    """Columns of all answers to a tree's questions, with the names of one template and wording."""
    rng = np.random.default_rng(0)
    columns = {"id": np.arange(N), "r": rng.uniform(3, 20, N), "fwhm": rng.uniform(1, 1.5, N)}
    for question in tree.questions:
        numbers = rng.integers(0, 20, (N, len(question.answers)))
        if question is tree.root:
            numbers[:, -1] = 0  # artifacts
            numbers[:, 0] += 2 * (numbers[:, 0] == numbers[:, 1])
        values = numbers if kind == "counts" else numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1)
        for names, column in zip(question.answers.values(), values.T, strict=True):
            columns[template.format(column=names[min(wording, len(names) - 1)])] = column
    if kind == "fractions" and tree.totals:
        columns[tree.totals[0]] = 40
    return columns


def tables_of_trees():
    for tree in packaged_trees():
        for kind, templates in (("counts", tree.counts), ("fractions", tree.fractions)):
            for template in templates:
                for wording in range(max(map(len, tree.root.answers.values()))):
                    name = f"{tree.name}-{template.replace('{column}', '')}-{wording}"
                    yield pytest.param(tree, votes_of(tree, template, wording, kind), kind, id=name)


def same_catalogue(tmp_path, table, options, again):
    """Prepare a table directly, and with the mapping that a dry run prints."""
    direct = prepare_catalogue(table, **options)
    file = tmp_path / "printed.toml"
    file.write_text(prepare_catalogue(table, **options, dry_run=True).summary())
    assert_frame_equal(prepare_catalogue(table, **again, preset=file).catalogue.frame, direct.catalogue.frame)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "columns", "options"),
    [pytest.param(name, columns, options, id=f"{name}-{n}") for n, (name, columns, _, options) in enumerate(TABLES)],
)
@pytest.mark.parametrize("by_name", [False, True], ids=["recognised", "named"])
def test_of_each_preset(tmp_path, name, columns, options, by_name):
    options = options | ({"preset": name} if by_name else {})
    same_catalogue(tmp_path, frame_of(columns), options, {})


@pytest.mark.parametrize(
    "given",
    [
        "tree",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("recognised", "tree twice", "without a question")),
    ],
)
@pytest.mark.parametrize(("tree", "columns", "kind"), [*tables_of_trees()])
def test_of_each_tree(tmp_path, tree, columns, kind, given):
    question = {} if given == "without a question" else {"question": tree.questions[-1].name}
    if kind == "fractions" and not tree.totals:
        question["columns"] = {"vote_count": "40"}
    options = {**NAMED, **question} | ({} if given == "recognised" else {"tree": tree.name})
    again = question | ({"tree": tree.name} if given == "tree twice" else {})
    same_catalogue(tmp_path, frame_of(columns), options, again)


GZ2_TABLE = TABLES[1][1] | {"kind": ["A  B", "A B"] * 20}
ODD = {
    "sersic_n": {"column": "n\npsf_fwhm = 9", "optional": True},
    "ellipticity": {"expression": "CASE WHEN kind = 'A  B' THEN 0.1 ELSE 0.2 END"},
}
ANSWERS = {"question": "stage", "answers": ("none=n0", "minor=n1")}


@pytest.mark.parametrize(
    "options",
    [
        {"preset": {"extends": "gz2", "about": 'My "survey" \\ [x]\n = 3', "definition": "disk: spirals"}},
        {"classes": ("early-type", "late-type"), "definition": "late-type: with arms"},
        {"preset": {"extends": "paper", "columns": ODD}, "keep": ["petroRad_r > 5"], "sample": "9,8"},
        {"psf_fwhm": 1.3},
        {"columns": {"redshift": "0.5 * redshift", "vote_count": "40"}},
        {"sample": "balanced", "split": "0.5,0.25,0.25", "cosmology": "Planck18"},
        {"smooth": f"{T01}a01_smooth_debiased", "disk": f"{T01}a02_features_or_disk_debiased", **SIZES},
        {"label": "CASE WHEN redshift > 0 AND petroRad_r > 10 THEN 1 ELSE 0 END", **SIZES},
        {"question": "smooth"},
    ],
    ids=lambda one: ",".join(one),
)
def test_of_options(tmp_path, options):
    again = {"question": "smooth"} if "question" in options else {}
    same_catalogue(tmp_path, frame_of(GZ2_TABLE), options, again)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("given", ["answers", "content", "file"])
def test_of_a_tree_of_ones_own(tmp_path, given, twice):
    rng = np.random.default_rng(0)
    columns = {"id": np.arange(N), "r": rng.uniform(3, 20, N), "fwhm": rng.uniform(1, 1.5, N)}
    columns |= {"n0": rng.integers(0, 9, N) * 2, "n1": rng.integers(0, 9, N) * 2 + 1}
    tree = {"name": "mine", "questions": [{"name": "stage", "answers": {"none": ["n0"], "minor": ["n1"]}}]}
    (tmp_path / "tree.toml").write_text('[[questions]]\nname = "stage"\nanswers = { none = ["n0"], minor = ["n1"] }\n')
    own = {"answers": ANSWERS, "content": {"tree": tree}, "file": {"tree": tmp_path / "tree.toml"}}[given]
    options = {"question": "stage", **own}
    same_catalogue(tmp_path, frame_of(columns), NAMED | options, options if twice else {"question": "stage"})
