"""Which device work runs on."""

from typing import Literal

import torch

from latentedit.errors import Error


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA, then MPS, then the CPU; `Error` where a device that is named is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Error(f"device {name!r} is not available here ({str(error).splitlines()[0]})") from error
    return device


def auto_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """The faster one to train in: bfloat16 where ``device`` computes it natively, else float32 (where it is emulated, it takes
    twice the time of float32).
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bf16" if native else "fp32"
