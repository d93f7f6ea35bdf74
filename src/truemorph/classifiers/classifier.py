"""A trained classifier: p(y | x) from the pixels of an image, or from catalogue features."""

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import softmax

from truemorph._version import __version__
from truemorph.bias.curves.families import transition_from_dict
from truemorph.bias.curves.transitions import Transition
from truemorph.config import TrainingConfig
from truemorph.errors import CheckpointError, InputError, reason
from truemorph.findings import Finding, Findings, findings_in, unique
from truemorph.images.decode import image_names, listed, pixel_batches
from truemorph.io import FORMAT_VERSION
from truemorph.questions import SMOOTH_OR_DISK, Asked, Head, columns_of, heads_of
from truemorph.results import shortened
from truemorph.tables import numeric_columns

AGAIN = "train it again or restore a copy"
_BY_CHANCE = 3  # standard errors


@dataclass(repr=False)
class Classifier:
    """A trained classifier: p(y | x) from pixels or catalogue features.

    Attributes
    ----------
    described : dict
        Content of `config.json`.
    members : list of dict
        Weights by name, one dict per member.
    seen : polars.DataFrame
        `object_id`, `role` ("out_of_fold", "in_sample" or "early_stopping") and `fold` of every galaxy used in
        training.
    model_hash : str
        Hash of the model's files.
    folder : Path, optional
        Folder from which it was read.
    device : str
        Device for networks, as in `load`.
    history : list of dict
        One entry per epoch and member, for networks trained in this session.
    held_out : polars.DataFrame, optional
        Held-out training galaxies, with which those of another survey are compared.

    Examples
    --------
    >>> import tempfile
    >>> from truemorph import load, simulate_catalogue, train_classifier
    >>> galaxies, folder = simulate_catalogue(2000), tempfile.mkdtemp()
    >>> trained = train_classifier(galaxies, out=folder, preset="dcv14", settings={"features": ["covariate"]})
    >>> model = load(folder)
    >>> p = model.probabilities(galaxies.select("covariate").to_numpy()[:10])
    >>> p.shape, bool(np.allclose(p.sum(axis=1), 1))
    ((10, 2), True)
    """

    described: dict[str, Any]
    members: list[dict[str, np.ndarray]]
    seen: pl.DataFrame
    model_hash: str = "unsaved"
    folder: Path | None = None
    device: str = "auto"
    history: list[dict[str, Any]] = field(default_factory=list)
    held_out: pl.DataFrame | None = None

    @cached_property
    def config(self) -> TrainingConfig:
        """Training settings."""
        return TrainingConfig(**self.described["training"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probability columns."""
        return tuple(self.described["classes"])

    @cached_property
    def transition(self) -> Transition:
        """T(α) used in training; of several questions, that of the first."""
        return transition_from_dict(self.described["transition"])

    @property
    def curves(self) -> list[dict[str, Any]]:
        """T(α) of each question, in the format of a fit file."""
        return [self.described["transition"], *self.described.get("further_transitions", ())]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The classes of each question that it answers."""
        questions = [question and Asked.from_dict(question) for question in self.described.get("questions") or [None]]
        sizes = [0 if question is None else len(question.classes) for question in questions]
        start = sum(sizes[: questions.index(None)]) if None in questions else 0
        return heads_of(questions, self.classes[start : start + len(self.classes) - sum(sizes)])

    @property
    def findings(self) -> Findings:
        """Limitations of T(α) and of the training."""
        own = list(findings_in(*self.curves))
        if self.folder is not None and not self.described.get("sha256"):
            message = f"{self.folder} has no checksums, so damage would not be noticed."
            own.append(Finding("model-without-checksums", "note", message, "Train it again with this version."))
        return unique(own, contradictions(self.described))

    def facts(self) -> list[str]:
        """Return inputs, members, T(α), catalogue and metrics as lines of text."""
        transition, catalogue, config = self.described["transition"], self.described["catalogue"], self.config
        reads = f"logistic regression on {', '.join(config.features) or 'no features (class fraction only)'}"
        if self.uses_images:
            reads = f"{config.backbone} on {config.image_size}-pixel images"
        through = f"{transition['family']} {transition['parameters']}" if transition else "no T(alpha)"
        metrics = {name: score and round(score, 4) for name, score in self.described["metrics"].items()}
        predictions, defined = list[str](), list[str]()
        for head, curve in zip(self.heads, self.curves, strict=True):
            if head.question is None:
                counted = head.classes[1]
                predictions.append(f"predicts {' or '.join(head.classes)}")
                meant = (
                    f"{catalogue.get('definition') or 'as in the labels of that catalogue'} ({catalogue.get('votes')})"
                )
                if catalogue.get("gold_definition"):
                    meant = str(catalogue["gold_definition"]).removeprefix(f"{counted}: ") + ", from gold labels"
                defined.append(f"definition of {counted}: {meant}")
                continue
            predictions.append(f"predicts {head.question} ({', '.join(head.classes)})")
            paths = f"T(alpha) of the paths to {head.question}"
            of_paths = paths if curve["family"] == "tree" else "observed answers treated as correct"
            through = of_paths if len(predictions) == 1 else f"{through}; {of_paths}"
            if gold := curve.get("fractions", {}).get("gold_definition"):
                defined.append(f"gold labels of {gold}")
        return [
            f"{'; '.join(predictions)}: {reads}; members: {self.described['members']}",
            f"trained through {shortened(through, 300)}",
            *said_of_tuning(self.described),
            f"assumption behind T(alpha): {transition.get('assumption', 'given by the user')}",
            f"alpha: {catalogue.get('alpha')}",
            f"catalogue: {catalogue.get('source')}, {catalogue.get('rows')} rows, sha256 {catalogue.get('sha256')}",
            *defined,
            f"metrics: {metrics}",
        ]

    def summary(self) -> str:
        """Return inputs, members, T(α), catalogue and metrics as text."""
        return "\n".join([*self.facts(), f"folder: {self.folder}"])

    def __repr__(self) -> str:
        return shortened(f"Classifier\n{self.summary()}")

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(shortened(self.summary()))}</pre>"

    @property
    def trained_on(self) -> dict[str, Any]:
        """What its catalogue was."""
        return dict(self.described["catalogue"])

    @property
    def features(self) -> tuple[str, ...]:
        """Catalogue columns that are its inputs; none for images."""
        return () if self.uses_images else self.config.features

    @property
    def uses_images(self) -> bool:
        """Whether the inputs are pixels (otherwise catalogue features)."""
        return self.config.classifier == "network"

    @property
    def temperatures(self) -> list[float]:
        """Temperature by which each member's logits are divided; 1 if not calibrated."""
        return self.described.get("temperatures") or [1.0] * len(self.members)

    def networks(self) -> list[Any]:
        """Members as torch modules (`GalaxyNetwork`) in evaluation mode; they return logits."""
        import torch

        from truemorph.classifiers.network import GalaxyNetwork, no_larger_than

        networks = []
        for weights in self.members:
            try:
                with no_larger_than(sum(value.size for value in weights.values())):
                    network = GalaxyNetwork(self.config, len(self.classes), described=self.described)
                network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
            except Exception as problem:  # timm and torch raise many types
                raise CheckpointError(f"{self.folder}: damaged model ({reason(problem)}); {AGAIN}") from problem
            networks.append(network.eval())
        return networks

    @cached_property
    def _engine(self) -> Any:
        """The engine of `truemorph label`."""
        from truemorph.classifiers.engines import engine_for

        return engine_for(self)

    @cached_property
    def _exact(self) -> Any:
        from truemorph.classifiers.engines.torch import TorchEngine

        return TorchEngine(self, "fp32")

    def member_probabilities(self, inputs: np.ndarray, member: int) -> np.ndarray:
        """p(y | x) of one member, (N, K), of pixels of the network's size, or of features (N, P), in float32."""
        if not self.uses_images:
            logits = inputs @ self.members[member]["coef"].T + self.members[member]["intercept"]
            return np.hstack([softmax(logits[:, head.part], axis=1) for head in self.heads])
        return self._exact.member(inputs, member)

    def probabilities(self, inputs: np.ndarray, member: Callable[..., Any] | None = None) -> np.ndarray:
        """p(y | x) averaged over members, shape (N, K), by default of `member_probabilities`."""
        p, _ = self.out_of_fold(inputs, np.full(len(inputs), -1), member or self.member_probabilities)
        return p

    def members_used(self, fold: np.ndarray) -> np.ndarray:
        """Return which members label which galaxies, (M, N) of bool: all, or those of a fold trained without it."""
        of_a_fold = self.config.seeds if self.uses_images else 1
        own = np.arange(len(self.members))[:, None] // of_a_fold
        return (own == fold) | (fold < 0)

    def out_of_fold(self, inputs: np.ndarray, fold: np.ndarray, member: Callable[..., Any]) -> tuple[Any, Any]:
        """Return p(y | x), (N, K), of the members that did not see each galaxy, and their spread (NaN if only one did).

        `member` is a function of inputs and the number of a member, such as `member_probabilities`.
        """
        total = np.zeros((len(inputs), len(self.classes)))
        squares, counts = np.zeros_like(total), np.zeros(len(inputs))
        for number, used in enumerate(self.members_used(fold)):
            if used.any():
                p = member(inputs if used.all() else inputs[used], number)
                total[used] += p
                squares[used] += p**2
                counts[used] += 1
        mean = total / counts[:, None]
        variance = np.clip(squares / counts[:, None] - mean**2, 0, None).max(axis=1)
        return mean, np.where(counts > 1, np.sqrt(variance), np.nan)

    def predict(self, images: Any) -> pl.DataFrame:
        """Label images from their pixels alone, with the engine and the precision of `truemorph label`.

        Parameters
        ----------
        images : path, or sequence of paths, bytes, PIL images or arrays (H, W, 3); or array or tensor (N, H, W, 3)
            Tensors may also be (N, 3, H, W). Images are cropped and resized as in training, except an array or tensor
            of images that already have the network's size.

        Returns
        -------
        polars.DataFrame
            `image` (path or row number), p(y | x) of each class (such as `p_smooth` and `p_disk`), `label`, `problem`
            (null where the image could be read; otherwise probabilities and label are null).

        Raises
        ------
        InputError
            If the model uses catalogue features, or an array has the wrong shape.
        """
        if not self.uses_images:
            raise InputError("this model uses catalogue features, not images; use `truemorph label`")
        images = listed(images)
        probabilities = np.full((len(images), len(self.classes)), np.nan)
        problems: list[str | None] = []
        for first, pixels in pixel_batches(images, self.config):
            problems += [pixel if isinstance(pixel, str) else None for pixel in pixels]
            readable = {row: pixel for row, pixel in enumerate(pixels, first) if not isinstance(pixel, str)}
            if readable:
                inputs = np.stack(list(readable.values()))
                probabilities[list(readable)] = self.probabilities(inputs, self._engine.member)
        columns = dict(zip(columns_of("p", self.classes), probabilities.T, strict=True))
        columns["label"] = np.argmax(np.nan_to_num(probabilities), axis=1)
        names = pl.Series(image_names(images), strict=False)  # of paths and numbers together, text
        named = {"image": names, **columns, "problem": pl.Series(problems, dtype=pl.String)}
        return pl.DataFrame(named).with_columns(pl.when(pl.col("problem").is_null()).then(pl.col(*columns)))

    def predict_proba(self, images: Any) -> np.ndarray:
        """p(y | x) of images, shape (N, K), in the order of `classes`.

        Parameters
        ----------
        images
            As in `predict`.

        Raises
        ------
        InputError
            As in `predict`, or if an image can't be read; `predict` returns a table with the problem of each image
            instead.
        """
        table = self.predict(images)
        bad = table.drop_nulls("problem")
        if bad.height:
            first = f"{bad['image'][0]}: {bad['problem'][0]}"
            raise InputError(
                f"{bad.height} of {table.height} images can't be read (first: {first}); remove them, or use `predict`, "
                "which reports the problem of each image"
            )
        return table.select(columns_of("p", self.classes)).to_numpy()


def logistic_inputs(frame: pl.DataFrame, features: tuple[str, ...], source: str) -> np.ndarray:
    """Features of the logistic classifier (DCV14), shape (N, P); NaN if missing.

    Without features, p(y | x) is the class fraction, from a constant column.
    """
    return numeric_columns(frame, features, source) if features else np.zeros((frame.height, 1))


def describe(config: TrainingConfig, transition: dict[str, Any], **about: Any) -> dict[str, Any]:
    """Assemble the content of `config.json`; `about` has the other keys of `ModelFile`."""
    return {
        "format_version": FORMAT_VERSION,
        "truemorph_version": __version__,
        "classes": list(SMOOTH_OR_DISK),
        "transition": transition,
        "training": config.model_dump(mode="json"),
        **about,
    }


def _tuning(described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what gold labels changed in each network (`truemorph.classifiers.tuning`)."""
    return [change for change in described.get("tuning", ()) if change is not None]


def contradictions(described: dict[str, Any]) -> list[Finding]:
    """Return a finding if tuning on gold labels helped by more than chance, beyond what recalibration does."""
    every = _tuning(described)
    gain, error, before, after = (
        sum(tuning[name] for tuning in every) for name in ("beyond", "beyond_stderr", "before", "after")
    )
    if gain <= _BY_CHANCE * error:
        return []
    message = (
        "T(α) does not explain the gold labels: the log-loss of those that a network had not seen fell from "
        f"{before / len(every):.2f} to {after / len(every):.2f} when it was tuned on the others. Flips depend on more "
        "than α, or gold labels have another definition. The network rests on its gold labels now. Posteriors given "
        "the observed labels still use T(α), so they may be wrong where it is."
    )
    action = (
        "Use p(y | x) instead of posteriors; add gold labels, or estimate T(α) with the columns on which flips depend "
        "(`observables`)."
    )
    return [Finding("curve-contradicted", "caution", message, action)]


def said_of_tuning(described: dict[str, Any]) -> list[str]:
    """Return how networks were tuned on gold labels, as lines of text; none if they were not."""
    every = _tuning(described)
    if not every:
        return []
    how = [
        "left as it is"
        if tuning["epochs"] is None
        else f"{tuning['epochs']} epochs"
        if tuning["epochs"]
        else "recalibrated"
        for tuning in every
    ]
    before, after = (np.mean([tuning[name] for tuning in every]) for name in ("before", "after"))
    numbers = f"their log-loss in networks that had not seen them: {before:.3f}, after it {after:.3f}"
    return [f"tuned on {every[0]['gold_labels']:,} gold labels ({', '.join(dict.fromkeys(how))}); {numbers}"]
