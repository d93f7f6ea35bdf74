"""Damaged files: every reader gives a result or one clear error, never another exception.

Each file is changed at random: bits flipped, bytes cut out, repeated or replaced, numbers made huge. `make fuzz` does
many more rounds (TRUEMORPH_FUZZ, times the default number).
"""

import copy
import json
import os
import shutil
import tarfile
import tomllib
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import simplejpeg
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import truemorph as tm
from truemorph.archives.provenance import is_recorded
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.mapping import mapping_toml, read_mapping
from truemorph.classifiers.fits import read_fit
from truemorph.config import run_config
from truemorph.errors import TruemorphError
from truemorph.gold.plan import read_plan
from truemorph.gold.session import read_session
from truemorph.labelling.sources import tar_batches
from truemorph.tables import CatalogTable, read_table, write_table

ROUNDS = 30 * int(os.environ.get("TRUEMORPH_FUZZ", "1"))
WORDS = (
    b"1e999",
    b"-1",
    b"null",
    b"NaN",
    b"[]",
    b"{}",
    b'"',
    b"999999999999999999999",
    b"\x00",
    b"\xff\xfe",
    b",",
    b"\n",
)


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with one to four random changes."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(max(len(out), 1)))
        kind = rng.integers(6)
        if kind == 0 and out:
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del out[place : place + int(rng.integers(1, 40))]
        elif kind == 2:
            out[place:place] = out[max(0, place - 30) : place]
        elif kind == 3:
            out[place : place + 3] = WORDS[rng.integers(len(WORDS))]
        elif kind == 4:
            out[place:] = b""
        else:
            out[place : place + 8] = rng.bytes(8)
    return bytes(out)


@pytest.fixture(scope="module")
def table():
    return tm.simulate_catalogue(60, gold=30).with_columns(name=pl.format("g{}", "object_id"))


@pytest.fixture(scope="module")
def files(table, tmp_path_factory):
    """Valid files of every kind that truemorph reads, by name, with the function that reads them."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for ending in (".parquet", ".csv", ".fits", ".ecsv", ".vot"):
        path = write_table(CatalogTable(table, {"alpha": ""}), folder / f"catalogue{ending}")
        made[path] = read_catalogue
        shutil.copy(path, folder / f"table{ending}")
        made[folder / f"table{ending}"] = read_table
    tm.estimate_transition(tm.simulate_catalogue(2000), compare=False, out=folder / "fit.json")
    made[folder / "fit.json"] = read_fit
    model = folder / "model"
    catalogue = tm.simulate_catalogue(500)
    tm.train_classifier(catalogue, out=model, preset="dcv14", settings={"features": ["covariate"], "folds": 2})
    for name in ("config.json", "model.safetensors", "seen.parquet"):
        made[model / name] = lambda path: tm.load(path.parent)
    made[model / "run.toml"] = lambda path: run_config(path)
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (folder / "a.jpg").write_bytes(simplejpeg.encode_jpeg(picture, colorspace="RGB"))
    made[folder / "a.jpg"] = _decoded
    with tarfile.open(folder / "all.tar", "w") as tar:
        for number in range(3):
            tar.add(folder / "a.jpg", f"g{number}.jpg")
    made[folder / "all.tar"] = lambda path: list(tar_batches(path, 2))
    (folder / "mapping.toml").write_text(mapping_toml(read_mapping("paper")))
    made[folder / "mapping.toml"] = read_mapping
    return made


def _decoded(path):
    from truemorph.images.decode import AS_THEY_ARE, decode, read_image_file

    return decode(read_image_file(path), str(path), AS_THEY_ARE)


NAMES = [
    *(
        f"{kind}{ending}"
        for kind in ("catalogue", "table")
        for ending in (".parquet", ".csv", ".fits", ".ecsv", ".vot")
    ),
    *("fit.json", "config.json", "model.safetensors", "seen.parquet", "run.toml", "a.jpg", "all.tar"),
    "mapping.toml",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_gives_a_result_or_one_clear_error(files, name):
    path, read = next((path, read) for path, read in files.items() if path.name == name)
    content = path.read_bytes()
    read(path)  # the undamaged file is read
    lengths = []
    try:
        for seed in range(ROUNDS):
            path.write_bytes(changed(content, np.random.default_rng([seed, 27])))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read(path)
                except TruemorphError as problem:
                    lengths.append(len(str(problem)))
                except Exception as problem:
                    raise AssertionError(f"seed {seed}: {type(problem).__name__}: {problem}") from problem
    finally:
        path.write_bytes(content)
    assert lengths  # some damage was noticed
    assert max(lengths) < 1500


# Values of a file, changed one at a time.
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OLD_MODEL = Path(__file__).parent / "versions" / "0.1" / "model"


def places(content, above=()):
    """Return the keys that lead to each value."""
    if not isinstance(content, dict | list):
        return []
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return [path for key, one in items for path in [(*above, key), *places(one, (*above, key))]]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """JSON and TOML files, by name, with the function that reads them; the model has no checksums."""
    folder = tmp_path_factory.mktemp("described")
    galaxies = tm.simulate_catalogue(2000)
    tm.estimate_transition(galaxies, compare=False, out=folder / "fit.json")
    tm.plan_gold(galaxies.with_columns(image=pl.lit("a.jpg")), budget=60, out=folder / "plan")
    shutil.copytree(OLD_MODEL, folder / "model")
    session = {"gold_source": "same-images", "images": "images", "better": None}
    (folder / "plan" / "session.json").write_text(json.dumps(session))
    (folder / "t.csv").write_text("a\n1\n")
    (folder / "provenance.json").write_text(json.dumps({"t.csv": {"url": "https://x.org/t.csv", "sha256": "0"}}))
    (folder / "mapping.toml").write_text(mapping_toml(read_mapping("paper")))
    return {
        folder / "fit.json": read_fit,
        folder / "plan" / "plan.json": lambda path: read_plan(path.parent),
        folder / "plan" / "session.json": lambda path: read_session(path.parent),
        folder / "model" / "config.json": lambda path: (tm.load(path.parent).findings, tm.load(path.parent).summary()),
        folder / "model" / "run.toml": run_config,
        folder / "provenance.json": lambda path: is_recorded(path.with_name("t.csv"), "https://x.org/t.csv"),
        folder / "mapping.toml": read_mapping,
    }


@pytest.mark.parametrize(
    "name", ["fit.json", "plan.json", "session.json", "config.json", "run.toml", "provenance.json", "mapping.toml"]
)
def test_a_changed_value_gives_a_result_or_one_clear_error(described, name):
    path, read = next((path, read) for path, read in described.items() if path.name == name)
    whole = path.read_text()
    parse, write = (tomllib.loads, tomli_w.dumps) if path.suffix == ".toml" else (json.loads, json.dumps)
    content = parse(whole)

    @settings(max_examples=ROUNDS)
    @given(st.sampled_from(places(content)), VALUES)
    def change(place, value):
        altered = copy.deepcopy(content)
        parent = altered
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = value
        path.write_text(write(altered))
        try:
            read(path)
        except TruemorphError as problem:
            said.append(str(problem))

    said = []
    read(path)
    try:
        change()
        assert all(len(one) < 1500 and "\n" not in one for one in said)
    finally:
        path.write_text(whole)
