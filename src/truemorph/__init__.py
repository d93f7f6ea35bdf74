"""truemorph: unbiased galaxy morphologies from biased labels.

Public names; heavy modules are loaded on first use.
"""

from typing import Any

import lazy_loader

from truemorph._version import __version__ as __version__
from truemorph.commands import COMMANDS
from truemorph.errors import extras_named

_OF_COMMANDS = {"commands.benchmark": ["Leaderboard"], "commands.bias": ["BiasMeasurement"]}
for _place in COMMANDS.values():
    _module, _, _function = _place.partition(":")
    _OF_COMMANDS.setdefault(f"commands.{_module}", []).append(_function)
_load, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "benchmark.invariance": ["ResolutionDrift", "resolution_drift"],
        "bias.checks.calibration": ["calibration"],
        "bias.estimate": ["Estimate"],
        "bias.checks.diagnostics": ["compare_families", "confounding_check"],
        "bias.fitting": ["fit_transition"],
        "bias.likelihood": ["label_quality", "posterior"],
        "bias.metrics.label_bias": ["BiasResult", "cv14", "cv18"],
        "bias.fractions": ["debiased_fractions"],
        "bias.population": ["PopulationFractions"],
        "bias.files": ["load_transition"],
        "bias.result": ["TransitionFit"],
        "bias.curves.formulas": [
            "ConstantTransition",
            "FiskTransition",
            "MatrixTransition",
            "MonotoneTransition",
            "RayleighTransition",
            "TabulatedTransition",
            "WeibullTransition",
        ],
        "bias.curves.logistic": ["LogisticTransition"],
        "bias.curves.paths": ["TreeTransition"],
        "bias.curves.shifted": ["ShiftedTransition"],
        "bias.curves.transitions": ["FlipTransition"],
        **_OF_COMMANDS,
        "findings": ["Finding"],
        "questions": ["Asked", "Votes", "read_tree"],
        "report.options": ["ReportOptions"],
        "reproduce.options": ["ReproduceOptions"],
        "catalogs.paths": ["read_votes"],
        "catalogs.physical": ["resolution"],
        "simulate.catalogues": ["simulate_catalogue"],
        "tables": ["read_table", "write_table"],
        "classifiers.checkpoint": ["load"],
        "classifiers.classifier": ["Classifier"],
        "classifiers.logistic": ["DebiasedLogisticRegression"],
        "classifiers.loss": ["DebiasedLoss"],
        "explain.gradcam": ["GradCam"],
        "images.degrade": ["degrade"],
    },
)


def __getattr__(name: str) -> Any:
    with extras_named():
        return _load(name)
