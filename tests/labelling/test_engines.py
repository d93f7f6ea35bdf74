"""All engines agree with float32 PyTorch; int8 is used only after a test."""

import json

import numpy as np
import polars as pl
import pytest

from truemorph.classifiers.checkpoint import load, save_classifier
from truemorph.commands.label import label_galaxies
from truemorph.errors import InputError
from truemorph.labelling.engines import engine_for, int8
from truemorph.labelling.engines.int8 import Gate, compare
from truemorph.labelling.engines.onnx import export_onnx
from truemorph.labelling.sources import open_source
from truemorph.tables import CatalogTable, write_table

from labelling.conftest import write_folder  # isort: skip


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (37, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-4), ("bf16", 0.03)])
def test_engines_agree_with_the_model(image_model, pixels, name, precision, within):
    if name == "openvino":
        pytest.importorskip("openvino")
    model = load(image_model)
    engine = engine_for(model, name, precision)
    assert engine.description == f"{name} cpu {precision}"
    for member in range(2):
        exact = model.member_probabilities(pixels, member)
        np.testing.assert_allclose(engine.member(pixels, member), exact, atol=within)
        assert engine.member(pixels[:1], member).shape == (1, 2)


def test_unknown_engines_raise_errors(image_model):
    model = load(image_model)
    with pytest.raises(InputError, match="no engine 'tensorrt'"):
        engine_for(model, "tensorrt")
    with pytest.raises(InputError, match="int8 needs `engine` openvino"):
        engine_for(model, "torch", "int8")


def probabilities(n, seed=0):
    p = np.random.default_rng(seed).beta(0.5, 0.5, n)
    return np.column_stack([1 - p, p])


def test_the_gate_measures_agreement_fractions_and_calibration():
    exact = probabilities(20_000)
    alpha = np.random.default_rng(1).lognormal(2.5, 0.4, 20_000)
    same = compare(exact, exact, alpha)
    assert (same.agreement, same.fraction_changes, same.calibration_change) == (1, [0] * 5, 0)
    assert same.passed
    # One of a hundred labels differs.
    other = exact.copy()
    other[::100] = other[::100, ::-1]
    assert compare(exact, other, alpha).agreement == pytest.approx(0.99)
    # Only the least resolved fifth changes, each p(disk) by 0.01.
    least = alpha < np.quantile(alpha, 0.2)
    other = exact.copy()
    other[least, 1] = np.clip(exact[least, 1] + 0.01, 0, 1)
    other[:, 0] = 1 - other[:, 1]
    moved = compare(exact, other, alpha)
    assert 0.005 < moved.fraction_changes[0] < 0.015
    assert moved.fraction_changes[1:] == [0] * 4
    assert not moved.passed
    assert abs(np.mean(other[:, 1] - exact[:, 1])) < 0.005  # not visible in the total
    assert not Gate(9_999, 1.0, [0.0] * 5, 0.0, "truth").passed


def test_calibration_is_compared_with_the_truth():
    rng = np.random.default_rng(2)
    p = rng.random(200_000)
    true = rng.random(200_000) < p
    exact = np.column_stack([1 - p, p])
    sure = np.clip(0.5 + 1.2 * (p - 0.5), 0, 1)
    found = compare(exact, np.column_stack([1 - sure, sure]), p, true.astype(int))
    # |1.2 (p - 0.5) - (p - 0.5)| has mean 0.2 / 4, less if clipped at 0 and 1.
    assert 0.035 < found.calibration_change < 0.05
    assert found.against == "truth"


@pytest.fixture
def proof(pictures, tmp_path):
    """A prepared catalogue of the images."""
    folder = write_folder(tmp_path / "images", pictures)
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "object_id": list(pictures), "image": [f"{name}.jpg" for name in pictures], "split": ["test"] * 60,
            "label": rng.integers(0, 2, 60), "alpha": rng.lognormal(2.5, 0.4, 60),
        }
    )  # fmt: skip
    metadata = {"image_root": str(folder), "alpha_psf": "sigma"}
    return write_table(CatalogTable(frame, metadata=metadata), tmp_path / "cat.parquet")


