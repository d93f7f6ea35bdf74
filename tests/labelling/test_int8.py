"""int8 is aligned with float32, and is used only after a test."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from conftest import TINY, codes
from truemorph import MatrixTransition, label_galaxies, load, train_classifier, write_table
from truemorph.bias.curves.families import transition_to_dict
from truemorph.classifiers.checkpoint import save_classifier
from truemorph.classifiers.engines import engine_for, int8
from truemorph.classifiers.engines.int8 import Alignment, compare
from truemorph.errors import InputError
from truemorph.labelling import sources
from truemorph.labelling.sources import open_source, proof_of
from truemorph.questions import Asked, Head, heads_of, read_tree
from truemorph.tables import CatalogTable

from explain.conftest import model_of  # isort: skip


def both(p):
    return np.column_stack([1 - p, p])


LABEL = heads_of([None])
GZ2 = read_tree("gz2")
QUESTIONS = [Asked(GZ2, "smooth"), Asked(GZ2, "bar")]


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.floats(-2, 2), st.sampled_from([LABEL, heads_of(QUESTIONS)]))
def test_a_known_change_is_inverted(seed, scale, shift, heads):
    rng, n = np.random.default_rng(seed), 200
    exact, fast, numbers = [], [], []
    for head in heads:
        z = np.insert(rng.normal(0, 2, (n, len(head.classes) - 1)), 0, 0, axis=1)
        shifts = np.insert(shift + np.arange(len(head.classes) - 1) / 2, 0, 0)
        exact.append(softmax(z, axis=1))
        fast.append(softmax((z - shifts) / scale, axis=1))
        numbers += [scale, *shifts[1:]]
    exact, fast = np.hstack(exact), np.hstack(fast)
    found = Alignment.fit(fast, exact, heads)
    np.testing.assert_allclose(found(fast), exact, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(found.numbers), numbers, atol=5e-3)
    certain = np.zeros((1, exact.shape[1]))
    certain[0, [head.start for head in heads]] = 1
    np.testing.assert_allclose(found(certain), certain, atol=1e-6)


def test_the_gate_measures_agreement_fractions_and_calibration():
    rng, n = np.random.default_rng(1), 20_000
    exact, alpha = both(rng.beta(0.5, 0.5, n)), rng.lognormal(2.5, 0.4, n)
    same = compare(exact, exact, alpha, LABEL)
    assert (same.agreement, same.fraction_changes, same.passed) == (1, [0] * 5, True)
    # One of a hundred labels differs.
    other = exact.copy()
    other[::100] = other[::100, ::-1]
    assert compare(exact, other, alpha, LABEL).agreement == pytest.approx(0.99)
    # Only the least resolved fifth changes, each p(disk) by 0.01.
    least = alpha < np.quantile(alpha, 0.2)
    other = both(np.where(least, np.clip(exact[:, 1] + 0.01, 0, 1), exact[:, 1]))
    moved = compare(exact, other, alpha, LABEL)
    assert 0.005 < moved.fraction_changes[0] < 0.015
    assert moved.fraction_changes[1:] == [0] * 4
    assert not moved.passed
    assert abs(np.mean(other[:, 1] - exact[:, 1])) < 0.005  # not visible in the total
    # Beside a question that is answered alike, and one of three classes, of which the last changes.
    heads = (*LABEL, Head("bar", ("other", "no bar", "bar"), (1, 2), ("other", "no bar", "bar"), 2))
    three = np.column_stack([0.5 * exact, np.full(n, 0.5)])
    changed = three.copy()
    changed[least] *= 0.99
    changed[least, 2] = 1 - changed[least, :2].sum(axis=1)
    found = compare(*(np.hstack([exact, one]) for one in (three, changed)), alpha, heads)
    np.testing.assert_allclose(found.fraction_changes, [0.005, 0, 0, 0, 0], atol=1e-9)

    # |1.2 (p - 0.5) - (p - 0.5)| has mean 0.2 / 4, less if clipped at 0 and 1.
    p = rng.random(200_000)
    found = compare(both(p), both(np.clip(0.5 + 1.2 * (p - 0.5), 0, 1)), p, LABEL)
    assert 0.035 < found.calibration_change < 0.05


@pytest.mark.slow
def test_openvino_and_nncf_write_nothing_into_the_home_directory_and_look_for_no_server(tmp_path):
    for module in ("openvino", "nncf"):
        pytest.importorskip(module)
    code = """
import socket
def refused(*_, **__):
    print("looked for a server")
    raise OSError
