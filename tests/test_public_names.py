"""Representations of public objects."""

import inspect

import numpy as np
import pytest
import torch

import truemorph as tm
from conftest import flipped_labels, stripes, tiny
from truemorph.classifiers.members import train_members

LONGEST = 2000


@pytest.fixture(scope="module")
def model():
    return train_members(stripes(300)[0], tm.RayleighTransition(11.25), tiny(image_size=32, epochs=1))


def made(model):
    """Instances of all public classes that are fast to make."""
    labels, alpha, truth = flipped_labels(3000, seed=0)
    fit = tm.fit_transition(labels, alpha)
    knots = np.linspace(0, 50, 400)
    asked = tm.Asked.named(tm.read_tree("gz2"), "smooth", ("smooth", "disk", "smooth"))
    votes = tm.Votes.of_labels(asked, labels)
    tree = tm.fit_transition(votes, alpha, gold=truth)
    return [
        asked,
        fit,
        model,
        tm.measure_bias(tm.simulate_catalogue(1000), bootstrap=0),
        tm.estimate_transition(tm.simulate_catalogue(1000), compare=False),
        tm.cv14(labels, alpha),
        tm.debiased_fractions(labels, alpha, fit),
        tm.Finding("no-drift", "caution", "The labels do not drift with α."),
        tm.DebiasedLogisticRegression().fit(truth[:, None] + alpha[:, None], labels, alpha=alpha),
        tm.DebiasedLoss(fit.transition),
        tm.GradCam(model),
        tm.ReportOptions(),
        tm.ReproduceOptions(),
        tm.ConstantTransition(0.2),
        tm.FiskTransition(10.0, 2.0),
        tm.RayleighTransition(10.0),
        tm.WeibullTransition(10.0, 2.0),
        tm.ShiftedTransition(tm.RayleighTransition(10.0), np.ones(100), np.ones(100)),
        tm.LogisticTransition(np.ones((20, 20, 2)), (1.0,), (1.0,)),
        tm.MatrixTransition.identity(50),
        tm.MonotoneTransition(knots, np.exp(-knots)),
        tree.transition,
        votes,
        tm.TabulatedTransition(knots, tm.RayleighTransition(10.0).matrix(knots)),
    ]


# A base class, and results of slow functions.
NOT_MADE = {"FlipTransition", "Leaderboard", "ResolutionDrift"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::truemorph.findings.FindingWarning")
def test_representations_of_public_objects_fit_on_a_screen(model):
    objects = made(model)
    classes = {name for name in tm.__all__ if inspect.isclass(getattr(tm, name))}
    assert classes - NOT_MADE == {type(one).__name__ for one in objects}
    for one in objects:
        assert len(repr(one)) < LONGEST, type(one).__name__
        if hasattr(one, "_repr_html_") and not isinstance(one, tm.DebiasedLogisticRegression):  # scikit-learn's is long
            assert len(one._repr_html_()) < LONGEST, type(one).__name__
    for said in ("rayleigh", "11.25", "held_out_loss", "members: 1", model.config.backbone):
        assert said in repr(model)
        assert said in model._repr_html_()


def test_predict_proba_agrees_with_predict(model, tmp_path):
    inputs = stripes(300)[0].inputs[:9]
    p = model.predict_proba(torch.from_numpy(inputs))
    assert p.shape == (9, 2)
    np.testing.assert_allclose(p, model.predict(inputs).select("p_smooth", "p_disk").to_numpy())
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(tm.errors.InputError, match=r"broken\.jpg"):
        model.predict_proba([tmp_path / "broken.jpg", inputs[0]])


def test_every_public_name_has_a_runnable_example():
    without = [name for name in tm.__all__ if ">>>" not in (inspect.getdoc(getattr(tm, name)) or "")]
    assert without == []