@pytest.fixture
def small_gate(monkeypatch):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    monkeypatch.setattr(int8, "CALIBRATION_IMAGES", 16)
    monkeypatch.setattr(int8, "GATE_IMAGES", 40)
    monkeypatch.setattr(int8, "_EVERY", 3)


@pytest.mark.slow
def test_int8_is_made_tested_and_stored(image_model, proof, tmp_path, small_gate, monkeypatch, capsys):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 0.8)
    monkeypatch.setattr(int8, "MOST_FRACTION_CHANGE", 0.2)
    monkeypatch.setattr(int8, "MOST_CALIBRATION_CHANGE", 0.2)
    model = load(save_classifier(load(image_model), tmp_path / "model"))
    options = {"engine": "openvino", "precision": "int8"}
    first = label_galaxies(model, proof, tmp_path / "first.parquet", **options)
    assert first.labelled == 60
    assert "int8 passed: 40 images, label agreement" in capsys.readouterr().err
    kept = json.loads((tmp_path / "model" / "openvino-int8" / "gate.json").read_text())
    assert (kept["images"], len(kept["fraction_changes"]), kept["model_hash"]) == (40, 5, model.model_hash)
    # It has passed, so no catalogue is needed, and labels are the same.
    monkeypatch.setattr(int8, "measure", lambda *_: pytest.fail("measured again"))
    label_galaxies(load(tmp_path / "model"), tmp_path / "images", tmp_path / "second.parquet", **options)
    p = [pl.read_parquet(tmp_path / f"{name}.parquet")["p_disk"].to_numpy() for name in ("first", "second")]
    np.testing.assert_allclose(*p, atol=1e-6)
    # Not valid for stricter limits, nor for another model in the same folder.
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)
    with pytest.raises(InputError, match="has not been tested"):
        engine_for(load(tmp_path / "model"), "openvino", "int8")
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 0.8)
    described = {key: one for key, one in model.described.items() if key != "sha256"} | {"metrics": {"other": 1}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="has not been tested for this model yet; give images with `gate`"):
        engine_for(load(tmp_path / "model"), "openvino", "int8")


@pytest.mark.slow
def test_int8_that_differs_too_much_raises_an_error_with_the_numbers(image_model, proof, small_gate, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.01)
    source = open_source(proof)
    with pytest.raises(
        InputError, match=r"int8 is not accurate enough for this model: 40 images, label agreement .* use bf16"
    ):
        engine_for(load(image_model), "openvino", "int8", source)
    assert not (image_model / "openvino-int8").exists()


@pytest.mark.slow
def test_int8_needs_enough_images_that_did_not_calibrate_it(image_model, proof, tmp_path, small_gate, monkeypatch):
    monkeypatch.setattr(int8, "GATE_IMAGES", 41)
    with pytest.raises(InputError, match="alpha is not known here; give a prepared catalogue with `gate`"):
        engine_for(load(image_model), "openvino", "int8", open_source(tmp_path / "images"))
    source = open_source(proof)
    with pytest.raises(InputError, match="41 images that were not used for calibration, but only 40 are available"):
        engine_for(load(image_model), "openvino", "int8", source)


@pytest.mark.slow
def test_onnx_gives_the_same_probabilities(image_model, pixels, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("openvino")
    model = load(image_model)
    path = export_onnx(model, tmp_path / "model.onnx")
    compiled = runtime.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for n in (1, 37):
        got = compiled(pixels[:n])[0]
        np.testing.assert_allclose(got, model.probabilities(pixels[:n]), atol=1e-4)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


def test_a_model_is_loaded_from_the_hub(image_model, monkeypatch):
    import huggingface_hub

    def download(repo_id, **_):
        if repo_id != "someone/model":
            raise OSError("no such model")
        return str(image_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load("hf_hub:someone/model").model_hash == load(image_model).model_hash
    with pytest.raises(InputError, match=r"hf_hub:someone/else: can't be downloaded from the hub \(no such model\)"):
        load("hf_hub:someone/else")
