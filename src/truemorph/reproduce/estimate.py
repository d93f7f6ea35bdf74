"""How long the networks will take on this machine, from a few steps of training measured here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from truemorph.catalogs.sampling import TEST, TRAIN, VALIDATION
from truemorph.config import TrainingConfig
from truemorph.reproduce.models import NETWORKS, network_config
from truemorph.reproduce.stages import TO_DO, Work

_STEPS = 2


def rates(config: TrainingConfig) -> dict[str, float]:
    """Galaxies a second that a network learns from, and that it labels, measured on made-up pictures.

    Parameters
    ----------
    config : TrainingConfig

    Returns
    -------
    dict
        `train` and `predict`. Decoding isn't counted: it goes on beside.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from truemorph.classifiers.network import GalaxyNetwork, settled_precision, torch_device
    from truemorph.images.transforms import normalise

    device = torch_device()
    network: Any = GalaxyNetwork(config).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    size, batch = config.image_size, config.batch_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(0, 2, (batch,), generator=generator).to(device)
    mean, std = (torch.tensor(values, device=device) for values in (network.mean, network.std))
    mixed = settled_precision(config.precision) == "bf16-mixed"

    def learn() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = cross_entropy(network(normalise(pixels, mean, std)).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            network(normalise(pixels, mean, std))

    def timed(step: Callable[[], None]) -> float:
        step()  # the first is slower
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(_STEPS):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return _STEPS * batch / (time.perf_counter() - began)

    found = {"train": timed(learn)}
    network.eval()
    return found | {"predict": timed(predict)}


def trained_rate(work: Work) -> float | None:
    """Galaxies a second of the networks that were trained already, validation included; None where there are none."""
    done = [work.result(name) for name in NETWORKS if work.have(name)]
    seen = sum(sum(one["rows"].values()) * one["epochs"] for one in done)
    seconds = sum(one["train_seconds"] for one in done)
    return seen / seconds if seconds else None


def estimate(work: Work) -> dict[str, Any]:
    """Hours that the networks which are not there will take at most.

    Returns
    -------
    dict
        `networks`: how many are to be trained; `hours`; `galaxies_per_second` in training and in prediction; `text`.
        Empty if none is.
    """
    import torch

    left = [name for name in NETWORKS if work.outcomes[name].status == TO_DO]
    if not left:
        return {}
    options = work.options
    config = network_config(work.inputs, options).training
    train, validation, test = _sizes(work)
    found, before = rates(config), trained_rate(work)
    learn = before or found["train"]
    epoch = (train + validation) / before if before else train / learn + validation / found["predict"]
    labels = test / found["predict"]
    maps = 2 * len(NETWORKS) * labels  # a prediction and a map of each
    hours = (len(left) * (config.epochs * epoch + labels) + maps) / 3600
    how = f"{learn:,.1f} galaxies/s, {'as those before' if before else 'measured now'}"
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    text = (
        f"{len(left)} networks ({config.backbone}, {config.image_size} pixels) of at most {config.epochs} epochs on "
        f"{train:,} galaxies at {how} ({where}): at most {_hours(hours)}, maps included; training stops earlier where "
        "it gets no better"
    )
    rate = {"train": learn, "predict": found["predict"]}
    return {"networks": len(left), "hours": hours, "galaxies_per_second": rate, "text": text}


def _sizes(work: Work) -> tuple[int, ...]:
    """Galaxies to train on, to validate on and to test on: those that there are, or will be at most."""
    if work.have("catalogue"):
        splits = work.result("catalogue")["splits"]
        return tuple(splits.get(name, 0) for name in (TRAIN, VALIDATION, TEST))
    total = sum(work.options.size.counts)
    return tuple(round(total * share) for share in work.options.size.split(total))


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:,.1f} minutes"
