"""truemorph: unbiased galaxy morphologies from biased labels.

The public names; everything heavy loads on first use.
"""

from __future__ import annotations

import lazy_loader

from truemorph._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bias.estimation": ["TransitionFit", "fit_transition"],
        "bias.likelihood": ["posterior"],
        "bias.metrics": ["BiasResult", "cv14", "cv18"],
        "bias.transitions": ["MatrixTransition", "RayleighTransition"],
        "catalogs.prepare": ["prepare_catalogue"],
        "catalogs.resolution": ["resolution"],
        "catalogs.tables": ["read_table", "write_table"],
        "classifiers.checkpoint": ["Classifier", "load"],
        "classifiers.logistic": ["DebiasedLogisticRegression"],
        "classifiers.loss": ["DebiasedLoss"],
        "labelling.predict": ["label_table"],
    },
)
