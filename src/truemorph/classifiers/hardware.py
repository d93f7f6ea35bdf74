"""What this machine does well; apart from the training loop, whose imports labelling need not wait for."""

from __future__ import annotations

import torch


def multiplies_bf16() -> bool:
    """Whether the hardware multiplies bf16 natively."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))
