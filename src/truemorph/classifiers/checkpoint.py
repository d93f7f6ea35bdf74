"""The folder in which a trained classifier is stored.

A checkpoint is a folder: `config.json` (settings, T(α), metrics), `model.safetensors` (weights of all members),
`seen.parquet` (which galaxies trained which member), `held_out.parquet` (what held-out ones are like; not in models of
version 0.1) and `README.md` (model card). Nothing in it is unpickled.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, BaseModel, Field, StrictFloat
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from truemorph.bias.files import check_fit
from truemorph.classifiers.classifier import AGAIN, Classifier
from truemorph.config import TrainingConfig
from truemorph.errors import CheckpointError, InputError, reason
from truemorph.io import PathLike, changed_values, check_format, checked, checksums, read_json, written_folder
from truemorph.questions import check_class_names
from truemorph.tables import read_columns, read_table

_FILES = ("config.json", "model.safetensors", "seen.parquet", "README.md", "held_out.parquet")
CONFIG, WEIGHTS, SEEN, CARD, HELD_OUT = _FILES
SEALED = (WEIGHTS, SEEN, HELD_OUT)  # the last is not in models of version 0.1
# Files that a training run adds.
RUN_FILES = ("run.toml", "environment.json", "history.csv", "left_out.csv", "logs")
UNFINISHED = "unfinished"
_HUB = "hf_hub:"


class ModelFile(BaseModel, frozen=True, extra="forbid"):  # a key that is damaged is not another key
    """Content of `config.json`; `sha256` has the checksums of all files and of itself; version 0.1 wrote none."""

    format_version: int = Field(ge=1)
    truemorph_version: str = ""
    start: Any = None  # only 0.1
    image_size: int | None = None  # this and crop are those of `training`
    crop: float | None = None
    classes: Annotated[list[str], Field(min_length=2, max_length=1000), AfterValidator(check_class_names)]
    members: int = Field(ge=1, le=10_000)
    temperatures: list[Annotated[float, Field(gt=0)]] = Field([], max_length=10_000)
    built: dict[Literal["architecture", "arguments"], str | dict[str, Any]] = {}
    normalisation: dict[Literal["mean", "std"], list[float]]
    transition: dict[str, Any]
    further_transitions: list[dict[str, Any]] = []  # of the other questions
    questions: list[dict[str, Any] | None] = [None]  # whose classes stand side by side; None: the label
    catalogue: dict[str, Any]
    metrics: dict[str, StrictFloat | None]
    tuning: list[dict[str, StrictFloat | int | None] | None] = []  # on gold labels, of each network
    training: TrainingConfig
    sha256: dict[str, str] = {}


_UNREADABLE = (SafetensorError, pl.exceptions.PolarsError)


def _checksums(folder: Path, described: dict[str, Any]) -> dict[str, str]:
    return checksums(folder, CONFIG, described, [name for name in SEALED if (folder / name).is_file()])


def _model_card(model: Classifier) -> str:
    lines = "\n".join(f"- {fact}" for fact in model.facts())
    return f"""# truemorph model

{lines}

A galaxy that was used in training is labelled by a member that did not see its label (`seen.parquet`).
Argmax labels can be biased where images are poorly resolved: use probabilities for populations.

