"""Which device and floating-point type to compute in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network runs.

    Args:
        precision: `auto` is bf16 where it is fast, on GPUs and on CPUs with AMX or AVX512-BF16.
        device: Where the network is.
    """
    if precision == "fp32" or (precision == "auto" and not _fast_bf16(device)):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _fast_bf16(device: torch.device) -> bool:
    """Whether bf16 beats fp32 on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
