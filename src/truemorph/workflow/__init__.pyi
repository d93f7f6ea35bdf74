# Types of the names that __init__.py loads on first use; lazy_loader reads this file too.
from .benchmarking import run_benchmark as run_benchmark
from .explaining import explain_models as explain_models
from .fitting import (
    TransitionStudy as TransitionStudy,
)
from .fitting import (
    check_fit_path as check_fit_path,
)
from .fitting import (
    fit_catalogue as fit_catalogue,
)
from .fitting import (
    read_fit as read_fit,
)
from .fitting import (
    study_transition as study_transition,
)
from .fitting import (
    write_fit as write_fit,
)
from .fitting import (
    write_study as write_study,
)
from .labelling import labelling_model as labelling_model
from .measuring import (
    fractions_by_alpha as fractions_by_alpha,
)
from .measuring import (
    join_labels as join_labels,
)
from .measuring import (
    label_sets as label_sets,
)
from .measuring import (
    measure_bias as measure_bias,
)
from .measuring import (
    preparation_result as preparation_result,
)
from .reproducing import ReproduceOptions as ReproduceOptions
from .reproducing import Scale as Scale
from .reproducing import reproduce as reproduce
from .training import train_on_catalogue as train_on_catalogue
