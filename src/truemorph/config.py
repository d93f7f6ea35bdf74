"""Settings of a training run: typed, validated, with presets "quick", "paper" and "dcv14"."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from truemorph.errors import InputError

# 424 → 207 pixels, as in the paper (section 2.5).
_PAPER_CROP = 207 / 424


class TrainingConfig(BaseModel):
    """How a classifier is trained.

    The paper (arXiv:2308.11007) gives backbone, dense layer, image size and crop; it does not give optimiser,
    learning rate, batch size, epochs or augmentation, so those of preset "paper" are ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classifier: Literal["network", "logistic"] = "network"
    folds: int = Field(1, ge=1, le=20, description="networks trained, each without one fold of the galaxies")
    seed: int = Field(0, ge=0, lt=2**31)

    backbone: str = Field("resnet50", description="any timm model")
    pretrained: bool = Field(False, description="start from timm's published weights (needs a network)")
    hidden: int = Field(1024, ge=1, description="width of the dense layer before the classes")
    dropout: float = Field(0.0, ge=0, lt=1)
    image_size: int = Field(207, ge=16, le=1024, description="pixels on a side")
    crop: float = Field(_PAPER_CROP, gt=0, le=1, description="central fraction of the image's side to keep")

    epochs: int = Field(60, ge=1)
    patience: int = Field(10, ge=1, description="epochs without a better held-out likelihood before stopping")
    batch_size: int = Field(64, ge=2)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"

    features: tuple[str, ...] = Field((), description="catalogue columns of the logistic classifier")


PRESETS: dict[str, TrainingConfig] = {
    "paper": TrainingConfig(),
    "quick": TrainingConfig(
        folds=4,
        backbone="test_resnet",
        image_size=64,
        dropout=0.3,
        epochs=30,
        patience=8,
        learning_rate=1e-3,
    ),
    # DCV14 (section 2.3.1): Sérsic index, ellipticity, half-light radius where a catalogue has them.
    "dcv14": TrainingConfig(classifier="logistic", folds=5),
}


def training_config(
    preset: str = "quick", file: str | os.PathLike[str] | None = None, **changes: Any
) -> TrainingConfig:
    """Settle a configuration: preset, then a TOML file, then explicit changes (None leaves a value alone).

    Raises
    ------
    InputError
        If the preset or a setting is unknown, or a value is out of range.

    Examples
    --------
    >>> training_config("quick", epochs=3).epochs
    3
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    settings = PRESETS[preset].model_dump()
    if file is not None:
        try:
            settings |= tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as problem:
            raise InputError(f"{file}: {problem.strerror or problem}") from problem
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise InputError(f"{file}: not valid TOML: {problem}") from problem
    settings |= {name: value for name, value in changes.items() if value is not None}
    try:
        return TrainingConfig(**settings)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"setting {name}: {first['msg'].lower()}; got {first['input']!r}") from problem
