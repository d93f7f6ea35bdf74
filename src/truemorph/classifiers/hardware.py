"""What this machine does well; apart from the training loop, whose imports labelling need not wait for."""

from __future__ import annotations

from typing import Literal

import torch

from truemorph.errors import InputError, reason


def torch_device(name: str = "auto") -> torch.device:
    """Return the device of a name; "auto" is a GPU where there is one.

    Raises
    ------
    InputError
        If torch does not know it, or it is not here.

    Examples
    --------
    >>> torch_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"device {name!r} (`device`) cannot be used here: {reason(problem)}") from problem
    return torch.device(name)


def multiplies_bf16() -> bool:
    """Whether the hardware multiplies bf16 natively."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))


def settled_precision(precision: str) -> Literal["32-true", "bf16-mixed"]:
    """What "auto" comes to here: mixed bf16 where the hardware multiplies it natively, float32 elsewhere."""
    mixed = multiplies_bf16() if precision == "auto" else precision == "bf16-mixed"
    return "bf16-mixed" if mixed else "32-true"
