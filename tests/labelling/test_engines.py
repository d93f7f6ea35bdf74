"""All engines agree with float32 PyTorch."""

import numpy as np
import pytest

from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.engines import engine_for
from truemorph.errors import InputError


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
