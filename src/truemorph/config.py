"""Settings: files with options of commands, and a training run's, with presets quick, standard, paper and dcv14."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from truemorph._version import __version__
from truemorph.errors import InputError
from truemorph.io import PathLike, checked, read_toml

# 424 → 207 pixels, as in the paper (section 2.5).
_PAPER_CROP = 207 / 424


def by_commas(value: Any) -> Any:
    """Split "a,b" from the command line."""
    parts = (value,) if isinstance(value, str) else value
    return [name.strip() for one in parts for name in str(one).split(",")] if isinstance(parts, list | tuple) else value


Names = Annotated[tuple[str, ...], BeforeValidator(by_commas)]
# A run.toml of version 0.2 may have one file, which is text.
Files = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class TrainingConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings for training a classifier; the defaults are those of preset "standard".

    Preset "paper" takes what the paper (arXiv:2308.11007) does not state from code of the same lineage.
    """

    classifier: Literal["network", "logistic"] = Field("network", description="train on images or on columns")
    features: Names = Field((), description="catalogue columns of the logistic classifier, comma-separated")
    folds: int = Field(1, ge=1, le=20, description="number of folds, each left out by one member")
    seeds: int = Field(1, ge=1, le=20, description="networks per fold, averaged as an ensemble")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed")

    backbone: str = Field(
        "resnet50",
        description="any timm model, or resnet50_v1 (as in Keras); with pretrained also hf_hub:..., a folder like one "
        "of a hub, or NAME:FILE of weights",
    )
    pretrained: bool = Field(False, description="start from published weights, if available")
    finetune: Literal["whole", "head", "layers"] = Field(
        "whole", description="train all layers, the head only, or all layers with lower learning rates in deeper layers"
    )
    layer_decay: float = Field(0.75, gt=0, le=1, description='ratio of learning rates between layers, for "layers"')
    hidden: int = Field(1024, ge=1, le=65_536, description="width of the dense layer before the classes")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout fraction of the dense layer")

    image_size: int = Field(207, ge=32, le=1024, description="image width in pixels")  # networks halve it five times
    crop: float = Field(_PAPER_CROP, gt=0, le=1, description="central fraction of the image width to keep")
    fits_hdu: int | str | None = Field(None, description="HDU of FITS images; default the first with an image")
    fits_stretch: Literal["asinh", "linear", "sqrt", "log"] = Field("asinh", description="stretch of FITS images")
    fits_limits: tuple[float, float] | None = Field(
        None, description="FITS values of black and white; default percentiles of each image"
    )
    standardise: bool = Field(
        True, description="subtract the mean of the backbone's images and divide by their scatter; else pixels / 255"
    )
    flip: bool = Field(True, description="mirror half of the images in training")
    rotation: Literal["any", "quarter", "none"] = Field("quarter", description="rotate images in training")
    shift: float = Field(0.0, ge=0, le=0.25, description="maximum shift in training, in units of the image width")
    zoom: float = Field(0.0, ge=0, le=1, description="enlarge by up to 1 + zoom in training; changes the resolution")

    epochs: int = Field(60, ge=1, description="maximum number of epochs; training may stop earlier")
    patience: int = Field(10, ge=1, description="epochs without a better held-out likelihood before stopping")
    batch_size: int = Field(64, ge=2, description="galaxies per step, over all devices")
    accumulate: int = Field(1, ge=1, lt=2**31, description="parts into which a batch is divided, to save memory")
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate over the steps")
    warm_up: float = Field(0.1, ge=0, lt=1, description="fraction of steps for warm-up (cosine schedule)")
    weight_decay: float = Field(0.05, ge=0, description="weight decay of AdamW; with 0 it is Adam")
    averaging: bool = Field(True, description="use a running average of the weights over about 100 steps")
    clip: float | None = Field(None, gt=0, description="maximum norm of the gradient")
    calibrate: bool = Field(True, description="fit a temperature to held-out labels through T(alpha)")

    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16 if supported by hardware"
    )
    compile: bool = Field(False, description="torch.compile the network")
    device: Literal["auto", "cpu", "gpu", "mps"] = Field(
        "auto", description="where to train; auto is a GPU if available"
    )
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="number of accelerators, or of processes on CPUs"
    )
    nodes: int = Field(1, ge=1, description="machines")
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field((), description="in addition to history.csv")


PRESETS: dict[str, TrainingConfig] = {
    "standard": TrainingConfig(),
    # To compare with the paper's Table 1.
    "paper": TrainingConfig(
        backbone="resnet50_v1",
        standardise=False,
        flip=False,
        rotation="none",
        batch_size=32,
        learning_rate=1e-4,
        schedule="constant",
        weight_decay=0.0,
        averaging=False,
        calibrate=False,
        precision="32-true",
    ),
    "quick": TrainingConfig(
        folds=4,
        backbone="test_resnet",
        image_size=64,
        dropout=0.3,
        rotation="any",
        shift=0.06,
        epochs=30,
        # Held-out losses fluctuate while the learning rate is high; a smaller patience would stop too early.
        patience=15,
        learning_rate=1e-3,
    ),
    # DCV14 (section 2.3.1): Sérsic index, ellipticity and half-light radius, if in the catalogue.
    "dcv14": TrainingConfig(classifier="logistic", folds=5),
}

