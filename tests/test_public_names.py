"""Representations of public objects."""

import inspect

import numpy as np
import polars as pl
import pytest
import torch

import truemorph as tm
from conftest import flipped_labels, stripes, tiny
from truemorph.classifiers.members import train_members

LONGEST = 2000


def made(tmp_path):
    """Instances of all public classes that are fast to make."""
    labels, alpha, truth = flipped_labels(3000, seed=0)
    fit = tm.fit_transition(labels, alpha)
    rows, _ = stripes(300)
    model = train_members(rows, fit.transition, tiny(image_size=16, epochs=1))
    frame = pl.DataFrame({"object_id": np.arange(3000), "label": labels, "alpha": alpha, "split": "train"})
    knots = np.linspace(0, 50, 400)
    return [
        fit,
        model,
        tm.measure_bias(frame, bootstrap=0),
        tm.cv14(labels, alpha),
        tm.debiased_fractions(labels, alpha, fit),
        tm.Finding("no-drift", "caution", "The labels do not drift with α."),
        tm.DebiasedLogisticRegression().fit(truth[:, None] + alpha[:, None], labels, alpha=alpha),
        tm.DebiasedLoss(fit.transition),
        tm.GradCam(model),
        tm.KnownCurve("rayleigh", theta=11.25),
        tm.ReportOptions(),
        tm.ReproduceOptions(),
        tm.ConstantTransition(0.2),
        tm.FiskTransition(10.0, 2.0),
        tm.RayleighTransition(10.0),
        tm.WeibullTransition(10.0, 2.0),
        tm.LogisticTransition(np.ones((20, 20, 2)), (1.0,), (1.0,), (True,)),
        tm.MatrixTransition.identity(50),
        tm.MonotoneTransition(knots, np.exp(-knots)),
        tm.TabulatedTransition(knots, tm.RayleighTransition(10.0).matrix(knots)),
    ]


# A base class, and results of slow functions.
NOT_MADE = {"FlipTransition", "Leaderboard", "ResolutionDrift"}


@pytest.mark.filterwarnings("ignore::truemorph.findings.FindingWarning")
def test_representations_of_public_objects_fit_on_a_screen(tmp_path):
    objects = made(tmp_path)
    classes = {name for name in tm.__all__ if inspect.isclass(getattr(tm, name))}
    assert classes - NOT_MADE == {type(one).__name__ for one in objects}
    for one in objects:
        assert len(repr(one)) < LONGEST, type(one).__name__
        if hasattr(one, "_repr_html_") and not isinstance(one, tm.DebiasedLogisticRegression):  # scikit-learn's is long
            assert len(one._repr_html_()) < LONGEST, type(one).__name__


def test_the_representation_of_a_classifier_describes_it(tmp_path):
    rows, _ = stripes(300)
    model = train_members(rows, tm.RayleighTransition(11.25), tiny(image_size=16, epochs=1))
    for said in ("rayleigh", "11.25", "held_out_loss", "members: 1", model.config.backbone):
        assert said in repr(model)
        assert said in model._repr_html_()


def test_predict_proba_agrees_with_predict(tmp_path):
    rows, _ = stripes(300)
    model = train_members(rows, tm.RayleighTransition(11.25), tiny(image_size=16, epochs=1))
    table = model.predict(rows.inputs[:9])
    p = model.predict_proba(torch.from_numpy(rows.inputs[:9]))
    assert p.shape == (9, 2)
    np.testing.assert_allclose(p, table.select("p_smooth", "p_disk").to_numpy())
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(tm.errors.InputError, match=r"broken\.jpg"):
        model.predict_proba([tmp_path / "broken.jpg", rows.inputs[0]])


def test_every_public_name_has_a_runnable_example():
    without = [name for name in tm.__all__ if ">>>" not in (inspect.getdoc(getattr(tm, name)) or "")]
    assert without == []
