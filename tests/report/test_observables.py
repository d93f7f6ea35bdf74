"""The report of a model that was trained through T(α, observables)."""

import truemorph as tm
from truemorph.simulate import simulate_catalogue


def test_a_model_through_several_observables_is_reported(tmp_path):
    nan = float("nan")
    flips = tm.LogisticTransition(
        [[[0, 0, 0], [nan] * 3], [[0.0, -2.2, 1.0], [0, 0, 0]]], (2.64, 0.0), (1.0, 1.0), (True, False)
    )
    world = simulate_catalogue(2500, 1, transition=flips, trend="features", gold=400).drop("sampling_weight")
    study = tm.estimate_transition(world, gold="gold", observables=["bulge_fraction"], compare=False)
    settings = {"features": ["bulge_fraction", "x2", "x3"], "folds": 2}
    model = tm.train_classifier(world, transition=study, preset="dcv14", out=tmp_path / "model", settings=settings)
    world.write_parquet(tmp_path / "catalogue.parquet")
    options = tm.ReportOptions(catalogue=tmp_path / "catalogue.parquet", maps=0, gold=["gold"])
    report = tm.write_report(model.out, out=tmp_path / "report.html", options=options)
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert "labels-treated-as-correct" not in [one.code for one in report.findings]