socket.getaddrinfo = refused
import truemorph.classifiers.engines.int8, nncf, time
time.sleep(1)  # usage data are sent by a thread
"""
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert "looked" not in done.stdout
    assert not (tmp_path / "intel").exists()


def compare_on(monkeypatch, images):
    for module in (sources, int8):
        monkeypatch.setattr(module, "GATE_IMAGES", images)


def loosen(monkeypatch, images):
    """Test int8 on few images, with limits that small networks reach."""
    for name, value in (("_CALIBRATION_IMAGES", 8), ("_EVERY", 3)):
        monkeypatch.setattr(sources, name, value)
    compare_on(monkeypatch, images)
    for name, value in (("LEAST_AGREEMENT", 0.8), ("MOST_FRACTION_CHANGE", 0.2), ("MOST_CALIBRATION_CHANGE", 0.2)):
        monkeypatch.setattr(int8, name, value)


@pytest.mark.slow
def test_training_tests_int8_on_held_out_galaxies(catalogue, tmp_path, monkeypatch):
    for module in ("openvino", "nncf"):
        pytest.importorskip(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"transition": "rayleigh:11.25:sigma", "preset": "quick", "settings": TINY | {"epochs": 1, "folds": 1}}
    loosen(monkeypatch, 24)
    made = train_classifier(catalogue, out=tmp_path / "made", int8=True, **options)
    assert "int8-not-used" not in codes(made)
    assert engine_for(load(tmp_path / "made")).description == "openvino cpu int8"
    compare_on(monkeypatch, 10_000)
    too_few = train_classifier(catalogue, out=tmp_path / "few", int8=True, **options)
    assert "int8-not-used" in codes(too_few)
    assert "int8" not in engine_for(load(tmp_path / "few")).description


@pytest.mark.slow
@pytest.mark.parametrize("questions", [[], QUESTIONS], ids=["label", "questions"])
def test_int8_is_made_tested_and_kept(questions, pictures, folder, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pytest.importorskip("nncf")
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"object_id": list(pictures), "alpha": rng.lognormal(2.5, 0.4, 60), "split": "test"})
    frame = frame.with_columns(image=pl.col("object_id") + ".jpg", label=rng.integers(0, 2, 60))
    frame = frame.with_columns(label_smooth=pl.lit("smooth"), label_bar=pl.lit("smooth"))
    table = CatalogTable(frame, metadata={"image_root": str(folder), "alpha_psf": "sigma"})
    proof = write_table(table, tmp_path / "cat.parquet")
    loosen(monkeypatch, 38)
    made = model_of(size=32, members=2, questions=questions)
    if questions:
        curves = [transition_to_dict(MatrixTransition.identity(len(question.classes))) for question in questions]
        made.described |= {"transition": curves[0], "further_transitions": curves[1:]}
    model = load(save_classifier(made, tmp_path / "model"))
    options = {"engine": "openvino", "precision": "int8"}
    first = label_galaxies(model, proof, tmp_path / "first.parquet", **options)
    assert first.labelled == 60
    (about,) = (tmp_path / "cache").rglob("gate.json")
    kept = json.loads(about.read_text())
    assert (kept["images"], len(kept["fraction_changes"]), kept["model_hash"]) == (38, 5, model.model_hash)
    # It has passed, so no catalogue is needed, and labels are the same.
    label_galaxies(load(tmp_path / "model"), tmp_path / "images", tmp_path / "second.parquet", **options)
    columns = [column for column in pl.read_parquet_schema(tmp_path / "first.parquet") if column.startswith("p_")]
    assert len(columns) >= len(model.classes)
    p = [pl.read_parquet(tmp_path / f"{name}.parquet")[columns].to_numpy() for name in ("first", "second")]
    np.testing.assert_allclose(*p, atol=1e-6)
    exact = label_galaxies(model, proof, tmp_path / "exact.parquet", engine="openvino", precision="fp32").out
    np.testing.assert_allclose(p[0].mean(axis=0), pl.read_parquet(exact)[columns].to_numpy().mean(axis=0), atol=0.02)
    # Nothing that has changed is used, nor what does not pass now.
    assert engine_for(model).description == "openvino cpu int8"
    stored = about.parent
    for name in ("member-1.bin", "member-0.xml", "gate.json"):
        before = (stored / name).read_bytes()
        (stored / name).write_bytes(before.replace(b"0", b"1", 1))
        with pytest.raises(InputError, match="`gate`"):
            engine_for(model, "openvino", "int8")
        assert "int8" not in engine_for(model).description
        (stored / name).write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(int8, "LEAST_AGREEMENT", 1.01)
        with pytest.raises(InputError, match="`gate`"):
            engine_for(model, "openvino", "int8")
    engine_for(model, "openvino", "int8")
    # Not valid for another model in the same folder.
    described = {key: one for key, one in model.described.items() if key != "sha256"} | {"metrics": {"other": 1}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(described))
    other = load(tmp_path / "model")
    with pytest.raises(InputError, match="`gate`"):
        engine_for(other, "openvino", "int8")
    with pytest.raises(InputError, match="`gate`"):
        engine_for(other, "openvino", "int8", proof_of(open_source(tmp_path / "images"), other.config))
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(InputError, match="38 images"):
        engine_for(other, "openvino", "int8", proof_of(open_source(proof), other.config))