Load with `truemorph.load(folder)`. Method: Medina-Rosales, Cabrera-Vives & Miller, arXiv:2308.11007.
"""


def check_model_folder(folder: PathLike) -> Path:
    """Resolve the output folder of a model; an existing folder must come from a training run."""
    folder = Path(folder).resolve()
    if folder.exists():
        if not folder.is_dir():
            raise InputError(f"{folder}: is a file; `out` must be a folder for the model")
        content = {path.name for path in folder.iterdir()}
        if content and not ({"config.json", "seen.parquet"} <= content or UNFINISHED in content):
            raise InputError(f"{folder}: exists and is not a truemorph model; choose another folder (`out`)")
    return folder


def save_classifier(model: Classifier, folder: PathLike, beside: Callable[[Path], None] | None = None) -> Path:
    """Write the checkpoint folder, replacing an older checkpoint; other files in the folder are kept.

    `beside` writes more files. All are complete before one is replaced; if that is interrupted, `load` says so, and
    training resumes.
    """
    folder = check_model_folder(folder)
    try:
        with written_folder(folder) as partial:
            tensors = {
                f"members.{number}.{name}": np.ascontiguousarray(value)
                for number, weights in enumerate(model.members)
                for name, value in weights.items()
            }
            save_file(tensors, partial / WEIGHTS)
            model.seen.write_parquet(partial / SEEN)
            if model.held_out is not None:
                model.held_out.write_parquet(partial / HELD_OUT)
            content = {**model.described, "sha256": _checksums(partial, model.described)}
            (partial / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            (partial / CARD).write_text(_model_card(model), encoding="utf-8")
            if beside is not None:
                beside(partial)
            if not folder.exists():
                partial.rename(folder)
                return folder
            replaced = partial / "replaced"
            replaced.mkdir()
            # A folder with the state of training is unfinished, until all other files are there.
            for name in (*RUN_FILES, *_FILES[1:], CONFIG, UNFINISHED):
                if (folder / name).exists():
                    (folder / name).rename(replaced / name)
                if (partial / name).exists():
                    (partial / name).rename(folder / name)
    except (OSError, *_UNREADABLE) as problem:
        raise CheckpointError(
            f"{folder}: can't write the model ({reason(problem)}); free disk space and run the same command again"
        ) from problem
    return folder


def load(folder: PathLike | Classifier, device: str = "auto") -> Classifier:
    """Load a trained classifier.

    Parameters
    ----------
    folder : path, str or Classifier
        A checkpoint folder written by `truemorph train`; a model on the Hugging Face hub, "hf_hub:someone/model"; or a
        classifier, which is returned.
    device : str
        Device for networks: "auto" (a GPU if available), or a torch device such as "cpu" or "cuda:1".

    Returns
    -------
    Classifier
        `.predict(images)` returns a table.

    Raises
    ------
    InputError
        If the folder is not a truemorph model.
    CheckpointError
        If the model can't be read or has a newer format.

    Examples
    --------
    >>> import tempfile
    >>> from truemorph import simulate_catalogue, train_classifier
    >>> galaxies, folder = simulate_catalogue(2000), tempfile.mkdtemp()
    >>> trained = train_classifier(galaxies, out=folder, preset="dcv14", settings={"features": ["covariate"]})
    >>> load(folder).classes
    ('smooth', 'disk')
    """
    if isinstance(folder, Classifier):
        return folder
    folder = _fetched(str(folder)) if str(folder).startswith(_HUB) else Path(folder)
    missing = [name for name in _FILES[:3] if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: not a truemorph model folder (no {missing[0]}); make one with `truemorph train`")
    try:
        described = read_json(folder / CONFIG)
    except InputError as problem:
        raise CheckpointError(f"{folder}: damaged model ({problem}); {AGAIN}") from problem
    check_format(described, folder)
    try:
        about = checked(ModelFile, described, f"{CONFIG}:")
        sums = _checksums(folder, described)
        if about.sha256 and (changed := changed_values(about.sha256, sums)):
            raise ValueError(f"its files have changed since the model was written: {changed}")
        for curve in (about.transition, *about.further_transitions):
            if curve:
                check_fit(curve)
        logistic = about.training.classifier != "network"
        scaled = logistic or [*map(len, about.normalisation.values())] == [3, 3]
        if len(about.temperatures) not in (0, about.members) or not scaled:
            raise ValueError("temperatures or normalisation do not fit this model")
        members: list[dict[str, np.ndarray]] = [{} for _ in range(about.members)]
        for key, value in load_file(folder / WEIGHTS).items():
            _, number, name = key.split(".", 2)
            members[int(number)][name] = value
        k, columns = len(about.classes), max(1, len(about.training.features))
        shapes = {"coef": (k, columns), "intercept": (k,)}  # networks check theirs when they are made
        if logistic and any({name: weights.shape for name, weights in member.items()} != shapes for member in members):
            raise ValueError(f"{WEIGHTS} has weights of other shapes")
        if not all(members):
            raise ValueError(f"{WEIGHTS} lacks some of the {about.members} members")
        seen = read_columns(folder / SEEN, {"object_id": None, "role": pl.String, "fold": pl.Int64})
        if not seen["fold"].is_between(-1, about.members - 1).all():
            raise ValueError(f"{SEEN} names members that are not there")
        held_out = read_table(folder / HELD_OUT).frame if HELD_OUT in sums else None
        digest = hashlib.sha256((folder / CONFIG).read_bytes() + (folder / WEIGHTS).read_bytes()).hexdigest()[:16]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, *_UNREADABLE) as problem:
        raise CheckpointError(f"{folder}: damaged model ({problem}); {AGAIN}") from problem
    return Classifier(described, members, seen, digest, folder, device, held_out=held_out)


def _fetched(name: str) -> Path:
    """Download a model from the hub into the local cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name.removeprefix(_HUB), allow_patterns=[*_FILES, *RUN_FILES]))
    except Exception as problem:  # hub clients raise many types
        raise InputError(f"{name}: can't be downloaded from the hub ({reason(problem)})") from problem
