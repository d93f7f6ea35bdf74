"""Damaged files: every reader gives a result or one clear error, never another exception.

Each file is changed at random: bytes cut out, repeated or replaced, numbers made huge. `make fuzz` does
many more rounds (TRUEMORPH_FUZZ, times the default number).
"""

import copy
import datetime
import io
import json
import os
import re
import shutil
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import simplejpeg
import tomli_w
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

import truemorph as tm
from conftest import json_values
from truemorph import Estimate, read_tree, write_table
from truemorph.archives.provenance import is_recorded
from truemorph.bias.files import read_fit
from truemorph.catalogs.catalogue import read_catalogue
from truemorph.catalogs.mapping import mapping_toml, read_mapping
from truemorph.catalogs.selected import SampleOptions, rows_of
from truemorph.config import options_in
from truemorph.errors import TruemorphError
from truemorph.gold.answers import read_answers, record_answer
from truemorph.gold.importing import answers_of_table
from truemorph.gold.plan import read_plan
from truemorph.gold.session import read_session
from truemorph.images.decode import decode, read_image_file
from truemorph.images.tiles import open_tiles
from truemorph.labelling.hats import write_hats
from truemorph.labelling.parts import tar_batches
from truemorph.labelling.sources import open_source
from truemorph.tables import CatalogTable

ROUNDS = 30 * int(os.environ.get("TRUEMORPH_FUZZ", "1"))
WORDS = (b"1e999", b"-1", b"null", b"NaN", b"[]", b"{}", b'"', 21 * b"9", b"\x00", b"\xff\xfe", b",", b"\n")
OLD_MODEL = Path(__file__).parent / "versions" / "0.1" / "model"
HATS = ("partition_info.csv", "dataset/Norder=0/Dir=0/Npix=4.parquet")


def in_folder(read):
    """Read the folder of a file."""
    return lambda path: read(path.parent)


def read_all_paths(path):
    tree = read_tree(path)
    return [tree.classes(question.name) for question in tree.questions]


def read_hats(path):
    """Read all rows of the catalogue to which a file belongs."""
    source = open_source(next(parent for parent in path.parents if parent.name == "sky"))
    return [rows.frame for part in source.parts for rows in part.batches(8)]


def cut_from_tile(path):
    tiles = open_tiles(str(path.with_name(f"[t]{path.name[1:]}")), ["r"])  # a pattern; otherwise it is a table of tiles
    return [cut() for cut in tiles.cuts(0, *np.array([[150.0], [2.0], [5.0]]))]


