"""What each verb does: files in, files out, and a result as plain data for `--json`, the demo and the report."""

from truemorph.workflow.benchmarking import run_benchmark
from truemorph.workflow.explaining import explain_models
from truemorph.workflow.files import plain, write_json
from truemorph.workflow.fitting import (
    TransitionStudy,
    check_fit_path,
    fit_catalogue,
    read_fit,
    study_transition,
    write_fit,
    write_study,
)
from truemorph.workflow.labelling import labelling_model
from truemorph.workflow.measuring import (
    fractions_by_alpha,
    join_labels,
    label_sets,
    measure_bias,
    preparation_result,
)
from truemorph.workflow.training import train_on_catalogue

__all__ = [
    "TransitionStudy",
    "check_fit_path",
    "explain_models",
    "fit_catalogue",
    "fractions_by_alpha",
    "join_labels",
    "label_sets",
    "labelling_model",
    "measure_bias",
    "plain",
    "preparation_result",
    "read_fit",
    "run_benchmark",
    "study_transition",
    "train_on_catalogue",
    "write_fit",
    "write_json",
    "write_study",
]
