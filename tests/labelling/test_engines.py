"""All engines agree with float32 PyTorch; the default one is found without it, and falls back to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from truemorph import export_model, load, read_table
from truemorph.classifiers.engines import engine_for
from truemorph.classifiers.engines.openvino import networks_of
from truemorph.classifiers.network import multiplies_bf16
from truemorph.errors import InputError
from truemorph.io import cache_folder


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (37, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def own_cache(image_model, tmp_path, monkeypatch):
    """A cache with the networks of the model."""
    pytest.importorskip("openvino")
    engine_for(load(image_model), "openvino", "fp32")
    shutil.copytree(cache_folder(), tmp_path / "cache" / "truemorph")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-6), ("bf16", 0.003)])
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
    together = list(ThreadPoolExecutor(4).map(lambda some: engine.member(some, 0), np.split(pixels, [9, 12, 30])))
    np.testing.assert_allclose(np.concatenate(together), engine.member(pixels, 0), atol=1e-6)


def test_torch_has_no_int8(image_model):
    with pytest.raises(InputError, match="int8 needs `engine` openvino"):
        engine_for(load(image_model), "torch", "int8")


WITHOUT_TORCH = """
import sys
from truemorph.cli import main
absent = "torch", "timm", "lightning", "openvino_telemetry"
sys.modules |= dict.fromkeys(absent)
main(sys.argv[1:])
print(sorted({"astropy", "pandas", "scipy.stats", "scipy.optimize", "sqlglot", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_an_exported_model_labels_without_torch(image_model, folder, own_cache, tmp_path):
    export_model(image_model, tmp_path / "exported")
    shutil.rmtree(own_cache)
    command = [sys.executable, "-c", WITHOUT_TORCH, "label"]
    options = ["--out", tmp_path / "labels.parquet", "--quiet", "--json"]
    done = subprocess.run([*command, tmp_path / "exported", folder, *options], capture_output=True, text=True)
    result, _, modules = done.stdout.rpartition("}\n")
    assert json.loads(result + "}")["labelled"] == 60, done.stderr
    assert modules == "[]\n"  # each takes as long as labelling these images
    done = subprocess.run([*command, image_model, folder, *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert "truemorph export" in done.stderr
    frame, predicted = read_table(tmp_path / "labels.parquet").frame[5:], load(image_model).predict(folder.glob("*"))
    predicted = predicted.sort("image")[5:]  # those before were used in training
    np.testing.assert_allclose(frame["p_disk"], predicted["p_disk"], atol=1e-6)


@pytest.mark.slow
def test_an_export_follows_no_links_out_of_the_model_and_removes_what_killed_ones_left(image_model, tmp_path):
    secret, model = tmp_path / "secret", tmp_path / "model"
    secret.mkdir()
    (secret / "key").write_text("key")
    shutil.copytree(image_model, model)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(image_model / "model.safetensors")  # as in caches of the hub
    (model / "notes").symlink_to(secret / "key")
    (model / "logs").symlink_to(secret, target_is_directory=True)
    no_process = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    left = [tmp_path / f".{no_process}.exported", tmp_path / f".{os.getpid()}.other"]
    for one in left:
        (one / "part").mkdir(parents=True)
    export_model(model, tmp_path / "exported")
    names = {one.name for one in (tmp_path / "exported").iterdir()}
    assert {"config.json", "model.safetensors", "openvino"} <= names
    assert not {"notes", "logs"} & names
    assert [one.exists() for one in left] == [False, True]
    assert load(tmp_path / "exported").model_hash == load(image_model).model_hash


@pytest.mark.slow
def test_the_first_convolution_computes_in_float32_also_in_bf16(image_model):
    openvino = pytest.importorskip("openvino")
    if not multiplies_bf16():
        pytest.skip("this CPU does not multiply bf16")
    _, (network, *_) = networks_of(load(image_model))
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    layers = [one.get_rt_info() for one in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [layer["layerType"].value for layer in layers]
    precisions = [layer["runtimePrecision"].value for layer in layers]
    first = kinds.index("Convolution")
    assert "bf16" not in precisions[: first + 1]  # pixels neither
    others = [precisions[k] for k, kind in enumerate(kinds) if kind == "Convolution" and k > first]
    assert set(others) == {"bf16"}


@pytest.mark.slow
def test_damaged_networks_are_made_again_and_others_not_used(image_model, pixels, own_cache):
    model = load(image_model)
    exact = model.member_probabilities(pixels, 0)
    (weights,) = own_cache.rglob(f"{model.model_hash}-*/member-0.bin")  # other tests convert other models
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    np.testing.assert_allclose(engine_for(model, "openvino", "fp32").member(pixels, 0), exact, atol=1e-6)
    unsaved = load(image_model)
    unsaved.folder = None
    assert engine_for(unsaved).description.startswith("torch")
    with pytest.raises(InputError):
        engine_for(unsaved, "openvino")


@pytest.mark.slow
def test_a_crash_of_openvino_is_remembered_and_torch_used(image_model, own_cache, tmp_path, monkeypatch):
    model = load(image_model)
    for one in cache_folder().glob("openvino/survived/*"):
        one.unlink()
    crashing = tmp_path / "python"
    crashing.write_text(f"#!/bin/sh\necho >> {tmp_path / 'runs'}\nkill -{int(signal.SIGILL)} $$\n")
    crashing.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(crashing))
        for _ in range(2):
            assert engine_for(model, precision="fp32").description == "torch cpu fp32"
            with pytest.raises(InputError):
                engine_for(model, "openvino", "fp32")
    assert (tmp_path / "runs").read_text() == "\n"
    assert engine_for(model, precision="fp32").description == "torch cpu fp32"


def test_torch_is_used_where_openvino_does_not_run(image_model, monkeypatch, own_cache):
    openvino = pytest.importorskip("openvino")
    model = load(image_model)

    def refused(*_):
        raise RuntimeError("the CPU set of this process has gaps")

    with monkeypatch.context() as patch:
        patch.setattr(openvino.Core, "compile_model", refused)
        assert engine_for(model, precision="fp32").description == "torch cpu fp32"
    own_cache.chmod(0o500)
    if not os.access(own_cache, os.W_OK):  # root may write everywhere
        assert engine_for(model, precision="fp32").description == "torch cpu fp32"


def test_a_model_is_loaded_from_the_hub(image_model, monkeypatch):
    import huggingface_hub

    def download(repo_id, **_):
        if repo_id != "someone/model":
            raise OSError("no such model")
        return str(image_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load("hf_hub:someone/model").model_hash == load(image_model).model_hash
    with pytest.raises(InputError, match=r"hf_hub:someone/else.*no such model"):
        load("hf_hub:someone/else")