# Every kind of file that truemorph reads, with the function that reads it; the old model has no checksums.
READERS = {
    **{
        f"catalogue.{ending}": lambda path: rows_of(read_catalogue(path), SampleOptions())
        for ending in ("parquet", "csv", "fits", "ecsv", "vot")
    },
    "model/config.json": in_folder(tm.load),
    "model/run.toml": options_in,
    "old/seen.parquet": in_folder(tm.load),
    "old/config.json": lambda path: (tm.load(path.parent).findings, tm.load(path.parent).summary()),
    "old/run.toml": options_in,
    "fit.json": read_fit,
    "plan/plan.json": in_folder(read_plan),
    "plan/plan.parquet": in_folder(read_plan),
    "plan/session.json": in_folder(read_session),
    "plan/answers.sqlite": in_folder(read_answers),
    "plan/twins.parquet": in_folder(read_answers),
    "zooniverse.csv": lambda path: answers_of_table(path, "object_id", "class"),
    "provenance.json": lambda path: is_recorded(path.with_name("t.csv"), "https://x.org/t.csv"),
    "mapping.toml": read_mapping,
    **{f"estimate.{ending}": lambda path: Estimate.read(path.with_suffix(".json")) for ending in ("json", "npz")},
    "tree.toml": read_all_paths,
    **{f"sky/{name}": read_hats for name in HATS},
    **{f"tile.{ending}": cut_from_tile for ending in ("fits", "fits.gz")},
    "a.jpg": lambda path: decode(read_image_file(path), str(path)),
    "all.tar": lambda path: list(tar_batches(path, 2)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a valid file for each reader."""
    folder = tmp_path_factory.mktemp("files")
    galaxies = tm.simulate_catalogue(2000, gold=30)
    for name in READERS:
        if name.startswith("catalogue"):
            table = galaxies[:60].with_columns(name=pl.format("g{}", "object_id"), sampling_weight=1.0)
            write_table(CatalogTable(table, {"alpha": ""}), folder / name)
    options = {"features": ["covariate"], "folds": 2}
    tm.train_classifier(galaxies[:500], out=folder / "model", preset="dcv14", settings=options)
    shutil.copytree(OLD_MODEL, folder / "old")
    tm.estimate_transition(galaxies, compare=False, out=folder / "fit.json")
    tm.estimate_transition(galaxies, gold="gold", compare=False, out=folder / "estimate.json")
    tm.plan_gold(galaxies.with_columns(image=pl.lit("a.jpg")), budget=60, out=folder / "plan")
    record_answer(folder / "plan", "Ann", "1", "first", "disk", "a bar", 2.5)
    pl.DataFrame({"object_id": ["1"], "image": ["1.png"], "twin_alpha": [4.5]}).write_parquet(
        folder / "plan/twins.parquet"
    )
    session = {"gold_source": "same-images", "images": "images", "better": None}
    (folder / "plan" / "session.json").write_text(json.dumps(session))
    tasks, subject = json.dumps([{"value": "Smooth"}]), json.dumps({"9": {"#object_id": "1"}})
    export = {"user_name": ["Ann", "Ben"], "annotations": tasks, "subject_data": subject}
    export["created_at"] = "2026-11-29 12:00:00 UTC"
    pl.DataFrame(export).write_csv(folder / "zooniverse.csv")
    (folder / "t.csv").write_text("a\n1\n")
    (folder / "provenance.json").write_text(json.dumps({"t.csv": {"url": "https://x.org/t.csv", "sha256": "0"}}))
    (folder / "mapping.toml").write_text(mapping_toml(read_mapping("paper")))
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (folder / "a.jpg").write_bytes(simplejpeg.encode_jpeg(picture, colorspace="RGB"))
    shutil.copy(Path(tm.__file__).parent / "trees" / "gz2.toml", folder / "tree.toml")
    sky = {"id": range(9), "ra": [10.0] * 9, "dec": [5.0] * 9, "image": [(folder / "a.jpg").read_bytes()] * 9}
    pl.DataFrame(sky).write_parquet(folder / "sky.parquet")
    write_hats([folder / "sky.parquet"], folder / "sky", pq.read_schema(folder / "sky.parquet"), ("ra", "dec"))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150, 2]
    wcs.wcs.crpix, wcs.wcs.cdelt = [20, 20], [-1e-4, 1e-4]
    for ending in ("fits", "fits.gz"):
        values = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
        fits.PrimaryHDU(values, wcs.to_header()).writeto(folder / f"tile.{ending}")
    with tarfile.open(folder / "all.tar", "w") as tar:
        for number in range(3):
            tar.add(folder / "a.jpg", f"g{number}.jpg")
    return folder


def changed(content, rng):
    """Replace up to four pieces by nothing, a copy of the bytes before, a word, or random bytes."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place, length = int(rng.integers(len(out) + 1)), int(rng.choice([0, 1, 3, 8, 40, len(content)]))
        before = bytes(out[max(0, place - 30) : place])
        pieces = (b"", before, WORDS[rng.integers(len(WORDS))], rng.bytes(1), rng.bytes(8))
        out[place : place + length] = pieces[rng.integers(len(pieces))]
    return bytes(out)


def read_all(path, read, variants):
    """Read the file, and variants of it, bytes: some are refused with a short error, none raises another exception."""
    whole, lengths = path.read_bytes(), []
    read(path)
    try:
        for number, content in enumerate(variants):
            path.write_bytes(content)
            try:
                read(path)
            except TruemorphError as problem:
                lengths.append(len(str(problem)))
            except Exception as problem:
                raise AssertionError(f"variant {number}: {type(problem).__name__}: {problem}") from problem
    finally:
        path.write_bytes(whole)
    assert 0 < max(lengths, default=0) < 1500


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_gives_a_result_or_one_clear_error(folder, name):
    content = (folder / name).read_bytes()
    damaged = (changed(content, np.random.default_rng([seed, 27])) for seed in range(ROUNDS))
    read_all(folder / name, READERS[name], damaged)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [reader for reader in READERS if re.fullmatch("(catalogue|old|plan).*parquet", reader)]
)
def test_a_column_that_lacks_or_has_another_type_gives_a_result_or_one_clear_error(folder, name):
    frame, variants = pl.read_parquet(folder / name), []
    for column in frame.columns:
        others = [None, True, 7, -1.5, float("nan"), "x", b"\xff", datetime.date(2026, 1, 1)]
        made = [frame.with_columns(pl.lit(other).alias(column)) for other in others]
        made += [frame.with_columns(one(column).alias(column)) for one in (pl.concat_list, pl.struct)]
        for other in (frame.drop(column), *made):
            other.write_parquet(buffer := io.BytesIO())
            variants.append(buffer.getvalue())
    read_all(folder / name, READERS[name], variants)


def test_weights_of_other_names_or_shapes_are_refused(folder):
    weights = load_file(folder / "old/model.safetensors")
    others = [
        {name: value[:-1] for name, value in weights.items()},
        {f"{name}s": weight for name, weight in weights.items()},
        {},
    ]
    read_all(folder / "old/model.safetensors", READERS["old/config.json"], map(save, others))


def places(content, above=()):
    """Return the keys that lead to each value."""
    if not isinstance(content, dict | list):
        return []
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return [path for key, one in items for path in [(*above, key), *places(one, (*above, key))]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [reader for reader in READERS if reader.endswith(("json", "toml")) and "model/" not in reader]
)
def test_a_changed_value_gives_a_result_or_one_clear_error(folder, name):
    path, read = folder / name, READERS[name]
    whole = path.read_text()
    parse, write = (tomllib.loads, tomli_w.dumps) if path.suffix == ".toml" else (json.loads, json.dumps)
    content = parse(whole)

    @settings(max_examples=ROUNDS)
    @given(st.sampled_from(places(content)), json_values(st.floats()))
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
            said = str(problem)
            assert len(said) < 1500
            assert "\n" not in said

    read(path)
    try:
        change()
    finally:
        path.write_text(whole)
