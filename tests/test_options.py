"""Every option of every command changes the result, or is refused.

`transition` has a table of methods and options of its own: tests/bias/test_methods.py.
"""

import inspect
from importlib import import_module

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from truemorph.bias.methods import OPTIONS
from truemorph.cli import COMMANDS
from truemorph.errors import InputError
from truemorph.simulate import simulate_survey

# Options that say where results go, or how and where they are computed.
NO_RESULT = {
    "out", "cache", "device", "engine", "precision", "shard", "overwrite", "port", "dry_run",
}  # fmt: skip
# Commands and options that need images, networks, a server or archives have tests beside their modules.
ELSEWHERE = {
    "fetch", "export", "explain", "gold label", "gold export", "report", "send", "benchmark", "reproduce", "cite",
    "demo",
}  # fmt: skip
OF_IMAGES = {
    "prepare": {"images", "tiles", "experts"},
    "label": {"id", "image_column", "images", "tiles", "convert", "hats", "gate", "max_bad"},
    "train": {"int8"},
    "gold import": {"workflow", "plan", "gold_source"},
    "transition": {*OPTIONS["gold"]["two answers"], *OPTIONS["binned"]["two answers"], "method"},
}
# By command: calls with the options that they need, and a value of each option. Values that begin with @ are in `data`.
VOTES = {"id": "id", "smooth": "s", "disk": "d", "radius": "r", "psf_fwhm": "f"}
ANSWERS = {"id": "id", "alpha": "r", "question": ["form"], "answers": ["smooth=s", "disk=d", "odd=a"]}
FEATURES = {"settings": {"features": ["covariate"]}, "preset": "dcv14", "out": "@run"}
CALLS = {
    "prepare": [["@votes", VOTES], ["@votes", VOTES | {"match": ["@beside"]}], ["@votes", ANSWERS], ["@survey", {}]],
    "bias": [
        ["@galaxies", {"bootstrap": 0}],
        ["@galaxies", {"bootstrap": 0, "intrinsic": ["z"]}],
        ["@bars", {"bootstrap": 0, "question": "bar"}],
    ],
    "transition": [["@galaxies", {"compare": False}], ["@bars", {"gold": "experts", "question": "bar"}]],
    "train": [["@galaxies", FEATURES], ["@galaxies", FEATURES | {"transition": "rayleigh:11"}]],
    "label": [["@model", "@galaxies", "@labelled", {}], ["@smooth", "@galaxies", "@labelled", {}],
              ["@bars_file", "@bars", "@labelled", {}]],
    "gold plan": [
        ["@galaxies", {"budget": 200}], ["@galaxies", {"error": 0.05}], ["@bars", {"budget": 200, "question": "bar"}],
    ],
    "gold import": [
        ["@experts", {"catalogue": "@galaxies", "out": "@gold"}],
        ["@bar_experts", {"catalogue": "@bars", "question": "bar", "out": "@gold"}],
    ],
}  # fmt: skip
VALUES = {
    "prepare": {
        "preset": "gz2-debiased", "join": ["@beside"],
        "match": ["@near"], "within": 5.0, "nearest": ["@near"], "id": "key", "smooth": "a", "disk": "a",
        "artifact": "a", "label": "gold", "classes": ["early", "late"], "definition": "spiral arms", "radius": "r2",
        "psf_fwhm": 1.0, "alpha": "r2", "columns": {"magnitude": "mag"}, "psf": "fwhm", "bands": ["i", "r", "g"],
        "size": "40arcsec", "zero_point": 22.5, "where": ["z > 0.05"], "keep": ["z > 0.05"], "cosmology": "WMAP9",
        "sample": "balanced", "split": [0.5, 0.2, 0.3], "gold": "gold", "question": ["bar"], "tree": "gz2",
        "answers": ["smooth=s", "disk=a"], "seed": 5,
    },
    "bias": {
        "labels": "@labels", "intrinsic": ["covariate"], "observables": ["covariate=first"], "bins": 3, "depth": 1,
        "where": ["alpha > 10"], "bootstrap": 5, "question": "spiral", "seed": 5,
    },
    "transition": {
        "by": "covariate", "fraction_bins": 3, "where": ["alpha > 10"], "weights": "z",
        "question": "spiral", "seed": 5,
    },
    "train": {
        "transition": "rayleigh:20", "question": ["bar"], "labels": "gold", "where": ["alpha > 15"],
        "preset": "quick", "settings": {"features": ["alpha"]},
    },
    "label": {
        "transition": "rayleigh:25", "observed": "@fewer", "bands": ["i", "r", "g"], "size": "40arcsec",
        "zero_point": 22.5, "copy": ["sampling_weight"],
    },
    "gold plan": {
        "error": 0.04, "budget": 100, "bins": 3, "labels": "@labels", "estimate": "@smooth", "by": "covariate",
        "question": "spiral", "definition": "arms", "seed": 5,
    },
    "gold import": {
        "catalogue": "@half", "id": "key", "column": "other", "definition": "arms", "question": "spiral",
    },
}  # fmt: skip
# Options that are refused here, because only networks, images or other gold labels use them.
OF_CUTOUTS = {"bands", "size", "zero_point"}
NEED_MORE = {
    "prepare": OF_CUTOUTS, "label": OF_CUTOUTS, "train": {"question", "where", "preset"},
    "transition": {"question"}, "gold import": {"question"},
}  # fmt: skip
CASES = [(command, option) for command, of in VALUES.items() for option in of]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tables, catalogues and files, by the names in calls and values."""
    folder, rng, n = tmp_path_factory.mktemp("options"), np.random.default_rng(3), 900
    columns = {"ra": rng.uniform(0, 5, n), "dec": rng.uniform(-2, 2, n), "z": rng.uniform(0.01, 0.1, n)}
    galaxies = tm.simulate_catalogue(n, seed=1, gold=300, weight_scatter=0.3).with_columns(**columns)
    smooth = np.where(galaxies["label"] == 0, 24, 12) + rng.integers(-6, 6, n)
    votes = galaxies.select(
        "ra", "dec", "z", "covariate", "gold", id="object_id", key=pl.lit(n) - pl.col("object_id").cast(pl.Int64),
        r="alpha", r2=pl.col("alpha") * 1.1, s=pl.Series(smooth), d=pl.Series(40 - smooth),
        a=pl.Series(rng.integers(0, 30, n)), f=pl.lit(2.3548), mag=17 + 10 * pl.col("z"),
    )  # fmt: skip
    beside = votes.select(
        "id", "ra", dec=pl.col("dec") + pl.when(pl.col("z") > 0.05).then(0.0004).otherwise(0.001), extra="z"
    )
    known = pl.Series(rng.random(n) < 0.4)
    survey = simulate_survey(n, seed=2)[1].with_columns(experts=pl.when(known).then("truth_bar"), x=rng.normal(size=n))
    bars = tm.prepare_catalogue(survey, question=["bar", "spiral"]).catalogue
    answers = galaxies.select("object_id", **{"class": pl.col("gold").fill_null(0)}).head(200)
    answers = answers.with_columns(other=pl.lit(1), key=pl.col("object_id").reverse())
    of_bars = bars.frame.select("object_id", other=pl.lit("no bar"), **{"class": "truth_bar"}).head(100)
    found = {"galaxies": galaxies, "votes": votes, "survey": survey, "bars": bars, "half": galaxies.head(450)}
    found |= {"fewer": galaxies.with_columns(split=pl.lit("test")).head(450)}
    files = {"beside": beside, "near": beside.with_columns(dec=pl.col("dec") + 0.0001, more="extra")}
    files |= {"experts": answers, "bar_experts": of_bars.with_columns(key=pl.col("object_id").reverse())}
    for name, table in files.items():
        found[name] = folder / f"{name}.csv"
        table.write_csv(found[name])
    found |= {"run": folder / "run", "gold": folder / "gold.parquet", "labelled": folder / "labelled.parquet"}
    found |= {"smooth": folder / "smooth.json", "bars_file": folder / "bars.json", "labels": folder / "labels.parquet"}
    tm.estimate_transition(galaxies, gold="gold", compare=False, out=found["smooth"])
    tm.estimate_transition(bars, question="bar", gold="experts", out=found["bars_file"])
    trained = tm.train_classifier(galaxies, **FEATURES | {"out": folder / "model", "transition": "rayleigh:11"})
    tm.label_galaxies(trained.model, galaxies, found["labels"])
    return found | {"model": trained.model, "outcomes": {}}


def function_of(command):
    module, name = COMMANDS[command].split(":")
    return getattr(import_module(f"truemorph.commands.{module}"), name)


def options_of(command):
    parameters = inspect.signature(function_of(command)).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def resolved(value, data):
    if isinstance(value, str):
        return data[value[1:]] if value.startswith("@") else value
    return [resolved(each, data) for each in value] if isinstance(value, list) else value


def outcome(command, k, data, **more):
    """What a call says and writes, without the names of files."""
    *positional, options = CALLS[command][k]
    for path in (data["run"], data["gold"], data["labelled"]):
        for file in [path, *path.parent.glob(f"{path.stem}.*")]:
            if file.is_file():
                file.unlink()
    if command == "train":
        options = options | {"overwrite": True}
    given = {name: resolved(value, data) for name, value in (options | more).items()}
    result = function_of(command)(*(resolved(value, data) for value in positional), **given)
    said = {name: value for name, value in result.to_dict().items() if name not in ("out", "seconds", "datasheet")}
    frames, about = [], None
    if hasattr(result, "catalogue"):
        frames, about = [result.catalogue.frame], result.catalogue.metadata
    if hasattr(result, "selected"):
        frames.append(result.selected)
    if command == "label":
        frames.append(pl.read_parquet(data["labelled"]))
    return repr((said, about)), [frame.write_csv() for frame in frames]


def test_every_option_is_tried_here_or_belongs_to_images_networks_or_archives():
    assert VALUES.keys() | ELSEWHERE == COMMANDS.keys()
    assert not VALUES.keys() & ELSEWHERE
    for command, values in VALUES.items():
        assert values.keys() | OF_IMAGES.get(command, set()) | NO_RESULT >= options_of(command), command
        assert values.keys() <= options_of(command), command


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), CASES)
def test_an_option_changes_the_result_or_is_refused(command, option, data):
    changed = 0
    for k in range(len(CALLS[command])):
        if (command, k) not in data["outcomes"]:
            data["outcomes"][command, k] = outcome(command, k, data)
        try:
            after = outcome(command, k, data, **{option: VALUES[command][option]})
        except InputError:
            continue
        assert after != data["outcomes"][command, k], f"call {k}"
        changed += 1
    assert changed or option in NEED_MORE.get(command, ())