OBSERVED, NAIVE = "observed", "naive"  # labels to train on that are no gold labels


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of `truemorph train`, with those of the classifier in `training`."""

    catalogue: str = Field(description="prepared catalogue (.parquet)")
    out: str = Field(description="run folder to write")
    preset: str = Field("quick", description="default settings: quick, standard, paper or dcv14")
    transition: Files = Field(
        (),
        description="estimates of truemorph transition, one of each question, or a curve such as "
        "rayleigh:11.25; default: fitted to the labels",
    )
    question: tuple[str, ...] = Field((), description="questions whose observed answers, or gold labels, are correct")
    labels: str | None = Field(
        None,
        description="observed (through T(α) alone), naive (observed, as if correct), or gold labels alone: a column or "
        "rules; default: observed, then the gold labels of the estimate",
    )
    where: tuple[str, ...] = Field((), description="conditions, such as COLUMN=VALUE: rows to fit T(alpha) to")
    cache: Path | None = Field(None, description="folder for decoded images, used by the next run")
    training: TrainingConfig = TrainingConfig()

    @property
    def naive(self) -> bool:
        """Whether observed labels are treated as correct."""
        return self.labels == NAIVE

    @property
    def gold_alone(self) -> str | None:
        """The column or rules of gold labels that are learned instead of the observed ones."""
        return None if self.labels in (OBSERVED, NAIVE) else self.labels


def options_in(path: PathLike, command: str = "train", commands: Iterable[str] = ("train",)) -> dict[str, Any]:
    """Return the options of a command in a TOML file: those of its table, such as [train] or [gold.plan].

    A file without a table of any of the `commands` has the options of one command.
    """
    content = read_toml(path)
    if not any(isinstance(content.get(name.split()[0]), dict) for name in commands):
        return _of_0_2(content, path) if command == "train" else content
    for word in command.split():
        content = content.get(word, {})
        if not isinstance(content, dict):
            raise InputError(f"{path}: {word} must be a table, [{command.replace(' ', '.')}]; got {content!r}")
    return content


# Names in a run.toml of version 0.2 that are no options now.
_GONE = ("votes", "naive", "training", "intrinsic")


def _of_0_2(content: dict[str, Any], path: PathLike) -> dict[str, Any]:
    """Return the options in a `run.toml` of version 0.2, with a table `training`, `naive` and three kinds of votes."""
    if content.get("votes", "labels") != "labels" or content.get("vote_count") is not None:
        raise InputError(f"{path}: training on vote fractions or counts is gone; delete votes and vote_count")
    training = content.get("training", {})
    if not isinstance(training, dict):
        raise InputError(f"{path}: training must be a table, [training]; got {training!r}")
    options = {name: value for name, value in content.items() if name not in _GONE}
    return options | training | ({"labels": NAIVE} if content.get("naive") else {})


def _of_preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name].model_dump()


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that were given, of options that are None by default."""
    return {name: value for name, value in values.items() if value is not None}


def training_config(preset: str = "quick", **changes: Any) -> TrainingConfig:
    """Return a preset with some settings changed (None means no change)."""
    return checked(TrainingConfig, _of_preset(preset) | without_none(changes), "setting")


def given_settings(settings: BaseModel | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the given settings, without defaults."""
    if isinstance(settings, BaseModel):
        return settings.model_dump(exclude_unset=True)
    if not isinstance(settings, Mapping | None):
        raise InputError(f'settings must be a dict, such as {{"epochs": 3}}; got {settings!r}')
    return dict(settings or {})


def run_config(catalogue: PathLike, own: BaseModel | Mapping[str, Any] | None = None, **changes: Any) -> RunConfig:
    """Make the settings of a run: those of a preset, with changes (None means no change); `own` are of training."""
    values = without_none(changes)
    if "out" not in values:
        raise InputError(f"{catalogue}: name the folder of the model (`out`)")
    training = without_none(given_settings(own))
    preset = values.get("preset") or ("standard" if _has_gpu() else "quick")
    values |= {"catalogue": str(catalogue), "preset": preset, "training": _of_preset(preset) | training}
    return checked(RunConfig, values, "setting")


def _has_gpu() -> bool:
    try:
        import torch  # takes seconds
    except ImportError:
        return False
    return torch.cuda.is_available()


def run_toml(run: RunConfig) -> str:
    """Return the settings as a file of options, each with its meaning; those of the preset are commented out."""
    usual = RunConfig(catalogue="", out="", preset="")
    lines = [f"# truemorph {__version__}", "[train]", *_toml(run, usual), *_toml(run.training, PRESETS[run.preset])]
    return "\n".join(lines) + "\n"


def _toml(settings: BaseModel, usual: BaseModel) -> Iterator[str]:
    """Return a line for each setting, with its description; a comment where it has its usual value."""
    unchanged = usual.model_dump(mode="json")
    for name, value in settings.model_dump(mode="json", exclude={"training"}).items():
        option = name.replace("_", "-")
        written = "" if value is None else json.dumps(value, ensure_ascii=False)  # TOML too
        mark = "# " if value is None or value == unchanged[name] else ""
        yield f"{mark}{option} = {written}  # {type(settings).model_fields[name].description}"
